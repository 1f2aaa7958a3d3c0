//! The `apcm` program: see `apcm --help`.

fn main() -> std::process::ExitCode {
    apcm_cli::main()
}
