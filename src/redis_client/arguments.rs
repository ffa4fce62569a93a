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
