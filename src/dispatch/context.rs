//! The dependencies that all supervisors of a worker share.

use std::sync::Arc;

use parking_lot::RwLock;

use super::{Accounts, Events};
use crate::audience::Audiences;
use crate::ledger::{Suppressed, UnmovedStore};

/// The dependencies that all supervisors of a worker share.
#[derive(Clone)]
pub struct Context {
    /// The accounts that the worker can send from.
    pub accounts: Accounts,
    /// The sources that audiences are read from.
    pub audiences: Audiences,
    /// The destinations of events.
    pub events: Events,
    /// Whether the worker sends to a sandbox: with a sandbox it sends only rehearsals, without one it never sends any.
    pub rehearses: bool,
    /// A store on this machine besides the fleet's ledger. Its campaigns are not started again.
    pub unmoved: UnmovedStore,
    /// The numbers that must never be messaged.
    pub(super) suppressed: Arc<RwLock<Suppressed>>,
}

impl Context {
    /// Returns a context with an empty suppression list.
    pub fn new(accounts: Accounts, audiences: Audiences, events: Events, rehearses: bool) -> Self {
        Self {
            accounts,
            audiences,
            events,
            rehearses,
            unmoved: UnmovedStore::default(),
            suppressed: Arc::default(),
        }
    }
}
