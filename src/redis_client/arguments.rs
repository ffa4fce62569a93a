//! Lua scripts and their arguments.

use redis::{Cmd, ToRedisArgs};

/// Lua script, called by its digest.
pub struct Script {
    text: String,
    digest: String,
}

impl Script {
    /// Creates a script from its text.
    pub fn new(text: &str) -> Self {
        Self { digest: redis::Script::new(text).get_hash().to_owned(), text: text.to_owned() }
    }

    pub(super) fn by_digest(&self, keys: &[String], args: &[&Packed]) -> Cmd {
        redis::cmd("EVALSHA").arg(&self.digest).arg(keys.len()).arg(keys).arg(args).clone()
    }

    pub(super) fn by_text(&self, keys: &[String], args: &[&Packed]) -> Cmd {
        redis::cmd("EVAL").arg(&self.text).arg(keys.len()).arg(keys).arg(args).clone()
    }
}

/// Argument of a script.
#[derive(Clone, Copy, Debug)]
pub enum Arg<'a> {
    /// A text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// A number.
    Number(u64),
}

/// Arguments of a script, packed into one buffer.
#[derive(Clone, Debug, Default)]
pub struct Packed {
    bytes: Vec<u8>,
    /// End of each argument in `bytes`.
    ends: Vec<usize>,
}

impl Packed {
    /// Adds an argument.
    pub fn push(&mut self, arg: &[u8]) {
        self.bytes.extend_from_slice(arg);
        self.ends.push(self.bytes.len());
    }

    /// Adds a number.
    pub fn push_number(&mut self, number: usize) {
        self.push(number.to_string().as_bytes());
    }

    /// Adds an argument of any kind.
    pub(super) fn push_arg(&mut self, arg: Arg<'_>) {
        match arg {
            Arg::Text(text) => self.push(text.as_bytes()),
            Arg::Bytes(bytes) => self.push(bytes),
            Arg::Number(number) => self.push(number.to_string().as_bytes()),
        }
    }
}

impl ToRedisArgs for Packed {
    fn write_redis_args<W: ?Sized + redis::RedisWrite>(&self, out: &mut W) {
        let mut start = 0;
        for end in &self.ends {
            out.write_arg(&self.bytes[start..*end]);
            start = *end;
        }
    }

    fn num_of_args(&self) -> usize {
        self.ends.len()
    }
}

impl<'a> From<&'a str> for Arg<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Arg<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Arg<'_> {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Arg<'_> {
    fn from(flag: bool) -> Self {
        Self::Number(u64::from(flag))
    }
}
