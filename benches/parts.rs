//! Measures the work for every message on one core: rendering, and reading an audience.
//!
//! `cargo bench --bench parts`; `benches/whole.sh` measures a whole campaign.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a benchmark that can not go on fails")]

use std::fmt::Write;
use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use flowcast::audience::{Audience, Line, Settings, Source, scan};
use flowcast::campaign::{Batch, Columns, Job, PhoneParser, Template};
use flowcast::provider::{Credentials, PROVIDERS};

/// Number of rows of the measured audience.
const ROWS: u64 = 200_000;

fn rendering(criterion: &mut Criterion) {
    let json = include_bytes!("../fixtures/jobs/appointment.json");
    let job = Job::read(json).unwrap_or_else(|problems| panic!("{problems:?}"));
    let base = "http://127.0.0.1:1".parse().unwrap();
    let credentials = Credentials {
        account_sid: "a".into(),
        api_key: "k".into(),
        api_token: "t".into(),
        ..Credentials::default()
    };
    let provider = (PROVIDERS[0].open)(&base, &credentials).unwrap();
    let columns = Columns::new(["order_id", "name", "Mobile", "clinic"].map(String::from).into());
    let template = Template::compile(
        &provider.envelope(&job, false).unwrap(),
        &job.limits_of_strings,
        job.check_rendered,
        &columns,
        None,
    )
    .unwrap();
    let values = ["100001", "asha rao", "+919800000001", "Lake Road"];
    let mut batch = Batch::new("appointment-demo".parse().unwrap(), 7, template.columns().len(), false);
    for row in 1..=100 {
        let phone = format!("+91{}", 9_800_000_000_u64 + row).parse().unwrap();
        batch.push(row, phone, template.columns().iter().map(|column| values[*column]));
    }
    let mut out = Vec::new();
    let mut group = criterion.benchmark_group("rendering");
    group.throughput(Throughput::Elements(batch.len() as u64));
    group.bench_function("the fixture's flow message", |bencher| {
        bencher.iter(|| {
            out.clear();
            for recipient in batch.recipients() {
                template.render(&recipient, &mut out).unwrap();
            }
            black_box(out.len())
        });
    });
    group.finish();
}

fn audience(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csv");
    let mut csv = String::from("order_id,name,mobile,clinic\n");
    for row in 0..ROWS {
        let national = 9_800_000_000 + (row * 7_919 + 104_729) % 99_999_989;
        writeln!(csv, "{},asha rao,+91{national},Lake Road", 100_000 + row).unwrap();
    }
    std::fs::write(&path, csv).unwrap();
    let source = Source::File(path);
    let settings = Settings { default_region: Some("IN".into()), ..Settings::default() };
    let mut group = criterion.benchmark_group("audience");
    group.sample_size(20).throughput(Throughput::Elements(ROWS));
    group.bench_function("read, checked, doubles found", |bencher| {
        bencher.iter_batched(
            || Audience::open(&source, &settings).unwrap(),
            |mut audience| {
                let mut recipients = 0_u64;
                while let Some(line) = audience.next_line().unwrap() {
                    recipients += u64::from(matches!(line, Line::Recipient(_)));
                }
                black_box(recipients)
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("scanned", |bencher| bencher.iter(|| scan(&source, &Settings::default()).unwrap()));
    group.finish();
}

fn numbers(criterion: &mut Criterion) {
    let numbers = PhoneParser::new(Some("IN"));
    let mut group = criterion.benchmark_group("number");
    group.throughput(Throughput::Elements(1));
    for (name, text) in [("plain E.164", "+919876543210"), ("as a person writes it", "0091 98765-43210")] {
        group.bench_function(name, |bencher| bencher.iter(|| numbers.parse(black_box(text)).unwrap()));
    }
    group.finish();
}

criterion_group!(parts, rendering, audience, numbers);
criterion_main!(parts);
