//! The engine in a world of its own: the ledger in memory behind a bad network, a broker that loses and doubles, a
//! provider that gives every answer, workers that crash and freeze, people who change their minds, and a clock that
//! jumps ahead whenever everybody waits. One seed is one run, the same each time.
//!
//! `network.rs` checks what holds on the way, `check.rs` what holds at the end. The tests run the seeds of the commit and
//! those that failed before; `just simulate SEEDS` runs many more; `FLOWCAST_SIMULATE_ONE=N` prints the story of one.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a simulation that fails says so"
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

/// A rule that is broken on purpose, to see that the simulation finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    /// A record is written whatever revision it was made from.
    VersionCheck,
    /// A claim is written after its request went out.
    ClaimBeforeRequest,
    /// A request goes out however old its claim is.
    Gate,
    /// What a claim that ran out was sending is sent again.
    ExpiredIsInDoubt,
    /// A request that may have gone out counts as one that did not.
    UnknownIsInDoubt,
    /// Batches that the broker has lost are not missed.
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

/// What goes wrong in a run. Each seed has some of it: what all of it together hides is found by a part.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each of them is there or not")]
struct Faults {
    crashes: bool,
    freezes: bool,
    /// The network to the ledger is slow now and then.
    is_slow: bool,
    /// It loses questions and answers, which are asked again.
    loses: bool,
    /// The broker loses, doubles and reorders batches, and forgets who holds them.
    broker: bool,
    /// The provider refuses, limits and breaks.
    provider: bool,
    /// Requests are cut off and answers are lost.
    cuts: bool,
    people: bool,
    /// By how many milliseconds at the most the workers' clocks are off; they jump in between.
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

/// What everybody in a run shares.
struct World {
    faults: Faults,
    state: Mutex<Seen>,
    /// Whether the story is told as it happens.
    tells: bool,
}

/// What is seen from outside of all of them.
#[derive(Default)]
struct Seen {
    /// From now on nothing goes wrong any more.
    is_calm: bool,
    /// How often the provider took a message to each recipient.
    taken: BTreeMap<Phone, u32>,
    /// Whom a person, or the job, has allowed to get it once more.
    allowed: BTreeMap<Phone, u32>,
    /// Whose request had an outcome that nobody could know.
    unknown: BTreeSet<Phone>,
    /// What should never have happened.
    wrong: Option<String>,
    /// When requests reached the provider, in milliseconds, and with how many messages.
    sent: Vec<(i64, usize)>,
}

impl World {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.state.lock()
    }

    fn is_calm(&self) -> bool {
        self.seen().is_calm
    }

    /// Whether something of a kind goes wrong now.
    fn goes_wrong(&self, kind: bool, share: f64) -> bool {
        kind && !self.is_calm() && chance() < share
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if self.tells {
            let at = simulated::true_time().unwrap_or_default() - simulated::EPOCH;
            eprintln!("{:>9.3} {}", at as f64 / 1000.0, what());
        }
    }
}

/// Runs seeds on all processors; ends with the first that fails.
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
        panic!("seed {seed} (FLOWCAST_SIMULATE_ONE={seed} tells its story): {why}");
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn nobody_is_sent_to_twice_or_lost_whatever_happens() {
    if let Some(seed) = number("FLOWCAST_SIMULATE_ONE") {
        // What the engine says of itself belongs to the story.
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

/// How many seeds are run for each change.
const SEEDS: u64 = 2_000;

/// Seeds that once failed. What they found is mended; a change that brings it back is seen at once, as long as the
/// simulation still plays them alike.
const FAILED_SEEDS: [u64; 6] =
    [10_237, 109_431, 423_398, 2_920_884_765_957, 1_439_306_553_534, 950_498_006_908];

/// Returns the first seed of the commit that is checked out: each commit explores seeds of its own, and the same commit
/// always the same. Without git, as in a source archive, all start at zero.
fn first_seed_of_commit() -> u64 {
    let mut git = std::process::Command::new("git");
    git.args(["rev-parse", "HEAD"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let commit = git.output().ok().filter(|output| output.status.success());
    let commit = commit.and_then(|output| String::from_utf8(output.stdout).ok());
    commit.and_then(|commit| u64::from_str_radix(commit.get(..8)?, 16).ok()).map_or(0, |start| start * SEEDS)
}

#[test]
fn one_seed_is_one_run() {
    for seed in 0..20 {
        let (one, again) = (run::run(seed, None, false), run::run(seed, None, false));
        assert_eq!(one, again, "seed {seed}");
    }
}

#[test]
fn each_rule_that_is_broken_is_found() {
    for broken in Broken::ALL {
        let found = (0..2_000).find(|seed| run::run(*seed, Some(broken), false).is_err());
        let seed = found.unwrap_or_else(|| panic!("nobody notices that {broken:?} is broken"));
        let why = run::run(seed, Some(broken), false).unwrap_err();
        eprintln!("{broken:?}: found by seed {seed}: {}", why.lines().next().unwrap_or_default());
    }
}
