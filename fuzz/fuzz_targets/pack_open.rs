//! A pack with any bytes changed opens or is refused; what it then gives is right or an error. With its
//! checksums made right again it may say anything, and nothing ends the program.
#![no_main]

use apcm::{Error, Pack, Record, Scan};
use apcm_format::PackHeader;
use apcm_format::pack::HEADER_LEN;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

const BASE: &[u8] = include_bytes!("../../tests/golden/v1/good.apack");

static TRUTH: LazyLock<Vec<String>> =
    LazyLock::new(|| ask(BASE).expect("the fixture opens").into_iter().map(Result::unwrap).collect());

/// Everything that can be asked of a pack.
fn ask(bytes: &[u8]) -> Result<Vec<Result<String, Error>>, Error> {
    let pack = Pack::builder().clock(|| 1_800_000_000).from_bytes(bytes)?;
    let query = Record::new(&pack.shape().dims(), vec![0.5; pack.shape().values()])?;
    let mut answers = Vec::new();
    for scan in [Scan::Exact, Scan::TwoStage] {
        let hits = pack.search(&query).k(4).scan(scan).with_records().run();
        answers.push(hits.map(|hits| format!("{hits:?}")));
    }
    let filtered = pack.search(&query).filter("not missing = 1").and_then(|search| search.run());
    answers.push(filtered.map(|hits| format!("{hits:?}")));
    answers.push(pack.get(b"b").map(|memory| format!("{memory:?}")));
    answers.push(pack.iter().map(|entry| Ok(format!("{:?}", entry?.record()?))).collect());
    answers.push(pack.verify().map(|report| format!("{report:?}")));
    Ok(answers)
}

fn sum_again(bytes: &mut [u8]) -> Option<()> {
    let mut header = PackHeader::decode(BASE.get(..HEADER_LEN)?).ok()?;
    let layout = header.layout().ok()?;
    let block = layout.block(0);
    let sum =
        header.block_place(0).crc(&[bytes.get(block.start as usize..block.end as usize)?]).to_le_bytes();
    bytes.get_mut(layout.blocks.start as usize..)?.copy_from_slice(&sum);
    header.blocks_crc = header.blocks_place().crc(&[&sum]);
    bytes.get_mut(..HEADER_LEN)?.copy_from_slice(&header.encode());
    Some(())
}

// The input: whether to make the checksums right again, then patches of three bytes, where and what.
fuzz_target!(|data: &[u8]| {
    let truth = &*TRUTH;
    let Some((&again, patches)) = data.split_first() else { return };
    let mut bytes = BASE.to_vec();
    for patch in patches.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([patch[0], patch[1]])) % bytes.len();
        bytes[at] = patch[2];
    }
    let again = again % 2 == 1;
    if again {
        sum_again(&mut bytes).expect("the fixture has one block");
    }
    match ask(&bytes) {
        Ok(answers) if !again => {
            for (answer, truth) in answers.iter().zip(truth) {
                assert!(answer.as_ref().map_or(true, |answer| answer == truth), "a wrong answer");
            }
        }
        _ => {}
    }
});
