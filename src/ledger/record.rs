//! A batch's record: the state of each of its messages, in a few bytes per batch.
//!
//! It is a value: `batch_machine.rs` decides how it changes, and a backend replaces its bytes by compare-and-swap. It does not
//! contain the recipients (`PlannedBatch`) or the SIDs, because no decision depends on them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::LedgerError;
use crate::campaign::MessageState;

/// Layout version that [`BatchRecord::bytes`] writes.
const LAYOUT: u8 = 1;
/// Length of a record's header, in bytes: the revision (little-endian) and the layout.
const HEAD: usize = 5;

/// The states of a batch's messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchRecord {
    /// Number of the last change; 0 if the batch was never changed.
    pub(super) revision: u32,
    /// Whether some of its messages must be requeued.
    pub(super) replay: bool,
    pub(super) messages: Vec<Message>,
    /// Codes and reasons, each once.
    codes: Vec<String>,
}

/// The state of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) state: MessageState,
    /// Number of claims, up to 255.
    pub(super) attempts: u8,
    /// Time of the last change, in milliseconds since 1970; 0 if it was never changed.
    pub(super) at: i64,
    /// Token of the claim that holds it, or that expired while it held it; 0 without one.
    pub(super) claim: u64,
    /// Whether its values are stored, so that it can be sent again without the audience.
    pub(super) kept: bool,
    /// Position of its code in `codes`, from 1; 0 without one.
    pub(super) code: u16,
}

const UNTOUCHED: Message =
    Message { state: MessageState::Pending, attempts: 0, at: 0, claim: 0, kept: false, code: 0 };

/// The stored form: equal messages in a row are one run, times are relative to the earliest.
#[derive(Serialize, Deserialize)]
struct Stored {
    replay: bool,
    base: i64,
    claims: Vec<u64>,
    codes: Vec<String>,
    runs: Vec<Run>,
}

#[derive(Serialize, Deserialize)]
struct Run {
    count: u8,
    state: MessageState,
    attempts: u8,
    /// Time since the base plus one, in milliseconds; 0 if it was never changed.
    at: u64,
    /// Position of the claim in `claims`, from 1; 0 without one.
    claim: u8,
    kept: bool,
    code: u16,
}

impl BatchRecord {
    /// Returns the record of an unchanged batch of `size` messages.
    pub fn new(size: usize) -> Self {
        Self { messages: vec![UNTOUCHED; size], ..Self::default() }
    }

    /// Reads the record of a batch of `size` messages; empty bytes are an unchanged one.
    ///
    /// # Errors
    ///
    /// If the bytes are not a record of that size.
    pub(super) fn read(bytes: &[u8], size: usize) -> Result<Self, LedgerError> {
        if bytes.is_empty() {
            return Ok(Self::new(size));
        }
        let damaged = || LedgerError::Storage("has a damaged batch record".into());
        let (head, body) = bytes.split_at_checked(HEAD).ok_or_else(damaged)?;
        let (revision, layout) = (revision(head).ok_or_else(damaged)?, head[HEAD - 1]);
        if layout != LAYOUT {
            let text = format!("has a record of layout {layout}, but this flowcast reads layout {LAYOUT}");
            return Err(LedgerError::Storage(text));
        }
        let stored: Stored = postcard::from_bytes(body).map_err(|_| damaged())?;
        let mut messages = Vec::with_capacity(size);
        for run in &stored.runs {
            let claim = match usize::from(run.claim).checked_sub(1) {
                None => 0,
                Some(place) => *stored.claims.get(place).ok_or_else(damaged)?,
            };
            if usize::from(run.code) > stored.codes.len() || messages.len() + usize::from(run.count) > size {
                return Err(damaged());
            }
            let at = i64::try_from(run.at).map_err(|_| damaged())?;
            let message = Message {
                state: run.state,
                attempts: run.attempts,
                at: if at == 0 { 0 } else { stored.base.saturating_add(at - 1) },
                claim,
                kept: run.kept,
                code: run.code,
            };
            messages.extend(std::iter::repeat_n(message, usize::from(run.count)));
        }
        messages.resize(size, UNTOUCHED);
        Ok(Self { revision, replay: stored.replay, messages, codes: stored.codes })
    }

    /// Returns the record as bytes. The first four are its revision, which a backend compares.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let base = self.messages.iter().map(|message| message.at).filter(|at| *at > 0).min().unwrap_or(0);
        let mut claims = Vec::new();
        let mut runs = Vec::<Run>::new();
        let mut before: Option<&Message> = None;
        for message in &self.messages {
            if let Some(run) = runs.last_mut().filter(|_| before == Some(message)) {
                run.count += 1;
                continue;
            }
            before = Some(message);
            let claim = if message.claim == 0 {
                0
            } else {
                let known = claims.iter().position(|claim| *claim == message.claim);
                known.unwrap_or_else(|| {
                    claims.push(message.claim);
                    claims.len() - 1
                }) + 1
            };
            runs.push(Run {
                count: 1,
                state: message.state,
                attempts: message.attempts,
                at: if message.at == 0 { 0 } else { message.at.abs_diff(base) + 1 },
                claim: u8::try_from(claim).unwrap_or(u8::MAX),
                kept: message.kept,
                code: message.code,
            });
        }
        let stored = Stored { replay: self.replay, base, claims, codes: self.codes.clone(), runs };
        let mut bytes = Vec::with_capacity(64);
        bytes.extend(self.revision.to_le_bytes());
        bytes.push(LAYOUT);
        // Writing to memory cannot fail.
        postcard::to_extend(&stored, bytes).unwrap_or_default()
    }

    /// Returns the message at a position, if there is one.
    pub(super) fn message(&self, place: u8) -> Option<&Message> {
        self.messages.get(usize::from(place))
    }

    /// Returns a message's code: of a rejection, a skip reason or the cause of a doubt.
    ///
    /// Earlier versions wrote a digest of the doubt's text instead.
    pub(super) fn code(&self, message: &Message) -> &str {
        let at = usize::from(message.code).checked_sub(1);
        at.and_then(|at| self.codes.get(at)).map_or("", String::as_str)
    }

    /// Sets a message and its code.
    pub(super) fn set(&mut self, place: u8, message: Message, code: &str) {
        let code = if code.is_empty() {
            0
        } else {
            let known = self.codes.iter().position(|known| known == code);
            let at = known.unwrap_or_else(|| {
                // A batch has at most as many codes as messages: an unused one is removed first.
                self.forget_unused_code();
                self.codes.push(code.to_owned());
                self.codes.len() - 1
            });
            u16::try_from(at + 1).unwrap_or_default()
        };
        if let Some(slot) = self.messages.get_mut(usize::from(place)) {
            *slot = Message { code, ..message };
        }
    }

    fn forget_unused_code(&mut self) {
        let used = |nth: usize| self.messages.iter().any(|message| usize::from(message.code) == nth + 1);
        if let Some(unused) = (0..self.codes.len()).find(|nth| !used(*nth)) {
            self.codes.remove(unused);
            for message in &mut self.messages {
                message.code -= u16::from(usize::from(message.code) > unused);
            }
        }
    }

    /// Returns the messages with their positions.
    pub(super) fn each(&self) -> impl Iterator<Item = (u8, &Message)> {
        (0..=u8::MAX).zip(&self.messages)
    }

    /// Returns the tokens of the claims that hold messages.
    pub(super) fn claims(&self) -> BTreeSet<u64> {
        let sending = self.messages.iter().filter(|message| message.state == MessageState::Sending);
        sending.map(|message| message.claim).collect()
    }

    /// Returns whether a message is pending or sending.
    pub(super) fn is_open(&self) -> bool {
        self.messages.iter().any(|message| message.state.is_open())
    }

    /// Returns whether a message is rejected or in doubt.
    pub(super) fn is_failed(&self) -> bool {
        let failed = [MessageState::Rejected, MessageState::InDoubt];
        self.messages.iter().any(|message| failed.contains(&message.state))
    }
}

/// Returns the revision at the beginning of a record's bytes.
fn revision(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message() -> impl Strategy<Value = (Message, &'static str)> {
        let state = prop::sample::select(MessageState::ALL.to_vec());
        let at = prop_oneof![Just(0_i64), 1_700_000_000_000..1_900_000_000_000_i64];
        let code = prop::sample::select(vec!["", "400", "131026", "expired"]);
        (state, any::<u8>(), at, 0..4_u64, any::<bool>(), code).prop_map(
            |(state, attempts, at, claim, kept, code)| {
                (Message { state, attempts, at, claim, kept, code: 0 }, code)
            },
        )
    }

    proptest! {
        #[test]
        fn a_record_reads_back_as_it_was_written(
            messages in prop::collection::vec(message(), 0..100),
            revision in any::<u32>(),
            replay in any::<bool>(),
        ) {
            let mut record = BatchRecord { revision, replay, ..BatchRecord::new(messages.len()) };
            for (place, (message, code)) in (0..).zip(&messages) {
                record.set(place, *message, code);
            }
            let read = BatchRecord::read(&record.bytes(), messages.len()).unwrap();
            for ((_, message), (expected, code)) in read.each().zip(&messages) {
                prop_assert_eq!(read.code(message), *code);
                prop_assert_eq!(Message { code: 0, ..*message }, *expected);
            }
            prop_assert_eq!((read.revision, read.replay), (revision, replay));
        }

        #[test]
        fn no_changed_bytes_make_the_reader_panic(
            messages in prop::collection::vec(message(), 0..100),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        ) {
            let mut record = BatchRecord::new(messages.len());
            for (place, (message, code)) in (0..).zip(&messages) {
                record.set(place, *message, code);
            }
            let mut bytes = record.bytes();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Ok(read) = BatchRecord::read(&bytes, messages.len()) {
                // A record that can be read can be used.
                prop_assert_eq!(read.messages.len(), messages.len());
                let _ = (read.claims(), read.bytes(), read.each().map(|(_, m)| read.code(m).len()).sum::<usize>());
            }
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut bytes = bytes;
            if let Some(layout) = bytes.get_mut(4) {
                *layout = LAYOUT;
            }
            let _ = BatchRecord::read(&bytes, 100);
        }
    }

    #[test]
    fn what_layout_1_wrote_is_read_by_every_later_version() {
        // Never change these bytes: stores contain them.
        const KEPT: &str = "07000000010180b083c59868014d0106313331303236\
                            0401010101010000010202060000000103010100010101000000000000";
        let mut record = BatchRecord { revision: 7, replay: true, ..BatchRecord::new(4) };
        let at = 1_790_000_000_000;
        let sending = Message { state: MessageState::Sending, attempts: 1, at, claim: 77, ..UNTOUCHED };
        let accepted = Message { state: MessageState::Accepted, attempts: 2, at: at + 5, ..UNTOUCHED };
        let rejected = Message { state: MessageState::Rejected, attempts: 1, at, kept: true, ..UNTOUCHED };
        record.set(0, sending, "");
        record.set(1, accepted, "");
        record.set(2, rejected, "131026");
        let bytes: Vec<u8> = (0..KEPT.len() / 2)
            .filter_map(|nth| u8::from_str_radix(&KEPT[nth * 2..nth * 2 + 2], 16).ok())
            .collect();
        let shown = crate::campaign::text::hex(&record.bytes());
        assert_eq!(BatchRecord::read(&bytes, 4).unwrap(), record, "{shown}");
    }

    #[test]
    fn a_batch_with_equal_outcomes_takes_a_few_bytes() {
        let mut record = BatchRecord::new(100);
        assert!(record.bytes().len() < 20);
        for place in 0..100 {
            let at = 1_790_000_000_000;
            let claim = u64::MAX - 5;
            let message = Message { state: MessageState::Sending, attempts: 1, at, claim, ..UNTOUCHED };
            record.set(place, message, "");
        }
        assert!(record.bytes().len() < 50, "{}", record.bytes().len());
    }
}
