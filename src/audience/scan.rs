//! One pass over a whole audience before anything of it is used.

use std::path::Path;

use super::csv_rows::CsvRows;
use super::open::{failure, unpacked};
use super::{AudienceError, Encoding, Source};

/// What one pass over an audience tells without looking at a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// A digest of its bytes, unpacked. The same digest is the same audience.
    pub digest: String,
    /// How many rows it has.
    pub rows: u64,
    /// A file's columns.
    pub columns: Vec<String>,
    /// How its characters are written.
    pub encoding: Encoding,
}

fn scan_file(path: &Path, delimiter: Option<u8>, encoding: Encoding) -> Result<Scan, AudienceError> {
    let mut rows = CsvRows::open(path, delimiter, encoding)?;
    let mut count = 0;
    while rows.advance()? {
        count += 1;
    }
    let columns = rows.columns().names().to_vec();
    Ok(Scan { digest: rows.bytes().digest(), rows: count, columns, encoding: rows.bytes().encoding() })
}

/// The same, whatever its encoding.
fn scan_any(path: &Path, delimiter: Option<u8>) -> Result<Scan, AudienceError> {
    match scan_file(path, delimiter, Encoding::Utf8) {
        Err(fault @ AudienceError::NotUtf8 { .. }) => {
            let guessed = Encoding::guess(unpacked(path)?);
            match guessed.map_err(|fault| failure(path, fault, 1))? {
                Some(encoding) => scan_file(path, delimiter, encoding),
                None => Err(fault),
            }
        }
        scan => scan,
    }
}

/// Reads all of an audience once.
///
/// # Errors
///
/// When its characters can't be read, a quote is not closed, or the file can't be read.
pub fn scan(source: &Source, delimiter: Option<u8>) -> Result<Scan, AudienceError> {
    match source {
        Source::File(path) => scan_any(path, delimiter),
        Source::Fetched(fetched) => scan_any(fetched.path(), delimiter),
        Source::List(list) => {
            let mut hasher = blake3::Hasher::new();
            for recipient in list {
                hasher.update(serde_json::Value::Object(recipient.clone()).to_string().as_bytes());
                hasher.update(b"\n");
            }
            let digest = hasher.finalize().to_hex().to_string();
            let encoding = Encoding::Utf8;
            Ok(Scan { digest, rows: list.len() as u64, columns: Vec::new(), encoding })
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
    fn utf8_with_a_byte_damaged_is_refused_and_the_byte_named() {
        // Read as Windows-1252, Zo\u{eb} would be sent as two characters.
        let (_folder, source) =
            file("a.csv", b"phone,name\n+919876543210,Zo\xc3\xab\n+919876543211,Jos\xe9\n");
        let fault = scan(&source, None).unwrap_err().to_string();
        assert_eq!(fault, "a.csv is not UTF-8: byte 47 (line 3); save the file as \"CSV UTF-8\"");
    }

    #[test]
    fn a_file_in_another_encoding_has_the_rows_of_its_utf8_twin() {
        let text =
            "phone;name\n+919876543210;Jos\u{e9} M\u{fc}ller\n+919876543211;Ren\u{e9}e \u{2013} \u{20ac}5\n";
        let (_a, utf8) = file("a.csv", text.as_bytes());
        let expected = scan(&utf8, None).unwrap();
        let (windows, _, _) = encoding_rs::WINDOWS_1252.encode(text);
        let (_b, windows) = file("a.csv", &windows);
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let utf16 = |bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
            "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(bytes).collect()
        };
        packer.write_all(&utf16(u16::to_le_bytes)).unwrap();
        let (_c, little) = file("a.csv.gz", &packer.finish().unwrap());
        let (_d, big) = file("a.csv", &utf16(u16::to_be_bytes));
        for (source, encoding) in
            [(windows, Encoding::Windows1252), (little, Encoding::Utf16), (big, Encoding::Utf16)]
        {
            assert_eq!(scan(&source, None).unwrap(), Scan { encoding, ..expected.clone() });
            assert!(encoding.note().is_some());
        }
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
            assert!(matches!(scan(&source, None), Err(AudienceError::Packed { .. })), "{name}");
        }
    }
}
