//! The `apcm` program: see `apcm --help`.

fn main() -> std::process::ExitCode {
    apcm::cli::main()
}
