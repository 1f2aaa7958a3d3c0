//! The program, run in a folder of its own.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(missing_docs, unreachable_pub, reason = "test helpers")]

use crate::common::{Home, noise};
use apcm::ingest::npy;
use std::process::{Command, Output};

pub struct Shell {
    pub home: Home,
}

impl Shell {
    pub fn new() -> Self {
        Self { home: Home::new() }
    }

    pub fn run(&self, line: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_apcm"))
            .args(line)
            .current_dir(self.home.folder.path())
            .output()
            .unwrap()
    }

    /// Runs a command that must succeed; gives its JSON document.
    pub fn json(&self, line: &[&str]) -> serde_json::Value {
        let output = self.run(&[line, &["--json"]].concat());
        assert!(output.status.success(), "{line:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stderr.is_empty(), "no progress without a terminal");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Runs a command that must fail; gives its exit code and its one line.
    pub fn fails(&self, line: &[&str]) -> (i32, String) {
        let output = self.run(line);
        assert!(output.stdout.is_empty(), "{line:?}");
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    /// A dataset of 200 records of 12 values, a codec, and a store of 150 slots with the first 100 in it.
    pub fn filled(&self) {
        npy::write(&self.home.file("data.npy"), &[200, 12], &noise(2_400, 5)).unwrap();
        npy::write(&self.home.file("first.npy"), &[100, 12], &noise(1_200, 5)).unwrap();
        self.json(&["train", "data.npy", "--bytes", "12", "--steps", "20", "--out", "a.codec"]);
        self.json(&["create", "m.apcm", "--codec", "a.codec", "--capacity", "150"]);
        self.json(&["ingest", "m.apcm", "first.npy", "--keys", "row"]);
    }
}
