//! Tests from outside: the seams' suites, exact requests, and the real binary over real sockets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that can not go on fails"
)]
#![allow(unreachable_pub, reason = "one crate, and nothing of it is reached from outside")]

mod api;
mod architecture;
mod audiences;
mod bad_input;
mod breakers;
mod broker_cluster;
mod browser;
mod callbacks;
mod campaign;
mod chaos;
mod clients;
mod clocks;
mod connections;
mod container;
mod dashboard;
mod deploy;
mod documents;
mod elsewhere;
mod explain;
mod failover;
mod faults;
mod fleet;
mod forward;
mod full_disks;
mod fuzz;
mod health;
mod hostile_jobs;
mod jinja;
mod jobs;
mod ledger;
mod lessons;
mod limit_models;
mod line;
mod many;
mod marketers;
mod mixed_faults;
mod new_campaign;
mod page_texts;
mod pages;
mod phone_numbers;
mod power_loss;
mod provider_answers;
mod queue;
mod rabbitmq;
mod redis_ledger;
mod reference;
mod reloading;
mod requests;
mod results;
mod rights;
mod sandbox;
mod schemas;
mod servers;
mod service;
mod shared_limits;
mod single_answers;
mod soak;
mod state_models;
mod support;
mod template_memory;
mod tls;
mod tools;
mod traces;
mod unmoved;
mod upgrade;
