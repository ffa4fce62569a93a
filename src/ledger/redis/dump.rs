//! A hash as `DUMP` writes it, so that `RESTORE` makes it at once: a batch's hundred outcomes are one
//! argument then, and nobody searches a growing list for each of its fields. That is an eighth of what
//! `HSET` costs the server.
//!
//! The format is Redis' own, and kept by it: a payload of an older version is read by every later one.
//! A hash in the compact encoding (`listpack`) has stood in it since version 10, which is Redis 7.0.
//! `tests/it/redis_ledger.rs` holds these bytes against a server's.

use crc::{CRC_64_REDIS, Crc, Table};

/// The type of a hash that is one listpack.
const HASH_LISTPACK: u8 = 16;
/// The version of the format, that of Redis 7.0.
const VERSION: u16 = 10;
/// A listpack begins with its length in bytes, and in entries.
const HEAD: usize = 6;
/// The longest text of an entry whose length takes twelve bits.
const LONGEST: usize = 4095;

static CRC: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_REDIS);

/// A hash that is being written. Each field must be new to it: that is up to the caller.
pub(super) struct HashDump {
    listpack: Vec<u8>,
    entries: u16,
    is_representable: bool,
}

impl HashDump {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        let mut listpack = Vec::with_capacity(HEAD + bytes);
        listpack.extend([0; HEAD]);
        Self { listpack, entries: 0, is_representable: true }
    }

    /// Adds a field. Its name and its value are given in parts.
    pub(super) fn field(&mut self, name: &[&str], value: &[&str]) {
        self.entry(name);
        self.entry(value);
    }

    fn entry(&mut self, parts: &[&str]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length > LONGEST {
            self.is_representable = false;
            return;
        }
        // A text of 6 bits of length, or of 12.
        let head = if length < 64 {
            self.listpack.push(0x80 | length as u8);
            1
        } else {
            self.listpack.extend([0xe0 | (length >> 8) as u8, length as u8]);
            2
        };
        for part in parts {
            self.listpack.extend_from_slice(part.as_bytes());
        }
        // How long the entry was, to be read backwards: seven bits a byte.
        let back = head + length;
        if back < 128 {
            self.listpack.push(back as u8);
        } else {
            self.listpack.extend([(back >> 7) as u8, 0x80 | (back & 0x7f) as u8]);
        }
        self.entries += 1;
    }

    /// The payload, `None` where there is no field, or where one is too long for what is written here.
    pub(super) fn payload(mut self) -> Option<Vec<u8>> {
        if !self.is_representable || self.entries == 0 {
            return None;
        }
        self.listpack.push(0xff);
        let length = u32::try_from(self.listpack.len()).ok()?;
        self.listpack[..4].copy_from_slice(&length.to_le_bytes());
        self.listpack[4..HEAD].copy_from_slice(&self.entries.to_le_bytes());
        let mut payload = Vec::with_capacity(self.listpack.len() + 16);
        payload.push(HASH_LISTPACK);
        // The length of a text: in 6 bits, in 14, or in 32.
        match length {
            0..0x40 => payload.push(length as u8),
            0x40..0x4000 => payload.extend((0x4000 | length as u16).to_be_bytes()),
            _ => {
                payload.push(0x80);
                payload.extend(length.to_be_bytes());
            }
        }
        payload.extend_from_slice(&self.listpack);
        payload.extend(VERSION.to_le_bytes());
        let crc = CRC.checksum(&payload);
        payload.extend(crc.to_le_bytes());
        Some(payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_redis_7_0_15_dumps() {
        // HSET h +919876543210 "accepted s1", and DUMP h with `rdbcompression no`.
        let mut hash = HashDump::with_capacity(0);
        hash.field(&["+", "919876543210"], &["accepted", " ", "s1"]);
        let dumped = b"\x10##\x00\x00\x00\x02\x00\x8d+919876543210\x0e\x8baccepted s1\x0c\xff\n\x00X\x00b\xe13\x80B\xc8";
        assert_eq!(hash.payload().unwrap(), dumped);
    }

    #[test]
    fn what_is_not_written_here_is_left_to_the_server() {
        assert!(HashDump::with_capacity(0).payload().is_none());
        let mut hash = HashDump::with_capacity(0);
        hash.field(&["a"], &[&"x".repeat(LONGEST + 1)]);
        assert!(hash.payload().is_none());
    }
}
