//! Hostile bytes: the targets of `fuzz/`, on their corpus and on mutations of it. A fuzzer finds more; these tests keep what
//! it found and run wherever the other tests do.

use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

#[path = "../../fuzz/targets.rs"]
mod targets;

/// Mutated inputs for each target.
const INPUTS: usize = 2_000;
/// Maximum time for one input: longer is a hang, even on the slowest machine.
const MAX_TIME: Duration = Duration::from_secs(5);

/// Returns the corpus of a target.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Mutates single bytes and ranges, and inserts tokens and parts of another input.
fn mutate(bytes: &mut Vec<u8>, others: &[Vec<u8>], rng: &mut SmallRng) {
    const TOKENS: [&[u8]; 12] = [
        b"{",
        b"}",
        b"[",
        b"\"",
        b"\\u0000",
        b"9999999999999999999",
        b"-1",
        b"\xff\xfe",
        b"\0",
        b"{{",
        b"\n",
        b",",
    ];
    for _ in 0..rng.random_range(1..6) {
        let at = rng.random_range(0..=bytes.len());
        let to = (at + rng.random_range(0..20)).min(bytes.len());
        match rng.random_range(0..6) {
            0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << rng.random_range(0..8)),
            1 => drop(bytes.drain(at..to)),
            2 => drop(bytes.splice(at..at, TOKENS[rng.random_range(0..TOKENS.len())].iter().copied())),
            3 => {
                let copy = bytes[at..to].to_vec();
                drop(bytes.splice(at..at, copy));
            }
            4 => {
                let other = &others[rng.random_range(0..others.len())];
                let from = rng.random_range(0..=other.len());
                drop(bytes.splice(at..to, other[from..(from + 30).min(other.len())].iter().copied()));
            }
            _ => bytes.truncate(at),
        }
    }
}

fn run(name: &str) {
    let (_, target) = targets::TARGETS.iter().find(|(known, _)| *known == name).unwrap();
    let (seeds, folder) = (corpus(name), tempfile::tempdir().unwrap());
    assert!(seeds.len() >= 3, "{name} must have a corpus");
    let (mut rng, mut count) = (SmallRng::seed_from_u64(7), 0);
    let all: Vec<Vec<u8>> = [vec![Vec::new()], seeds].concat();
    while count < all.len() + INPUTS {
        let mut bytes = all[count % all.len()].clone();
        if count >= all.len() {
            mutate(&mut bytes, &all, &mut rng);
        }
        count += 1;
        let started = Instant::now();
        let ended = std::panic::catch_unwind(|| target(&bytes, folder.path()));
        let shown = String::from_utf8_lossy(&bytes);
        assert!(ended.is_ok(), "{name} must not panic, input {count}: {shown:?} {bytes:?}");
        assert!(
            started.elapsed() < MAX_TIME,
            "{name} must not hang, but took {:?}: {shown:?} {bytes:?}",
            started.elapsed()
        );
    }
    eprintln!("{name}: {count} inputs");
}

#[test]
fn hostile_jobs_cause_no_panic_or_hang() {
    run("jobs");
}

#[test]
fn hostile_csv_causes_no_panic_or_hang() {
    run("csv");
}

#[test]
fn hostile_workbooks_cause_no_panic_or_hang() {
    run("workbooks");
}

#[test]
fn hostile_templates_cause_no_panic_or_hang() {
    run("templates");
}

#[test]
fn hostile_responses_cause_no_panic_or_hang() {
    run("answers");
}

#[test]
fn hostile_callbacks_cause_no_panic_or_hang() {
    run("callbacks");
}

#[test]
fn hostile_configurations_cause_no_panic_or_hang() {
    run("configuration");
}

#[test]
fn jobs_with_long_strings_cause_no_panic_or_hang() {
    run("long_strings");
}

#[test]
fn workbooks_of_hostile_xml_cause_no_panic_or_hang() {
    run("workbook_xml");
}

#[test]
fn wide_and_ragged_rows_cause_no_panic_or_hang() {
    run("wide_rows");
}
