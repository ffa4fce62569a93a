//! Reads a whole audience once before any of it is used.

use std::path::Path;

use super::open::{failure, unpacked};
use super::{AudienceError, Encoding, HiddenRows, Settings, Source, csv_rows::CsvRows};
use crate::campaign::{counted, text::shortened};

/// The facts about an audience from one pass, without parsing its numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Digest of the unpacked bytes. The same digest means the same audience.
    pub digest: String,
    /// Number of rows.
    pub rows: u64,
    /// The columns of a file.
    pub columns: Vec<String>,
    /// The encoding.
    pub encoding: Encoding,
    /// If the encoding was guessed: the first values that another encoding would change.
    pub changed: Vec<String>,
    /// Whether a title line above the header was skipped.
    pub title: bool,
    /// Number of empty rows, which do not count as rows.
    pub empty_rows: u64,
    /// Number of hidden rows of a sheet.
    pub hidden_rows: u64,
}

impl Scan {
    /// Returns notes for the person who provided the file, one sentence each.
    pub fn notes(&self, hidden: HiddenRows) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(note) = self.encoding.note() {
            let quoted: Vec<String> =
                self.changed.iter().map(|value| format!("\u{201c}{value}\u{201d}")).collect();
            let values = if quoted.is_empty() { String::new() } else { format!(" ({})", quoted.join(", ")) };
            notes.push(format!("the file is {note}{values}"));
        }
        if self.title {
            notes.push("the first line is a title, so the next line is the header".into());
        }
        if self.empty_rows > 0 {
            notes.push(format!("{} without any value: not counted", counted(self.empty_rows, "row")));
        }
        if self.hidden_rows > 0 {
            let rows = counted(self.hidden_rows, "row");
            let are = if self.hidden_rows == 1 { "is" } else { "are" };
            notes.push(match hidden {
                HiddenRows::Send => {
                    format!("{rows} of the sheet {are} hidden, e.g. by a filter, and {are} sent too")
                }
                HiddenRows::Skip => format!("{rows} of the sheet {are} hidden and skipped"),
            });
        }
        notes
    }
}

/// Maximum number of changed values.
const SHOWN_CHANGES: usize = 3;

fn scan_file(path: &Path, settings: &Settings) -> Result<Scan, AudienceError> {
    let mut rows = CsvRows::open(path, settings)?;
    let (mut count, mut changed) = (0, Vec::new());
    while rows.advance()? {
        count += 1;
        if settings.encoding == Some(Encoding::Windows1252) && changed.len() < SHOWN_CHANGES {
            let values = (0..rows.len()).map(|column| rows.value(column));
            changed.extend(
                values.filter(|value| !value.is_ascii()).map(|value| shortened(value, 60).into_owned()),
            );
            changed.truncate(SHOWN_CHANGES);
        }
    }
    Ok(Scan {
        digest: rows.bytes().digest(),
        rows: count,
        columns: rows.columns.names().to_vec(),
        encoding: rows.bytes().encoding,
        changed,
        title: rows.has_title,
        empty_rows: rows.empty_rows,
        hidden_rows: rows.bytes().hidden_rows.unwrap_or_default(),
    })
}

/// Scans a file, and guesses the encoding if it is not UTF-8.
fn scan_any(path: &Path, settings: &Settings) -> Result<Scan, AudienceError> {
    match scan_file(path, settings) {
        Err(error @ AudienceError::NotUtf8 { .. }) if settings.encoding.is_none() => {
            let guessed = Encoding::guess(unpacked(path, settings)?.reader);
            match guessed.map_err(|error| failure(path, error, 1))? {
                Some(encoding) => scan_file(path, &Settings { encoding: Some(encoding), ..settings.clone() }),
                None => Err(error),
            }
        }
        scan => scan,
    }
}

/// Reads a whole audience once.
///
/// # Errors
///
/// If the encoding is unknown, a quote is not closed, or the file cannot be read.
pub fn scan(source: &Source, settings: &Settings) -> Result<Scan, AudienceError> {
    match source {
        Source::File(path) => scan_any(path, settings),
        Source::Fetched(fetched) => scan_any(fetched.path(), settings),
        Source::List(list) => {
            let mut hasher = blake3::Hasher::new();
            for recipient in list {
                hasher.update(serde_json::Value::Object(recipient.clone()).to_string().as_bytes());
                hasher.update(b"\n");
            }
            let digest = hasher.finalize().to_hex().to_string();
            Ok(Scan { digest, rows: list.len() as u64, ..Scan::default() })
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
        let error = scan(&source, &Settings::default()).unwrap_err().to_string();
        assert!(error.starts_with("a.csv is not UTF-8: byte 47 (line 3); save"), "{error}");
    }

    #[test]
    fn a_file_in_another_encoding_has_the_rows_of_its_utf8_twin() {
        let text =
            "phone;name\n+919876543210;Jos\u{e9} M\u{fc}ller\n+919876543211;Ren\u{e9}e \u{2013} \u{20ac}5\n";
        let (_a, utf8) = file("a.csv", text.as_bytes());
        let expected = scan(&utf8, &Settings::default()).unwrap();
        let (windows, _, _) = encoding_rs::WINDOWS_1252.encode(text);
        let (_b, windows) = file("a.csv", &windows);
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let utf16 = |bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
            "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(bytes).collect()
        };
        packer.write_all(&utf16(u16::to_le_bytes)).unwrap();
        let (_c, little) = file("a.csv.gz", &packer.finish().unwrap());
        let utf_16 = Encoding::Utf16;
        let (_d, big) = file("a.csv", &utf16(u16::to_be_bytes));
        for (source, encoding) in [
            (windows, Encoding::Windows1252),
            (little, utf_16(encoding_rs::UTF_16LE)),
            (big, utf_16(encoding_rs::UTF_16BE)),
        ] {
            let found = scan(&source, &Settings::default()).unwrap();
            let changed = found.changed.clone();
            assert_eq!(found, Scan { encoding, changed: changed.clone(), ..expected.clone() });
            let is_guessed = encoding == Encoding::Windows1252;
            assert_eq!(
                changed,
                if is_guessed {
                    vec!["Jos\u{e9} M\u{fc}ller", "Ren\u{e9}e \u{2013} \u{20ac}5"]
                } else {
                    vec![]
                }
            );
            assert!(encoding.note().is_some());
        }
    }

    #[test]
    fn the_same_audience_has_one_digest_compressed_or_not() {
        let text = "phone\n".to_string() + &"+919876543210\n".repeat(20_000);
        let (_a, plain) = file("a.csv", text.as_bytes());
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(text.as_bytes()).unwrap();
        let (_b, gz) = file("a.csv.gz", &packer.finish().unwrap());
        let (_c, zst) = file("a.csv.zst", &zstd::encode_all(text.as_bytes(), 1).unwrap());
        let expected = scan(&plain, &Settings::default()).unwrap();
        assert_eq!(expected.rows, 20_000);
        assert_eq!(scan(&gz, &Settings::default()).unwrap(), expected);
        assert_eq!(scan(&zst, &Settings::default()).unwrap(), expected);
    }

    #[test]
    fn a_file_that_is_not_what_its_name_says_is_an_error() {
        for name in ["a.csv.gz", "a.csv.zst"] {
            let (_folder, source) = file(name, b"phone\n+919876543210\n");
            assert!(
                matches!(scan(&source, &Settings::default()), Err(AudienceError::Packed { .. })),
                "{name}"
            );
        }
    }
}
