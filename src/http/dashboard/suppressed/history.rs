//! The recent changes of the opt-out list. The audit log says who made a change and when, and names no number; the numbers come
//! from the list's own records, which exist as long as a number is on the list.

use std::collections::HashMap;

use super::super::super::problem::Problem;
use super::super::Dashboard;
use crate::campaign::Phone;
use crate::ledger::{AuditEntry, OptOut, OptOutSource, Suppression, SuppressionUpdate};

/// Number of recent changes that are searched for the numbers of the history.
const CHANGES: u64 = 200;
/// Maximum time between a change and its audit entry of an earlier version, in milliseconds.
const APART: u64 = 10_000;

/// Recent changes of the list.
#[derive(Default)]
pub(super) struct History {
    /// Added numbers that are still on the list, each with its record.
    added: Vec<(Phone, OptOut)>,
    /// Removed numbers that are not on the list again, the latest first.
    pub(super) removed: Vec<Phone>,
}

impl History {
    /// Reads the recent changes.
    pub(super) async fn read(dashboard: &Dashboard) -> Result<Self, Problem> {
        let backing = dashboard.api.backing()?;
        let (list, ledger) = (&backing.context, &backing.ledger);
        let version = list.suppressed_version();
        // Version 0 returns the whole list.
        let since = version.saturating_sub(CHANGES).max(1);
        let changes = match ledger.suppressed(since).await? {
            Some(SuppressionUpdate::Since { changes, .. }) => changes,
            Some(SuppressionUpdate::Whole(_)) | None => Vec::new(),
        };
        // Changes since version 1 omit the first change.
        let first = if version <= CHANGES { list.suppressed_from(0, CHANGES as usize) } else { Vec::new() };
        let first = first.into_iter().filter_map(Phone::from_digits);
        let mut numbers: Vec<Phone> = Vec::new();
        let mut removed = Vec::new();
        for (phone, is_listed) in changes.into_iter().rev().chain(first.map(|phone| (phone, true))) {
            match list.is_suppressed(phone) {
                true if !numbers.contains(&phone) => numbers.push(phone),
                false if !is_listed && !removed.contains(&phone) => removed.push(phone),
                _ => {}
            }
        }
        let records = ledger.opt_outs(&numbers).await?;
        let added = numbers.into_iter().zip(records).filter_map(|(phone, record)| Some((phone, record?)));
        Ok(Self { added: added.collect(), removed })
    }

    /// Returns the numbers that each audit entry added, by the entry's index.
    pub(super) fn added_by(&self, acts: &[&AuditEntry]) -> HashMap<usize, Vec<Phone>> {
        let mut numbers: HashMap<usize, Vec<Phone>> = HashMap::new();
        for (phone, record) in &self.added {
            let OptOutSource::Operator(who) = &record.source else { continue };
            // Both have the same time. Earlier versions wrote the entry after the change, with another clock.
            let apart = |act: &AuditEntry| act.at.as_millisecond().abs_diff(record.at);
            let order = |act: &AuditEntry| (apart(act) > 0, act.at.as_millisecond() < record.at, apart(act));
            let own = acts.iter().enumerate().filter(|(_, act)| act.who == *who && apart(act) <= APART);
            if let Some((nth, _)) = own.min_by_key(|(_, act)| order(act)) {
                numbers.entry(nth).or_default().push(*phone);
            }
        }
        numbers
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn numbers_belong_to_the_entry_with_their_time() {
        let act = |at: i64| {
            let at = Timestamp::from_millisecond(at).unwrap();
            AuditEntry { at, ..AuditEntry::new("asha", "suppress", None, "added 1 number") }
        };
        let phone = |number: &str| -> Phone { number.parse().unwrap() };
        let listed = |number: &str, at: i64, who: &str| {
            (phone(number), OptOut { at, source: OptOutSource::Operator(who.into()) })
        };
        let added = vec![
            listed("+919876500001", 50_000, "asha"),
            listed("+919876500002", 50_003, "asha"),
            // An earlier version wrote the entry later.
            listed("+919876500003", 39_990, "asha"),
            listed("+919876500004", 50_000, "ravi"),
        ];
        let history = History { added, removed: Vec::new() };
        let acts = [act(50_003), act(50_000), act(40_000)];
        let found = history.added_by(&acts.iter().collect::<Vec<_>>());
        assert_eq!(found[&0], [phone("+919876500002")]);
        assert_eq!(found[&1], [phone("+919876500001")]);
        assert_eq!(found[&2], [phone("+919876500003")]);
    }
}
