//! The suppression list: numbers that must never be messaged.
//!
//! A worker holds a copy and follows the changes. Senders check the copy; nothing is checked here.

use roaring::RoaringTreemap;

use super::{Clock, LedgerFuture};
use crate::campaign::{Phone, counted};

/// Whether numbers are added to the list or removed from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suppress {
    /// Add them.
    Add,
    /// Remove them.
    Remove,
}

impl Suppress {
    /// Returns the text of the audit log for a change of `count` numbers.
    pub fn summary(self, count: u64) -> String {
        let numbers = counted(count, "number");
        match self {
            Self::Add => format!("added {numbers} to the opt-out list"),
            Self::Remove => format!("removed {numbers} from the opt-out list"),
        }
    }
}

/// Who added a number to the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptOutSource {
    /// The recipient, with a stop word.
    Reply,
    /// An operator, with the name as in the audit log.
    Operator(String),
}

/// When a number was added to the list, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptOut {
    /// Time, in milliseconds since 1970.
    pub at: i64,
    /// Who added it.
    pub source: OptOutSource,
}

impl OptOut {
    /// Returns the stored text: `<milliseconds> reply`, or `<milliseconds> operator <name>`.
    pub(super) fn text(&self) -> String {
        match &self.source {
            OptOutSource::Reply => format!("{} reply", self.at),
            OptOutSource::Operator(name) => format!("{} operator {name}", self.at),
        }
    }

    /// Reads the stored text.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (at, source) = text.split_once(' ')?;
        let source = match source.split_once(' ') {
            None if source == "reply" => OptOutSource::Reply,
            Some(("operator", name)) => OptOutSource::Operator(name.to_owned()),
            _ => return None,
        };
        Some(Self { at: at.parse().ok()?, source })
    }
}

/// A worker's copy of the list.
#[derive(Clone, Debug, Default)]
pub struct Suppressed {
    /// Number of changes.
    pub version: u64,
    /// The digits of the numbers.
    pub numbers: RoaringTreemap,
}

/// Changes of the list since a version.
#[derive(Clone, Debug)]
pub enum SuppressionUpdate {
    /// The whole list.
    Whole(Suppressed),
    /// The single changes, in order.
    Since {
        /// The list's present version.
        version: u64,
        /// Numbers, and whether they are on the list after the change.
        changes: Vec<(Phone, bool)>,
    },
}

impl SuppressionUpdate {
    /// Returns the list's present version.
    pub fn version(&self) -> u64 {
        match self {
            Self::Whole(list) => list.version,
            Self::Since { version, .. } => *version,
        }
    }
}

impl Suppressed {
    /// Returns whether a number is on the list, in any of its spellings.
    pub fn contains(&self, phone: Phone) -> bool {
        phone.spellings().any(|phone| self.numbers.contains(phone.digits()))
    }

    /// Applies an update.
    pub fn apply(&mut self, update: SuppressionUpdate) {
        match update {
            SuppressionUpdate::Whole(list) => *self = list,
            SuppressionUpdate::Since { version, changes } => {
                for (phone, is_listed) in changes {
                    if is_listed {
                        self.numbers.insert(phone.digits());
                    } else {
                        self.numbers.remove(phone.digits());
                    }
                }
                self.version = version;
            }
        }
    }
}

/// Number of single changes stored. A worker that is further behind reads the whole list.
pub(super) const MAX_CHANGES: usize = 10_000;

/// The list, shared by all workers. All writes are atomic and durable when they return.
pub trait Suppression: Clock {
    /// Changes the list. Returns the number of numbers that changed.
    ///
    /// With `added` it stores when they were added, and by whom.
    fn suppress(&self, numbers: Vec<Phone>, how: Suppress, added: Option<OptOut>) -> impl LedgerFuture<u64>;

    /// Returns when numbers were added to the list and by whom, as far as that is known.
    fn opt_outs(&self, numbers: &[Phone]) -> impl LedgerFuture<Vec<Option<OptOut>>>;

    /// Returns the changes since version `known` (0 for none), if there are any.
    fn suppressed(&self, known: u64) -> impl LedgerFuture<Option<SuppressionUpdate>>;
}
