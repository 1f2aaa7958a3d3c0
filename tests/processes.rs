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
                let after = store.insert(&record(&mut random)).unwrap_err();
                let read = store.peek_key(b"last").map(|memory| memory.is_some());
                say(&format!("then {} {read:?}", matches!(after, Error::Poisoned | Error::NoSpace { .. })));
                return;
            }
        }
    }
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
        // One round more may be there: committed, and killed before it was said. Without a word nothing is known but that.
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

/// F10: a file system of 4 MiB has less room than a commit asks for, so nothing is begun and reading goes on.
#[cfg(target_os = "linux")]
#[test]
fn f10_a_file_system_without_room_is_told_before_anything_is_written() {
    let home = Home::new();
    let folder = home.file("small");
    std::fs::create_dir(&folder).unwrap();
    let there = folder.join("memory.apcm");
    Store::builder().capacity(500).create(&home.path, codec()).unwrap().close().unwrap();
    // Its own user and mount namespaces: nobody else sees it, and it is gone with the process.
    let script = format!(
        "mount -t tmpfs -o size=4m tmpfs '{folder}' && cp '{from}' '{there}' && echo mounted && \"$0\" \"$@\"",
        folder = folder.display(),
        from = home.path.display(),
        there = there.display()
    );
    let mut shell = Command::new("unshare");
    shell.args(["-Urm", "sh", "-c", &script]).arg(std::env::current_exe().unwrap());
    shell.args(["--exact", "child", "--nocapture", "--test-threads", "1"]);
    let output = shell.env(CHILD, format!("fill {}", there.display())).output();
    let said = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    if !said.contains("mounted") {
        eprintln!("SKIPPED: this user may not mount a file system");
        return;
    }
    assert!(said.contains("error no space: writing needs"), "{said}");
    assert!(said.contains("then true Ok(false)"), "{said}");
    assert!(!said.contains("ack "), "{said}");
}

#[test]
fn f19_one_writer_or_many_readers() {
    let home = Home::new();
    let store = Store::builder().capacity(4).create(&home.path, codec()).unwrap();
    store.put(b"a", &record(&mut Random(1)), Attributes::default()).unwrap();
    store.close().unwrap();
    assert!(!home.file("memory.apcm.lock").exists(), "a closed store leaves no note");

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
        let (pid, host) = holder.unwrap();
        assert!(pid == writer.id() && !host.is_empty(), "{pid} on {host} is not {}", writer.id());
        assert!(said.contains(&format!("process {pid} on {host}")), "{said}");
    }
    // Killed, it holds nothing; its note stays and is the next writer's.
    end(writer);
    assert!(home.file("memory.apcm.lock").exists());
    assert!(matches!(Store::open_read_only(&home.path), Err(Error::NeedsRecovery { .. })));
    Store::open(&home.path).unwrap().close().unwrap();
    assert!(!home.file("memory.apcm.lock").exists());

    let mut reader = spawn("read", &home.path);
    wait_for(&mut reader);
    let beside = Store::open_read_only(&home.path).unwrap();
    assert!(beside.peek_key(b"a").unwrap().is_some());
    assert!(matches!(Store::open(&home.path), Err(Error::Locked { holder: None, .. })));
    assert!(Store::verify(&home.path).run().unwrap().ok);
    drop(beside);
    end(reader);
    // The same file twice in one process.
    let store = Store::open(&home.path).unwrap();
    let error = Store::open(&home.path).unwrap_err();
    assert!(
        matches!(&error, Error::Locked { holder: Some((pid, _)), .. } if *pid == std::process::id()),
        "{error}"
    );
    drop(store);
    Store::open(&home.path).unwrap();
}
