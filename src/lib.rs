//! flowcast dispatches `WhatsApp` campaigns in bulk. A message is never silently lost, and never sent
//! twice by us.
//!
//! The house, from the ground up; arrows point down only (`tests/it/architecture.rs` holds them):
//!
//! - [`campaign`] is the domain: jobs, content, templates, batches, states. Pure: no I/O, no clock.
//! - [`audience`] reads where recipients come from, and says why a row is none.
//! - [`provider`] builds requests and says what an answer proves. One file a provider.
//! - [`limiter`] holds the token buckets that delay a send.
//! - [`queue`] carries batches from the planner to the senders.
//! - [`ledger`] keeps what became of every message.
//! - [`dispatch`] is the engine, and alone puts the five adapters above together: intake, planner,
//!   senders. Start reading at [`dispatch::run`].
//! - [`callbacks`] takes in what providers report of messages later.
//! - [`views`] is what people and systems are shown: status, report, answers, checks, codes.
//! - [`sandbox`] is a provider to try things on. It knows the domain at most.
//! - [`traces`] tells the way of a job by OTLP, where an endpoint is configured.
//! - `backoff` has the delays between retries, `micro_batch` handles together what many tasks ask for at the same time.
//! - `routing` is what the servers hand their handlers to.
//! - `runtime` is where the engine takes time and chance from, so that a simulation can hand in its own.
//! - [`config`] and [`telemetry`] serve the command line in [`cli`], which has one file a command.

pub mod audience;
mod backoff;
pub mod callbacks;
pub mod campaign;
pub mod cli;
pub mod config;
mod connection_slot;
pub mod dispatch;
mod egress;
pub mod forward;
pub mod http;
pub mod ledger;
pub mod limiter;
mod micro_batch;
pub mod provider;
pub mod queue;
pub mod redis_client;
mod routing;
mod runtime;
pub mod sandbox;
#[cfg(test)]
mod simulation;
pub mod telemetry;
pub mod traces;
pub mod views;
