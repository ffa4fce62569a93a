//! Why an expression cannot be rendered. No error quotes a value, which is a recipient's.

use std::error::Error as _;

use minijinja::{Error, ErrorKind};

/// Why a value cannot be used.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(super) enum ValueError {
    #[error("a value is neither true nor false; bool reads true, yes, on and 1, and false, no, off and 0")]
    NoTruth,
    #[error(
        "a calculation or a comparison needs a number such as 1499.50, but a value is not written like that; to remove \
         separators, write e.g. {{{{ amount | replace(\",\", \"\") }}}}"
    )]
    NoNumber,
    #[error(
        "\"+\" can add only values written as numbers such as 1499.50, and one of the two values is not; to join values, write ~"
    )]
    Sum,
    #[error("the filter {0} cannot read a value as a number; write | {0}(0) to use 0 instead")]
    NumberFilter(&'static str),
    #[error("the result of a calculation is too large")]
    OutOfRange,
    #[error("a divisor or a step is 0; check it before with {{% if %}}")]
    ZeroDivision,
    #[error("an expression uses or produces a text or a list that is too large")]
    TooMuch,
    #[error("\"in\" needs a list or a text on its right")]
    NoList,
    #[error("range has more steps than a list can have items ({})", super::bounds::ITEMS)]
    Range,
    #[error("the filter {0} cannot use this value or one of its arguments")]
    Filter(&'static str),
    #[error("the filter {0} has too few or too many arguments")]
    Arguments(&'static str),
}

impl ValueError {
    pub(super) fn into_error(self) -> Error {
        let kind = match self {
            Self::Arguments(_) => ErrorKind::TooManyArguments,
            _ => ErrorKind::InvalidOperation,
        };
        Error::from(kind).with_source(self)
    }

    /// Names the filter in an error of minijinja.
    pub(super) fn of_filter(filter: &'static str, error: Error) -> Error {
        match error.kind() {
            _ if error.source().is_some() => error,
            ErrorKind::MissingArgument | ErrorKind::TooManyArguments => Self::Arguments(filter).into_error(),
            ErrorKind::InvalidOperation if matches!(filter, "float" | "int") => {
                Self::NumberFilter(filter).into_error()
            }
            ErrorKind::InvalidOperation => Self::Filter(filter).into_error(),
            _ => error,
        }
    }
}

/// Returns the text of an error.
pub(super) fn describe(error: &Error) -> String {
    if let Some(reason) = error.source().and_then(|source| source.downcast_ref::<ValueError>()) {
        return reason.to_string();
    }
    match error.kind() {
        ErrorKind::InvalidOperation => "an operator cannot use one of its values".into(),
        ErrorKind::OutOfFuel => {
            format!("it needs more than {} steps; shorten its loops", super::expression::FUEL)
        }
        ErrorKind::UnknownMethod => {
            "methods are not supported; write a filter, e.g. {{ name | upper }}".into()
        }
        kind => kind.to_string(),
    }
}
