//! Warnings of a check about the values of an audience, and about texts that look like placeholders.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use crate::campaign::{Batch, Columns, Field, Job, Problem, counted, problem::step, template::conditions};
use crate::dispatch::LoadedJob;

/// Texts that programs write for a missing value.
const NO_VALUES: [&str; 10] =
    ["null", "none", "nan", "undefined", "n/a", "#n/a", "#ref!", "#value!", "#name?", "#div/0!"];
/// Texts for yes and no.
const TRUTHS: [&str; 8] = ["true", "false", "yes", "no", "1", "0", "y", "n"];
/// Texts for no.
const FALSEHOODS: [&str; 4] = ["false", "no", "0", "n"];
/// Length of the longest of these texts.
const LONGEST_WORD: usize = 9;

/// Maximum number of placeholders that are checked: each is compared with all columns.
const LOOKED_AT: usize = 1_000;

/// Counts of a column that messages use.
#[derive(Default)]
struct Seen {
    values: u64,
    no_values: u64,
    truths: u64,
    falsehoods: u64,
}

/// Counts suspicious values of all messages.
pub(super) struct ValueWarnings<'p> {
    prepared: &'p LoadedJob,
    seen: Vec<Seen>,
}

impl<'p> ValueWarnings<'p> {
    pub(super) fn new(prepared: &'p LoadedJob) -> Self {
        let seen = prepared.template.columns().iter().map(|_| Seen::default()).collect();
        Self { prepared, seen }
    }

    pub(super) fn see(&mut self, batch: &Batch) {
        for recipient in batch.recipients() {
            for (place, seen) in self.seen.iter_mut().enumerate() {
                let text = match recipient.field(place) {
                    Field::Text(text) => text,
                    Field::Json(json) if json.starts_with('"') => json.trim_matches('"'),
                    // A number, or a JSON value with its own type.
                    Field::Empty | Field::Number(..) | Field::Json(_) => continue,
                };
                seen.values += 1;
                // A quick check, because most values begin with another letter or are longer.
                let first = text.bytes().next().map_or(b' ', |first| first.to_ascii_lowercase());
                if text.len() > LONGEST_WORD || !b"nu#tfy01".contains(&first) {
                    continue;
                }
                let is_one_of = |words: &[&str]| words.iter().any(|word| word.eq_ignore_ascii_case(text));
                seen.no_values += u64::from(is_one_of(&NO_VALUES));
                seen.truths += u64::from(is_one_of(&TRUTHS));
                seen.falsehoods += u64::from(is_one_of(&FALSEHOODS));
            }
        }
    }

    /// Returns the warnings.
    pub(super) fn found(&self) -> Vec<Problem> {
        let columns = self.prepared.template.columns();
        let name = |column: &usize| self.prepared.columns.names().get(*column).cloned().unwrap_or_default();
        let mut found = Vec::new();
        for (column, seen) in columns.iter().zip(&self.seen).filter(|(_, seen)| seen.no_values > 0) {
            let count = counted(seen.no_values, "value");
            let why = format!(
                "{count} of the column {:?} {} NULL, #N/A or similar and would be sent literally; empty them or use a default",
                name(column),
                if seen.no_values == 1 { "is" } else { "are" }
            );
            found.push(Problem::new("/audience", why));
        }
        let by_column: BTreeMap<usize, &Seen> = columns.iter().copied().zip(&self.seen).collect();
        each_text(&self.prepared.job, &mut |pointer, text| {
            for word in conditions(text) {
                let column = self.prepared.columns.find(&word).ok();
                let seen = column.and_then(|column| by_column.get(&column));
                if seen.is_some_and(|seen| seen.falsehoods > 0 && seen.truths == seen.values) {
                    let why = format!(
                        "{{% if {word} %}} is true for every non-empty value, including FALSE, no and 0; write {{% if {word} | bool %}}"
                    );
                    found.push(Problem::new(pointer, why));
                }
            }
        });
        found
    }
}

/// Warns about placeholders of other programs that name a column: they are sent literally.
///
/// Where one of a text names a column, its other ones in the same marks are meant as placeholders, too.
pub(super) fn placeholders(job: &Job, columns: &Columns) -> Vec<Problem> {
    static FOREIGN: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r"\{\{.*?\}\}|\{%.*?%\}|\[\[([^\[\]]{1,60})\]\]|\[([^\[\]]{1,60})\]|\{([^{}]{1,60})\}|<([^<>]{1,60})>|«([^«»]{1,60})»|%([^%\s][^%]{0,59})%").ok()
    });
    let Some(foreign) = FOREIGN.as_ref() else { return Vec::new() };
    let (mut found, mut left) = (Vec::new(), LOOKED_AT);
    each_text(job, &mut |pointer, text| {
        let mut meant = Vec::new();
        for written in foreign.captures_iter(text).take(left) {
            left -= 1;
            let Some((marks, name)) = (1..written.len()).find_map(|marks| Some((marks, written.get(marks)?)))
            else {
                continue;
            };
            let column = columns.find(name.as_str().trim()).ok();
            let column = column.and_then(|column| columns.names().get(column));
            meant.push((marks, written.get(0).map_or("", |whole| whole.as_str()), column));
        }
        let marks: BTreeSet<usize> =
            meant.iter().filter(|(_, _, column)| column.is_some()).map(|(marks, ..)| *marks).collect();
        let mut known = BTreeSet::new();
        for (own, written, column) in meant {
            if !marks.contains(&own) || !known.insert(written) {
                continue;
            }
            let why = match column {
                Some(column) => {
                    format!("{written} is sent literally; write {{{{ {} }}}}", Columns::identifier(column))
                }
                None => format!("{written} is sent literally; the audience has no column of this name"),
            };
            found.push(Problem::new(pointer, why));
        }
    });
    found
}

/// Calls `each` with every text that a job sends, and its place.
fn each_text(job: &Job, each: &mut impl FnMut(&str, &str)) {
    fn walk(value: &Value, pointer: &str, each: &mut impl FnMut(&str, &str)) {
        match value {
            Value::String(text) => each(pointer, text),
            Value::Array(items) => {
                items
                    .iter()
                    .enumerate()
                    .for_each(|(nth, item)| walk(item, &step(pointer, &nth.to_string()), each));
            }
            Value::Object(fields) => {
                fields.iter().for_each(|(name, field)| walk(field, &step(pointer, name), each));
            }
            _ => {}
        }
    }
    walk(&job.message, "/message", each);
    if let Some(custom_data) = &job.custom_data {
        each("/custom_data", custom_data);
    }
}
