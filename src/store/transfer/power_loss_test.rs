//! A loss of power while a file gets its name: every step of it lost or kept, as a file system may.
//!
//! The steps are what the real operations do, seen where they do them. A file system owes nothing but this: the
//! contents of a file that was synced, and the names of a folder that was synced after they were given. So a
//! name that no sync of the folder followed may be there or not, and a file that was not synced before it got
//! its name may hold anything.

use crate::codec::{Codec, FlowCodec, PlainCodec, QuantizerSpec};
use crate::error::Result;
use crate::pack::Pack;
use crate::record::{Record, Records};
use crate::storage::InMemoryBackend;
use crate::store::store::Store;
use crate::whole_file::steps::{Step, observed};
use std::path::Path;

fn filled(path: &Path) -> Store {
    let store = Store::builder().capacity(8).create(path, PlainCodec::new(&[3], 3).unwrap()).unwrap();
    for i in 0..5 {
        store.insert(&Record::vector(vec![i as f32, 1.0, 2.0]).unwrap()).unwrap();
    }
    store
}

/// What a crash may leave when an operation has returned: whether the new name may be missing, and whether its
/// contents may.
fn owed(steps: &[Step], to: &Path) -> (bool, bool) {
    let named = steps.iter().position(|step| match step {
        Step::Link(path) => path == to,
        Step::Rename(_, path) => path == to,
        Step::SyncFile | Step::SyncFolder => false,
    });
    let Some(named) = named else { return (true, true) };
    let name_may_be_lost = !steps[named..].contains(&Step::SyncFolder);
    let contents_may_be_lost = !steps[..named].contains(&Step::SyncFile);
    (name_may_be_lost, contents_may_be_lost)
}

type Make = fn(&Store, &Path) -> Result<()>;

/// Every operation that makes a file, beside the path it is given.
const MAKE: [(&str, Make); 9] = [
    ("create", |_, to| Store::builder().create(to, PlainCodec::new(&[3], 3)?).map(drop)),
    ("backup", |store, to| store.backup(to).run().map(drop)),
    ("pack", |store, to| store.export_pack(to).run().map(drop)),
    ("recode", |store, to| store.recode(to, PlainCodec::new(&[3], 2)?).run().map(drop)),
    ("recode in place", |_, to| {
        let store = filled(to);
        store.recode(to, PlainCodec::new(&[3], 2)?).run().map(drop)
    }),
    ("unpack", |store, to| {
        let pack = to.with_extension("apack");
        store.export_pack(&pack).run()?;
        Store::builder().unpack(&Pack::open(&pack)?, to).run().map(drop)
    }),
    ("salvage", |store, to| {
        let copy = to.with_extension("copy");
        store.backup(&copy).run()?;
        Store::salvage(&copy, to).run().map(drop)
    }),
    ("codec", |_, to| codec()?.save(to)),
    ("codec, over another", |_, to| {
        codec()?.save(to)?;
        codec()?.save_over(to)
    }),
];

fn codec() -> Result<FlowCodec> {
    let values: Vec<f32> = (0..60).map(|i| (i as f32 * 0.7).sin()).collect();
    let records = Records::from_values(PlainCodec::new(&[3], 3)?.shape(), values)?;
    FlowCodec::pca(&records, QuantizerSpec::I8(2))
}

#[test]
fn a_file_that_has_its_name_keeps_it_and_its_contents() {
    for named in [false, true] {
        for (what, make) in MAKE {
            let folder = tempfile::tempdir().unwrap();
            let store = filled(&folder.path().join("memory.apcm"));
            let to = folder.path().canonicalize().unwrap().join("new");
            let (result, steps) = observed(named, || make(&store, &to));
            result.unwrap_or_else(|error| panic!("{what}: {error}"));
            // Of several names that it got, the last.
            let last = steps
                .iter()
                .rposition(|step| matches!(step, Step::Link(path) | Step::Rename(_, path) if *path == to))
                .unwrap_or_else(|| panic!("{what}: {steps:?}"));
            let from =
                steps[..last].iter().rposition(|step| *step == Step::SyncFolder).map_or(0, |at| at + 1);
            let mut these = steps[from..].to_vec();
            if let (Some(Step::Rename(_, _)), "recode" | "recode in place") = (steps.get(last), what) {
                // Its contents are a database that was closed: it syncs them itself.
                these.insert(0, Step::SyncFile);
            }
            assert_eq!(owed(&these, &to), (false, false), "{what}: {steps:?}");
            assert!(to.metadata().unwrap().len() > 0);
        }
    }
}

/// The rule sees what it is for: each sync left out is a file that may be gone, or empty.
#[test]
fn a_sync_that_is_left_out_is_seen() {
    let to = Path::new("/folder/new");
    let whole = [Step::SyncFile, Step::Link(to.to_owned()), Step::SyncFolder];
    assert_eq!(owed(&whole, to), (false, false));
    assert_eq!(owed(&whole[..2], to), (true, false));
    assert_eq!(owed(&whole[1..], to), (false, true));
    assert_eq!(owed(&[whole[0].clone(), whole[2].clone(), whole[1].clone()], to), (true, false));
}

/// A store that is made in memory gets no name, and no step is taken for it.
#[test]
fn storage_without_a_name_takes_no_step() {
    let (made, steps) = observed(false, || {
        Store::builder().create_on(InMemoryBackend::new(), PlainCodec::new(&[3], 3).unwrap())
    });
    made.unwrap();
    assert_eq!(steps, []);
}
