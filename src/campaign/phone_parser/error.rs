//! Errors of phone numbers.

/// Why a text is not a phone number. The error never quotes the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum PhoneError {
    /// The text is empty.
    #[error("the phone column is empty")]
    Empty,
    /// `9.19876E+11`: the digits are lost.
    #[error(
        "a spreadsheet rounded the number (e.g. 9.19876E+11); format the column as text and export again"
    )]
    Rounded,
    /// `9876543210 / 9876543211`.
    #[error("the cell contains more than one number; keep one")]
    Several,
    /// `022 2489 3147 ext. 12`: `WhatsApp` cannot reach an extension.
    #[error("the number has an extension, which WhatsApp cannot reach; use the recipient's direct number")]
    Extension,
    /// Letters and the like.
    #[error("the phone number contains invalid characters; write its digits, e.g. +919876543210")]
    Characters,
    /// No `+`, and no default region.
    #[error("the number has no country code; write it with + and the country code, or set a default region")]
    NoRegion,
    /// Not valid in its country's numbering plan.
    #[error("the number does not exist in its country's numbering plan; check its digits")]
    Invalid,
}
