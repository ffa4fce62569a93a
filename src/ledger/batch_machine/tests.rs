//! Properties of the state machine that hold for all sequences of events.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::campaign::delivery::{Delivery, DeliveryUpdate};
use crate::campaign::{DoubtCause, Phone, SkipReason};
use crate::ledger::{Decision, Outcome, change::Counter, deliveries::MessageReport};

const SIZE: u8 = 5;

/// An event of a batch.
#[derive(Clone, Debug)]
enum Event {
    Claim { token: u64, places: Vec<u8> },
    Settle { token: u64, place: u8, outcome: usize },
    Expire { token: u64, resend: bool },
    Decide { decision: usize },
    Doubt { place: u8 },
    Report { place: u8, state: usize },
}

fn event() -> impl Strategy<Value = Event> {
    let token = 1..4_u64;
    let place = 0..SIZE + 1;
    prop_oneof![
        3 => (token.clone(), prop::collection::vec(place.clone(), 1..6))
            .prop_map(|(token, places)| Event::Claim { token, places }),
        4 => (0..4_u64, place.clone(), 0..5_usize)
            .prop_map(|(token, place, outcome)| Event::Settle { token, place, outcome }),
        1 => (token, any::<bool>()).prop_map(|(token, resend)| Event::Expire { token, resend }),
        1 => (0..5_usize).prop_map(|decision| Event::Decide { decision }),
        1 => place.clone().prop_map(|place| Event::Doubt { place }),
        1 => (place, 0..4_usize).prop_map(|(place, state)| Event::Report { place, state }),
    ]
}

fn outcome(nth: usize) -> Outcome {
    let detail = || "why".to_owned();
    match nth {
        0 => Outcome::Accepted { sid: "s".into() },
        1 => Outcome::Rejected { code: "400".into(), detail: detail() },
        2 => Outcome::InDoubt(DoubtCause::NoResponse.into()),
        3 => Outcome::Released,
        _ => Outcome::Skipped { reason: SkipReason::Expired, detail: detail() },
    }
}

fn decision(nth: usize) -> Decision {
    match nth {
        0 => Decision::Retry(Vec::new()),
        1 => Decision::Resend { until: i64::MAX },
        2 => Decision::Abandon { until: i64::MAX },
        3 => Decision::Cancel,
        _ => Decision::Doubt,
    }
}

fn batch() -> PlannedBatch {
    let recipient = |row| (row, Phone::from_digits(919_800_000_000 + row).unwrap());
    PlannedBatch {
        campaign: "c".parse().unwrap(),
        number: 0,
        recipients: (1..=u64::from(SIZE)).map(recipient).collect(),
    }
}

/// Applies an event. Returns the positions that a claim was granted.
fn happen(machine: &mut BatchMachine<'_>, event: &Event) -> Vec<u8> {
    match event {
        Event::Claim { token, places } => return machine.claim(*token, places),
        Event::Settle { token, place, outcome: nth } => {
            machine.settle(*token, &[(*place, outcome(*nth)).into()]);
        }
        Event::Expire { token, resend } => drop(machine.expire(*token, *resend, DoubtCause::ClaimExpired)),
        Event::Decide { decision: nth } => drop(machine.decide(&decision(*nth))),
        Event::Doubt { place } => machine.mark_unreported_in_doubt(&[*place]),
        Event::Report { place, state } => {
            let update =
                DeliveryUpdate::Delivery { state: Delivery::ALL[*state], code: None, text: String::new() };
            let report = MessageReport { message: *place, sid: None, at: 5_000, update };
            drop(machine.report(&[report], &[]));
        }
    }
    Vec::new()
}

/// Counts messages by state, and rejected and skipped ones by code.
fn counters(record: &BatchRecord) -> BTreeMap<Counter, i64> {
    let mut counters = BTreeMap::new();
    for (_, message) in record.each() {
        let state = message.state.as_str();
        *counters.entry((state, String::new())).or_default() += 1;
        if matches!(message.state, MessageState::Rejected | MessageState::Skipped) {
            *counters.entry((state, record.code(message).to_owned())).or_default() += 1;
        }
    }
    counters
}

proptest! {
    #[test]
    fn no_sequence_of_events_loses_a_message_or_sends_it_twice(
        events in prop::collection::vec(event(), 1..60),
    ) {
        let batch = batch();
        let mut record = BatchRecord::new(usize::from(SIZE));
        let mut counted = counters(&record);
        // Whether the provider may have accepted each message, because the result of a request is unknown.
        let mut may_be_taken = [false; SIZE as usize];
        let (mut is_open, mut is_failed, mut claims) = (true, false, BTreeSet::new());
        for (nth, event) in (0..).zip(&events) {
            let before = record.clone();
            let mut machine = BatchMachine::new(&batch, record.clone(), 1_000 + nth);
            let granted = happen(&mut machine, event);
            let change = machine.finish();
            record = change.record.clone().unwrap_or(record);
            prop_assert!(change.record.is_none() || record.revision > before.revision);
            for (((place, after), (_, before)), taken) in
                record.each().zip(before.each()).zip(&mut may_be_taken)
            {
                let (from, to) = (before.state, after.state);
                // Only legal transitions.
                prop_assert!(from == to || from.can_become(to), "{from} to {to} by {event:?}");
                prop_assert_eq!(to == MessageState::Sending, after.claim != 0 && to != MessageState::InDoubt);
                if granted.contains(&place) {
                    // Only messages that the provider cannot have are granted, or the same claim again.
                    prop_assert!(!*taken || from == MessageState::Sending);
                    *taken = true;
                }
                let by_person = matches!(event, Event::Decide { .. } | Event::Expire { resend: true, .. });
                if to == MessageState::Pending {
                    // Back to pending needs proof from the message's own claim, or a decision.
                    let proven = matches!(event, Event::Settle { token, outcome: 3, .. }
                        if before.claim == *token);
                    prop_assert!(from == to || by_person || proven, "{from} to pending by {event:?}");
                    *taken &= from == to;
                }
            }
            // The counters match the messages.
            let of_states = |kind: &str| kind.parse::<MessageState>().is_ok();
            for (counter, by) in change.counters.iter().filter(|((kind, _), _)| of_states(kind)) {
                *counted.entry(counter.clone()).or_default() += by;
            }
            counted.retain(|_, count| *count != 0);
            prop_assert_eq!(&counted, &counters(&record));
            // The lists match the messages.
            is_open = change.open.unwrap_or(is_open);
            is_failed = change.failed.unwrap_or(is_failed);
            prop_assert_eq!((is_open, is_failed), (record.is_open(), record.is_failed()));
            claims.extend(change.claimed.iter().copied());
            change.released.iter().for_each(|token| {
                claims.remove(token);
            });
            prop_assert_eq!(&claims, &record.claims());
            // An event that is repeated changes nothing.
            let mut again = BatchMachine::new(&batch, record.clone(), 2_000);
            if matches!(event, Event::Settle { .. } | Event::Expire { .. }) {
                happen(&mut again, event);
                prop_assert!(again.finish().record.is_none());
            }
        }
    }
}

proptest! {
    #[test]
    fn lost_writes_are_restored_from_a_later_record(
        events in prop::collection::vec(event(), 1..40),
        cut in any::<prop::sample::Index>(),
    ) {
        let batch = batch();
        let mut records = vec![BatchRecord::new(usize::from(SIZE))];
        for (nth, event) in (0..).zip(&events) {
            let record = records[records.len() - 1].clone();
            let mut machine = BatchMachine::new(&batch, record.clone(), 1_000 + nth);
            happen(&mut machine, event);
            records.push(machine.finish().record.unwrap_or(record));
        }
        let (known, then) = (&records[records.len() - 1], cut.get(&records));
        let mut machine = BatchMachine::new(&batch, then.clone(), 5_000);
        machine.restore(known, &BTreeMap::new());
        let change = machine.finish();
        let restored = change.record.as_ref().unwrap_or(then);
        let states = |record: &BatchRecord| -> Vec<_> {
            record.each().map(|(_, m)| (m.state, m.attempts, m.claim, m.at)).collect()
        };
        prop_assert_eq!(states(restored), states(known));
        let mut counted = counters(then);
        for (counter, by) in change.counters {
            *counted.entry(counter).or_default() += by;
        }
        counted.retain(|_, count| *count != 0);
        prop_assert_eq!(counted, counters(restored));
        // Restoring is idempotent, and an older record changes nothing.
        for known in [known, then] {
            let mut again = BatchMachine::new(&batch, restored.clone(), 6_000);
            prop_assert_eq!(again.restore(known, &BTreeMap::new()), 0);
        }
    }
}
