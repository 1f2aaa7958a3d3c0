//! What a program asks of the system, as `strace` sees it: the calls by which files and their names change.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Output};

/// Calls that change what is in a folder, or that say which file a later one means.
const TRACED: &str = "open,openat,creat,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,fallocate,\
    fsync,fdatasync,sync_file_range,link,linkat,rename,renameat,renameat2,unlink,unlinkat,symlink,symlinkat,\
    mkdir,mkdirat,rmdir,close,dup,dup2,dup3,fcntl,lseek,copy_file_range,sendfile";

/// One call that did not fail.
#[derive(Debug, Clone)]
pub struct Call {
    pub name: String,
    pub arguments: Vec<String>,
    pub result: i64,
}

impl Call {
    /// A number among the arguments.
    pub fn number(&self, at: usize) -> i64 {
        self.arguments[at].parse().unwrap_or_else(|_| panic!("{self:?}"))
    }

    /// The bytes of a string among the arguments.
    pub fn bytes(&self, at: usize) -> Vec<u8> {
        let hex = self.arguments[at].strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        let hex = hex.unwrap_or_else(|| panic!("a string cut short: {}", self.name));
        hex.split("\\x").skip(1).map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
    }

    pub fn text(&self, at: usize) -> String {
        String::from_utf8(self.bytes(at)).unwrap()
    }

    pub fn says(&self, at: usize, flag: &str) -> bool {
        self.arguments[at].split('|').any(|word| word == flag)
    }
}

/// Whether calls can be seen here: `strace` is there, and may trace.
pub fn can_be_seen() -> bool {
    Command::new("strace")
        .args(["-qq", "-e", "trace=none", "true"])
        .status()
        .is_ok_and(|status| status.success())
}

/// Whether files without a name can be refused to a program: where std and rustix open files by different
/// calls.
pub const UNNAMED_CAN_BE_REFUSED: bool = cfg!(target_arch = "x86_64");

/// What makes the program find no files without a name.
const REFUSED: &str = "inject=open:error=EOPNOTSUPP";

/// Runs a program in a folder, which must succeed, as on a file system that has no files without a name, if
/// `named`. Gives its calls in the order in which they took effect.
///
/// Each takes effect when it returns; what a sync promises holds for what was done before it began.
pub fn of(program: &str, line: &[&str], folder: &Path, named: bool) -> Vec<Call> {
    let trace = tempfile::NamedTempFile::new().unwrap();
    let refused: &[&str] = if named { &["-e", REFUSED] } else { &[] };
    let output = Command::new("strace")
        .args(refused)
        .args(["-f", "-qq", "-xx", "-s", "67108864", "-e", &format!("trace={TRACED}"), "-o"])
        .arg(trace.path())
        .arg(program)
        .args(line)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{line:?}: {}", String::from_utf8_lossy(&output.stderr));
    let calls = parse(&std::fs::read_to_string(trace.path()).unwrap());
    let unnamed =
        calls.iter().any(|call| call.arguments.iter().any(|argument| argument.contains("O_TMPFILE")));
    assert!(!(named && unnamed), "files without a name are refused");
    calls
}

/// Runs it again, without a look at its calls.
pub fn again(program: &str, line: &[&str], folder: &Path, named: bool) -> Output {
    let mut command = if named {
        let mut strace = Command::new("strace");
        strace.args([
            "-f",
            "-qq",
            "--seccomp-bpf",
            "-e",
            "trace=open",
            "-e",
            REFUSED,
            "-o",
            "/dev/null",
            program,
        ]);
        strace
    } else {
        Command::new(program)
    };
    command.args(line).current_dir(folder).output().unwrap()
}

/// What stands where a sync began that others' calls came between.
pub const BEGIN_SYNC: &str = "a sync begins";

fn parse(trace: &str) -> Vec<Call> {
    let mut calls: Vec<Option<Call>> = Vec::new();
    // What a thread has begun, and the place of its call if it is a sync.
    let mut begun: HashMap<&str, (&str, usize)> = HashMap::new();
    for line in trace.lines() {
        let (thread, rest) = line.split_once(' ').unwrap_or_else(|| panic!("{line}"));
        let rest = rest.trim_start();
        if let Some(start) = rest.strip_suffix(" <unfinished ...>") {
            begun.insert(thread, (start, calls.len()));
            calls.push(None);
        } else if let Some(resumed) = rest.strip_prefix("<... ") {
            let end = resumed.split_once(" resumed>").map_or("", |(_, end)| end);
            let (start, place) = begun.remove(thread).unwrap_or_else(|| panic!("{line}"));
            let call = call(&format!("{start}{end}"));
            if let Some(sync) = call.as_ref().filter(|call| call.name.ends_with("sync")) {
                calls[place] = Some(Call { name: BEGIN_SYNC.to_owned(), ..sync.clone() });
            }
            calls.push(call);
        } else {
            calls.push(call(rest));
        }
    }
    calls.into_iter().flatten().collect()
}

/// A call of one line; nothing where it failed, or was no call.
fn call(line: &str) -> Option<Call> {
    let (head, result) = line.rsplit_once(" = ")?;
    let (name, arguments) = head.trim_end().strip_suffix(')')?.split_once('(')?;
    let result = result.split_whitespace().next()?;
    let result = match result.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok()?,
        None => result.parse().ok()?,
    };
    // No string holds a comma: all are written in hexadecimal digits.
    let arguments = arguments.split(", ").map(str::to_owned).collect();
    (result >= 0).then(|| Call { name: name.to_owned(), arguments, result })
}
