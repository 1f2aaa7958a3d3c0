//! More than one process (F11 and F19 of the fault matrix in docs/reliability.md): kill -9 of a writer that
//! acknowledges over a pipe, and who may open what beside whom.

mod common;

use apcm::{Attributes, Error, Metadata, Store, Value};
use common::Home;
use common::disk::Random;
use common::scripts::{codec, record, snapshot};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const CHILD: &str = "APCM_TEST_CHILD";
const KEYS: u64 = 16;

/// Not a test of its own: what the child process of another test does.
#[test]
fn child() {
    let Ok(task) = std::env::var(CHILD) else { return };
    let (what, path) = task.split_once(' ').unwrap();
    match what {
        "write" => write_until_killed(Path::new(path)),
        "fill" => fill_until_full(Path::new(path)),
        "starve" => live_without_room(Path::new(path)),
        "hold" => {
            let _store = Store::open(path).unwrap();
            say("ready");
            std::thread::sleep(Duration::from_secs(60));
        }
        "read" => {
            let _store = Store::open_read_only(path).unwrap();
            say("ready");
            std::thread::sleep(Duration::from_secs(60));
        }
        other => panic!("{other}"),
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // One write: what the parent reads is a whole line.
    out.write_all(format!("\n{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// Writes rounds, each two memories in one commit, and says so after each.
fn write_until_killed(path: &Path) {
    let store = Store::open(path).unwrap();
    let mut round = last_round(&store) + 1;
    let mut random = Random(round);
    loop {
        let mut transaction = store.begin_write();
        let metadata = Metadata::from([("round".to_owned(), i64::try_from(round).unwrap().into())]);
        transaction.put(b"last", &record(&mut random), metadata.clone()).unwrap();
        let key = format!("key {}", round % KEYS);
        transaction.put(key.as_bytes(), &record(&mut random), metadata).unwrap();
        transaction.commit().unwrap();
        say(&format!("ack {round}"));
        round += 1;
    }
}

/// Writes until that fails, says so, and says what still works.
fn fill_until_full(path: &Path) {
    let store = Store::open(path).unwrap();
    let mut random = Random(last_round(&store) + 1);
    for round in last_round(&store) + 1.. {
        let round_metadata = ("round".to_owned(), i64::try_from(round).unwrap().into());
        let metadata = Metadata::from([round_metadata, ("note".to_owned(), "x".repeat(60_000).into())]);
        let mut transaction = store.begin_write();
        transaction.put(b"last", &record(&mut random), metadata.clone()).unwrap();
        transaction.put(format!("key {round}").as_bytes(), &record(&mut random), metadata).unwrap();
        match transaction.commit() {
            Ok(_) => say(&format!("ack {round}")),
            Err(error) => {
                let kind = match error {
                    Error::NoSpace { .. } => "no space",
                    Error::Storage { .. } | Error::OutcomeUnknown { .. } => "failed",
                    _ => "another",
                };
                say(&format!("error {kind}: {error}"));
                // What needs less room may still have it.
                let after = store.insert(&record(&mut random));
                let read = store.peek_key(b"last").map(|memory| memory.is_some());
                let fine = matches!(after, Ok(_) | Err(Error::Poisoned | Error::NoSpace { .. }));
                say(&format!("then {fine} {read:?}"));
                return;
            }
        }
    }
}

/// Fills a small file system, takes the last byte of it, and says what still works.
fn live_without_room(path: &Path) {
    let store = Store::open(path).unwrap();
    let mut random = Random(1);
    let mut rounds = 0_u64;
    let note = || Metadata::from([("note".to_owned(), "x".repeat(20_000).into())]);
    let error = loop {
        match store.put(format!("key {rounds}").as_bytes(), &record(&mut random), note()) {
            Ok(_) => rounds += 1,
            Err(error) => break error,
        }
    };
    say(&format!("full {} after {rounds}: {error}", matches!(error, Error::NoSpace { .. })));
    let mut rest = std::fs::File::create(path.with_file_name("rest")).unwrap();
    for size in [1 << 16, 4_096, 64, 1] {
        while rest.write_all(&vec![1; size]).is_ok() {}
    }
    // The flusher tries, and readers go on.
    let id = store.id_of(b"key 0").unwrap().unwrap();
    let before = store.access_count(id).unwrap();
    for _ in 0..70_000 {
        store.get_id(id).unwrap();
    }
    std::thread::sleep(Duration::from_millis(300));
    let flushed = store.flush();
    let counted = store.access_count(id).unwrap() - before;
    let peeked = store.peek_key(b"key 1").is_ok_and(|memory| memory.is_some());
    say(&format!("flush {flushed:?}, counted {counted}, read {peeked}"));
    let mut removed = 0;
    let ended = (2..rounds).map(|round| store.remove(format!("key {round}").as_bytes())).find(|removal| {
        removed += u64::from(removal.is_ok());
        removal.is_err()
    });
    // Where the database has no free page left of its own, the handle ends, and nothing is lost.
    let fine = matches!(ended, None | Some(Err(Error::OutcomeUnknown { .. } | Error::Storage { .. })));
    say(&format!("removed {removed} of {}, {fine}", rounds - 2));
    drop(store);
    drop(rest);
    std::fs::remove_file(path.with_file_name("rest")).unwrap();
    let store = Store::open(path).unwrap();
    let left = store.len() as u64;
    let last = (rounds - removed..=rounds - removed).contains(&left) || left + 1 == rounds - removed;
    say(&format!("all that was acknowledged {last}"));
    let removed =
        (2..rounds).filter(|round| store.remove(format!("key {round}").as_bytes()).unwrap()).count();
    say(&format!("removed the rest {}", removed as u64 == left - 2));
    let put = store.put(b"again", &record(&mut random), note()).map(|put| put.id.seq > 0);
    say(&format!("put then {put:?}"));
    say(&format!("close {:?}", store.close()));
    let store = Store::open(path).unwrap();
    let id = store.id_of(b"key 0").unwrap().unwrap();
    say(&format!("reopened {} {}", store.len(), store.access_count(id).unwrap()));
}

fn round_of(store: &Store, key: &[u8]) -> u64 {
    let memory = store.peek_key(key).unwrap();
    match memory.as_ref().and_then(|memory| memory.metadata.get("round")) {
        Some(Value::Int(round)) => u64::try_from(*round).unwrap(),
        None => 0,
        other => panic!("{other:?}"),
    }
}

fn last_round(store: &Store) -> u64 {
    round_of(store, b"last")
}

fn spawn(task: &str, path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads", "1"])
        .env(CHILD, format!("{task} {}", path.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits until the child has said that it is ready.
fn wait_for(child: &mut Child) {
    let mut out = std::io::BufReader::new(child.stdout.as_mut().unwrap());
    let mut line = String::new();
    while line.trim() != "ready" {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut out, &mut line).unwrap() > 0, "the child ended");
    }
}

fn end(mut child: Child) -> String {
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn f11_what_was_acknowledged_survives_kill_9() {
    let cycles = if std::env::var_os("APCM_DEEP").is_some() { 200 } else { 30 };
    let home = Home::new();
    Store::builder().capacity(32).create(&home.path, codec()).unwrap().close().unwrap();
    let mut random = Random(11);
    let (mut acknowledged, mut under_way, mut killed_writing) = (0, 0, 0);
    for cycle in 0..cycles {
        let child = spawn("write", &home.path);
        std::thread::sleep(Duration::from_millis(20 + random.below(60)));
        let said = end(child);
        // The last line may be cut off.
        let whole = said.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let acks = whole.lines().filter_map(|line| line.strip_prefix("ack ")?.parse::<u64>().ok());
        let last = acks.max();
        killed_writing += u64::from(last.is_some());
        acknowledged = last.unwrap_or(acknowledged).max(acknowledged);
        let store = Store::open(&home.path).unwrap_or_else(|error| panic!("cycle {cycle}: {error}"));
        let found = last_round(&store);
        // One round more may be there: committed, and killed before it was said. Without a word nothing is
        // known but that.
        assert!(
            (acknowledged..=acknowledged + 1).contains(&found),
            "cycle {cycle}: {found}, acknowledged {acknowledged}"
        );
        under_way += found - acknowledged;
        acknowledged = found;
        for back in 0..KEYS.min(found) {
            let round = found - back;
            assert_eq!(round_of(&store, format!("key {}", round % KEYS).as_bytes()), round, "cycle {cycle}");
        }
        snapshot(&store).unwrap();
        store.close().unwrap();
        assert!(Store::verify(&home.path).run().unwrap().ok, "cycle {cycle}");
    }
    eprintln!(
        "{cycles} kills, {killed_writing} of them while writing, {acknowledged} rounds, {under_way} committed and not said"
    );
    assert!(killed_writing > cycles / 2, "only {killed_writing} of {cycles} were killed while they wrote");
}

/// The child's words about how its writing ended, and the last round it acknowledged.
fn filled(mut command: Command, path: &Path) -> (String, String, u64) {
    let output = command.env(CHILD, format!("fill {}", path.display())).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = |prefix: &str| {
        let found = said.lines().rev().find_map(|line| line.strip_prefix(prefix));
        found.unwrap_or_else(|| panic!("no {prefix:?} in {said:?}, {output:?}")).to_owned()
    };
    let acks = said.lines().filter_map(|line| line.strip_prefix("ack ")?.parse().ok());
    (line("error "), line("then "), acks.max().unwrap_or(0))
}

/// F10 on a real file system: a limit of 4 MiB on what the process may make a file's length.
#[cfg(unix)]
#[test]
fn f10_a_file_that_may_not_grow_keeps_what_was_acknowledged() {
    let rounds = if std::env::var_os("APCM_DEEP").is_some() { 200 } else { 10 };
    for round in 0..rounds {
        let home = Home::new();
        Store::builder().capacity(500).create(&home.path, codec()).unwrap().close().unwrap();
        let mut shell = Command::new("sh");
        // In units of 512 bytes; the signal that would end the process is ignored, so that writes fail instead.
        let limit = 8_192 - 8 * round;
        shell.args(["-c", &format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" \"$@\"")]);
        shell.arg(std::env::current_exe().unwrap());
        shell.args(["--exact", "child", "--nocapture", "--test-threads", "1"]);
        let (error, then, acknowledged) = filled(shell, &home.path);
        assert!(error.starts_with("failed") && error.contains("File too large"), "{error}");
        assert_eq!(then, "true Err(Poisoned)");
        assert!(acknowledged > 5, "only {acknowledged} rounds fit");
        // Without the limit: all that was acknowledged is there, and writing goes on.
        let store = Store::open(&home.path).unwrap();
        let found = last_round(&store);
        assert!((acknowledged..=acknowledged + 1).contains(&found), "{found}, acknowledged {acknowledged}");
        for round in 1..=found {
            assert_eq!(round_of(&store, format!("key {round}").as_bytes()), round);
        }
        store.insert(&record(&mut Random(1))).unwrap();
        store.close().unwrap();
        assert!(Store::verify(&home.path).run().unwrap().ok);
    }
}

/// A file system of so many bytes with a store in it, in namespaces of the child's own; what it says, or
/// nothing where this user may not mount one.
#[cfg(target_os = "linux")]
fn in_a_small_file_system(home: &Home, task: &str, size: &str) -> Option<String> {
    let folder = home.file("small");
    std::fs::create_dir(&folder).unwrap();
    let there = folder.join("memory.apcm");
    Store::builder().capacity(500).create(&home.path, codec()).unwrap().close().unwrap();
    // The mount is private to the process and ends with it.
    let script = format!(
        "mount -t tmpfs -o size={size} tmpfs '{folder}' && cp '{from}' '{there}' && echo mounted && \"$0\" \"$@\"",
        folder = folder.display(),
        from = home.path.display(),
        there = there.display()
    );
    let mut shell = Command::new("unshare");
    shell.args(["-Urm", "sh", "-c", &script]).arg(std::env::current_exe().unwrap());
    shell.args(["--exact", "child", "--nocapture", "--test-threads", "1"]);
    let output = shell.env(CHILD, format!("{task} {}", there.display())).output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !said.contains("mounted") {
        eprintln!("SKIPPED: this user may not mount a file system");
        return None;
    }
    Some(said + &String::from_utf8_lossy(&output.stderr))
}

/// F10: a small file system is filled as far as a commit may need, and nothing is begun that might not fit.
#[cfg(target_os = "linux")]
#[test]
fn f10_a_small_file_system_is_filled_and_then_told_before_anything_is_written() {
    let Some(said) = in_a_small_file_system(&Home::new(), "fill", "6m") else { return };
    assert!(said.contains("ack "), "{said}");
    assert!(said.contains("error no space: writing needs"), "{said}");
    assert!(said.contains("then true Ok(true)"), "{said}");
}

/// F10: on a disk without a byte left, reads and counts go on, removing works, and with room everything does.
#[cfg(target_os = "linux")]
#[test]
fn f10_a_full_disk_ends_no_reader_and_lets_memories_be_removed() {
    let Some(said) = in_a_small_file_system(&Home::new(), "starve", "6m") else { return };
    for part in [
        "full true",
        "flush Err(NoSpace",
        "counted 70000, read true",
        "all that was acknowledged true",
        "removed the rest true",
        "put then Ok(true)",
        "close Ok",
        "reopened 3 70000",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let removed = said.lines().find_map(|line| line.strip_prefix("removed ")).unwrap();
    let (removed, rest) = removed.split_once(" of ").unwrap();
    assert!(rest.ends_with("true") && removed.parse::<u64>().unwrap() > 3, "{said}");
}

#[test]
fn f19_one_writer_or_many_readers() {
    let home = Home::new();
    let store = Store::builder().capacity(4).create(&home.path, codec()).unwrap();
    store.put(b"a", &record(&mut Random(1)), Attributes::default()).unwrap();
    store.close().unwrap();
    // A user's file of a likely name is not read, written or removed.
    let own = home.file("memory.apcm.lock");
    std::fs::write(&own, "the user's own").unwrap();

    let mut writer = spawn("hold", &home.path);
    wait_for(&mut writer);
    for result in [
        Store::open(&home.path).map(drop),
        Store::open_read_only(&home.path).map(drop),
        Store::compact(&home.path).map(drop),
        Store::verify(&home.path).run().map(drop),
    ] {
        let error = result.unwrap_err();
        let said = error.to_string();
        let Error::Locked { holder, .. } = error else { panic!("{said}") };
        // Whose lock it is Linux tells, where a container's walls do not hide it.
        if let Some(process) = holder {
            assert_eq!(process, writer.id(), "{said}");
            assert!(said.contains(&format!("in use by process {process}")), "{said}");
        } else {
            assert!(
                !std::fs::read_to_string("/proc/locks").is_ok_and(|locks| locks.contains("FLOCK")),
                "{said}"
            );
        }
    }
    // Killed, it holds nothing.
    end(writer);
    assert!(matches!(Store::open_read_only(&home.path), Err(Error::NeedsRecovery { .. })));
    Store::open(&home.path).unwrap().close().unwrap();
    assert_eq!(std::fs::read_to_string(&own).unwrap(), "the user's own");

    let mut reader = spawn("read", &home.path);
    wait_for(&mut reader);
    let beside = Store::open_read_only(&home.path).unwrap();
    assert!(beside.peek_key(b"a").unwrap().is_some());
    assert!(matches!(Store::open(&home.path), Err(Error::Locked { .. })));
    assert!(Store::verify(&home.path).run().unwrap().ok);
    drop(beside);
    end(reader);
    // The same file twice in one process.
    let store = Store::open(&home.path).unwrap();
    let error = Store::open(&home.path).unwrap_err();
    let own = |holder: &Option<u32>| holder.is_none_or(|process| process == std::process::id());
    assert!(matches!(&error, Error::Locked { holder, .. } if own(holder)), "{error}");
    drop(store);
    Store::open(&home.path).unwrap();
}
