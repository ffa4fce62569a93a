//! The engine: takes a job in, plans its batches, sends them, and goes on after any interruption.
//!
//! It alone puts the adapters together. The order of writes is its promise:
//!
//! 1. a batch is published before the plan's checkpoint passes it;
//! 2. messages are claimed before their request goes out;
//! 3. their outcomes are recorded after the answer;
//! 4. a batch is acknowledged after its outcomes are recorded.

mod account;
mod backoff;
mod error;
mod forecast;
mod gate;
mod intake;
mod planner;
mod planning;
mod run;
mod sender;
mod verdict;

pub use account::Account;
pub use error::DispatchError;
pub use forecast::{Forecast, forecast};
pub use intake::{Prepared, Refusal, prepare, register};
pub use planner::{Planned, Planner};
pub use run::{End, run};
