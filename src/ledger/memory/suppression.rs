//! The suppression list in memory.

use super::Memory;
use crate::campaign::Phone;
use crate::ledger::suppression::MAX_CHANGES;
use crate::ledger::{LedgerError, OptOut, Suppress, Suppressed, Suppression, SuppressionUpdate};

impl Suppression for Memory {
    async fn suppress(
        &self,
        numbers: Vec<Phone>,
        how: Suppress,
        added: Option<OptOut>,
    ) -> Result<u64, LedgerError> {
        let mut state = self.state.lock();
        let before = state.changes.len();
        for phone in numbers {
            let is_listed = how == Suppress::Add;
            let changed = match how {
                Suppress::Add => state.suppressed.insert(phone.digits()),
                Suppress::Remove => state.suppressed.remove(phone.digits()),
            };
            if changed {
                match added.clone().filter(|_| is_listed) {
                    Some(added) => state.opt_outs.insert(phone.digits(), added),
                    None if is_listed => None,
                    None => state.opt_outs.remove(&phone.digits()),
                };
                state.changes.push((phone, is_listed));
            }
        }
        Ok((state.changes.len() - before) as u64)
    }

    async fn opt_outs(&self, numbers: &[Phone]) -> Result<Vec<Option<OptOut>>, LedgerError> {
        let state = self.state.lock();
        Ok(numbers.iter().map(|phone| state.opt_outs.get(&phone.digits()).cloned()).collect())
    }

    async fn suppressed(&self, known: u64) -> Result<Option<SuppressionUpdate>, LedgerError> {
        let state = self.state.lock();
        let version = state.changes.len() as u64;
        if version == known {
            return Ok(None);
        }
        let since = usize::try_from(known).unwrap_or(usize::MAX);
        Ok(Some(match state.changes.get(since..) {
            Some(changes) if known > 0 && changes.len() <= MAX_CHANGES => {
                SuppressionUpdate::Since { version, changes: changes.to_vec() }
            }
            _ => SuppressionUpdate::Whole(Suppressed { version, numbers: state.suppressed.clone() }),
        }))
    }
}
