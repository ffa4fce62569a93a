//! The replies to a campaign, counted by form field.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::replies::parts;
use crate::campaign::{CampaignId, delivery::FLOW_TOKEN};
use crate::ledger::{Ledger, LedgerError, response_page};

/// Maximum number of replies that are counted; an export has all of them.
const LOOKED_AT: u64 = 20_000;
/// Maximum number of fields, and of distinct values of each.
const FIELDS: usize = 40;
const VALUES: usize = 200;
/// Maximum number of values that are shown for a field.
const MAX_VALUES: usize = 8;
/// Maximum length of a shown value, in characters.
const MAX_CHARS: usize = 80;

/// The counted replies to a campaign.
#[derive(Debug, Default, Serialize)]
pub struct ReplyCounts {
    /// Number of counted replies.
    pub count: u64,
    /// Whether there are more replies.
    pub more: bool,
    /// Form fields, sorted by name.
    pub fields: Vec<FieldCounts>,
}

/// A form field.
#[derive(Debug, Serialize)]
pub struct FieldCounts {
    /// Name of the field.
    pub name: String,
    /// Number of replies with a value.
    pub count: u64,
    /// Values with their counts, most frequent first.
    pub values: Vec<(String, u64)>,
    /// Number of replies with another value.
    pub others: u64,
}

/// Counts the replies to a campaign.
///
/// # Errors
///
/// The ledger's.
pub async fn count_replies(ledger: &impl Ledger, id: &CampaignId) -> Result<ReplyCounts, LedgerError> {
    let mut fields: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    let (mut counts, mut next) = (ReplyCounts::default(), Some(0));
    while let Some(from) = next {
        let page = response_page(ledger, id, from).await?;
        for reply in &page.responses {
            counts.count += 1;
            let (text, form) = parts(reply);
            // Free text is only counted; the export has it.
            let text = text.map(|_| ("in their own words".to_owned(), Value::from("a message")));
            // The flow token is our own.
            let form = form.into_iter().filter(|(name, _)| name != FLOW_TOKEN);
            for (name, value) in form.chain(text) {
                count(&mut fields, name, &value);
            }
        }
        next = page.next;
        if counts.count >= LOOKED_AT {
            counts.more = next.is_some();
            break;
        }
    }
    counts.fields = fields.into_iter().map(|(name, values)| field_counts(name, values)).collect();
    Ok(counts)
}

fn count(fields: &mut BTreeMap<String, BTreeMap<String, u64>>, name: String, value: &Value) {
    let value = match value {
        Value::Null => return,
        Value::String(text) if text.is_empty() => return,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if !fields.contains_key(&name) && fields.len() >= FIELDS {
        return;
    }
    let values = fields.entry(name).or_default();
    let known = values.contains_key(&value) || values.len() < VALUES;
    // The empty key counts values beyond the maximum.
    *values.entry(if known { value } else { String::new() }).or_default() += 1;
}

fn field_counts(name: String, mut values: BTreeMap<String, u64>) -> FieldCounts {
    let count = values.values().sum();
    let mut others = values.remove("").unwrap_or_default();
    let mut values: Vec<(String, u64)> = values.into_iter().collect();
    values.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    others += values.drain(MAX_VALUES.min(values.len())..).map(|(_, count)| count).sum::<u64>();
    for (value, _) in &mut values {
        if value.chars().count() > MAX_CHARS {
            *value = value.chars().take(MAX_CHARS).chain(['…']).collect();
        }
    }
    FieldCounts { name, count, values, others }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_beyond_the_maximum_are_counted_as_others() {
        let mut fields = BTreeMap::new();
        for nth in 0..500 {
            count(&mut fields, "slot".into(), &json!(if nth % 5 == 0 { "evening" } else { "morning" }));
            count(&mut fields, "comment".into(), &json!(format!("{nth} {}", "x".repeat(100))));
            count(&mut fields, "empty".into(), &json!(null));
        }
        let slot = field_counts("slot".into(), fields.remove("slot").unwrap());
        assert_eq!(slot.values, [("morning".into(), 400), ("evening".into(), 100)]);
        assert_eq!((slot.count, slot.others), (500, 0));
        let comment = field_counts("comment".into(), fields.remove("comment").unwrap());
        assert_eq!(
            (comment.values.len(), comment.count, comment.others),
            (MAX_VALUES, 500, 500 - MAX_VALUES as u64)
        );
        assert!(comment.values[0].0.chars().count() <= MAX_CHARS + 1);
        assert!(fields.is_empty());
    }
}
