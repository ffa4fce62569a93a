//! Rows of a job's own list of recipients. A recipient takes memory only for its own fields, however many fields the
//! others have.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::campaign::{Columns, json::without_foreign_mark, text};

pub(super) struct ListRows {
    pub(super) columns: Columns,
    /// Column indexes by name.
    places: HashMap<String, usize>,
    list: std::vec::IntoIter<Map<String, Value>>,
    /// The values of the current row as JSON texts, sorted by column.
    row: Vec<(usize, String)>,
}

impl ListRows {
    pub(super) fn new(list: Vec<Map<String, Value>>) -> Self {
        let (mut names, mut places) = (Vec::new(), HashMap::new());
        for name in list.iter().flat_map(Map::keys) {
            if !places.contains_key(name) {
                places.insert(name.clone(), names.len());
                names.push(name.clone());
            }
        }
        Self { columns: Columns::new(names), places, list: list.into_iter(), row: Vec::new() }
    }

    pub(super) fn advance(&mut self) -> bool {
        self.row.clear();
        let Some(recipient) = self.list.next() else { return false };
        let place = |(name, value): (String, Value)| {
            let value = match value {
                Value::String(text) => Value::from(text::value(&without_foreign_mark(&text))),
                other => other,
            };
            Some((*self.places.get(&name)?, value.to_string()))
        };
        self.row.extend(recipient.into_iter().filter_map(place));
        self.row.sort_unstable_by_key(|(column, _)| *column);
        true
    }

    /// Returns a value; empty if the recipient has none.
    pub(super) fn value(&self, column: usize) -> &str {
        let found = self.row.binary_search_by_key(&column, |(column, _)| *column);
        found.ok().and_then(|at| self.row.get(at)).map(|(_, json)| json.as_str()).unwrap_or_default()
    }

    /// Returns a value as text: a JSON string without its quotes.
    pub(super) fn text(&self, column: usize) -> String {
        let json = self.value(column);
        serde_json::from_str::<String>(json).unwrap_or_else(|_| json.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::{json, shown_and_number};

    #[test]
    fn a_job_cannot_write_the_number_mark() {
        let job = br#"{"audience":{"recipients":[
            {"phone":"1","of":1499.00},{"phone":"2","of":"a\u001f5"},{"phone":"3","of":"5\u001f7"},{"phone":"4","of":"\u001f"}]}}"#;
        let job = json::read(job).unwrap();
        let list = serde_json::from_value(job["audience"]["recipients"].clone()).unwrap();
        let mut rows = ListRows::new(list);
        let column = rows.columns.names().iter().position(|name| name == "of").unwrap();
        let mut read = Vec::new();
        while rows.advance() {
            let text = rows.text(column);
            let (shown, number) = shown_and_number(&text);
            read.push((shown.to_owned(), number));
        }
        let wanted = [("1499.00", Some(1499.0)), ("a5", None), ("57", None), ("", None)];
        assert_eq!(read, wanted.map(|(shown, number)| (shown.to_owned(), number)));
    }
}
