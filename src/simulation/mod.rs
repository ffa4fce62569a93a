//! Runs the engine in a simulated world: a ledger in memory behind a bad network, a broker that loses and duplicates batches,
//! a provider that gives every response, workers that crash and freeze, operators, and a clock that jumps ahead when all
//! tasks wait. A seed always gives the same run.
//!
//! `network.rs` checks the invariants during a run, `check.rs` those at its end. The tests run the seeds of the commit and
//! those that once failed; `just simulate SEEDS` runs many more; `FLOWCAST_SIMULATE_ONE=N` prints the events of one.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a failed simulation panics and prints its events"
)]

mod broker;
mod check;
mod ledger;
mod network;
mod node;
mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::campaign::Phone;
use crate::runtime::{chance, simulated};
use parking_lot::{Mutex, MutexGuard};

/// A rule that is broken on purpose, to verify that the simulation detects it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    /// A record is written without comparing its revision.
    VersionCheck,
    /// A claim is written after its request.
    ClaimBeforeRequest,
    /// A request goes out even if its claim is too old.
    Gate,
    /// Messages of an expired claim are sent again.
    ExpiredIsInDoubt,
    /// A request that may have gone out counts as not sent.
    UnknownIsInDoubt,
    /// Lost batches are not detected.
    LostBatches,
}

impl Broken {
    const ALL: [Self; 6] = [
        Self::VersionCheck,
        Self::ClaimBeforeRequest,
        Self::Gate,
        Self::ExpiredIsInDoubt,
        Self::UnknownIsInDoubt,
        Self::LostBatches,
    ];
}

/// The faults of a run. Each seed has a random part of them, because some hide the effects of others.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each fault is on or off")]
struct Faults {
    crashes: bool,
    freezes: bool,
    /// The network to the ledger is sometimes slow.
    is_slow: bool,
    /// The network loses commands and replies, which are repeated.
    loses: bool,
    /// The broker loses, duplicates and reorders batches, and redelivers those in flight.
    broker: bool,
    /// The provider refuses, limits and fails requests.
    provider: bool,
    /// Requests are cut off and responses are lost.
    cuts: bool,
    /// Operators change campaigns.
    people: bool,
    /// Largest clock skew of a worker, in milliseconds; the clocks jump.
    drift: i64,
    broken: Option<Broken>,
}

impl Faults {
    fn by_chance(broken: Option<Broken>) -> Self {
        let is_on = || chance() < 0.5;
        Self {
            crashes: is_on(),
            freezes: is_on(),
            is_slow: is_on(),
            loses: is_on(),
            broker: is_on(),
            provider: is_on(),
            cuts: is_on(),
            people: is_on(),
            drift: if is_on() { (chance() * 3_600_000.0) as i64 } else { 0 },
            broken,
        }
    }
}

/// The state that all parts of a run share.
struct World {
    faults: Faults,
    state: Mutex<Seen>,
    /// Whether events are printed.
    logs: bool,
}

/// The observations of a run.
#[derive(Default)]
struct Seen {
    /// Whether all faults have ended.
    is_calm: bool,
    /// Number of messages that the provider accepted, by recipient.
    taken: BTreeMap<Phone, u32>,
    /// Number of duplicates that an operator or the job allowed, by recipient.
    allowed: BTreeMap<Phone, u32>,
    /// Recipients of requests whose outcome could not be known.
    unknown: BTreeSet<Phone>,
    /// The first violated invariant.
    wrong: Option<String>,
    /// When each request reached the provider, in milliseconds, and its number of messages.
    sent: Vec<(i64, usize)>,
}

impl World {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.state.lock()
    }

    fn is_calm(&self) -> bool {
        self.seen().is_calm
    }

    /// Returns whether a fault of a kind happens now.
    fn goes_wrong(&self, kind: bool, share: f64) -> bool {
        kind && !self.is_calm() && chance() < share
    }

    /// Prints an event, if events are printed.
    fn log(&self, what: impl FnOnce() -> String) {
        if self.logs {
            let at = simulated::true_time().unwrap_or_default() - simulated::EPOCH;
            eprintln!("{:>9.3} {}", at as f64 / 1000.0, what());
        }
    }
}

/// Runs seeds on all processors. Stops at the first that fails.
fn run_all(seeds: &[u64]) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let failed = Arc::new(Mutex::new(None::<(u64, String)>));
    std::thread::scope(|scope| {
        for nth in 0..threads {
            let failed = failed.clone();
            scope.spawn(move || {
                for &seed in seeds.iter().skip(nth as usize).step_by(threads as usize) {
                    if failed.lock().is_some() {
                        return;
                    }
                    if let Err(why) = run::run(seed, None, false) {
                        failed.lock().get_or_insert((seed, why));
                    }
                }
            });
        }
    });
    if let Some((seed, why)) = failed.lock().take() {
        let _ = run::run(seed, None, true);
        panic!("seed {seed} (FLOWCAST_SIMULATE_ONE={seed} prints its events): {why}");
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn every_message_is_sent_at_most_once_and_none_is_lost() {
    if let Some(seed) = number("FLOWCAST_SIMULATE_ONE") {
        // With the engine's own logs.
        let _ = tracing_subscriber::fmt().with_writer(std::io::stderr).without_time().try_init();
        run::run(seed, None, true).unwrap();
        return;
    }
    run_all(&FAILED_SEEDS);
    let count = number("FLOWCAST_SIMULATE").unwrap_or(SEEDS);
    let first = number("FLOWCAST_SIMULATE_FROM").unwrap_or_else(first_seed_of_commit);
    eprintln!("seeds {first} to {}", first + count - 1);
    run_all(&(first..first + count).collect::<Vec<_>>());
}

/// Number of seeds for each change.
const SEEDS: u64 = 2_000;

/// Seeds that once failed. Their causes are fixed; a regression fails again as long as the seeds give the same runs.
const FAILED_SEEDS: [u64; 6] =
    [10_237, 109_431, 423_398, 2_920_884_765_957, 1_439_306_553_534, 950_498_006_908];

/// Returns the first seed of the current commit, so that each commit explores other seeds.
///
/// Without git, e.g. in a source archive, it is zero.
fn first_seed_of_commit() -> u64 {
    let mut git = std::process::Command::new("git");
    git.args(["rev-parse", "HEAD"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let commit = git.output().ok().filter(|output| output.status.success());
    let commit = commit.and_then(|output| String::from_utf8(output.stdout).ok());
    commit.and_then(|commit| u64::from_str_radix(commit.get(..8)?, 16).ok()).map_or(0, |start| start * SEEDS)
}

#[test]
fn a_seed_always_gives_the_same_run() {
    for seed in 0..20 {
        let (one, again) = (run::run(seed, None, false), run::run(seed, None, false));
        assert_eq!(one, again, "seed {seed}");
    }
}

#[test]
fn every_broken_rule_is_detected() {
    for broken in Broken::ALL {
        let found = (0..2_000).find(|seed| run::run(*seed, Some(broken), false).is_err());
        let seed = found.unwrap_or_else(|| panic!("no seed detects that {broken:?} is broken"));
        let why = run::run(seed, Some(broken), false).unwrap_err();
        eprintln!("{broken:?}: detected by seed {seed}: {}", why.lines().next().unwrap_or_default());
    }
}
