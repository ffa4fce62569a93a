//! The message in a provider's format, before it is compiled.

use serde_json::Value;

use crate::campaign::rules::Limit;

/// A message in a provider's format, and the places of the job's parts in it.
pub struct Envelope {
    /// The message, with the job's strings and `{{ recipient }}`.
    pub(super) value: Value,
    /// The pointer of the content in `value`.
    pub(super) content: &'static str,
    /// Fields beside the content's own that do not belong to it.
    pub(super) beside: &'static [&'static str],
    /// Other strings of the job: their pointers in the message and in the job.
    pub moved: Vec<(&'static str, &'static str)>,
    /// The pointer of each message's callback address, if any.
    pub callback_at: Option<&'static str>,
    /// The provider's limits of strings outside the content, by pointer into the message.
    pub limits: Vec<(&'static str, Limit)>,
}

impl Envelope {
    /// Creates an envelope whose content is at a pointer, beside other fields.
    pub fn new(value: Value, content: &'static str, beside: &'static [&'static str]) -> Self {
        Self { value, content, beside, moved: Vec::new(), callback_at: None, limits: Vec::new() }
    }

    /// Returns the job's pointer for a string of the message.
    pub(super) fn place_in_job(&self, pointer: &str) -> String {
        if let Some((_, place)) = self.moved.iter().find(|(here, _)| *here == pointer) {
            return (*place).into();
        }
        match pointer.strip_prefix(self.content) {
            Some(rest) => format!("/message{rest}"),
            None => pointer.into(),
        }
    }
}
