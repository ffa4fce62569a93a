//! A batch: up to 100 recipients of one campaign, with the values that their messages need.

use serde::{Deserialize, Serialize};

use super::{id::CampaignId, phone::Phone};

/// Maximum number of messages of a batch (Exotel, document 001: more than 100 in a request is a 400).
pub const BATCH_LIMIT: usize = 100;

/// Separates the shown text of a number from the number itself, if they differ: `15%` of a spreadsheet is 0.15, and
/// `1499.00` of JSON is 1499. Readers remove it from other values.
pub const NUMBER_MARK: char = '\u{1f}';

/// Returns the shown text of a value, and the number if it has one. If the part after a mark is not a number, it
/// belongs to the text.
pub fn shown_and_number(value: &str) -> (&str, Option<f64>) {
    let marked = value.split_once(NUMBER_MARK);
    let read = marked.and_then(|(shown, number)| Some((shown, Some(number.parse().ok()?))));
    read.unwrap_or((value, None))
}

/// Up to [`BATCH_LIMIT`] recipients. One string holds all values, so that a batch needs a few allocations and not
/// hundreds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Version of the payload format.
    version: u8,
    /// The campaign.
    pub campaign: CampaignId,
    /// The batch's number, from 0.
    pub number: u32,
    /// Number of values of each recipient.
    width: usize,
    /// Whether the values are JSON texts rather than plain ones.
    json: bool,
    rows: Vec<(u64, Phone)>,
    /// Offset of the end of each value in `text`.
    ends: Vec<u32>,
    text: String,
}

/// One recipient of a batch.
#[derive(Clone, Copy)]
pub struct Recipient<'a> {
    /// The audience's row, from 1.
    pub row: u64,
    /// The number.
    pub phone: Phone,
    /// The index in the batch.
    pub index: usize,
    batch: &'a Batch,
}

/// A recipient's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Field<'a> {
    /// An empty value, or only white space.
    Empty,
    /// A text.
    Text(&'a str),
    /// A shown text and its number.
    Number(&'a str, f64),
    /// A JSON text of any type.
    Json(&'a str),
}

impl Batch {
    /// Creates an empty batch whose recipients have `width` values each.
    pub fn new(campaign: CampaignId, number: u32, width: usize, json: bool) -> Self {
        Self {
            version: 1,
            campaign,
            number,
            width,
            json,
            rows: Vec::with_capacity(BATCH_LIMIT),
            ends: Vec::with_capacity(BATCH_LIMIT * width),
            text: String::new(),
        }
    }

    /// Adds a recipient with as many values as the width of the batch.
    pub fn push(&mut self, row: u64, phone: Phone, values: impl Iterator<Item = impl AsRef<str>>) {
        let before = self.ends.len();
        for value in values {
            self.text.push_str(value.as_ref());
            // The reader limits a row to 1 MiB, so a batch stays far below 4 GiB.
            self.ends.push(u32::try_from(self.text.len()).unwrap_or(u32::MAX));
        }
        debug_assert_eq!(self.ends.len() - before, self.width);
        self.rows.push((row, phone));
    }

    /// Removes the last recipient.
    pub fn pop(&mut self) {
        if self.rows.pop().is_some() {
            self.ends.truncate(self.rows.len() * self.width);
            self.text.truncate(self.ends.last().map_or(0, |end| *end as usize));
        }
    }

    /// Returns whether the batch is well-formed, as [`Batch::push`] makes it; a batch from outside may not be.
    pub fn is_whole(&self) -> bool {
        self.version == 1
            && self.rows.len() <= BATCH_LIMIT
            && Some(self.ends.len()) == self.rows.len().checked_mul(self.width)
            && self.ends.is_sorted()
            && self.ends.iter().all(|end| self.text.is_char_boundary(*end as usize))
    }

    /// Returns the size of its values, in bytes.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// Returns the number of recipients.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Returns whether it has no recipients.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns the recipient at an index.
    pub fn recipient(&self, index: usize) -> Option<Recipient<'_>> {
        let (row, phone) = *self.rows.get(index)?;
        Some(Recipient { row, phone, index, batch: self })
    }

    /// Returns all recipients, in order.
    pub fn recipients(&self) -> impl Iterator<Item = Recipient<'_>> {
        (0..self.len()).filter_map(|index| self.recipient(index))
    }
}

impl<'a> Recipient<'a> {
    /// Returns the value of a column, by its index among the columns that the template uses.
    pub fn field(&self, column: usize) -> Field<'a> {
        match self.raw(column) {
            blank if blank.trim().is_empty() => Field::Empty,
            json if self.batch.json => Field::Json(json),
            text => match shown_and_number(text) {
                (hidden, Some(_)) if hidden.trim().is_empty() => Field::Empty,
                (shown, Some(number)) => Field::Number(shown, number),
                (shown, None) => Field::Text(shown),
            },
        }
    }

    /// Returns the value of a column as planned, with a number after its mark.
    pub fn raw(&self, column: usize) -> &'a str {
        let at = self.index * self.batch.width + column;
        let start =
            at.checked_sub(1).and_then(|before| self.batch.ends.get(before)).map_or(0, |end| *end as usize);
        let end = self.batch.ends.get(at).map_or(start, |end| *end as usize);
        self.batch.text.get(start..end).unwrap_or_default()
    }

    /// Returns all values, concatenated.
    pub fn values(&self) -> &'a str {
        let end = |recipient: usize| {
            let before = (recipient * self.batch.width).checked_sub(1);
            before.and_then(|at| self.batch.ends.get(at)).map_or(0, |end| *end as usize)
        };
        self.batch.text.get(end(self.index)..end(self.index + 1)).unwrap_or_default()
    }

    /// The campaign.
    pub fn campaign(&self) -> &'a CampaignId {
        &self.batch.campaign
    }

    /// Returns the message reference ([`MessageRef`](super::MessageRef)) as text.
    pub fn message_ref(&self) -> String {
        let mut text = Vec::with_capacity(80);
        self.write_ref(&mut text);
        String::from_utf8(text).unwrap_or_default()
    }

    /// Appends the message reference.
    pub fn write_ref(&self, out: &mut Vec<u8>) {
        let mut digits = itoa::Buffer::new();
        out.extend_from_slice(self.batch.campaign.as_str().as_bytes());
        out.push(b'.');
        out.extend_from_slice(digits.format(self.batch.number).as_bytes());
        out.push(b'.');
        out.extend_from_slice(digits.format(self.index).as_bytes());
    }

    /// The batch's number.
    pub fn batch_number(&self) -> u32 {
        self.batch.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipient_keeps_its_values() {
        let mut batch = Batch::new("c".parse().unwrap(), 3, 2, false);
        batch.push(1, "+919876543210".parse().unwrap(), ["Asha", ""].into_iter());
        batch.push(4, "+919876543211".parse().unwrap(), ["gone", "gone"].into_iter());
        batch.pop();
        batch.push(5, "+919876543212".parse().unwrap(), ["", "x"].into_iter());
        let fields: Vec<_> = batch.recipients().flat_map(|r| [r.field(0), r.field(1)]).collect();
        assert_eq!(fields, [Field::Text("Asha"), Field::Empty, Field::Empty, Field::Text("x")]);
        assert_eq!(batch.recipients().map(|r| r.row).collect::<Vec<_>>(), [1, 5]);
        let copy: Batch = serde_json::from_str(&serde_json::to_string(&batch).unwrap()).unwrap();
        assert_eq!(copy, batch);
    }
}
