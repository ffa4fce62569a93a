//! A transaction: checks, and the commands that are done if they pass, in one script.

use std::sync::LazyLock;

use redis::Value;

use crate::redis_client::{Packed, RedisClient, RedisClientError, Script};

static SWAP: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("swap.lua")));

/// A key of a transaction.
#[derive(Clone, Copy)]
pub(super) struct Key(usize);

/// Checks and commands on keys of one slot. Said twice, because an answer was lost, it fails at its
/// checks the second time: whoever says it reads again then.
#[derive(Default)]
pub(super) struct Transaction {
    keys: Vec<String>,
    checks: usize,
    checked: Packed,
    commands: Packed,
}

/// How a transaction ended.
pub(super) enum Done {
    /// What each command answered.
    Written(Vec<Value>),
    /// The check that failed, from 1, and what it found.
    Failed { check: i64, found: Vec<u8> },
}

impl Transaction {
    /// Names a key.
    pub(super) fn key(&mut self, key: String) -> Key {
        self.keys.push(key);
        Key(self.keys.len())
    }

    /// A field must have one of these values; an empty one stands for none.
    pub(super) fn check_field(&mut self, key: Key, field: &str, allowed: &[&str]) {
        let allowed: Vec<&[u8]> = allowed.iter().map(|value| value.as_bytes()).collect();
        self.check("field", key, field, &allowed);
    }

    /// A string must begin with these bytes; of one that must not be there they are none. With
    /// `whole` it must be these bytes.
    pub(super) fn check_start(&mut self, key: Key, start: &[u8], whole: bool) {
        let last = match start.len() {
            _ if whole => "-1".to_owned(),
            0 => "0".to_owned(),
            length => (length - 1).to_string(),
        };
        self.check("start", key, &last, &[start]);
    }

    fn check(&mut self, kind: &str, key: Key, what: &str, allowed: &[&[u8]]) {
        self.checks += 1;
        self.checked.push(kind.as_bytes());
        self.checked.push_number(key.0);
        self.checked.push(what.as_bytes());
        self.checked.push_number(allowed.len());
        for value in allowed {
            self.checked.push(value);
        }
    }

    /// A command on a key.
    pub(super) fn command<A: AsRef<[u8]>>(&mut self, name: &str, key: Key, args: &[A]) {
        self.command_if(0, name, key, args);
    }

    /// A command that, if it answers 0, leaves out so many of those behind it.
    pub(super) fn command_if<A: AsRef<[u8]>>(&mut self, skip: usize, name: &str, key: Key, args: &[A]) {
        self.commands.push_number(skip);
        self.commands.push(name.as_bytes());
        self.commands.push_number(key.0);
        self.commands.push_number(args.len());
        for arg in args {
            self.commands.push(arg.as_ref());
        }
    }

    /// Adds to a counter.
    pub(super) fn add(&mut self, key: Key, field: &str, by: i64) {
        let by = by.to_string();
        self.command("HINCRBY", key, &[field, by.as_str()]);
    }

    pub(super) async fn run(&self, client: &RedisClient) -> Result<Done, RedisClientError> {
        let mut args = Packed::default();
        args.push_number(self.checks);
        let answer: Vec<Value> =
            client.run_packed(&SWAP, &self.keys, &[&args, &self.checked, &self.commands]).await?;
        let mut answer = answer.into_iter();
        let (check, clock) = (answer.next(), answer.next());
        if let Some(Value::Int(clock)) = clock {
            client.set_clock(clock);
        }
        match check {
            Some(Value::Int(0)) => Ok(Done::Written(answer.collect())),
            Some(Value::Int(check)) => {
                let found = match answer.next() {
                    Some(Value::BulkString(found)) => found,
                    _ => Vec::new(),
                };
                Ok(Done::Failed { check, found })
            }
            _ => Err(RedisClientError::Refused("answered something else".into())),
        }
    }
}
