//! A transaction: checks, and the commands that run if all checks pass, in one call of one script (`swap.lua`).
//!
//! It decides nothing: the checks name what a decision was based on, so a concurrent change makes them fail.
//!
//! # The program
//!
//! Each argument costs the server more than a byte, so a transaction is sent as one argument of bytes (the program)
//! and the values that it refers to. The script reads the program from its beginning to its end and takes the values
//! in their order. A key is its position among `KEYS`, from 1. Numbers of two bytes are big-endian.
//!
//! | bytes | of | content |
//! |---|---|---|
//! | 1 | the program | number of checks |
//! | 4 | each check | kind (1 field, 2 start of a string, 3 replication epoch); key (2 bytes); number of allowed values |
//! | 6 | each command | position in `Command::NAMES`, from 1; key (2); commands to skip if it answers 0; number of arguments (2) |
//!
//! The values of a check are what it reads (the field's name; the position of the last byte of the start, -1 for the
//! whole string; an empty text for an epoch), then the allowed values. An empty allowed value means a missing
//! field or string. A check of kind 3 passes if the campaign has no epoch or the server's. The values of a command are its
//! arguments after the key. The values of the checks come first.
//!
//! # Example
//!
//! Batch 7 of campaign `c` is stored if the campaign is scheduled or running, and its two messages are counted if the
//! batch was not stored before:
//!
//! ```text
//! KEYS     1  flowcast:{c}:campaign
//!          2  flowcast:{c}:plan:7
//! program  01                   one check
//!          01 0001 02           a field of key 1, two allowed values
//!          02 0002 01 0001      SETNX on key 2; if it answers 0, skip one command; one argument
//!          06 0001 00 0002      HINCRBY on key 1; skip no command; two arguments
//! values   state  scheduled  running       the check: field, allowed values
//!          <the plan>                      SETNX
//!          pending  2                      HINCRBY
//! ```
//!
//! The script answers 0, the server's clock in milliseconds, and what each command answered (0 for a skipped one), e.g.
//! `0 1790000000000 1 2`. If a check fails, no command runs and it answers the number of the check, the clock, and what it
//! found, e.g. `1 1790000000000 cancelled`.

use std::sync::LazyLock;

use redis::Value;

use crate::campaign::CampaignState;
use crate::redis_client::{Packed, RedisClient, RedisClientError, Script};

static SWAP: LazyLock<Script> = LazyLock::new(|| {
    let names = Command::NAMES.map(|name| format!("'{name}'")).join(", ");
    let (epoch, swap) = (include_str!("server_history.lua"), include_str!("swap.lua"));
    Script::new(&format!("local commands = {{ {names} }}\n{epoch}{swap}"))
});

/// A command on a key. The last five are the script's own (`swap.lua`).
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
    /// Names in the order of the variants.
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

/// A key of a transaction: its position, from 1.
#[derive(Clone, Copy)]
pub(super) struct Key(u16);

/// Checks and commands on keys of one slot.
///
/// If an answer is lost and the transaction is run again, its checks fail: then the caller reads the data again.
#[derive(Default)]
pub(super) struct Transaction {
    keys: Vec<String>,
    checks: Step,
    commands: Step,
    count: u8,
    /// Whether it creates a key from a payload.
    pub(super) restores: bool,
}

/// A part of the program, and its values.
#[derive(Default)]
struct Step {
    program: Vec<u8>,
    args: Packed,
}

/// The result of a transaction.
pub(super) enum TransactionOutcome {
    /// The answer of each command.
    Written(Vec<Value>),
    /// The check that failed, from 1, and what it found.
    Failed { check: i64, found: Vec<u8> },
}

impl Transaction {
    /// Adds a key.
    pub(super) fn key(&mut self, key: String) -> Key {
        self.keys.push(key);
        Key(u16::try_from(self.keys.len()).unwrap_or(u16::MAX))
    }

    /// Adds a check that a field has one of these values; an empty value means a missing field.
    pub(super) fn check_field(&mut self, key: Key, field: &str, allowed: &[&str]) {
        self.check(1, key, field, allowed);
    }

    /// Adds a check that a campaign has not ended: no worker would send further batches.
    pub(super) fn check_has_not_ended(&mut self, campaign: Key) {
        let going = CampaignState::ALL.iter().filter(|state| !state.is_over()).map(|state| state.as_str());
        self.check_field(campaign, "state", &going.collect::<Vec<_>>());
    }

    /// Adds a check that a string starts with these bytes; empty bytes mean a missing string.
    ///
    /// With `whole` the string must equal the bytes.
    pub(super) fn check_start(&mut self, key: Key, start: &[u8], whole: bool) {
        let last = if whole { -1 } else { start.len().saturating_sub(1).cast_signed() };
        self.check(2, key, itoa::Buffer::new().format(last), &[start]);
    }

    /// Adds a check that the server's replication epoch is the campaign's.
    pub(super) fn check_epoch(&mut self, campaign: Key) {
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

    /// Adds a command.
    pub(super) fn command<A: AsRef<[u8]>>(&mut self, command: Command, key: Key, args: &[A]) {
        self.command_if(0, command, key, args);
    }

    /// Adds a command; if it answers 0, the next `skip` commands are skipped.
    pub(super) fn command_if<A: AsRef<[u8]>>(&mut self, skip: u8, command: Command, key: Key, args: &[A]) {
        let [high, low] = key.0.to_be_bytes();
        let [many, few] = u16::try_from(args.len()).unwrap_or(u16::MAX).to_be_bytes();
        self.commands.program.extend([command as u8 + 1, high, low, skip, many, few]);
        for arg in args {
            self.commands.args.push(arg.as_ref());
        }
    }

    /// Adds a command that creates a key from a payload (`hash_payload.rs`).
    ///
    /// It must be the first command, so that a server that rejects it has written nothing.
    pub(super) fn restore(&mut self, key: Key, payload: &[u8]) {
        self.command(Command::Restore, key, &[b"0".as_slice(), payload]);
        self.restores = true;
    }

    /// Adds a command that adds to a counter.
    pub(super) fn add(&mut self, key: Key, field: &str, by: i64) {
        self.command(Command::HIncrBy, key, &[field, itoa::Buffer::new().format(by)]);
    }

    /// Returns the program: the number of checks, the checks, the commands.
    fn program(&self) -> Vec<u8> {
        [&[self.count], &*self.checks.program, &*self.commands.program].concat()
    }

    /// Runs the transaction. Returns whether it was written.
    pub(super) async fn is_written(&self, client: &RedisClient) -> Result<bool, RedisClientError> {
        Ok(matches!(self.run(client, 0).await?.0, TransactionOutcome::Written(_)))
    }

    /// Runs the transaction, and waits until `replicas` replicas have it.
    ///
    /// Returns also whether they have.
    pub(super) async fn run(
        &self,
        client: &RedisClient,
        replicas: u32,
    ) -> Result<(TransactionOutcome, bool), RedisClientError> {
        let mut first = Packed::default();
        first.push(&self.program());
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
            Some(Value::Int(0)) => TransactionOutcome::Written(answer.collect()),
            Some(Value::Int(check)) => {
                let found = match answer.next() {
                    Some(Value::BulkString(found)) => found,
                    _ => Vec::new(),
                };
                TransactionOutcome::Failed { check, found }
            }
            _ => return Err(RedisClientError::Refused("sent an invalid answer to a transaction".into())),
        };
        Ok((done, have >= replicas))
    }
}

#[cfg(test)]
mod tests {
    use redis::ToRedisArgs;

    use super::*;

    #[test]
    fn the_example_in_the_module_head_is_what_is_sent() {
        let mut transaction = Transaction::default();
        let campaign = transaction.key("flowcast:{c}:campaign".into());
        let plan = transaction.key("flowcast:{c}:plan:7".into());
        transaction.check_field(campaign, "state", &["scheduled", "running"]);
        transaction.command_if(1, Command::SetNx, plan, &["<the plan>"]);
        transaction.add(campaign, "pending", 2);
        assert_eq!(transaction.keys, ["flowcast:{c}:campaign", "flowcast:{c}:plan:7"]);
        let program = [
            &[1][..],            // one check
            &[1, 0, 1, 2],       // a field of key 1, two allowed values
            &[2, 0, 2, 1, 0, 1], // SETNX
            &[6, 0, 1, 0, 0, 2], // HINCRBY
        ];
        assert_eq!(transaction.program(), program.concat());
        let values = |part: &Step| -> Vec<String> {
            let args = part.args.to_redis_args();
            args.into_iter().map(|arg| String::from_utf8(arg).unwrap()).collect()
        };
        assert_eq!(values(&transaction.checks), ["state", "scheduled", "running"]);
        assert_eq!(values(&transaction.commands), ["<the plan>", "pending", "2"]);
    }

    #[test]
    fn a_command_is_at_the_position_of_its_name() {
        for (command, name) in [
            (Command::Set, "SET"),
            (Command::SetNx, "SETNX"),
            (Command::HIncrBy, "HINCRBY"),
            (Command::Restore, "RESTORE"),
            (Command::History, "HISTORY"),
        ] {
            assert_eq!(Command::NAMES[command as usize], name);
        }
    }
}
