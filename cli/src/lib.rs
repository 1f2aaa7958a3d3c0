//! The `apcm` program: see `apcm --help`. Commands call only the public library; `demo`, `report` and the
//! pictures are programs of their own. `pictures` is public for `examples/policies.rs`.

mod commands;
mod demo;
mod files;
mod interrupt;
mod options;
mod outcome;
mod output;
pub mod pictures;
mod read;
mod report;
mod stream;
mod train;
mod write;

use clap::Parser;
use commands::Arguments;
use outcome::{Failure, code, exit, hint};
use std::process::ExitCode;

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // The store turns it into an error.
        if !apcm::panic_becomes_error() {
            report(panic);
        }
    }));
    let arguments = Arguments::parse();
    let json = arguments.json;
    if arguments.command.can_be_stopped() {
        interrupt::listen();
    }
    let outcome = arguments.command.run(json);
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
