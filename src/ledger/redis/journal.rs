//! A worker's journal: its recent writes, in a file of its own, because Redis may lose them.
//!
//! Redis answers before a write is on its disk, and a replica that takes over may lack the most recent writes. So a
//! worker also keeps its writes to batches in a file, from which they can be restored (`data_loss.rs`). The file outlives
//! the process, not the machine: other workers of the machine can read what a killed worker sent. It is bounded, is only
//! read after a loss, and proves nothing about other workers.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::campaign::{CampaignId, MessageState};
use crate::ledger::change::{Change, Counter};
use crate::ledger::{LedgerError, NewCampaign, PlannedBatch, record::BatchRecord};

/// Maximum size of a file, in bytes. There are two: the older one is deleted when the newer one is full.
const MAX_FILE_BYTES: u64 = 32 << 20;
/// Upper bound of an entry's size, in bytes.
const ENTRY: u64 = 256 << 10;
/// Disk space reserved ahead, in bytes.
const AHEAD: u64 = 1 << 20;
/// Retention of a dead worker's files.
const RETENTION: Duration = Duration::from_hours(1);
/// File with the id of the machine's boot: after a restart, entries that were not on disk are lost.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// The journal of this worker.
pub(super) struct Journal {
    folder: PathBuf,
    session: u32,
    inner: Mutex<Inner>,
    /// Lock of a living worker; the system releases it when the process ends.
    _lock: File,
}

struct Inner {
    file: File,
    bytes: u64,
    /// Position up to which disk space is reserved.
    reserved: u64,
    /// Time of the last entry.
    newest: i64,
    /// Time of the last entry in the older file.
    older: i64,
}

/// The first line of a file: the machine's boot, and the time up to which entries were deleted (0: none).
#[derive(Serialize, Deserialize)]
struct Head {
    boot: String,
    dropped: i64,
}

/// A write to Redis. Times are the ledger's, in milliseconds since 1970.
#[derive(Serialize, Deserialize)]
enum Entry {
    /// A campaign was registered, in the form of earlier versions.
    UntimedCampaign(NewCampaign),
    /// A batch was changed.
    Batch(BatchEntry),
    /// A campaign was registered, and when.
    Campaign(i64, NewCampaign),
}

#[derive(Serialize, Deserialize)]
struct BatchEntry {
    at: i64,
    campaign: String,
    number: u32,
    /// The recipients, if they may not be in Redis yet.
    plan: Option<Vec<u8>>,
    size: u8,
    record: Vec<u8>,
    sids: Vec<(u8, String)>,
    texts: Vec<(String, String, String)>,
}

/// A batch as a journal has it.
#[derive(Default)]
pub(super) struct JournaledBatch {
    /// The recipients as bytes, if they may not be in Redis.
    pub(super) plan: Option<Vec<u8>>,
    /// Number of messages.
    size: u8,
    /// The record as last written.
    record: Vec<u8>,
    /// The SIDs of its messages, by position.
    pub(super) sids: BTreeMap<u8, String>,
    /// Texts of codes.
    pub(super) texts: BTreeMap<Counter, String>,
}

impl JournaledBatch {
    /// Returns the record.
    ///
    /// # Errors
    ///
    /// If its bytes are damaged.
    pub(super) fn record(&self) -> Result<BatchRecord, LedgerError> {
        BatchRecord::read(&self.record, usize::from(self.size))
    }
}

/// A campaign as a journal has it.
#[derive(Default)]
pub(super) struct JournaledCampaign {
    /// The time of registration and the campaign, if that worker registered it.
    pub(super) registered: Option<(i64, NewCampaign)>,
    /// Batches, by their number.
    pub(super) batches: BTreeMap<u32, JournaledBatch>,
}

/// The content of a journal.
#[derive(Default)]
pub(super) struct JournalContents {
    /// Time up to which entries may be missing; 0 if none is.
    pub(super) dropped: i64,
    /// The campaigns.
    pub(super) campaigns: HashMap<CampaignId, JournaledCampaign>,
}

impl Journal {
    /// Creates the journal of a worker, in a folder for all journals of this user.
    ///
    /// # Errors
    ///
    /// If the folder or the files cannot be created.
    pub(super) fn create(parent: &Path, session: u32) -> io::Result<Self> {
        let folder = folder(parent)?;
        delete_expired(&folder);
        let lock = open(&path(&folder, session, "lock"))?;
        lock.try_lock().map_err(io::Error::from)?;
        let (file, bytes) = begin(&folder, session, 0)?;
        fs::rename(path(&folder, session, "next"), path(&folder, session, "new"))?;
        let inner = Mutex::new(Inner { file, bytes, reserved: 0, newest: 0, older: 0 });
        Ok(Self { folder, session, inner, _lock: lock })
    }

    /// Reserves disk space for an entry, so that the next write to Redis fits into the journal.
    ///
    /// # Errors
    ///
    /// If there is no space.
    pub(super) fn reserve(&self) -> io::Result<()> {
        let mut inner = self.inner.lock();
        if inner.bytes + ENTRY > MAX_FILE_BYTES {
            self.rotate(&mut inner)?;
        }
        if inner.reserved < inner.bytes + ENTRY {
            let flags = rustix::fs::FallocateFlags::KEEP_SIZE;
            match rustix::fs::fallocate(&inner.file, flags, inner.bytes, AHEAD) {
                // Some file systems cannot reserve space.
                Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => inner.reserved = inner.bytes + AHEAD,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Continues in a new file, and deletes the older one.
    fn rotate(&self, inner: &mut Inner) -> io::Result<()> {
        // The new file first: if the disk is full, nothing has changed, and the call can be repeated.
        let (file, bytes) = begin(&self.folder, self.session, inner.older)?;
        let [old, new, next] = ["old", "new", "next"].map(|kind| path(&self.folder, self.session, kind));
        fs::rename(&new, old)?;
        fs::rename(next, new)?;
        *inner = Inner { file, bytes, reserved: 0, newest: inner.newest, older: inner.newest };
        Ok(())
    }

    /// Appends a change of a batch. To be called before anything follows from the change.
    ///
    /// # Errors
    ///
    /// If it cannot be written: then the change could not be restored.
    pub(super) fn batch(&self, at: i64, batch: &PlannedBatch, change: &Change) -> Result<(), LedgerError> {
        let Some(record) = &change.record else { return Ok(()) };
        let sid = |(place, outcome): &(u8, Option<(MessageState, String)>)| {
            let (_, word) = outcome.as_ref().filter(|(state, _)| *state == MessageState::Accepted)?;
            Some((*place, word.clone()))
        };
        let text = |((kind, code), text): (&Counter, &String)| ((*kind).into(), code.clone(), text.clone());
        let entry = BatchEntry {
            at,
            campaign: batch.campaign.to_string(),
            number: batch.number,
            plan: (change.known == 0).then(|| batch.bytes()),
            size: u8::try_from(batch.recipients.len()).unwrap_or(u8::MAX),
            record: record.bytes(),
            sids: change.outcomes.iter().filter_map(sid).collect(),
            texts: change.texts.iter().map(text).collect(),
        };
        self.append(at, &Entry::Batch(entry))
    }

    /// Appends the registration of a campaign.
    ///
    /// # Errors
    ///
    /// As [`Journal::batch`].
    pub(super) fn campaign(&self, at: i64, new: &NewCampaign) -> Result<(), LedgerError> {
        self.append(at, &Entry::Campaign(at, new.clone()))
    }

    fn append(&self, at: i64, entry: &Entry) -> Result<(), LedgerError> {
        let written = || -> io::Result<()> {
            let mut bytes = postcard::to_extend(entry, vec![0; 4]).map_err(io::Error::other)?;
            let length = u32::try_from(bytes.len() - 4).map_err(io::Error::other)?;
            bytes[..4].copy_from_slice(&length.to_le_bytes());
            let mut inner = self.inner.lock();
            if inner.bytes + bytes.len() as u64 > MAX_FILE_BYTES {
                self.rotate(&mut inner)?;
            }
            // At the end of the last complete entry: a part of an entry that a full disk left is overwritten.
            inner.file.write_all_at(&bytes, inner.bytes)?;
            inner.bytes += bytes.len() as u64;
            inner.newest = inner.newest.max(at);
            Ok(())
        };
        let folder = self.folder.display();
        written().map_err(|error| {
            LedgerError::Storage(format!("has no journal: cannot write to {folder}: {error}"))
        })
    }

    /// Returns the campaigns with entries in this journal.
    ///
    /// # Errors
    ///
    /// If the files cannot be read.
    pub(super) fn campaigns(&self) -> io::Result<Vec<CampaignId>> {
        Ok(self.read(&HashMap::new())?.campaigns.into_keys().collect())
    }

    /// Reads this journal, without the entries of campaigns from before their removal.
    ///
    /// # Errors
    ///
    /// If the files cannot be read.
    pub(super) fn read(&self, forgotten: &HashMap<CampaignId, i64>) -> io::Result<JournalContents> {
        let _still = self.inner.lock();
        read(&self.folder, self.session, forgotten)
    }

    /// Reads the journal of another worker of this machine, if that worker is dead and the machine did not restart.
    pub(super) fn read_dead_worker(
        &self,
        session: u32,
        forgotten: &HashMap<CampaignId, i64>,
    ) -> Option<JournalContents> {
        let lock = File::open(path(&self.folder, session, "lock")).ok()?;
        // A living worker holds the lock, also while it is frozen.
        lock.try_lock().ok()?;
        read(&self.folder, session, forgotten).ok()
    }
}

/// The files of a journal: the lock, the older entries, the newer ones, and the file that will be the newer one.
const KINDS: [&str; 4] = ["lock", "old", "new", "next"];

fn path(folder: &Path, session: u32, kind: &str) -> PathBuf {
    folder.join(format!("{session}.{kind}"))
}

/// Returns the folder of all journals of this user, and creates it if necessary.
///
/// The files contain phone numbers, so only this user may have access, and a folder of another user is not used.
fn folder(parent: &Path) -> io::Result<PathBuf> {
    let user = fs::metadata("/proc/self")?.uid();
    let folder = parent.join(format!("flowcast-{user}"));
    match fs::DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(&folder)?;
    if !found.is_dir() || found.uid() != user || found.mode() & 0o077 != 0 {
        let text = format!("{} must belong to this user, without access for others", folder.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(folder)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Creates the next file. Returns also its size, in bytes.
fn begin(folder: &Path, session: u32, dropped: i64) -> io::Result<(File, u64)> {
    let mut file = open(&path(folder, session, "next"))?;
    let mut head = serde_json::to_vec(&Head { boot: boot()?, dropped })?;
    head.push(b'\n');
    file.write_all(&head)?;
    Ok((file, head.len() as u64))
}

fn boot() -> io::Result<String> {
    Ok(fs::read_to_string(BOOT)?.trim().to_owned())
}

/// Deletes old journals of dead workers.
fn delete_expired(folder: &Path) {
    let Ok(found) = fs::read_dir(folder) else { return };
    for file in found.flatten() {
        let is_old = |file: &fs::DirEntry| file.metadata().ok()?.modified().ok()?.elapsed().ok();
        let name = file.file_name();
        let session = name.to_str().and_then(|name| name.split_once('.')?.0.parse().ok());
        if let Some(session) = session
            && is_old(&file).is_some_and(|age| age > RETENTION)
            && File::open(path(folder, session, "lock")).is_ok_and(|lock| lock.try_lock().is_ok())
        {
            for kind in KINDS {
                let _ = fs::remove_file(path(folder, session, kind));
            }
        }
    }
}

fn read(folder: &Path, session: u32, forgotten: &HashMap<CampaignId, i64>) -> io::Result<JournalContents> {
    let (boot, mut known) = (boot()?, JournalContents::default());
    for kind in ["old", "new"] {
        let bytes = match fs::read(path(folder, session, kind)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && kind == "old" => continue,
            bytes => bytes?,
        };
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(damaged)?;
        let head: Head = serde_json::from_slice(&bytes[..end])?;
        if head.boot != boot {
            return Err(io::Error::other("it is older than the last restart of the machine"));
        }
        known.dropped = known.dropped.max(head.dropped);
        let mut rest = &bytes[end + 1..];
        // The last entry may be incomplete if its worker was killed: nothing followed from it.
        while let Some((length, behind)) = rest.split_first_chunk::<4>() {
            let Some((entry, behind)) = behind.split_at_checked(u32::from_le_bytes(*length) as usize) else {
                break;
            };
            rest = behind;
            known.apply(postcard::from_bytes(entry).map_err(|_| damaged())?, forgotten)?;
        }
    }
    Ok(known)
}

fn damaged() -> io::Error {
    io::Error::other("it is damaged")
}

impl JournalContents {
    fn apply(&mut self, entry: Entry, forgotten: &HashMap<CampaignId, i64>) -> io::Result<()> {
        let is_forgotten = |id: &CampaignId, at: i64| forgotten.get(id).is_some_and(|then| at <= *then);
        match entry {
            Entry::UntimedCampaign(new) => return self.apply(Entry::Campaign(0, new), forgotten),
            Entry::Campaign(at, new) if !is_forgotten(&new.id, at) => {
                let id = new.id.clone();
                self.campaigns.entry(id).or_default().registered = Some((at, new));
            }
            Entry::Campaign(..) => {}
            Entry::Batch(entry) => {
                let id: CampaignId = entry.campaign.parse().map_err(|_| damaged())?;
                if is_forgotten(&id, entry.at) {
                    return Ok(());
                }
                let batches = &mut self.campaigns.entry(id).or_default().batches;
                let new = || JournaledBatch { size: entry.size, ..JournaledBatch::default() };
                let batch = batches.entry(entry.number).or_insert_with(new);
                batch.plan = entry.plan.or_else(|| batch.plan.take());
                batch.record = entry.record;
                batch.sids.extend(entry.sids);
                for (kind, word, text) in entry.texts {
                    if let Ok(state) = kind.parse::<MessageState>() {
                        batch.texts.insert((state.as_str(), word), text);
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::batch_machine::BatchMachine;

    fn batch(number: u32) -> PlannedBatch {
        let phone = "+919876543210".parse().unwrap();
        PlannedBatch { campaign: "c1".parse().unwrap(), number, recipients: vec![(1, phone)] }
    }

    fn claimed(batch: &PlannedBatch) -> Change {
        let mut machine = BatchMachine::new(batch, BatchRecord::new(1), 5);
        machine.claim(7, &[0]);
        machine.finish()
    }

    #[test]
    fn a_journal_is_read_by_others_only_when_its_worker_is_dead() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) =
            (Journal::create(folder.path(), 1).unwrap(), Journal::create(folder.path(), 2).unwrap());
        one.batch(5, &batch(3), &claimed(&batch(3))).unwrap();
        assert!(other.read_dead_worker(1, &HashMap::new()).is_none(), "it lives");
        // An incomplete entry, as after a kill.
        let (file, bytes) = {
            let inner = one.inner.lock();
            (inner.file.try_clone().unwrap(), inner.bytes)
        };
        file.write_all_at(&[200, 0, 0, 0, 1], bytes).unwrap();
        drop(one);
        let known = other.read_dead_worker(1, &HashMap::new()).unwrap();
        // Entries of a removed campaign are ignored.
        let forgotten = HashMap::from([("c1".parse().unwrap(), 5)]);
        assert!(other.read_dead_worker(1, &forgotten).unwrap().campaigns.is_empty());
        let campaign = &known.campaigns[&"c1".parse().unwrap()];
        assert_eq!(campaign.batches[&3].record().unwrap().claims().into_iter().collect::<Vec<_>>(), [7]);
        assert_eq!(campaign.batches[&3].plan.as_deref(), Some(&*batch(3).bytes()));
        assert_eq!(known.dropped, 0);
    }

    #[test]
    fn a_journal_is_bounded_and_has_the_time_of_its_last_deleted_entry() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::create(folder.path(), 1).unwrap();
        let mut at = 0;
        for _ in 0..3 {
            at += 1000;
            journal.batch(at, &batch(at as u32), &claimed(&batch(at as u32))).unwrap();
            // As if the file were full.
            journal.inner.lock().bytes = MAX_FILE_BYTES;
        }
        let known = journal.read(&HashMap::new()).unwrap();
        let numbers: Vec<_> = known.campaigns[&"c1".parse().unwrap()].batches.keys().copied().collect();
        assert_eq!((numbers, known.dropped), (vec![2000, 3000], 1000));
    }

    #[test]
    fn a_folder_that_others_can_read_is_not_used() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().unwrap();
        drop(Journal::create(parent.path(), 1).unwrap());
        let folder = fs::read_dir(parent.path()).unwrap().next().unwrap().unwrap().path();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let error = Journal::create(parent.path(), 2).err().unwrap().to_string();
        assert!(error.contains("must belong to this user"), "{error}");
    }
}
