//! Writes JSON directly into a message.

use serde_json::Value;

/// Writes a value as JSON. Returns its length in characters if it is a string.
pub(super) fn write_value(value: &Value, out: &mut Vec<u8>) -> Option<usize> {
    match value {
        Value::String(text) => Some(write_quoted(text, out)),
        other => {
            out.extend_from_slice(other.to_string().as_bytes());
            None
        }
    }
}

pub(super) fn write_quoted(text: &str, out: &mut Vec<u8>) -> usize {
    out.push(b'"');
    let length = write_text(text, out);
    out.push(b'"');
    length
}

/// Escapes a text for JSON, without quotes. Returns its length in characters.
pub(super) fn write_text(text: &str, out: &mut Vec<u8>) -> usize {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
    let mut start = 0;
    let mut length = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        // Every byte starts a character except continuation bytes (10xxxxxx).
        length += usize::from(byte & 0xC0 != 0x80);
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[start..at]);
        start = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            }
        }
    }
    out.extend_from_slice(&bytes[start..]);
    length
}
