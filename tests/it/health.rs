//! The health check of a worker whose loop runs, stalls, recovers, and waits for a server.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use axum::Router;
use flowcast::audience::Audiences;
use flowcast::dispatch::{Accounts, Context, Events, LoopProgress, work};
use flowcast::http::{Health, Http};
use flowcast::ledger::Memory;
use flowcast::queue::Local;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::fleet::until;
use crate::support::send_raw;

fn responds_with(http: &Http, path: &str, status: &str) -> bool {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    send_raw(http.address.port(), &request).starts_with(&format!("HTTP/1.1 {status}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_loop_fails_the_health_check_until_it_recovers() {
    // The loop asks the ledger for the time in each round; a clock that does not answer stops the loop.
    let (stopped_clock, recovers) =
        (Arc::new((Mutex::new(false), Condvar::new())), Arc::new(AtomicBool::new(false)));
    let asked = stopped_clock.clone();
    let stop_clock = |is_stopped: bool| {
        *stopped_clock.0.lock().unwrap() = is_stopped;
        stopped_clock.1.notify_all();
    };
    let ledger = Memory::new(
        Arc::new(move || {
            let (is_stopped, moved) = &*asked;
            drop(moved.wait_while(is_stopped.lock().unwrap(), |is_stopped| *is_stopped).unwrap());
            1_800_000_000_000
        }),
        Duration::from_secs(30),
    );
    let (health, progress, stop) = (Health::default(), LoopProgress::default(), CancellationToken::new());
    health.check("store", || true);
    let (recovering, steps) = (recovers.clone(), AtomicU64::new(0));
    health.watch_loop(progress.clone(), move || {
        steps.fetch_add(u64::from(recovering.load(Ordering::Relaxed)), Ordering::Relaxed)
    });
    let http = Http::start("127.0.0.1:0", health, Router::new()).await.unwrap();
    let stopped = stop.clone();
    // On a thread of its own, so that nothing but the loop is stopped.
    let worker = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let context = Context::new(Accounts::default(), Audiences::default(), Events::default(), false);
        let (_registering, registered) = mpsc::channel(1);
        runtime
            .block_on(work::<Memory, Local>(&ledger, &(), &context, registered, &progress, &stopped))
            .unwrap();
    });
    until("the worker to be ready", || responds_with(&http, "/readyz", "200")).await;
    until("the health check to pass", || responds_with(&http, "/healthz", "200")).await;

    stop_clock(true);
    until("the health check to fail", || responds_with(&http, "/healthz", "503")).await;
    until("the worker not to be ready", || responds_with(&http, "/readyz", "503")).await;
    // A loop that waits for a ledger that recovers is alive: a restart of the worker would not help.
    recovers.store(true, Ordering::Relaxed);
    until("the health check to pass while the ledger recovers", || responds_with(&http, "/healthz", "200"))
        .await;
    recovers.store(false, Ordering::Relaxed);
    until("the health check to fail again", || responds_with(&http, "/healthz", "503")).await;
    stop_clock(false);
    until("the health check to pass", || responds_with(&http, "/healthz", "200")).await;
    until("the worker to be ready again", || responds_with(&http, "/readyz", "200")).await;

    stop.cancel();
    worker.join().unwrap();
}
