//! Stored values of failed messages, and the batches that are built from them for a retry.

use serde_json::{Value, json};

use crate::campaign::{Batch, Field, Recipient};
use crate::ledger::Replay;
use crate::queue::QueuedBatch;

/// Returns the stored values of a failed message, as a JSON text: whether they are JSON, and the values.
pub(super) fn payload(recipient: &Recipient<'_>, width: usize) -> String {
    let mut is_json = false;
    let mut value = |column| match recipient.field(column) {
        Field::Empty => "",
        field => {
            is_json |= matches!(field, Field::Json(_));
            recipient.raw(column)
        }
    };
    let values: Vec<&str> = (0..width).map(&mut value).collect();
    json!([is_json, values]).to_string()
}

/// Returns a batch with the stored values, or `None` if none are stored. Messages without values are blank and not sent.
pub(super) fn batch(again: &Replay, width: usize) -> Option<QueuedBatch> {
    let kept: Vec<Option<(bool, Vec<String>)>> = (0..again.batch.recipients.len())
        .map(|place| {
            let text = again.payloads.get(&u8::try_from(place).ok()?)?;
            let payload: Value = serde_json::from_str(text).ok()?;
            let values = payload[1].as_array()?.iter().map(|value| value.as_str().map(str::to_owned));
            let values: Vec<String> = values.collect::<Option<_>>()?;
            (values.len() == width).then_some((payload[0].as_bool()?, values))
        })
        .collect();
    let is_json = kept.iter().flatten().any(|(is_json, _)| *is_json);
    let mut batch = Batch::new(again.batch.campaign.clone(), again.batch.number, width, is_json);
    let mut left = Vec::new();
    for (place, ((row, phone), kept)) in again.batch.recipients.iter().zip(&kept).enumerate() {
        let value = |column: usize| kept.as_ref().map_or("", |(_, values)| values[column].as_str());
        batch.push(*row, *phone, (0..width).map(value));
        left.extend(kept.as_ref().and(u8::try_from(place).ok()));
    }
    (!left.is_empty()).then_some(QueuedBatch { batch, left, attempt: 0 })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ledger::PlannedBatch;

    #[test]
    fn a_retried_message_keeps_its_values() {
        for is_json in [false, true] {
            let values = if is_json { ["\"A\"", "7"] } else { ["Asha", " padded "] };
            let mut first = Batch::new("c".parse().unwrap(), 3, 2, is_json);
            first.push(1, "+919876543210".parse().unwrap(), ["", ""].into_iter());
            first.push(2, "+919876543211".parse().unwrap(), values.into_iter());
            let again = Replay {
                batch: PlannedBatch::from(&first),
                since: 1,
                payloads: BTreeMap::from([(1, payload(&first.recipient(1).unwrap(), 2))]),
            };
            let queued = batch(&again, 2).unwrap();
            assert_eq!((queued.left, &queued.batch), (vec![1], &first));
            assert_eq!(batch(&Replay { payloads: BTreeMap::new(), ..again }, 2), None);
        }
    }
}
