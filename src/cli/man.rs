//! `flowcast man`: the manual pages of all commands.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory};

use super::{Failure, Outcome};

/// Write the manual pages into a folder.
#[derive(Args)]
pub(super) struct Man {
    /// The folder, as ~/.local/share/man/man1; it is made if it is not there
    folder: PathBuf,
}

pub(super) fn main(man: &Man) -> Outcome {
    let folder = &man.folder;
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(super::Args::command(), folder))
        .map_err(|error| Failure::Outside(format!("can't write to {}: {error}", folder.display())))?;
    Ok(ExitCode::SUCCESS)
}
