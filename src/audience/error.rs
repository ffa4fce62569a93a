//! Errors of an audience as a whole.
//!
//! Each message names the file, the place in it and what to do, and never quotes a value of the file.

use super::FileKind;

/// An error that concerns the whole audience: none of it can be sent.
#[derive(Debug, thiserror::Error)]
pub enum AudienceError {
    /// The file does not exist.
    #[error("no such file: {path}; paths are relative to the audience root {root:?}")]
    NotFound {
        /// The path as the job writes it.
        path: String,
        /// The audience root.
        root: String,
    },
    /// The path is outside the audience root.
    #[error("{path} is outside the audience root {root:?}; move the file into it, or change audiences.root")]
    Outside {
        /// The path as the job writes it.
        path: String,
        /// The audience root.
        root: String,
    },
    /// A folder, a device or a pipe.
    #[error("{0} is not a regular file")]
    NotAFile(String),
    /// The file has no bytes.
    #[error("{0} is empty; its first line must name the columns")]
    Empty(String),
    /// The file has a header and nothing else.
    #[error("{0} has a header but no rows; add a row for each recipient")]
    HeaderOnly(String),
    /// The file is not UTF-8.
    #[error(
        "{name} is not UTF-8: byte {byte} (line {line}); save the file as \"CSV UTF-8\", or set its \"encoding\", e.g. \
         windows-1252, macintosh or ibm850"
    )]
    NotUtf8 {
        /// The file.
        name: String,
        /// Offset of the first invalid byte, from 0.
        byte: u64,
        /// The line, from 1.
        line: u64,
    },
    /// Bytes that do not occur in ordinary text, so the file was read in the wrong encoding.
    #[error("{name}: line {line} contains {what}")]
    Strange {
        /// The file.
        name: String,
        /// What was found.
        what: Strange,
        /// The line, from 1.
        line: u64,
    },
    /// The file is of another kind than its extension says.
    #[error("{name} is {kind}")]
    OtherFile {
        /// The file.
        name: String,
        /// The kind, with what to do.
        kind: FileKind,
    },
    /// The first line is data, not a header.
    #[error(
        "{0}: the first line contains a phone number; add a line above it with the column names, e.g. phone,name"
    )]
    NoHeader(String),
    /// The file is not a workbook, or an unreadable one.
    #[error("cannot read {name} as a workbook: {detail}")]
    Workbook {
        /// The file.
        name: String,
        /// Why.
        detail: String,
    },
    /// An unclosed quote, which would swallow other rows.
    #[error(
        "cannot read {name}: the quote on line {line} is never closed; close it right before the delimiter, or double a quote inside a value"
    )]
    OpenQuote {
        /// The file.
        name: String,
        /// The line on which the quoted value begins.
        line: u64,
    },
    /// A row exceeds [`ROW_LIMIT`](super::ROW_LIMIT).
    #[error("{name}: the row on line {line} exceeds 1 MiB; check the file")]
    RowTooLong {
        /// The file.
        name: String,
        /// The line on which the row begins.
        line: u64,
    },
    /// A compressed file cannot be unpacked.
    #[error("cannot unpack {name}: {detail}; the file is incomplete, or its extension is wrong")]
    Packed {
        /// The file.
        name: String,
        /// Why.
        detail: String,
    },
    /// A compressed file unpacks to more than the limit.
    #[error("{0} unpacks to more than 8 GiB; split it")]
    TooLarge(String),
    /// Two columns have the same name.
    #[error(
        "{name}: the column {column:?} occurs twice in the header, as column {} and column {}; rename one", .places.0, .places.1
    )]
    DuplicateColumn {
        /// The file.
        name: String,
        /// The column.
        column: String,
        /// Positions of the two columns, from 1.
        places: (usize, usize),
    },
    /// Too many columns.
    #[error(
        "{name} has {count} columns, and at most {most} are allowed; remove those that the message does not use, or raise \
         audiences.columns"
    )]
    TooManyColumns {
        /// The file.
        name: String,
        /// Number of columns.
        count: usize,
        /// Maximum number of columns.
        most: usize,
    },
    /// There is no phone column.
    #[error("{name}: {error}; set \"phone\" to the name of the phone column")]
    NoPhoneColumn {
        /// The file.
        name: String,
        /// The names that were tried, and similar columns.
        error: String,
    },
    /// The recipients of a job have no phone numbers.
    #[error("no recipient has a \"phone\"; give each recipient one")]
    NoPhone,
    /// Neither a folder nor a bucket is configured.
    #[error(
        "cannot read files: audiences.root is not configured; set it to the folder or bucket of the audiences"
    )]
    NoRoot,
    /// The address is invalid or not allowed.
    #[error("the address {0}")]
    NotAllowed(String),
    /// There is no file at the URL.
    #[error("{name} does not exist at its URL")]
    Gone {
        /// The file.
        name: String,
    },
    /// The file exceeds the limit for fetched files.
    #[error("{0} is larger than 2 GiB; compress it (.csv.zst), or split it")]
    TooLargeToFetch(String),
    /// The file cannot be fetched at the moment.
    #[error("cannot fetch {name}: {detail}")]
    Unreachable {
        /// The file.
        name: String,
        /// Why.
        detail: String,
    },
    /// Reading failed.
    #[error("cannot read {name}: {source}")]
    Io {
        /// The file.
        name: String,
        /// Why.
        source: std::io::Error,
    },
}

impl AudienceError {
    /// Returns the JSON pointer of the job's field that causes the error.
    pub fn pointer(&self) -> &'static str {
        match self {
            Self::NotFound { .. } | Self::Outside { .. } | Self::NotAFile(_) | Self::NoRoot => {
                "/audience/csv/path"
            }
            Self::NotAllowed(_) | Self::Gone { .. } => "/audience/csv/url",
            Self::NoPhoneColumn { .. } => "/audience/csv/phone",
            _ => "/audience",
        }
    }

    /// Returns whether the disk for unpacked and fetched audiences is full, so that a retry may succeed.
    pub fn lacks_room(&self) -> bool {
        let kind = match self {
            Self::Io { source, .. } => source.kind(),
            _ => return false,
        };
        matches!(kind, std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
    }

    /// Returns whether the machine or the network failed, rather than the file being wrong.
    pub fn is_outside_failure(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Unreachable { .. })
    }
}

/// Bytes that do not occur in ordinary text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strange {
    /// A zero byte.
    Nul,
    /// A control character of ISO 8859, U+0080 to U+009F.
    Control,
    /// A carriage return without a line feed: the line end of old Macs.
    Return,
    /// Bytes that the named encoding does not define.
    Undefined,
}

impl std::fmt::Display for Strange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nul => "a NUL byte; save the file as \"CSV UTF-8\"",
            Self::Return => {
                "a carriage return without a line feed; save the file as \"CSV UTF-8\", with the line ends of Windows or Unix"
            }
            Self::Control => {
                "a control character, so the file has another encoding; save it as \"CSV UTF-8\", or set its \"encoding\", e.g. \
                 macintosh, ibm850 or windows-1251"
            }
            Self::Undefined => {
                "bytes that are not valid in the encoding used to read the file, so it has another encoding; save it as \
                 \"CSV UTF-8\", or set its \"encoding\", e.g. macintosh, ibm850 or windows-1251"
            }
        })
    }
}
