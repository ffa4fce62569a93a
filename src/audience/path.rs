//! Resolves a job's path below the audience root. No path leads outside, not even through links.

use std::path::{Path, PathBuf};
use std::{fs::File, io};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::AudienceError;

/// Returns the real path of a job's `path` below `root`.
///
/// # Errors
///
/// If the file does not exist, is outside the root, or is not a regular file.
pub fn resolve(root: &Path, path: &str) -> Result<PathBuf, AudienceError> {
    let shown = || root.display().to_string();
    let missing = |_| AudienceError::NotFound { path: path.into(), root: shown() };
    let real_root = root.canonicalize().map_err(missing)?;
    // Check for outside first: an error about a missing file would reveal which files exist outside.
    let outside = Path::new(path).components().any(|part| part == std::path::Component::ParentDir)
        || (Path::new(path).is_absolute() && !Path::new(path).starts_with(&real_root));
    let refused = || AudienceError::Outside { path: path.into(), root: shown() };
    if outside {
        return Err(refused());
    }
    let real = real_root.join(path).canonicalize().map_err(missing)?;
    if !real.starts_with(&real_root) {
        return Err(refused());
    }
    if !real.is_file() {
        return Err(AudienceError::NotAFile(path.into()));
    }
    Ok(real)
}

/// Returns the name of a file for an error.
pub(super) fn name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// Opens the path that [`resolve`] returned. Another process that may write below the root may have replaced the file
/// by a link or a pipe since: no link is followed, and a pipe, on which a read would block forever, is refused.
pub(super) fn open_real(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let opened = match rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        // Before Linux 5.6, and where system calls are filtered, only the last component is checked for a link.
        Err(Errno::NOSYS | Errno::PERM) => rustix::fs::open(path, flags | OFlags::NOFOLLOW, Mode::empty()),
        opened => opened,
    };
    let file = File::from(opened?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a regular file"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_can_not_leave_the_root() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret.csv"), "phone\n").unwrap();
        let root = outside.path().join("root");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(root.join("sub/a.csv"), "phone\n").unwrap();
        std::os::unix::fs::symlink("../secret.csv", root.join("link.csv")).unwrap();
        std::os::unix::fs::symlink(outside.path(), root.join("folder")).unwrap();
        std::os::unix::fs::symlink("sub/a.csv", root.join("inner.csv")).unwrap();

        let secret = outside.path().join("secret.csv").display().to_string();
        for path in
            ["../secret.csv", "sub/../../secret.csv", "link.csv", "folder/secret.csv", &secret, "/etc/passwd"]
        {
            assert!(matches!(resolve(&root, path), Err(AudienceError::Outside { .. })), "{path}");
        }
        for path in ["sub/a.csv", "inner.csv"] {
            assert!(resolve(&root, path).is_ok(), "{path}");
        }
        assert!(matches!(resolve(&root, "none.csv"), Err(AudienceError::NotFound { .. })));
        assert!(matches!(resolve(&root, "sub"), Err(AudienceError::NotAFile(_))));
    }

    #[test]
    fn a_file_replaced_after_its_check_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap().join("root");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::create_dir_all(folder.path().join("outside")).unwrap();
        for file in ["root/a.csv", "root/sub/b.csv", "outside/a.csv", "outside/b.csv"] {
            std::fs::write(folder.path().join(file), "phone\n").unwrap();
        }
        let (file, deeper) = (resolve(&root, "a.csv").unwrap(), resolve(&root, "sub/b.csv").unwrap());
        assert!(open_real(&file).is_ok() && open_real(&deeper).is_ok());
        // The files are replaced between the two calls.
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("../outside/a.csv", &file).unwrap();
        std::fs::remove_dir_all(root.join("sub")).unwrap();
        std::os::unix::fs::symlink("../outside", root.join("sub")).unwrap();
        assert!(open_real(&file).is_err() && open_real(&deeper).is_err());
        std::fs::remove_file(&file).unwrap();
        let pipe = std::process::Command::new("mkfifo").arg(&file).status().unwrap();
        assert!(pipe.success());
        assert!(open_real(&file).is_err(), "a pipe must not block");
        assert!(matches!(resolve(&root, "a.csv"), Err(AudienceError::NotAFile(_))));
    }
}
