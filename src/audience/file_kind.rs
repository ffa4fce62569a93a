//! Detects from the first bytes that a file is not CSV.

use memchr::memmem;

/// The kind of a file that is not CSV, whatever its extension says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A ZIP archive: a workbook without the extension `.xlsx`, or of an unsupported kind (`.xlsb`).
    Archive,
    /// A workbook of `LibreOffice` (`.ods`).
    OpenDocument,
    /// An old workbook (`.xls`), or one with a password.
    Compound,
    /// A web page, which some systems export as `.xls` or `.csv`.
    Page,
    /// A PDF.
    Pdf,
}

impl FileKind {
    pub(super) fn detect(start: &[u8]) -> Option<Self> {
        let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
        let is_page = |tag: &[u8]| text.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag));
        if start.starts_with(b"PK\x03\x04") {
            // The first part of an OpenDocument archive is uncompressed and holds the media type.
            let is_open =
                memmem::find(start.get(..128).unwrap_or(start), b"application/vnd.oasis.").is_some();
            Some(if is_open { Self::OpenDocument } else { Self::Archive })
        } else if start.starts_with(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1") {
            Some(Self::Compound)
        } else if [&b"<!doctype"[..], b"<html", b"<?xml", b"<table", b"<head", b"<body"]
            .into_iter()
            .any(is_page)
        {
            Some(Self::Page)
        } else {
            start.starts_with(b"%PDF-").then_some(Self::Pdf)
        }
    }
}

impl std::fmt::Display for FileKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Archive => "a workbook whose name does not end in .xlsx; rename it, or save it as .xlsx",
            Self::OpenDocument => "an OpenDocument file (.ods); save it as .xlsx",
            Self::Compound => {
                "an old workbook (.xls), or one with a password; save it as .xlsx without a password"
            }
            Self::Page => {
                "a web page, whatever its name says; open it in a spreadsheet and save it as .xlsx or CSV"
            }
            Self::Pdf => "a PDF; export the list as .xlsx or CSV",
        })
    }
}
