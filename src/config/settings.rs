//! Digests of the settings of a configuration, to detect what has changed.

use std::collections::BTreeMap;

use figment::value::Value;

/// Keys that are set, e.g. `http.listen`, with digests of their values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings(BTreeMap<String, blake3::Hash>);

impl Settings {
    pub(super) fn from_tables(tables: &Value) -> Self {
        fn add(value: &Value, name: &str, to: &mut BTreeMap<String, blake3::Hash>) {
            if let Value::Dict(_, dict) = value {
                for (key, value) in dict {
                    add(value, &if name.is_empty() { key.clone() } else { format!("{name}.{key}") }, to);
                }
            } else {
                let json = serde_json::to_vec(value).unwrap_or_default();
                to.insert(name.to_owned(), blake3::hash(&json));
            }
        }
        let mut all = BTreeMap::new();
        add(tables, "", &mut all);
        Self(all)
    }

    /// Returns the keys whose values differ in `now`, or that only one of both has.
    pub fn changed<'s>(&'s self, now: &'s Self) -> impl Iterator<Item = &'s str> {
        let is_other = |(name, digest): &(&String, &blake3::Hash)| now.0.get(*name) != Some(*digest);
        let gone = self.0.iter().filter(is_other).map(|(name, _)| name.as_str());
        gone.chain(now.0.keys().filter(|name| !self.0.contains_key(*name)).map(String::as_str))
    }
}
