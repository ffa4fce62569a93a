//! The numbers that must never be messaged.

use roaring::RoaringTreemap;

use super::{LedgerError, Store};
use crate::campaign::{Phone, counted};

/// Whether numbers are put on the list, or taken off it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suppress {
    /// Put on it.
    Add,
    /// Taken off it.
    Remove,
}

impl Suppress {
    /// Returns what was done to `count` numbers, as the audit log has it.
    pub fn summary(self, count: u64) -> String {
        let numbers = counted(count, "number");
        match self {
            Self::Add => format!("added {numbers} to the opt-out list"),
            Self::Remove => format!("removed {numbers} from the opt-out list"),
        }
    }
}

/// Who put a number on the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptOutSource {
    /// The person, with a stop word.
    Reply,
    /// Whoever added or imported it, as the audit log has their name.
    Operator(String),
}

/// When a number was put on the list, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptOut {
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// By whom.
    pub source: OptOutSource,
}

impl OptOut {
    /// The text that ledgers keep: `<milliseconds> reply`, or `<milliseconds> operator <name>`.
    pub(super) fn text(&self) -> String {
        match &self.source {
            OptOutSource::Reply => format!("{} reply", self.at),
            OptOutSource::Operator(name) => format!("{} operator {name}", self.at),
        }
    }

    /// The same, read.
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

/// The list, as a worker holds it once.
#[derive(Clone, Debug, Default)]
pub struct Suppressed {
    /// Grows with each change.
    pub version: u64,
    /// Their digits.
    pub numbers: RoaringTreemap,
}

/// What has become of the list since a version.
#[derive(Clone, Debug)]
pub enum SuppressionUpdate {
    /// The whole list.
    Whole(Suppressed),
    /// What was added and removed since, in order, and the version with it.
    Since {
        /// The list's version by now.
        version: u64,
        /// Numbers, and whether they are on the list from then on.
        changes: Vec<(Phone, bool)>,
    },
}

impl SuppressionUpdate {
    /// The list's version by now.
    pub fn version(&self) -> u64 {
        match self {
            Self::Whole(list) => list.version,
            Self::Since { version, .. } => *version,
        }
    }
}

impl Suppressed {
    /// Whether a person is on it, in whatever spelling.
    pub fn contains(&self, phone: Phone) -> bool {
        phone.spellings().any(|phone| self.numbers.contains(phone.digits()))
    }

    /// Takes an update over.
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

/// How many changes are remembered one by one. Who is further behind reads the whole list.
pub(super) const REMEMBERED: usize = 10_000;

/// The list of all workers. All writes are atomic and durable when they return.
pub trait Suppression: Store {
    /// Changes the list, and remembers of numbers that are added who did so, where that is told. Returns how many numbers were
    /// changed.
    fn suppress(
        &self,
        numbers: Vec<Phone>,
        how: Suppress,
        source: Option<OptOutSource>,
    ) -> impl Future<Output = Result<u64, LedgerError>> + Send;

    /// When numbers of the list were put on it, and by whom, as far as that is known.
    fn opt_outs(
        &self,
        numbers: &[Phone],
    ) -> impl Future<Output = Result<Vec<Option<OptOut>>, LedgerError>> + Send;

    /// What has become of the list since version `known` (0 for none), if it has changed.
    fn suppressed(
        &self,
        known: u64,
    ) -> impl Future<Output = Result<Option<SuppressionUpdate>, LedgerError>> + Send;
}
