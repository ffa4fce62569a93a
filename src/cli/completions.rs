//! `flowcast completions`: a script that completes commands and options in a shell.

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use super::{Outcome, print};

/// Print a completion script for a shell.
#[derive(Args)]
pub(super) struct Completions {
    /// Shell to complete for
    shell: Shell,
}

pub(super) fn main(completions: &Completions) -> Outcome {
    let mut script = Vec::new();
    generate(completions.shell, &mut super::Args::command(), "flowcast", &mut script);
    print(&String::from_utf8_lossy(&script))
}
