//! A store file with any bytes changed opens or is refused; what it then gives is right or an error. redb's own
//! panics are caught by the store, and are let pass here too; any other ends the run.
#![no_main]

#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../../tests/common/disk.rs"]
mod disk;

use apcm::{Error, Store};
use disk::Disk;
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;
use std::sync::LazyLock;

const BASE: &[u8] = include_bytes!("../../tests/golden/v1/good.apcm");

/// Slot and sequence number to the bits of the record.
type Truth = BTreeMap<(u32, u64), Vec<u32>>;

static TRUTH: LazyLock<Truth> = LazyLock::new(|| {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !apcm::panic_becomes_error() {
            before(panic);
            std::process::abort();
        }
    }));
    let store = Store::builder().clock(|| 1_800_000_000).open_on(Disk::holding(BASE.to_vec())).unwrap();
    store
        .iter()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let bits = entry.record().unwrap().values().iter().map(|value| value.to_bits()).collect();
            ((entry.id().slot, entry.id().seq), bits)
        })
        .collect()
});

// The input: patches of five bytes, where and what.
fuzz_target!(|data: &[u8]| {
    let truth = &*TRUTH;
    let mut bytes = BASE.to_vec();
    for patch in data.chunks_exact(5) {
        let at = u32::from_le_bytes([patch[0], patch[1], patch[2], patch[3]]) as usize % bytes.len();
        bytes[at] = patch[4];
    }
    let store = match Store::builder().clock(|| 1_800_000_000).open_on(Disk::holding(bytes)) {
        Ok(store) => store,
        Err(
            Error::NotAStore { .. }
            | Error::Corrupt { .. }
            | Error::Storage { .. }
            | Error::TooNew { .. }
            | Error::Format(_)
            | Error::UnknownCodec { .. },
        ) => return,
        Err(other) => panic!("{other:?}"),
    };
    let Ok(entries) = store.iter() else { return };
    for entry in entries {
        let Ok(entry) = entry else { continue };
        let Ok(record) = entry.record() else { continue };
        let id = (entry.id().slot, entry.id().seq);
        let bits: Vec<u32> = record.values().iter().map(|value| value.to_bits()).collect();
        assert_eq!(truth.get(&id), Some(&bits), "a wrong value in slot {}", id.0);
    }
});
