//! A worker's copy of the suppression list: the numbers that are never messaged.

use super::{Context, DispatchError};
use crate::campaign::Phone;
use crate::ledger::{Ledger, Suppress};
use crate::runtime;

impl Context {
    /// Updates the suppression list from the ledger.
    ///
    /// # Errors
    ///
    /// Returns the ledger's error.
    pub async fn follow_suppressed(&self, ledger: &impl Ledger) -> Result<(), DispatchError> {
        let known = self.suppressed.read().version;
        if let Some(update) = ledger.suppressed(known).await? {
            if update.version() < known {
                return self.restore_suppressed(ledger).await;
            }
            let mut list = self.suppressed.write();
            // A concurrent call may have applied a later update.
            if list.version == known {
                list.apply(update);
            }
        }
        Ok(())
    }

    /// Writes the list back to a ledger that lost some or all of it.
    ///
    /// The ledger lost recent writes or was emptied. A recipient who opted out must not get another message, even then.
    async fn restore_suppressed(&self, ledger: &impl Ledger) -> Result<(), DispatchError> {
        let known: Vec<Phone> = {
            let list = self.suppressed.read();
            list.numbers.iter().filter_map(Phone::from_digits).collect()
        };
        let again = ledger.suppress(known, Suppress::Add, None).await?;
        tracing::warn!(numbers = again, "the ledger had lost suppressed numbers; they were written again");
        if let Some(whole) = ledger.suppressed(0).await? {
            self.suppressed.write().apply(whole);
        }
        Ok(())
    }

    /// Returns up to `count` suppressed numbers from `first` on, in ascending order.
    pub fn suppressed_from(&self, first: u64, count: usize) -> Vec<u64> {
        let list = self.suppressed.read();
        let mut numbers = list.numbers.iter();
        numbers.advance_to(first);
        numbers.take(count).collect()
    }

    /// Returns the version of the list of suppressed numbers.
    pub fn suppressed_version(&self) -> u64 {
        self.suppressed.read().version
    }

    /// Returns whether a number is on the list, in any spelling.
    pub fn is_suppressed(&self, phone: Phone) -> bool {
        self.suppressed.read().contains(phone)
    }

    /// Returns up to `count` suppressed numbers that contain `digits`, in ascending order.
    ///
    /// It scans the whole list, which takes long: on a blocking thread, and on a copy so that it does not hold the lock.
    pub async fn suppressed_with(&self, digits: String, count: usize) -> Vec<u64> {
        let numbers = self.suppressed.read().numbers.clone();
        let search = move || {
            let has_them = |number: &u64| number.to_string().contains(&digits);
            numbers.iter().filter(has_them).take(count).collect()
        };
        runtime::blocking(search).await.unwrap_or_default()
    }
}
