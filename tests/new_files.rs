//! Files that appear under a name: whole, durable, never in the place of another, and nothing is left beside
//! them.

mod common;

use apcm::{Device, Error, FlowCodec, PlainCodec, QuantizerSpec, Store};
use common::{Home, gaussian, plain_store, records, vector};
use std::ops::ControlFlow;
use std::path::Path;

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn filled(home: &Home) -> Store {
    let store = plain_store(home, 20, 4);
    for i in 0..10 {
        store.insert(&vector(&[i as f32, 1.0, 2.0, 3.0])).unwrap();
    }
    store
}

/// A store that is created under the target's name while another is being made is left alone, and its writer
/// with it.
#[test]
fn a_store_that_appears_meanwhile_is_not_replaced() {
    type Make = fn(&Store, &Path, &mut dyn FnMut()) -> apcm::Result<()>;
    let make: [(&str, Make); 5] = [
        ("recode", |store, to, meanwhile| {
            let codec = PlainCodec::new(&[4], 2).unwrap();
            let go_on = |_: &apcm::Progress<'_>| {
                meanwhile();
                ControlFlow::Continue(())
            };
            store.recode(to, codec).progress(go_on).run().map(drop)
        }),
        ("backup", |store, to, meanwhile| {
            meanwhile();
            store.backup(to).run().map(drop)
        }),
        ("pack", |store, to, meanwhile| {
            let go_on = |_: &apcm::Progress<'_>| {
                meanwhile();
                ControlFlow::Continue(())
            };
            store.export_pack(to).progress(go_on).run().map(drop)
        }),
        ("unpack", |store, to, meanwhile| {
            let pack = to.with_extension("apack");
            store.export_pack(&pack).run()?;
            let go_on = |_: &apcm::Progress<'_>| {
                meanwhile();
                ControlFlow::Continue(())
            };
            let unpacked =
                Store::builder().unpack(&apcm::Pack::open(&pack)?, to).progress(go_on).run().map(drop);
            std::fs::remove_file(&pack).unwrap();
            unpacked
        }),
        ("salvage", |store, to, meanwhile| {
            let from = to.with_extension("copy");
            store.backup(&from).run()?;
            let salvaged = Store::salvage(&from, to)
                .progress(|_| {
                    meanwhile();
                    ControlFlow::Continue(())
                })
                .run();
            std::fs::remove_file(&from).unwrap();
            salvaged.map(drop)
        }),
    ];
    for (what, make) in make {
        let home = Home::new();
        let store = filled(&home);
        let to = home.file("new.apcm");
        let mut other = None;
        let result = make(&store, &to, &mut || {
            if other.is_none() {
                let created =
                    Store::builder().capacity(3).create(&to, PlainCodec::new(&[2], 2).unwrap()).unwrap();
                created.put(b"precious", &vector(&[1.0, 2.0]), apcm::Attributes::default()).unwrap();
                other = Some(created);
            }
        });
        assert!(matches!(result, Err(Error::Exists { .. })), "{what}: {result:?}");
        let other = other.unwrap();
        other.put(b"later", &vector(&[3.0, 4.0]), apcm::Attributes::default()).unwrap();
        other.close().unwrap();
        let found = Store::open(&to).unwrap();
        assert!(
            found.get(b"precious").unwrap().is_some() && found.get(b"later").unwrap().is_some(),
            "{what}"
        );
        drop(found);
        // A recode keeps what it moved, under its own name, to go on with; nothing else is left.
        let left: Vec<String> = names(home.folder.path())
            .into_iter()
            .filter(|name| name != "memory.apcm" && name != "new.apcm" && !name.ends_with(".recoding"))
            .collect();
        assert!(left.is_empty(), "{what} leaves {left:?}");
    }
}

#[test]
fn a_recode_in_place_through_a_symbolic_link_replaces_the_store_and_not_the_link() {
    let home = Home::new();
    filled(&home).close().unwrap();
    let folder = home.file("links");
    std::fs::create_dir(&folder).unwrap();
    let link = folder.join("link.apcm");
    #[cfg(unix)]
    std::os::unix::fs::symlink(&home.path, &link).unwrap();
    #[cfg(not(unix))]
    return;
    let store = Store::open(&link).unwrap();
    store.recode(&link, PlainCodec::new(&[4], 2).unwrap()).run().unwrap();
    assert!(matches!(store.insert(&vector(&[1.0; 4])), Err(Error::Poisoned)));
    drop(store);
    assert!(link.symlink_metadata().unwrap().file_type().is_symlink(), "the link is a link");
    assert_eq!(names(&folder), ["link.apcm"]);
    assert_eq!(names(home.folder.path()), ["links", "memory.apcm"]);
    for path in [&link, &home.path] {
        let store = Store::open(path).unwrap();
        assert_eq!((store.codec().code_len_max(), store.len()), (8, 10), "{path:?}");
    }
}

#[test]
fn a_codec_is_saved_beside_others_and_over_one_only_when_told_to() {
    let home = Home::new();
    let data = records(&[6], gaussian(600, 3));
    let codec = |values| FlowCodec::pca(&data, QuantizerSpec::I8(values)).unwrap();
    let path = home.file("a.codec");
    codec(2).save(&path).unwrap();
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(codec(3).save(&path), Err(Error::Exists { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    codec(3).save_over(&path).unwrap();
    assert_eq!(FlowCodec::load(&path, Device::default()).unwrap().quantizer().kept(), 3);
    assert_eq!(names(home.folder.path()), ["a.codec"]);
    assert!(matches!(codec(2).save(home.file("nowhere/a.codec")), Err(Error::Io { .. })));
}

/// What is stopped leaves nothing behind, and neither does what cannot be made.
#[test]
fn what_is_stopped_leaves_nothing_behind() {
    let home = Home::new();
    let store = plain_store(&home, 600, 4);
    let mut transaction = store.begin_write();
    transaction.insert_all(&records(&[4], gaussian(600 * 4, 9))).unwrap();
    transaction.commit().unwrap();
    let stop = |_: &apcm::Progress<'_>| ControlFlow::Break(());
    assert!(matches!(store.backup(home.file("b")).progress(stop).run(), Err(Error::Cancelled)));
    assert!(matches!(store.export_pack(home.file("p")).progress(stop).run(), Err(Error::Cancelled)));
    store.export_pack(home.file("whole")).run().unwrap();
    let pack = apcm::Pack::open(home.file("whole")).unwrap();
    assert!(matches!(
        Store::builder().unpack(&pack, home.file("u")).progress(stop).run(),
        Err(Error::Cancelled)
    ));
    assert_eq!(names(home.folder.path()), ["memory.apcm", "whole"]);
}

/// Names that other programs use are theirs: a note, a link and a pipe beside a store are neither read nor
/// written.
#[cfg(unix)]
#[test]
fn files_beside_a_store_are_left_alone() {
    use std::os::unix::fs::{FileTypeExt, symlink};
    let home = Home::new();
    filled(&home).close().unwrap();
    let beside = home.file("memory.apcm.lock");
    std::fs::write(home.file("target"), b"precious").unwrap();
    symlink(home.file("target"), &beside).unwrap();
    filled_again(&home);
    assert_eq!(std::fs::read(home.file("target")).unwrap(), b"precious");
    assert!(beside.symlink_metadata().unwrap().file_type().is_symlink());
    std::fs::remove_file(&beside).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&beside).status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: there is no mkfifo");
        return;
    }
    // It would wait for a reader for ever.
    filled_again(&home);
    assert!(beside.symlink_metadata().unwrap().file_type().is_fifo());
}

#[cfg(unix)]
fn filled_again(home: &Home) {
    let store = Store::open(&home.path).unwrap();
    store.insert(&vector(&[1.0; 4])).unwrap();
    assert!(matches!(Store::open(&home.path), Err(Error::Locked { .. })));
    store.close().unwrap();
}
