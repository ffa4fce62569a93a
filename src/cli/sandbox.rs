//! `flowcast sandbox`: a simulated provider for testing.

use std::net::{Ipv4Addr, SocketAddr};
use std::{process::ExitCode, time::Duration};

use clap::Args;
use serde_json::json;
use url::Url;

use super::{Failure, Outcome, print, whole_number, write_line};
use crate::campaign::Rate;
use crate::sandbox::{self, Behaviour, Reporting};

/// Start a simulated provider for testing.
#[derive(Args)]
pub(super) struct Sandbox {
    /// Address to listen on; port 0 picks a free port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8025", value_parser = address)]
    listen: SocketAddr,
    #[command(flatten)]
    faults: Faults,
    #[command(flatten)]
    reports: Reports,
}

/// The faults of a sandbox.
#[derive(Default, PartialEq, Args)]
#[command(next_help_heading = "Sandbox faults")]
pub(super) struct Faults {
    /// Response time, e.g. 50ms or 2s
    #[arg(long, value_name = "TIME", value_parser = time)]
    latency: Option<Duration>,
    /// Share of messages to accept, e.g. 0.95 or 95%
    #[arg(long, value_name = "SHARE", value_parser = share)]
    accept_rate: Option<f64>,
    /// Share of requests that get 500 or 503
    #[arg(long, value_name = "SHARE", value_parser = share)]
    error_rate: Option<f64>,
    /// Share of requests that are accepted, but whose response is cut off
    #[arg(long, value_name = "SHARE", value_parser = share)]
    cut_rate: Option<f64>,
    /// Provider's code, and the share of requests or messages that get it, e.g. E110=5% or 131026=0.1; entry:503=1%
    /// fails single messages of Exotel requests; a provider that lacks a code ignores it; repeatable
    #[arg(long, value_name = "CODE=SHARE", value_parser = fault)]
    fault: Vec<(String, f64)>,
    /// Rate limit of requests, e.g. 200/min; above it requests get 429
    #[arg(long, value_name = "RATE")]
    rate_limit: Option<Rate>,
    /// Seed for the random number generator
    #[arg(long, value_name = "N", value_parser = whole_number::<u64>)]
    seed: Option<u64>,
}

/// The delivery reports of a sandbox.
#[derive(Args)]
#[command(next_help_heading = "Sandbox reports")]
pub(super) struct Reports {
    /// URL for reports of messages without a URL of their own, e.g. of Kaleyra and Meta
    #[arg(long = "callback-url", value_name = "URL")]
    url: Option<String>,
    /// URL that gets the replies, like the sender number's webhook at the provider
    #[arg(long = "callback-number-url", value_name = "URL")]
    number_url: Option<String>,
    /// Maximum delay of reports, e.g. 50ms or 2s
    #[arg(long = "callback-delay", value_name = "TIME", value_parser = time)]
    delay: Option<Duration>,
    /// Share of messages whose reports arrive out of order
    #[arg(long = "callback-shuffle", value_name = "SHARE", value_parser = share)]
    shuffle: Option<f64>,
    /// Share of reports that arrive twice
    #[arg(long = "callback-repeat", value_name = "SHARE", value_parser = share)]
    repeat: Option<f64>,
    /// Share of reports that never arrive
    #[arg(long = "callback-lose", value_name = "SHARE", value_parser = share)]
    lose: Option<f64>,
    /// Share of messages that cannot be delivered
    #[arg(long = "callback-fail", value_name = "SHARE", value_parser = share)]
    fail: Option<f64>,
    /// Share of delivered messages that are read
    #[arg(long = "callback-read", value_name = "SHARE", value_parser = share)]
    read: Option<f64>,
    /// Share of read messages that get a reply
    #[arg(long = "callback-reply", value_name = "SHARE", value_parser = share)]
    reply: Option<f64>,
}

impl Reports {
    fn reporting(&self) -> Reporting {
        Reporting {
            url: self.url.clone(),
            number_url: self.number_url.clone(),
            delay: self.delay.unwrap_or_default(),
            shuffle: self.shuffle.unwrap_or_default(),
            repeat: self.repeat.unwrap_or_default(),
            lose: self.lose.unwrap_or_default(),
            fail: self.fail.unwrap_or_default(),
            read: self.read.unwrap_or_default(),
            reply: self.reply.unwrap_or_default(),
        }
    }
}

impl Faults {
    /// Returns whether any fault was requested.
    pub(super) fn any(&self) -> bool {
        *self != Self::default()
    }

    pub(super) fn behaviour(&self, remember: bool) -> Behaviour {
        let usual = Behaviour::default();
        Behaviour {
            latency: self.latency.unwrap_or(usual.latency),
            accept_rate: self.accept_rate.unwrap_or(usual.accept_rate),
            error_rate: self.error_rate.unwrap_or(usual.error_rate),
            cut_rate: self.cut_rate.unwrap_or(usual.cut_rate),
            faults: self.fault.iter().cloned().collect(),
            reporting: Reporting::default(),
            rate_limit: self.rate_limit,
            seed: self.seed.unwrap_or(usual.seed),
            remember,
        }
    }
}

/// Starts a sandbox inside the process that sends to it.
///
/// It keeps no record of requests: the record would grow with the audiences, and nothing reads it.
pub(super) async fn start_in_process(
    faults: &Faults,
    reporting: Reporting,
) -> Result<(sandbox::Sandbox, Url), Failure> {
    let behaviour = Behaviour { reporting, ..faults.behaviour(false) };
    let started = sandbox::Sandbox::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), behaviour).await;
    let sandbox = started.map_err(|fault| Failure::Outside(format!("cannot start the sandbox: {fault}")))?;
    let address = format!("http://{}", sandbox.address).parse();
    let address =
        address.map_err(|fault| Failure::Outside(format!("invalid address of the sandbox: {fault}")))?;
    Ok((sandbox, address))
}

pub(super) async fn main(sandbox: Sandbox, json: bool) -> Outcome {
    let listen = sandbox.listen;
    let behaviour = Behaviour { reporting: sandbox.reports.reporting(), ..sandbox.faults.behaviour(true) };
    let started = sandbox::Sandbox::start(listen, behaviour).await;
    let sandbox = started.map_err(|fault| Failure::Outside(format!("cannot listen on {listen}: {fault}")))?;
    let address = sandbox.address;
    print(&if json {
        format!("{}\n", json!({ "listen": address.to_string(), "base_url": format!("http://{address}") }))
    } else {
        format!(
            "sandbox listening on http://{address}\n\
             in flowcast.toml, set base_url = \"http://{address}\" for an account\n\
             GET /stats returns the counts, GET /messages the accepted messages; PUT /faults sets the faults\n"
        )
    })?;
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
    write_line(&sandbox.stats().to_string());
    Ok(ExitCode::SUCCESS)
}

fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "write an IP address and a port, e.g. 127.0.0.1:8025")
}

/// Parses `50ms`, `2s`, or a number of milliseconds.
fn time(text: &str) -> Result<Duration, String> {
    let number =
        |digits: &str| digits.trim().parse::<f64>().ok().filter(|number| (0.0..1e9).contains(number));
    let milliseconds = if let Some(digits) = text.strip_suffix("ms") {
        number(digits)
    } else if let Some(digits) = text.strip_suffix('s') {
        number(digits).map(|seconds| seconds * 1000.0)
    } else {
        number(text)
    };
    let milliseconds = milliseconds.ok_or("write a time, e.g. 50ms or 2s")?;
    Ok(Duration::from_secs_f64(milliseconds / 1000.0))
}

/// Parses `0.95`, `95%` or `95`: a number above 1 is a percentage.
fn share(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>();
    number
        .ok()
        .map(|number| if text.ends_with('%') || number > 1.0 { number / 100.0 } else { number })
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "write a share as a number from 0 to 1 or a percentage, e.g. 0.95, 95% or 95".into())
}

/// Parses `E110=5%`.
fn fault(text: &str) -> Result<(String, f64), String> {
    let (code, part) = text.rsplit_once('=').ok_or("write a fault as CODE=SHARE, e.g. E110=5%")?;
    if !sandbox::has_error(code) {
        return Err(format!("unknown code {code:?}: no provider has it; flowcast explain lists the codes"));
    }
    Ok((code.to_owned(), share(part)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_shares_and_faults_are_parsed() {
        assert_eq!(time("50ms"), Ok(Duration::from_millis(50)));
        assert_eq!(time("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(time("20"), Ok(Duration::from_millis(20)));
        assert!(time("soon").is_err() && time("-1s").is_err());
        assert_eq!((share("0.9"), share("90%"), share("1")), (Ok(0.9), Ok(0.9), Ok(1.0)));
        assert_eq!((share("90"), share("0.5%")), (Ok(0.9), Ok(0.005)));
        assert_eq!(fault("E110=5%"), Ok(("E110".into(), 0.05)));
        assert_eq!(fault("entry:503=1"), Ok(("entry:503".into(), 1.0)));
        assert!(fault("E110").is_err() && fault("E111=5%").is_err() && fault("E110=5x").is_err());
        assert!(share("101").is_err() && share("-0.1").is_err() && share("x").is_err());
    }
}
