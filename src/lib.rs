//! flowcast dispatches `WhatsApp` campaigns in bulk. A message is never silently lost, and flowcast never sends one twice.
//!
//! Start reading at [`dispatch::work`], which does a worker's work for all campaigns; its supervisor works on one campaign,
//! and its sender on one batch. [`dispatch::run`] is the same engine for a single campaign on one machine.
//! `docs/architecture.md` explains the design.
//!
//! This is the map, from the bottom up. A module only uses modules above it in this list, and
//! `tests/it/architecture.rs` has the exact rules.
//!
//! The domain: [`campaign`] has jobs, content, templates, batches and states. It is pure: no I/O, no async, no clock.
//!
//! Building blocks:
//!
//! - `egress` decides which addresses flowcast may connect to because a job names them.
//! - `backoff` has the delays between retries, with jitter; `micro_batch` handles together what many tasks ask for at once.
//! - `shared_connection` is a connection that many tasks share, opened once for all and again after a failure.
//! - [`redis_client`] is a Redis server, cluster or sentinel setup, with scripts, reconnection, retries and replicas.
//! - `routing` puts the handlers of routes behind one type, which makes builds faster.
//! - `runtime` is the source of randomness and of blocking threads, so that a simulation can replace them.
//! - [`telemetry`] writes logs, and [`traces`] exports spans by OTLP if an endpoint is configured.
//!
//! Adapters, which do not know each other:
//!
//! - [`audience`] reads recipients from files, object stores and lists, and says why a row is not a recipient.
//! - [`provider`] builds requests and says what a response proves, with one file per provider. Its `transport` sends them.
//! - [`limiter`] has the token buckets that delay a send, in the process or shared by all workers.
//! - [`queue`] carries batches from the planner to the senders, in memory or on `RabbitMQ`.
//! - [`ledger`] records the state of every message, in a store (`SQLite`), in Redis or in memory.
//!
//! The engine and what surrounds it:
//!
//! - [`config`] reads the configuration.
//! - [`forward`] forwards reports and events to the URLs of jobs and webhooks, signed and with retries.
//! - [`dispatch`] is the engine, and the only module that combines the five adapters: intake, planner, senders, supervisor.
//! - [`callbacks`] receives delivery reports and replies from providers, and records them in the ledger.
//! - [`views`] builds what people and other systems see: status, report, replies, checks, codes.
//! - [`http`] serves the API, the dashboard, and a worker's health and metrics.
//! - [`sandbox`] is a simulated provider for testing. It uses only the domain, so that it checks requests by the
//!   providers' documents and not by what flowcast sends.
//! - `simulation` runs the engine against simulated servers, providers and people, with a seed. It exists only in tests.
//! - [`cli`] is the command line, with one file per command.

pub mod audience;
mod backoff;
pub mod callbacks;
pub mod campaign;
pub mod cli;
pub mod config;
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
mod shared_connection;
#[cfg(test)]
mod simulation;
pub mod telemetry;
pub mod traces;
pub mod views;
