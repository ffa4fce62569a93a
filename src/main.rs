//! The `flowcast` binary. All of it is in [`flowcast::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    flowcast::cli::main()
}
