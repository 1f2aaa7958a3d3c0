//! The command line: arguments, dispatch, exit codes. Thin: every command is a few calls of the library.

mod arguments;
mod demo;
mod fill;
mod find;
mod interrupt;
mod maintain;
mod output;
mod report;
mod stream;
mod train;

use crate::error::Error;
use arguments::{Arguments, Command};
use clap::Parser;
use std::process::ExitCode;

/// Exit codes, as `apcm --help` documents them.
mod exit {
    pub(super) const FAILURE: u8 = 1;
    pub(super) const USAGE: u8 = 2;
    pub(super) const NOT_FOUND: u8 = 3;
    pub(super) const NOT_A_STORE: u8 = 4;
    pub(super) const LOCKED: u8 = 5;
    pub(super) const CODEC_MISMATCH: u8 = 6;
    pub(super) const NEEDS_RECOVERY: u8 = 7;
    /// What shells report of a process that SIGINT ended.
    pub(super) const STOPPED: u8 = 130;
}

/// Why a command failed.
enum Failure {
    Library(Error),
    /// There is no memory with this key.
    NoKey(String),
    /// There is nothing of a stream of this name.
    NoStream(String),
    /// What was found was printed: a store is damaged.
    Damaged,
    /// A signal stopped it; how to go on.
    Stopped(String),
    /// Standard output went away: nobody is listening, so there is nothing to say.
    Pipe,
}

impl Failure {
    /// A command that a signal stopped says how to go on; all other errors stay what they are.
    fn stopped(how: impl FnOnce() -> String) -> impl FnOnce(Error) -> Self {
        |error| match error {
            Error::Cancelled if interrupt::is_stopped() => Self::Stopped(how()),
            other => Self::Library(other),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Library(error)
    }
}

type Outcome = Result<(), Failure>;

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // What the store catches is said by its error.
        if !crate::store::is_guarded() {
            report(panic);
        }
    }));
    let arguments = Arguments::parse();
    let json = arguments.json;
    if arguments.command.can_be_stopped() {
        interrupt::listen();
    }
    let outcome = match arguments.command {
        Command::Demo(demo) => demo::run(&demo, json),
        Command::Train(train) => train::run(&train, json),
        Command::Report(arguments) => report::run(&arguments, json),
        Command::Create(create) => fill::create(&create, json),
        Command::Ingest(ingest) => fill::ingest(&ingest, json),
        Command::Insert(insert) => fill::insert(&insert, json),
        Command::Put(put) => fill::put(&put, json),
        Command::Remove(remove) => fill::remove(&remove, json),
        Command::Pin(pin) => fill::pin(&pin, json),
        Command::Stream(stream) => stream::run(&stream, json),
        Command::Policy(policy) => fill::policy(&policy, json),
        Command::Get(get) => find::get(&get, json),
        Command::Search(search) => find::search(&search, json),
        Command::List(list) => find::list(&list, json),
        Command::Export(export) => find::export(&export, json),
        Command::Recode(arguments) => fill::recode(&arguments, json),
        Command::Stats(stats) => find::stats(&stats, json),
        Command::Verify(verify) => maintain::verify(&verify, json),
        Command::Repair(repair) => maintain::repair(&repair, json),
        Command::Salvage(salvage) => maintain::salvage(&salvage, json),
        Command::Backup(backup) => maintain::backup(&backup, json),
        Command::Pack(pack) => maintain::pack(&pack, json),
        Command::Unpack(unpack) => maintain::unpack(&unpack, json),
        Command::Compact(compact) => maintain::compact(&compact, json),
        Command::Completions { shell } => arguments::completions(shell),
    };
    match outcome {
        Ok(()) | Err(Failure::Pipe) => ExitCode::SUCCESS,
        Err(Failure::Damaged) => ExitCode::from(exit::NOT_A_STORE),
        Err(Failure::Stopped(how)) => {
            eprintln!("apcm: stopped; {how}");
            ExitCode::from(exit::STOPPED)
        }
        Err(Failure::NoKey(key)) => {
            eprintln!("apcm: there is no memory with the key {key:?} (`apcm list` shows the keys)");
            ExitCode::from(exit::NOT_FOUND)
        }
        Err(Failure::NoStream(name)) => {
            eprintln!("apcm: there is nothing of a stream {name:?} (`apcm stream list` shows all)");
            ExitCode::from(exit::NOT_FOUND)
        }
        Err(Failure::Library(error)) => {
            match hint(&error) {
                Some(hint) => eprintln!("apcm: {error} ({hint})"),
                None => eprintln!("apcm: {error}"),
            }
            ExitCode::from(code(&error))
        }
    }
}

fn code(error: &Error) -> u8 {
    match error {
        Error::Argument { .. } | Error::Filter { .. } => exit::USAGE,
        Error::NotFound { .. } | Error::Forgotten { .. } => exit::NOT_FOUND,
        Error::NotAStore { .. }
        | Error::NotAPack { .. }
        | Error::TooNew { .. }
        | Error::Corrupt { .. }
        | Error::Format(_) => exit::NOT_A_STORE,
        error if crate::store::is_damage(error) => exit::NOT_A_STORE,
        Error::Locked { .. } => exit::LOCKED,
        Error::CodecMismatch { .. } | Error::UnknownCodec { .. } => exit::CODEC_MISMATCH,
        Error::NeedsRecovery { .. } => exit::NEEDS_RECOVERY,
        _ => exit::FAILURE,
    }
}

fn hint(error: &Error) -> Option<&'static str> {
    match error {
        error if crate::store::is_damage(error) => Some("`apcm verify` says what is damaged"),
        Error::NotAStore { .. } => Some("`apcm create` makes one"),
        Error::NotAPack { .. } => Some("`apcm pack STORE --out PACK` makes one"),
        Error::Locked { .. } => Some("close the program that has it open for writing"),
        Error::NeedsRecovery { .. } => Some("`apcm stats STORE --recover` does that"),
        Error::OverBudget { .. } => {
            Some("keep fewer records losslessly, unpin some, or make a store with a larger budget")
        }
        Error::Forgotten { .. } => Some("`apcm stream recall` without --from and --to gives what is left"),
        Error::AllPinned { .. } => Some("`apcm pin STORE KEY --off` unpins"),
        Error::RecordShape { .. } => Some("`apcm stats STORE` shows the shape a store holds"),
        Error::TooLittleData { .. } => Some("give more records, or ask for fewer bytes"),
        Error::Exists { .. } => Some("choose another name, or move it away"),
        Error::MemoryLimit { .. } => Some("in a program, StoreBuilder::memory_limit allows more"),
        Error::Filter { .. } => Some("for example: kind = 'note' and year >= 2025"),
        _ => None,
    }
}
