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
