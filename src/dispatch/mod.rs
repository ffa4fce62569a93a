//! The engine: takes in jobs, plans their batches, sends them, and continues after any interruption.
//!
//! It is the only module that combines the adapters, and it never knows a provider by name. It guarantees the order of
//! writes:
//!
//! 1. a batch is published before the plan's checkpoint passes it;
//! 2. messages are claimed before their request goes out;
//! 3. outcomes are recorded after the response;
//! 4. a batch is acknowledged after its outcomes are recorded.

mod account;
mod after_response;
mod arrivals;
mod batch_run;
mod breaker;
mod context;
mod control;
mod document_order;
mod error;
mod events;
#[cfg(test)]
mod fixtures;
mod forecast;
mod in_flight;
mod intake;
mod jobs;
mod leader;
mod outcomes;
mod permit;
mod plan_pipeline;
mod planner;
mod progress;
mod recover;
mod replay;
mod request;
mod run;
mod schedule;
mod sender;
mod sender_pool;
mod sender_state;
mod sent_index;
mod status;
mod supervisor;
mod suppression_list;
mod worker;

use std::time::Duration;

use crate::backoff::Backoff;

pub use account::{Account, Accounts, OpenAccount};
pub use context::Context;
pub use control::{ControlOutcome, control};
pub use error::DispatchError;
pub use events::{Events, OfJob, Webhooks};
pub use forecast::{Forecast, forecast};
pub use intake::{LoadedJob, Refusal, prepare, register, scan_audience};
pub use jobs::{JOB_LIMIT, take_jobs};
pub use planner::{Planned, Planner};
pub use progress::LoopProgress;
pub use recover::{Recovered, may_have_been_sent, recover_campaign, recover_restored};
pub use run::{End, run};
pub use worker::{Registered, work};

/// Delays before messages whose request failed are sent again.
const RETRY: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
/// Failed attempts in a row after which a campaign is held.
const TRIES: u32 = 6;
