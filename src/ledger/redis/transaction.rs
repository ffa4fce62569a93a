//! A transaction: checks, and the commands that are done if they pass, in one script.

use std::sync::LazyLock;

use redis::Value;

use crate::redis_client::{Packed, RedisClient, RedisClientError, Script};

static SWAP: LazyLock<Script> = LazyLock::new(|| {
    let names = Command::NAMES.map(|name| format!("'{name}'")).join(", ");
    let (history, swap) = (include_str!("server_history.lua"), include_str!("swap.lua"));
    Script::new(&format!("local commands = {{ {names} }}\n{history}{swap}"))
});

/// What can be done to a key. The last five are the script's own (`swap.lua`).
#[derive(Clone, Copy)]
pub(super) enum Command {
    Set,
    SetNx,
    HSet,
    HSetNx,
    HDel,
    HIncrBy,
    HMGet,
    SAdd,
    SRem,
    SIsMember,
    ZRem,
    RPush,
    Restore,
    Due,
    Stamp,
    Max,
    Tick,
    History,
}

impl Command {
    /// In the order of the variants.
    const NAMES: [&str; 18] = [
        "SET",
        "SETNX",
        "HSET",
        "HSETNX",
        "HDEL",
        "HINCRBY",
        "HMGET",
        "SADD",
        "SREM",
        "SISMEMBER",
        "ZREM",
        "RPUSH",
        "RESTORE",
        "DUE",
        "STAMP",
        "MAX",
        "TICK",
        "HISTORY",
    ];
}

/// A key of a transaction: its place among them, from 1.
#[derive(Clone, Copy)]
pub(super) struct Key(u16);

/// Checks and commands on keys of one slot. Said twice, because an answer was lost, it fails at its
/// checks the second time: whoever says it reads again then.
#[derive(Default)]
pub(super) struct Transaction {
    keys: Vec<String>,
    checks: Part,
    commands: Part,
    count: u8,
    restores: bool,
}

/// What is to be done, and the arguments to it, as `swap.lua` wants them.
#[derive(Default)]
struct Part {
    program: Vec<u8>,
    args: Packed,
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
        Key(u16::try_from(self.keys.len()).unwrap_or(u16::MAX))
    }

    /// A field must have one of these values; an empty one stands for none.
    pub(super) fn check_field(&mut self, key: Key, field: &str, allowed: &[&str]) {
        self.check(1, key, field, allowed);
    }

    /// A string must begin with these bytes; of one that must not be there they are none. With
    /// `whole` it must be these bytes.
    pub(super) fn check_start(&mut self, key: Key, start: &[u8], whole: bool) {
        let last = if whole { -1 } else { start.len().saturating_sub(1).cast_signed() };
        self.check(2, key, itoa::Buffer::new().format(last), &[start]);
    }

    /// The server's data must be of the history that a campaign names.
    pub(super) fn check_history(&mut self, campaign: Key) {
        self.check::<&[u8]>(3, campaign, "", &[]);
    }

    fn check<A: AsRef<[u8]>>(&mut self, kind: u8, key: Key, what: &str, allowed: &[A]) {
        let [high, low] = key.0.to_be_bytes();
        self.count += 1;
        self.checks.program.extend([kind, high, low, allowed.len() as u8]);
        self.checks.args.push(what.as_bytes());
        for value in allowed {
            self.checks.args.push(value.as_ref());
        }
    }

    /// A command on a key.
    pub(super) fn command<A: AsRef<[u8]>>(&mut self, command: Command, key: Key, args: &[A]) {
        self.command_if(0, command, key, args);
    }

    /// A command that, if it answers 0, leaves out so many of those behind it.
    pub(super) fn command_if<A: AsRef<[u8]>>(&mut self, skip: u8, command: Command, key: Key, args: &[A]) {
        let [high, low] = key.0.to_be_bytes();
        let [many, few] = u16::try_from(args.len()).unwrap_or(u16::MAX).to_be_bytes();
        self.commands.program.extend([command as u8 + 1, high, low, skip, many, few]);
        for arg in args {
            self.commands.args.push(arg.as_ref());
        }
    }

    /// Makes a key of a payload (`dump.rs`). To be the first command: a server that refuses it has written
    /// nothing then.
    pub(super) fn restore(&mut self, key: Key, payload: &[u8]) {
        self.command(Command::Restore, key, &[b"0".as_slice(), payload]);
        self.restores = true;
    }

    /// Whether it makes a key of a payload.
    pub(super) fn restores(&self) -> bool {
        self.restores
    }

    /// Adds to a counter.
    pub(super) fn add(&mut self, key: Key, field: &str, by: i64) {
        self.command(Command::HIncrBy, key, &[field, itoa::Buffer::new().format(by)]);
    }

    /// Says it. With `replicas` it waits until so many have it; returns also whether they have.
    pub(super) async fn run(
        &self,
        client: &RedisClient,
        replicas: u32,
    ) -> Result<(Done, bool), RedisClientError> {
        let mut first = Packed::default();
        first.push(&[&[self.count], &*self.checks.program, &*self.commands.program].concat());
        let args = [&first, &self.checks.args, &self.commands.args];
        let (answer, have): (Vec<Value>, u32) = match replicas {
            0 => (client.run_packed(&SWAP, &self.keys, &args).await?, 0),
            _ => client.run_replicated(&SWAP, &self.keys, &args, replicas).await?,
        };
        let mut answer = answer.into_iter();
        let (check, clock) = (answer.next(), answer.next());
        if let Some(Value::Int(clock)) = clock {
            client.set_clock(clock);
        }
        let done = match check {
            Some(Value::Int(0)) => Done::Written(answer.collect()),
            Some(Value::Int(check)) => {
                let found = match answer.next() {
                    Some(Value::BulkString(found)) => found,
                    _ => Vec::new(),
                };
                Done::Failed { check, found }
            }
            _ => return Err(RedisClientError::Refused("answered something else".into())),
        };
        Ok((done, have >= replicas))
    }
}
