//! Hostile bytes: the targets of `fuzz/`, on their corpus and on many changes of it. A fuzzer finds more; this keeps
//! what it found, and runs wherever the tests do.

use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

#[path = "../../fuzz/targets.rs"]
mod targets;

/// How many changed inputs each target is given.
const INPUTS: usize = 2_000;
/// However hostile: longer than this is a hang, on the slowest machine.
const LONGEST: Duration = Duration::from_secs(5);

/// The seeds of a target.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Changes some bytes: single ones, stretches, and parts of another seed.
fn change(bytes: &mut Vec<u8>, others: &[Vec<u8>], chance: &mut SmallRng) {
    const TELLING: [&[u8]; 12] = [
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
    for _ in 0..chance.random_range(1..6) {
        let at = chance.random_range(0..=bytes.len());
        let to = (at + chance.random_range(0..20)).min(bytes.len());
        match chance.random_range(0..6) {
            0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << chance.random_range(0..8)),
            1 => drop(bytes.drain(at..to)),
            2 => drop(bytes.splice(at..at, TELLING[chance.random_range(0..TELLING.len())].iter().copied())),
            3 => {
                let again = bytes[at..to].to_vec();
                drop(bytes.splice(at..at, again));
            }
            4 => {
                let other = &others[chance.random_range(0..others.len())];
                let from = chance.random_range(0..=other.len());
                drop(bytes.splice(at..to, other[from..(from + 30).min(other.len())].iter().copied()));
            }
            _ => bytes.truncate(at),
        }
    }
}

fn run(name: &str) {
    let (_, target) = targets::TARGETS.iter().find(|(known, _)| *known == name).unwrap();
    let (seeds, folder) = (corpus(name), tempfile::tempdir().unwrap());
    assert!(seeds.len() >= 3, "{name} has no corpus");
    let (mut chance, mut count) = (SmallRng::seed_from_u64(7), 0);
    let all: Vec<Vec<u8>> = [vec![Vec::new()], seeds].concat();
    while count < all.len() + INPUTS {
        let mut bytes = all[count % all.len()].clone();
        if count >= all.len() {
            change(&mut bytes, &all, &mut chance);
        }
        count += 1;
        let started = Instant::now();
        let ended = std::panic::catch_unwind(|| target(&bytes, folder.path()));
        let shown = String::from_utf8_lossy(&bytes);
        assert!(ended.is_ok(), "{name} panics, number {count}: {shown:?} {bytes:?}");
        assert!(started.elapsed() < LONGEST, "{name} hangs for {:?}: {shown:?} {bytes:?}", started.elapsed());
    }
    eprintln!("{name}: {count} inputs");
}

#[test]
fn hostile_jobs() {
    run("jobs");
}

#[test]
fn hostile_csv() {
    run("csv");
}

#[test]
fn hostile_workbooks() {
    run("workbooks");
}

#[test]
fn hostile_templates() {
    run("templates");
}

#[test]
fn hostile_answers() {
    run("answers");
}

#[test]
fn hostile_callbacks() {
    run("callbacks");
}

#[test]
fn hostile_configurations() {
    run("configuration");
}

#[test]
fn jobs_with_long_strings() {
    run("long_strings");
}

#[test]
fn workbooks_of_hostile_xml() {
    run("workbook_xml");
}

#[test]
fn wide_and_ragged_rows() {
    run("wide_rows");
}
