//! One pass over a whole audience before anything of it is used.

use super::csv_rows::CsvRows;
use super::{AudienceError, Source};

/// What one pass over an audience tells without looking at a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// A digest of its bytes, unpacked. The same digest is the same audience.
    pub digest: String,
    /// How many rows it has.
    pub rows: u64,
    /// A file's columns.
    pub columns: Vec<String>,
}

/// Reads all of an audience once.
///
/// # Errors
///
/// When a byte is not UTF-8, a quote is not closed, or the file can't be read.
pub fn scan(source: &Source, delimiter: Option<u8>) -> Result<Scan, AudienceError> {
    match source {
        Source::File(path) => {
            let mut rows = CsvRows::open(path, delimiter)?;
            let mut count = 0;
            while rows.advance()? {
                count += 1;
            }
            let columns = rows.columns().names().to_vec();
            Ok(Scan { digest: rows.bytes().digest(), rows: count, columns })
        }
        Source::List(list) => {
            let mut hasher = blake3::Hasher::new();
            for recipient in list {
                hasher.update(serde_json::Value::Object(recipient.clone()).to_string().as_bytes());
                hasher.update(b"\n");
            }
            let digest = hasher.finalize().to_hex().to_string();
            Ok(Scan { digest, rows: list.len() as u64, columns: Vec::new() })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, Source) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        (folder, Source::File(path))
    }

    #[test]
    fn a_byte_that_is_not_utf8_is_named() {
        let (_folder, source) = file("a.csv", b"phone,name\n+919876543210,Jos\xe9\n");
        let fault = scan(&source, None).unwrap_err().to_string();
        assert_eq!(fault, "a.csv is not UTF-8: byte 28 (line 2); save the file as \"CSV UTF-8\"");
        let (_folder, source) = file("a.csv", b"phone\nx\xc3");
        assert!(scan(&source, None).unwrap_err().to_string().contains("byte 7 (line 2)"));
        let (_folder, source) = file("a.csv", b"\xff\xfep\0h\0");
        assert!(matches!(scan(&source, None), Err(AudienceError::Utf16(_))));
    }

    #[test]
    fn the_same_audience_has_one_digest_packed_or_not() {
        let text = "phone\n".to_string() + &"+919876543210\n".repeat(20_000);
        let (_a, plain) = file("a.csv", text.as_bytes());
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(text.as_bytes()).unwrap();
        let (_b, gz) = file("a.csv.gz", &packer.finish().unwrap());
        let (_c, zst) = file("a.csv.zst", &zstd::encode_all(text.as_bytes(), 1).unwrap());
        let expected = scan(&plain, None).unwrap();
        assert_eq!(expected.rows, 20_000);
        assert_eq!(scan(&gz, None).unwrap(), expected);
        assert_eq!(scan(&zst, None).unwrap(), expected);
    }

    #[test]
    fn a_file_that_is_not_what_its_name_says_is_an_error() {
        for name in ["a.csv.gz", "a.csv.zst"] {
            let (_folder, source) = file(name, b"phone\n+919876543210\n");
            assert!(matches!(scan(&source, None), Err(AudienceError::Io { .. })), "{name}");
        }
    }
}
