//! A job's path below the audience root. There is no way out of it, through links neither.

use std::path::{Path, PathBuf};

use super::AudienceError;

/// The real path of a job's `path` below `root`.
///
/// # Errors
///
/// When there is no such file, when it lies outside the root, or is no regular file.
pub fn resolve(root: &Path, path: &str) -> Result<PathBuf, AudienceError> {
    let shown = || root.display().to_string();
    let missing = |_| AudienceError::NotFound { path: path.into(), root: shown() };
    let real_root = root.canonicalize().map_err(missing)?;
    // Outside is said before missing, so that nobody learns what lies outside.
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
}
