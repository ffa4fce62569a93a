//! flowcast.
pub mod audience;
pub mod campaign;
pub mod dispatch;
pub mod ledger;
pub mod limiter;
pub mod provider;
pub mod queue;
