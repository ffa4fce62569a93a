//! Rows of a job's own list of recipients.

use serde_json::{Map, Value};

use crate::campaign::Columns;

pub(super) struct ListRows {
    columns: Columns,
    /// Each recipient's values as JSON texts, in the columns' order; empty where it has none.
    rows: std::vec::IntoIter<Vec<String>>,
    row: Vec<String>,
}

impl ListRows {
    pub(super) fn new(list: &[Map<String, Value>]) -> Self {
        let mut names: Vec<String> = Vec::new();
        for key in list.iter().flat_map(Map::keys) {
            if !names.contains(key) {
                names.push(key.clone());
            }
        }
        let row = |recipient: &Map<String, Value>| {
            names.iter().map(|name| recipient.get(name).map_or_else(String::new, Value::to_string)).collect()
        };
        let rows: Vec<Vec<String>> = list.iter().map(row).collect();
        Self { columns: Columns::new(names), rows: rows.into_iter(), row: Vec::new() }
    }

    pub(super) fn columns(&self) -> &Columns {
        &self.columns
    }

    pub(super) fn advance(&mut self) -> bool {
        let next = self.rows.next();
        let is_some = next.is_some();
        self.row = next.unwrap_or_default();
        is_some
    }

    pub(super) fn value(&self, column: usize) -> &str {
        self.row.get(column).map(String::as_str).unwrap_or_default()
    }

    /// A value as text: a JSON string without its quotes.
    pub(super) fn text(&self, column: usize) -> String {
        let json = self.value(column);
        serde_json::from_str::<String>(json).unwrap_or_else(|_| json.into())
    }
}
