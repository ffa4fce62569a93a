//! Why an audience as a whole can't be sent to.
//!
//! Every text names the file, the place in it and what to do. None quotes a value of the file.

use super::open::FileKind;

/// Something wrong with an audience as a whole. Nothing of it can be sent.
#[derive(Debug, thiserror::Error)]
pub enum AudienceError {
    /// The file is not there.
    #[error("no such file: {path}; the path is taken from the audience root {root}")]
    NotFound {
        /// As the job writes it.
        path: String,
        /// The folder below which it must be.
        root: String,
    },
    /// The path leads out of the root.
    #[error(
        "{path} leads out of the audience root {root}; put the file below it, or set audiences.root in the configuration"
    )]
    Outside {
        /// As the job writes it.
        path: String,
        /// The folder below which it must be.
        root: String,
    },
    /// A folder, a device, a pipe.
    #[error("{0} is not a regular file")]
    NotAFile(String),
    /// No bytes at all.
    #[error("{0} is empty; its first line must name the columns")]
    Empty(String),
    /// A header and nothing else.
    #[error("{0} has a header and no rows: there is nobody to send to")]
    HeaderOnly(String),
    /// Not UTF-8.
    #[error(
        "{name} is not UTF-8: byte {byte} (line {line}); save the file as \"CSV UTF-8\", or name its \"encoding\", as \
         windows-1252, macintosh or ibm850"
    )]
    NotUtf8 {
        /// The file.
        name: String,
        /// The offset of the first wrong byte, from 0.
        byte: u64,
        /// The line it is in, from 1.
        line: u64,
    },
    /// Bytes that no text of people has, where the file is read in the encoding that it seems to have.
    #[error(
        "{name}: line {line} holds {what}, so the file's encoding is not what it seems; save it as \"CSV UTF-8\", or name its \
         \"encoding\", as macintosh, ibm850 or windows-1251"
    )]
    Strange {
        /// The file.
        name: String,
        /// What is strange.
        what: Strange,
        /// The line it is in, from 1.
        line: u64,
    },
    /// A file of another kind than its name says.
    #[error("{name} is {kind}")]
    OtherFile {
        /// The file.
        name: String,
        /// What it is, and what to do.
        kind: FileKind,
    },
    /// A first line of data.
    #[error(
        "{0}: the first line holds a phone number; put a line above it that names the columns, as phone,name"
    )]
    NoHeader(String),
    /// No workbook, or one that can't be read.
    #[error("{name} can't be read as a workbook: {detail}")]
    Workbook {
        /// The file.
        name: String,
        /// Why.
        detail: String,
    },
    /// A quote that would swallow other rows.
    #[error(
        "{name}: a quote opens in the row on line {line} and is not closed; close it, or double a quote that is meant"
    )]
    OpenQuote {
        /// The file.
        name: String,
        /// Where the row begins.
        line: u64,
    },
    /// A row without an end.
    #[error(
        "{name}: the row on line {line} is longer than 1 MiB; no row of an audience is, so look at the file"
    )]
    RowTooLong {
        /// The file.
        name: String,
        /// Where the row begins.
        line: u64,
    },
    /// A packed file that can't be unpacked.
    #[error("{name} can't be unpacked: {detail}; it is not whole, or not packed as its name says")]
    Packed {
        /// The file.
        name: String,
        /// Why.
        detail: String,
    },
    /// A packed file that unpacks to more than anybody means.
    #[error("{0} unpacks to more than 8 GiB; split it")]
    TooLarge(String),
    /// Two columns of one name.
    #[error(
        "{name}: the column {column:?} occurs twice in the header, as column {} and column {}; rename one", .places.0, .places.1
    )]
    DuplicateColumn {
        /// The file.
        name: String,
        /// The column.
        column: String,
        /// Which columns have the name, from 1.
        places: (usize, usize),
    },
    /// More columns than a table has.
    #[error(
        "{name} has {count} columns, and the most are {most}; leave out those that the message does not name, or set \
         audiences.columns"
    )]
    TooManyColumns {
        /// The file.
        name: String,
        /// How many it has.
        count: usize,
        /// How many are allowed.
        most: usize,
    },
    /// The phone column is not there.
    #[error("{name}: {fault}; say which column holds the numbers")]
    NoPhoneColumn {
        /// The file.
        name: String,
        /// What was looked for and what is near.
        fault: String,
    },
    /// No folder and no bucket.
    #[error("files can't be read: audiences.root is not configured on this worker")]
    NoRoot,
    /// An address that must not be read.
    #[error("the address {0}")]
    NotAllowed(String),
    /// Nothing is at an address.
    #[error("there is no {name} at its address")]
    Gone {
        /// The file.
        name: String,
    },
    /// Larger than what is fetched.
    #[error("{0} is larger than 2 GiB; pack it (.csv.zst), or split it")]
    TooLargeToFetch(String),
    /// It can't be fetched now.
    #[error("{name} can't be fetched: {detail}")]
    Unreachable {
        /// The file.
        name: String,
        /// Why.
        detail: String,
    },
    /// Reading failed.
    #[error("can't read {name}: {source}")]
    Io {
        /// The file.
        name: String,
        /// Why.
        source: std::io::Error,
    },
}

impl AudienceError {
    /// Where in the job the reason lies.
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

    /// Whether a disk is full on which the audience is unpacked, or to which it is fetched: it may work later.
    pub fn lacks_room(&self) -> bool {
        let kind = match self {
            Self::Io { source, .. } => source.kind(),
            _ => return false,
        };
        matches!(kind, std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
    }

    /// Whether the machine failed rather than the file being wrong.
    pub fn is_outside_failure(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Unreachable { .. })
    }
}

/// What no text of people holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strange {
    /// A zero.
    Nul,
    /// A control character of ISO 8859, U+0080 to U+009F.
    Control,
    /// A carriage return without a line feed, as old Macs end lines.
    Return,
    /// Bytes that the named encoding gives no character.
    Undefined,
}

impl std::fmt::Display for Strange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nul => "a NUL byte",
            Self::Control => "a control character",
            Self::Return => "a carriage return without a line feed",
            Self::Undefined => "bytes that its encoding gives no character",
        })
    }
}
