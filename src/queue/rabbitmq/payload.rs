//! The encoding of messages in campaigns' queues: several batches, as compact bytes.
//!
//! Several batches share a message, because the cost of a message hardly depends on its size.

use crate::campaign::problem::json_error;
use crate::queue::{QueueError, QueuedBatch};

/// The layout that is written: this byte, then a list of batches in postcard.
const LAYOUT: u8 = 2;
/// The maximum number of batches in a message.
const BATCHES: usize = 8;
/// The approximate maximum size of the values in a message, in bytes.
const BYTES: usize = 128 * 1024;

/// Splits batches into the parts that share a message.
pub(super) fn parts(batches: &[QueuedBatch]) -> impl Iterator<Item = &[QueuedBatch]> {
    let mut rest = batches;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |queued: &&QueuedBatch| {
            bytes += queued.batch.bytes();
            bytes <= BYTES
        };
        let count = rest.iter().take(BATCHES).take_while(fits).count().max(1).min(rest.len());
        let (part, left) = rest.split_at(count);
        rest = left;
        (!part.is_empty()).then_some(part)
    })
}

/// Encodes batches as a message.
pub(super) fn write(batches: &[QueuedBatch]) -> Result<Vec<u8>, QueueError> {
    let written = postcard::to_extend(batches, vec![LAYOUT]);
    written.map_err(|error| QueueError::Failed(format!("failed: {error}")))
}

/// Decodes the batches of a message.
///
/// # Errors
///
/// When the bytes are not batches, or have an unknown layout.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<QueuedBatch>, String> {
    match bytes.split_first() {
        Some((&LAYOUT, body)) => {
            postcard::from_bytes(body).map_err(|error| format!("is not a batch: {error}"))
        }
        // Layout 1: one batch, JSON.
        Some((b'{', _)) => {
            let batch = serde_json::from_slice(bytes)
                .map_err(|error| format!("is not a batch: {}", json_error(&error)))?;
            Ok(vec![batch])
        }
        Some((other, _)) => {
            Err(format!("is not a batch: its layout is {other}, and this flowcast reads {LAYOUT}"))
        }
        None => Err("is not a batch: it is empty".into()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::campaign::Batch;

    fn batch(number: u32, value: &str) -> QueuedBatch {
        let mut batch = Batch::new("c1".parse().unwrap(), number, 1, false);
        batch.push(1, "+919876543210".parse().unwrap(), [value].into_iter());
        batch.push(9, "+15550001".parse().unwrap(), ["é"].into_iter());
        QueuedBatch { left: vec![1], attempt: 3, ..QueuedBatch::new(batch) }
    }

    #[test]
    fn batches_share_messages_of_a_bounded_size() {
        let batches: Vec<_> = (0..20).map(|number| batch(number, "x")).collect();
        let sizes: Vec<usize> = parts(&batches).map(<[QueuedBatch]>::len).collect();
        assert_eq!(sizes, [8, 8, 4]);
        let long = "y".repeat(100_000);
        let batches: Vec<_> = (0..3).map(|number| batch(number, &long)).collect();
        assert_eq!(parts(&batches).count(), 3);
        assert_eq!(parts(&[]).count(), 0);
        for part in parts(&batches) {
            assert_eq!(read(&write(part).unwrap()).unwrap(), part);
        }
    }

    #[test]
    fn earlier_layouts_are_read_alongside_the_current_one() {
        // Layout 1, as it was written. Do not change it.
        let first = r#"{"batch":{"version":1,"campaign":"c1","number":7,"width":1,"json":false,"rows":[[1,"+919876543210"],[9,"+15550001"]],"ends":[1,3],"text":"xé"},"left":[1],"attempt":3}"#;
        let ours = batch(7, "x");
        let shown = serde_json::to_string(&ours).unwrap();
        assert_eq!(read(first.as_bytes()), Ok(vec![ours.clone()]), "{shown}");
        // Layout 2: the bytes of two batches.
        let bytes = write(&[ours.clone(), batch(8, "y")]).unwrap();
        assert_eq!(crate::campaign::text::hex(&bytes), SECOND);
        assert_eq!(read(&bytes).unwrap(), [ours, batch(8, "y")]);
    }

    /// Two batches in layout 2. A different encoding needs a new layout.
    const SECOND: &str = "0202010263310701000201eac5a8e7e21a09b18cb5070201030378c3a9010103\
                          010263310801000201eac5a8e7e21a09b18cb5070201030379c3a9010103";

    proptest! {
        #[test]
        fn no_changed_bytes_make_the_reader_panic(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = write(&[batch(1, "a"), batch(2, "b")]).unwrap();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let _ = read(&bytes);
            let _ = read(&bytes[..cut.index(bytes.len())]);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = read(&bytes);
            let _ = read(&[&[LAYOUT], &bytes[..]].concat());
        }
    }
}
