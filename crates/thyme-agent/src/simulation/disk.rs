//! The disk of the state directory, in memory: what is written is there for the next process, but
//! only what is synced is there after a loss of power.

use std::{collections::BTreeMap, io};

use super::world::{Shared, World};
use crate::world::{StateDisk, StateFile};

const INPUT_OUTPUT: i32 = 5;
const NO_SPACE: i32 = 28;

#[derive(Debug, Default)]
struct DiskFile {
    bytes: Vec<u8>,
    /// What it held when it was synced last.
    synced: Vec<u8>,
    /// Bytes that appending can't fail for want of room for.
    reserved: u64,
}

/// A change of names that a loss of power may undo.
#[derive(Clone, Debug)]
enum NameChange {
    Set(String, usize),
    Rename(String, String, usize),
    Remove(String),
}

/// The disk.
#[derive(Debug, Default)]
pub(super) struct Disk {
    files: Vec<DiskFile>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Since the last sync of their directory; a loss of power keeps the first of them.
    changes: Vec<NameChange>,
    /// Fewer free bytes than that are none.
    pub(super) bytes_max: Option<u64>,
    pub(super) errors: u64,
}

impl NameChange {
    fn directory(&self) -> &str {
        let (Self::Set(name, _) | Self::Rename(_, name, _) | Self::Remove(name)) = self;
        name.rsplit_once('/').map_or("", |(directory, _)| directory)
    }
}

fn apply(names: &mut BTreeMap<String, usize>, change: &NameChange) {
    match change {
        NameChange::Set(name, id) => {
            names.insert(name.clone(), *id);
        }
        NameChange::Rename(from, to, id) => {
            names.remove(from);
            names.insert(to.clone(), *id);
        }
        NameChange::Remove(name) => {
            names.remove(name);
        }
    }
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk {
    fn change(&mut self, change: NameChange) {
        apply(&mut self.names, &change);
        self.changes.push(change);
    }

    fn id_of(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(not_found)
    }

    /// Bytes that files with names take.
    fn used_bytes(&self) -> u64 {
        self.taken_by(|_| true)
    }

    /// Bytes that the spool's segments take.
    pub(super) fn spool_bytes(&self) -> u64 {
        self.taken_by(|name| name.starts_with("spool/") && !name.contains("cursor"))
    }

    fn taken_by(&self, is_meant: impl Fn(&str) -> bool) -> u64 {
        let names = self.names.iter().filter(|(name, _)| is_meant(name));
        let mut ids: Vec<usize> = names.map(|(_, id)| *id).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.iter()
            .map(|id| (self.files[*id].bytes.len() as u64).max(self.files[*id].reserved))
            .sum()
    }

    fn room(&self, id: usize) -> u64 {
        let Some(max) = self.bytes_max else { return u64::MAX };
        let file = &self.files[id];
        let reserved = file.reserved.saturating_sub(file.bytes.len() as u64);
        reserved + max.saturating_sub(self.used_bytes())
    }
}

impl World {
    fn disk_fault(&mut self) -> io::Result<()> {
        if self.faults && self.chance.one_in(self.plan.disk_fault_odds) {
            self.disk.errors += 1;
            self.note(|| "state disk: an error".to_owned());
            return Err(io::Error::from_raw_os_error(INPUT_OUTPUT));
        }
        Ok(())
    }

    /// Keeps what was synced, and of the rest what chance will have it.
    pub(super) fn lose_power(&mut self) {
        let kept = self.chance.place(self.disk.changes.len() + 1);
        let disk = &mut self.disk;
        for change in disk.changes.drain(..).take(kept) {
            apply(&mut disk.durable_names, &change);
        }
        disk.names = disk.durable_names.clone();
        for file in &mut disk.files {
            file.reserved = 0;
            if !file.bytes.starts_with(&file.synced) {
                // It was cut, which may have reached the disk or not.
                if self.chance.one_in(2) {
                    file.bytes.clone_from(&file.synced);
                }
            } else {
                let rest = file.bytes.len() - file.synced.len();
                let kept = file.synced.len() + self.chance.place(rest + 1);
                let is_torn = self.chance.one_in(3);
                let torn_from = self.chance.between(file.synced.len() as u64, kept as u64) as usize;
                file.bytes.truncate(kept);
                if is_torn {
                    // The length reached the disk, the bytes did not.
                    file.bytes[torn_from..].fill(0);
                }
            }
            file.synced.clone_from(&file.bytes);
        }
    }
}

/// The disk, as the agent sees it.
#[derive(Debug)]
pub(super) struct SimulatedDisk(pub(super) Shared);

impl StateDisk for SimulatedDisk {
    fn make_directory(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn names(&self, directory: &str) -> io::Result<Vec<String>> {
        let mut world = self.0.lock();
        world.disk_fault()?;
        let inside = |name: &String| {
            let (parent, own) = name.rsplit_once('/').unwrap_or(("", name));
            (parent == directory).then(|| own.to_owned())
        };
        Ok(world.disk.names.keys().filter_map(inside).collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut world = self.0.lock();
        let id = world.disk.id_of(name)?;
        world.disk_fault()?;
        Ok(world.disk.files[id].bytes.clone())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StateFile>> {
        let mut world = self.0.lock();
        world.note(|| format!("create {name}"));
        world.disk_fault()?;
        if world.disk.names.contains_key(name) {
            world.disk.change(NameChange::Remove(name.to_owned()));
        }
        world.disk.files.push(DiskFile::default());
        let id = world.disk.files.len() - 1;
        world.disk.change(NameChange::Set(name.to_owned(), id));
        Ok(Box::new(SimulatedFile { shared: self.0.clone(), id }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StateFile>> {
        let mut world = self.0.lock();
        let id = world.disk.id_of(name)?;
        world.disk_fault()?;
        Ok(Box::new(SimulatedFile { shared: self.0.clone(), id }))
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.0.lock();
        world.disk_fault()?;
        let id = world.disk.id_of(from)?;
        world.disk.change(NameChange::Set(to.to_owned(), id));
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.0.lock();
        world.disk_fault()?;
        let id = world.disk.id_of(from)?;
        world.disk.change(NameChange::Rename(from.to_owned(), to.to_owned(), id));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut world = self.0.lock();
        world.disk.id_of(name)?;
        world.disk_fault()?;
        world.disk.change(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        let mut world = self.0.lock();
        world.disk_fault()?;
        world.note(|| format!("sync directory {directory:?}"));
        let Disk { changes, durable_names, .. } = &mut world.disk;
        changes.retain(|change| {
            let is_synced = change.directory() == directory;
            if is_synced {
                apply(durable_names, change);
            }
            !is_synced
        });
        Ok(())
    }
}

#[derive(Debug)]
struct SimulatedFile {
    shared: Shared,
    id: usize,
}

impl StateFile for SimulatedFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut world = self.shared.lock();
        world.note(|| {
            let text = String::from_utf8_lossy(bytes);
            format!("append {} bytes to disk file {}: {text:?}", bytes.len(), self.id)
        });
        let room = world.disk.room(self.id);
        if (bytes.len() as u64) > room {
            world.disk.errors += 1;
            world.disk.files[self.id].bytes.extend_from_slice(&bytes[..room as usize]);
            return Err(io::Error::from_raw_os_error(NO_SPACE));
        }
        if let Err(error) = world.disk_fault() {
            let written = world.chance.place(bytes.len() + 1);
            world.disk.files[self.id].bytes.extend_from_slice(&bytes[..written]);
            return Err(error);
        }
        world.disk.files[self.id].bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut world = self.shared.lock();
        world.disk_fault()?;
        world.note(|| format!("sync disk file {}", self.id));
        let file = &mut world.disk.files[self.id];
        file.synced.clone_from(&file.bytes);
        Ok(())
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        let mut world = self.shared.lock();
        world.disk_fault()?;
        let file = &mut world.disk.files[self.id];
        file.bytes.truncate(bytes as usize);
        file.reserved = 0;
        Ok(())
    }

    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        let mut world = self.shared.lock();
        world.disk_fault()?;
        let file = &world.disk.files[self.id];
        let wanted = bytes.saturating_sub(file.reserved.max(file.bytes.len() as u64));
        let free = world
            .disk
            .bytes_max
            .map_or(u64::MAX, |max| max.saturating_sub(world.disk.used_bytes()));
        if wanted > free {
            world.disk.errors += 1;
            return Err(io::Error::from_raw_os_error(NO_SPACE));
        }
        let file = &mut world.disk.files[self.id];
        file.reserved = file.reserved.max(bytes);
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut world = self.shared.lock();
        world.disk_fault()?;
        let bytes = &world.disk.files[self.id].bytes;
        let start = bytes.len().min(offset as usize);
        let read = buffer.len().min(bytes.len() - start);
        buffer[..read].copy_from_slice(&bytes[start..start + read]);
        Ok(read)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.shared.lock().disk.files[self.id].bytes.len() as u64)
    }
}
