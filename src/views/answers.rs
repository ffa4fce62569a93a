//! What people answered, counted by form field.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::responses::parts;
use crate::campaign::CampaignId;
use crate::campaign::delivery::FLOW_TOKEN;
use crate::ledger::response_page;
use crate::ledger::{Ledger, LedgerError};

/// How many answers are looked at: a picture needs no more, and an export has all.
const LOOKED_AT: u64 = 20_000;
/// How many fields, and how many values of each, are told apart.
const FIELDS: usize = 40;
const VALUES: usize = 200;
/// How many values of a field are shown.
const SHOWN: usize = 8;
/// The longest value that is shown, in characters.
const LONGEST: usize = 80;

/// The answers to a campaign.
#[derive(Debug, Default, Serialize)]
pub struct Answers {
    /// How many were looked at.
    pub count: u64,
    /// Whether there are more.
    pub more: bool,
    /// Fields of the form, in the order of their names.
    pub fields: Vec<Answered>,
}

/// A field of a form.
#[derive(Debug, Serialize)]
pub struct Answered {
    /// Its name.
    pub name: String,
    /// How many people filled it in.
    pub count: u64,
    /// The values, the most frequent first.
    pub values: Vec<(String, u64)>,
    /// How many gave other ones.
    pub others: u64,
}

/// Counts what people answered.
///
/// # Errors
///
/// The ledger's.
pub async fn answers(ledger: &impl Ledger, id: &CampaignId) -> Result<Answers, LedgerError> {
    let mut fields: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    let (mut answers, mut next) = (Answers::default(), Some(0));
    while let Some(from) = next {
        let page = response_page(ledger, id, from).await?;
        for response in &page.responses {
            answers.count += 1;
            let (reply, form) = parts(response);
            // What people wrote themselves is theirs to be read in the export, one by one.
            let said = reply.map(|_| ("in their own words".to_owned(), Value::from("a message")));
            // What came back of ourselves is no answer.
            let form = form.into_iter().filter(|(name, _)| name != FLOW_TOKEN);
            for (name, value) in form.chain(said) {
                count(&mut fields, name, &value);
            }
        }
        next = page.next;
        if answers.count >= LOOKED_AT {
            answers.more = next.is_some();
            break;
        }
    }
    answers.fields = fields.into_iter().map(|(name, values)| answered(name, values)).collect();
    Ok(answers)
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
    // Under no value at all stand those that are too many to tell apart.
    *values.entry(if known { value } else { String::new() }).or_default() += 1;
}

fn answered(name: String, mut values: BTreeMap<String, u64>) -> Answered {
    let count = values.values().sum();
    let mut others = values.remove("").unwrap_or_default();
    let mut values: Vec<(String, u64)> = values.into_iter().collect();
    values.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    others += values.drain(SHOWN.min(values.len())..).map(|(_, count)| count).sum::<u64>();
    for (value, _) in &mut values {
        if value.chars().count() > LONGEST {
            *value = value.chars().take(LONGEST).chain(['…']).collect();
        }
    }
    Answered { name, count, values, others }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_counted_and_too_many_of_them_are_one() {
        let mut fields = BTreeMap::new();
        for nth in 0..500 {
            count(&mut fields, "slot".into(), &json!(if nth % 5 == 0 { "evening" } else { "morning" }));
            count(&mut fields, "comment".into(), &json!(format!("{nth} {}", "x".repeat(100))));
            count(&mut fields, "empty".into(), &json!(null));
        }
        let slot = answered("slot".into(), fields.remove("slot").unwrap());
        assert_eq!(slot.values, [("morning".into(), 400), ("evening".into(), 100)]);
        assert_eq!((slot.count, slot.others), (500, 0));
        let comment = answered("comment".into(), fields.remove("comment").unwrap());
        assert_eq!((comment.values.len(), comment.count, comment.others), (SHOWN, 500, 500 - SHOWN as u64));
        assert!(comment.values[0].0.chars().count() <= LONGEST + 1);
        assert!(fields.is_empty());
    }
}
