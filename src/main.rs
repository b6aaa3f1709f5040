//! The `hedgerow` binary: calls the command, turns its result into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    hedgerow::cli::main()
}
