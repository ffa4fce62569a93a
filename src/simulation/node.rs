//! A machine with a worker: alive, frozen or dead.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until};

use super::World;
use crate::runtime::chance;

/// A machine with a worker.
pub(super) struct Node {
    pub(super) world: Arc<World>,
    pub(super) number: u32,
    is_dead: AtomicBool,
    /// Skew of its clock, in milliseconds.
    drift: AtomicI64,
    frozen_until: Mutex<Option<Instant>>,
}

impl Node {
    pub(super) fn new(world: &Arc<World>, number: &AtomicU32) -> Arc<Self> {
        let number = number.fetch_add(1, Ordering::Relaxed);
        let node = Self {
            world: world.clone(),
            number,
            is_dead: AtomicBool::new(false),
            drift: AtomicI64::new(0),
            frozen_until: Mutex::default(),
        };
        node.jump();
        Arc::new(node)
    }

    /// Sets its clock to another random skew.
    pub(super) fn jump(&self) {
        let most = self.world.faults.drift;
        if most != 0 {
            self.drift.store((most as f64 * (chance() - 0.5) * 2.0) as i64, Ordering::Relaxed);
        }
    }

    /// Returns the skew of its clock, in milliseconds.
    pub(super) fn drift(&self) -> i64 {
        self.drift.load(Ordering::Relaxed)
    }

    /// Kills it: its tasks never continue.
    pub(super) fn die(&self) {
        self.is_dead.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::Relaxed)
    }

    /// Freezes it for a time.
    pub(super) fn freeze(&self, time: Duration) {
        *self.frozen_until.lock() = Some(Instant::now() + time);
    }

    /// Waits while it is frozen, and for ever if it is dead.
    pub(super) async fn proceed(&self) {
        loop {
            if self.is_dead() {
                return std::future::pending().await;
            }
            let until = *self.frozen_until.lock();
            match until {
                Some(until) if until > Instant::now() => sleep_until(until).await,
                _ => return,
            }
        }
    }

    /// Takes one way over the network, which may be slow.
    pub(super) async fn hop(&self) {
        self.proceed().await;
        if self.world.faults.is_slow && !self.world.is_calm() {
            let time = match chance() {
                much if much < 0.002 => Duration::from_secs_f64(chance() * 12.0),
                some if some < 0.02 => Duration::from_millis(20 + (chance() * 400.0) as u64),
                little if little < 0.2 => Duration::from_millis(1 + (chance() * 5.0) as u64),
                _ => Duration::ZERO,
            };
            if time > Duration::ZERO {
                sleep(time).await;
                self.proceed().await;
            }
        }
    }
}
