//! The command. Reads the command line, starts the runtime, calls [`flowcast::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    flowcast::cli::main()
}
