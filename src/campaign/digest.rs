//! A digest of JSON that does not depend on the order of fields.

use serde_json::Value;

/// Returns a value's digest, whatever the order of its fields.
pub(super) fn digest(value: &Value) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    feed(value, &mut hasher);
    hasher.finalize()
}

/// Feeds a value to a digest with its keys in order.
fn feed(value: &Value, hasher: &mut blake3::Hasher) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<_> = map.iter().collect();
            keys.sort_by_key(|(key, _)| *key);
            hasher.update(b"{");
            for (key, value) in keys {
                hasher.update(Value::from(key.as_str()).to_string().as_bytes());
                feed(value, hasher);
            }
            hasher.update(b"}");
        }
        Value::Array(items) => {
            hasher.update(b"[");
            for item in items {
                feed(item, hasher);
                hasher.update(b",");
            }
            hasher.update(b"]");
        }
        plain => {
            hasher.update(plain.to_string().as_bytes());
        }
    }
}
