//! `flowcast man`: writes the manual pages of all commands.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory};

use super::{Failure, Outcome};

/// Write the manual pages to a folder.
#[derive(Args)]
pub(super) struct Man {
    /// Folder, e.g. ~/.local/share/man/man1; created if it does not exist
    folder: PathBuf,
}

pub(super) fn main(man: &Man) -> Outcome {
    let folder = &man.folder;
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(super::Args::command(), folder))
        .map_err(|error| Failure::Outside(format!("cannot write to {}: {error}", folder.display())))?;
    Ok(ExitCode::SUCCESS)
}
