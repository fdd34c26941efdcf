//! A node's tree of log files, in memory: names, inode numbers that are used again, files that live
//! on while they are held open. What the kubelet does with it stands in `kubelet`.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    io,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, UNIX_EPOCH},
};

use super::{
    hazards::Scan,
    kubelet,
    truth::Excuse,
    world::{Shared, World, unix_nanos},
};
use crate::{
    tail::identity::{HEAD_BYTES_MAX, Inode},
    world::{
        DirectoryIdentity, DirectoryState, Entry, EntryKind, FileState, LogFile, LogTree, Looked,
        Opened,
    },
};

/// `st_dev` of the tree.
const DEVICE: u64 = 64_769;

const NOT_FOUND: i32 = 2;
const INPUT_OUTPUT: i32 = 5;
const ACCESS_DENIED: i32 = 13;
const TOO_MANY_OPEN_FILES: i32 = 24;

/// Place of a file in [`Tree::nodes`]; never used again.
pub(super) type NodeId = usize;

/// Place of a content in [`Tree::contents`].
pub(super) type ContentId = usize;

/// A file, with or without a name.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) inode: u64,
    born_at: u64,
    pub(super) bytes: Vec<u8>,
    /// What it holds, plain or compressed; an unfinished archive holds nothing yet.
    pub(super) content: Option<ContentId>,
    names: u32,
    handles: u32,
    /// When it was written to last. No two writes have one time, as with the kernel's fine-grained ones.
    pub(super) modified_at: u64,
    /// Offset of the agent's last read: what lies before has been taken.
    pub(super) read_from: u64,
}

impl Node {
    /// Whether nobody reads it where a truncated content stood.
    pub(super) fn was_reread(&self) -> bool {
        self.handles == 0 || self.read_from == 0
    }
}

/// Lines that were written to one file, wherever they are by now.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// Lines with the offsets at which their last byte stands, plus one; ascending.
    pub(super) lines: Vec<(u64, usize)>,
    /// Names under which it can be found: a plain file, its archive.
    pub(super) names: u32,
    /// The life of the agent in which it was opened last.
    pub(super) opened_in: Option<u32>,
    /// How often it was opened in that life.
    opens: usize,
    /// The life of the agent in which it was opened under a live file's name last.
    pub(super) opened_live_in: Option<u32>,
    /// When it lost its last name.
    unlinked_at: u64,
    /// Where its first name was, and since when.
    pub(super) directory: String,
    pub(super) born_at: u64,
    /// The life of the agent that should have opened it by now.
    pub(super) due_in: Option<u32>,
    /// Whether it may be taken for another file: its number was that of one in its directory, and nothing is
    /// known of births.
    pub(super) may_be_another: bool,
    /// Whether its file was truncated.
    was_cut: bool,
    /// Since when it waits for a descriptor.
    pub(super) waits_since: Option<u64>,
}

#[derive(Debug)]
enum Item {
    Directory(u64),
    File(NodeId),
}

#[derive(Debug, Default)]
struct Directory {
    inode: u64,
    born_at: u64,
    changed_at: u64,
    items: BTreeMap<String, Item>,
}

/// The tree. Paths are absolute.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// The agent was told to stop: what it opens from then on it only looks at, and reads no new file.
    pub(super) is_stopping: bool,
    pub(super) nodes: Vec<Node>,
    pub(super) contents: Vec<Content>,
    directories: BTreeMap<String, Directory>,
    directories_made: u64,
    /// Numbers whose files are gone.
    free_inodes: Vec<u64>,
    /// Numbers that files have had, with their directories.
    used_inodes: BTreeSet<(u64, String)>,
    last_inode: u64,
    /// How often the disk has got another device number.
    pub(super) remounts: u64,
    /// How many files the agent has open.
    pub(super) open_files: usize,
    /// Whether the agent was ever refused a descriptor: then it closes files that it has read, and may go on
    /// with.
    pub(super) has_lacked_descriptors: bool,
    /// The look at all directories that is under way.
    pub(super) scan: Option<Scan>,
    /// What can't be read, and until when.
    pub(super) denied: Vec<(String, u64)>,
}

pub(super) fn parent_of(path: &str) -> (&str, &str) {
    path.rsplit_once('/').expect("paths are absolute")
}

impl Tree {
    /// Whether what has this content may be taken for another file.
    pub(super) fn may_be_another(&self, content: Option<ContentId>) -> bool {
        content.is_some_and(|content| self.contents[content].may_be_another)
    }
}

impl World {
    fn new_inode(&mut self) -> u64 {
        if !self.tree.free_inodes.is_empty() && self.chance.one_in(2) {
            let place = self.chance.place(self.tree.free_inodes.len());
            return self.tree.free_inodes.swap_remove(place);
        }
        self.tree.last_inode += 1;
        self.tree.last_inode
    }

    pub(super) fn make_directory(&mut self, path: &str) {
        let inode = self.new_inode();
        let now = self.now;
        // Of two with one number that were made in one instant the agent's watch would tell; here nothing is
        // watched, and no two are born together.
        self.tree.directories_made += 1;
        let born_at = now + self.tree.directories_made;
        let fresh = Directory { inode, born_at, changed_at: now, items: BTreeMap::new() };
        self.tree.directories.insert(path.to_owned(), fresh);
        let (parent, name) = parent_of(path);
        if let Some(parent) = self.tree.directories.get_mut(parent) {
            parent.changed_at = now;
            parent.items.insert(name.to_owned(), Item::Directory(inode));
        }
    }

    pub(super) fn remove_directory(&mut self, path: &str) {
        self.note(|| format!("rmdir {path}"));
        let removed = self.tree.directories.remove(path).expect("it exists");
        assert!(removed.items.is_empty(), "{path} is not empty");
        let (parent, name) = parent_of(path);
        let now = self.now;
        let Some(parent) = self.tree.directories.get_mut(parent) else { return };
        parent.changed_at = now;
        if let Some(Item::Directory(inode)) = parent.items.remove(name) {
            self.tree.free_inodes.push(inode);
        }
    }

    /// An empty file with a content of its own, or none yet.
    pub(super) fn make_file(&mut self, path: &str, content: Option<ContentId>) -> NodeId {
        let inode = self.new_inode();
        self.tree.nodes.push(Node {
            inode,
            born_at: self.now,
            bytes: Vec::new(),
            content: None,
            names: 0,
            handles: 0,
            modified_at: 0,
            read_from: 0,
        });
        let id = self.tree.nodes.len() - 1;
        self.name_file(path, id);
        if let Some(content) = content {
            self.tree.nodes[id].content = Some(content);
            let now = self.now;
            let number = (self.tree.nodes[id].inode, parent_of(path).0.to_owned());
            let is_new = self.tree.used_inodes.insert(number);
            let named = &mut self.tree.contents[content];
            named.may_be_another = !is_new && !self.plan.knows_births;
            named.names += 1;
            (named.directory, named.born_at) = (parent_of(path).0.to_owned(), now);
        }
        id
    }

    pub(super) fn new_content(&mut self) -> ContentId {
        self.tree.contents.push(Content::default());
        self.tree.contents.len() - 1
    }

    fn name_file(&mut self, path: &str, id: NodeId) {
        self.note(|| format!("inode {} is named {path}", self.tree.nodes[id].inode));
        let (parent, name) = parent_of(path);
        let now = self.now;
        let parent = self.tree.directories.get_mut(parent).expect("it has a parent");
        parent.changed_at = now;
        let before = parent.items.insert(name.to_owned(), Item::File(id));
        self.tree.nodes[id].names += 1;
        if let Some(Item::File(replaced)) = before {
            self.lose_name(replaced);
        }
    }

    pub(super) fn unlink(&mut self, path: &str) {
        self.note(|| format!("unlink {path}"));
        let (parent, name) = parent_of(path);
        let now = self.now;
        let parent = self.tree.directories.get_mut(parent).expect("it has a parent");
        parent.changed_at = now;
        let Some(Item::File(id)) = parent.items.remove(name) else { panic!("{path} is no file") };
        self.lose_name(id);
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) {
        let (parent, name) = parent_of(from);
        let parent = self.tree.directories.get_mut(parent).expect("it has a parent");
        let Some(Item::File(id)) = parent.items.remove(name) else { panic!("{from} is no file") };
        self.name_file(to, id);
        self.tree.nodes[id].names -= 1;
    }

    /// An archive is complete: it is one more name of what it holds.
    pub(super) fn complete_archive(&mut self, id: NodeId, content: ContentId) {
        self.tree.nodes[id].content = Some(content);
        self.tree.contents[content].names += 1;
    }

    fn lose_name(&mut self, id: NodeId) {
        self.tree.nodes[id].names -= 1;
        if let Some(content) = self.tree.nodes[id].content {
            self.tree.contents[content].names -= 1;
            if self.tree.contents[content].names == 0 {
                self.content_unlinked(content);
            }
        }
        self.free_if_unused(id);
    }

    fn free_if_unused(&mut self, id: NodeId) {
        let node = &mut self.tree.nodes[id];
        if node.names == 0 && node.handles == 0 {
            node.bytes = Vec::new();
            self.tree.free_inodes.push(node.inode);
        }
    }

    /// Cuts a file to nothing. What the agent had not read is gone.
    pub(super) fn truncate_file(&mut self, id: NodeId, fresh: ContentId) {
        self.note(|| format!("truncate inode {}", self.tree.nodes[id].inode));
        let node = &mut self.tree.nodes[id];
        node.bytes.clear();
        node.modified_at = unix_nanos(self.now).max(node.modified_at + 1);
        let read_from = std::mem::replace(&mut node.read_from, u64::MAX);
        let read_from = if node.handles > 0 && read_from != u64::MAX { read_from } else { 0 };
        let before = node.content.replace(fresh).expect("live files have a content");
        let opened_in = self.tree.contents[before].opened_in;
        self.tree.contents[fresh].names = 1;
        self.tree.contents[fresh].opened_in = opened_in;
        self.tree.contents[fresh].opens = self.tree.contents[before].opens;
        self.tree.contents[fresh].directory = self.tree.contents[before].directory.clone();
        self.tree.contents[fresh].may_be_another = self.tree.contents[before].may_be_another;
        self.tree.contents[fresh].born_at = self.now;
        self.tree.contents[before].names -= 1;
        self.tree.contents[before].was_cut = true;
        for (end, line) in self.tree.contents[before].lines.clone() {
            if end > read_from {
                self.truth.excuse(line, Excuse::Cut);
            }
        }
        if self.tree.contents[before].names == 0 {
            self.content_unlinked(before);
        }
    }

    /// A content has lost its last name. Whoever has it open can still read it; nobody else can.
    fn content_unlinked(&mut self, content: ContentId) {
        self.tree.contents[content].unlinked_at = self.now;
        let was_opened = self.was_opened(&self.tree.contents[content]);
        if self.is_up && was_opened {
            let is_it = |node: &&Node| node.content == Some(content);
            let handles: u32 = self.tree.nodes.iter().filter(is_it).map(|node| node.handles).sum();
            if (handles as usize) < self.plan.config.receivers.len() {
                // A receiver had read and closed it: what was written to it since that one has not seen. One that
                // had made room for another may not have been read to its end.
                let made_room = self.may_lack_descriptors() || self.tree.has_lacked_descriptors;
                for (_, line) in &self.tree.contents[content].lines {
                    if self.truth.lines[*line].is_late || made_room {
                        self.truth.excuse(*line, Excuse::Late);
                    }
                }
            }
            return;
        }
        if !self.was_too_short(content) {
            self.note(|| "it was never opened, and should have been".to_owned());
            return;
        }
        for (_, line) in &self.tree.contents[content].lines {
            self.truth.excuse_unless_in_spool(*line, Excuse::NeverOpened);
        }
    }

    /// Whether each receiver has opened it in this life of the agent.
    fn was_opened(&self, content: &Content) -> bool {
        let receivers = self.plan.config.receivers.len();
        content.opened_in == Some(self.generation) && content.opens >= receivers
    }

    /// A file was opened and closed, and not a byte of it could be read.
    fn not_opened(&mut self, id: NodeId) {
        let Some(content) = self.tree.nodes[id].content else { return };
        let content = &mut self.tree.contents[content];
        content.opens = content.opens.saturating_sub(1);
        content.opened_in = content.opened_in.filter(|_| content.opens > 0);
        content.opened_live_in = content.opened_live_in.filter(|_| content.opens > 0);
    }

    /// The agent has ended: what has no name any more nobody can read, but the spool may have kept
    /// it.
    pub(super) fn agent_ended(&mut self) {
        self.is_up = false;
        for content in self.tree.contents.iter().filter(|content| content.names == 0) {
            for (_, line) in &content.lines {
                self.truth.excuse_unless_in_spool(*line, Excuse::EndedBefore);
            }
        }
    }

    /// Files that the agent may count as lost: without a name, with lines of which no checkpoint says
    /// that they have arrived.
    pub(super) fn files_that_may_be_lost(&self) -> usize {
        let contents = self.tree.contents.iter().filter(|content| content.names == 0);
        // A loss of power, or an error of the disk, may take what says whose files the spool has.
        let is_spool_known = self.plan.power_odds == 0 && self.plan.disk_fault_odds == 0;
        // Each receiver counts for itself.
        let may_be_lost = |content: &Content| {
            let lines = content.lines.iter().map(|(_, line)| *line);
            let unread = lines.filter(|line| self.truth.may_be_unread(*line, is_spool_known));
            let receivers: BTreeSet<_> = unread.map(|line| self.truth.receiver_of(line)).collect();
            // What was unread of one that is truncated is one loss, what was under way may become another.
            receivers.len() * if content.was_cut { 2 } else { 1 }
        };
        contents.map(may_be_lost).sum()
    }

    /// Bytes of files that this life of the agent had open, that had lost their names before `until`,
    /// and that have come to nowhere. Where a directory could not be looked into, they may have archives
    /// there: the next start counts them, or reads these.
    pub(super) fn lost_bytes(&self, until: u64) -> u64 {
        let is_mine = |content: &&Content| {
            let was_opened = self.was_opened(content);
            let is_known = !self.was_denied(&content.directory, content.unlinked_at);
            content.names == 0 && was_opened && content.unlinked_at < until && is_known
        };
        let mut lost = 0;
        for content in self.tree.contents.iter().filter(is_mine) {
            let (mut starts, mut written) = ([0; 2], BTreeMap::new());
            for (end, line) in &content.lines {
                let start = &mut starts[self.truth.receiver_of(*line)];
                // A line may be written in two steps.
                *written.entry(*line).or_insert(0) += end - *start;
                *start = *end;
            }
            for (line, written) in written {
                let one = &self.truth.lines[line];
                // Of a late line, and of one whose file was truncated, nobody knows.
                let is_known = !one.is_late && !one.is_torn && one.excuse.is_none();
                let bytes = if is_known { self.truth.lost_bytes(line, written) } else { 0 };
                if bytes > 0 {
                    lost += bytes;
                    self.note(|| format!("{bytes} bytes of line {line} have come to nowhere"));
                }
            }
        }
        lost
    }

    /// A directory and all those in it, from the outside in.
    pub(super) fn directories_beneath(&self, path: &str) -> Vec<String> {
        let beneath = format!("{path}/");
        let paths = self.tree.directories.keys();
        paths.filter(|one| *one == path || one.starts_with(&beneath)).cloned().collect()
    }

    /// Names of the files in a directory.
    pub(super) fn files_of(&self, directory: &str) -> Vec<String> {
        let items = &self.tree.directories[directory].items;
        items
            .iter()
            .filter(|(_, item)| matches!(item, Item::File(_)))
            .map(|(name, _)| name.clone())
            .collect()
    }

    pub(super) fn file_at(&self, path: &str) -> Option<NodeId> {
        let (parent, name) = parent_of(path);
        match self.tree.directories.get(parent)?.items.get(name)? {
            Item::File(id) => Some(*id),
            Item::Directory(_) => None,
        }
    }

    /// An error of this kind, now and then.
    fn tree_fault(&mut self, code: i32) -> io::Result<()> {
        let odds = self.plan.tree_fault_odds;
        if self.faults && self.chance.one_in(odds) {
            self.read_errors += 1;
            self.note(|| format!("log files: error {code}"));
            self.tree.has_lacked_descriptors |= code == TOO_MANY_OPEN_FILES;
            self.disturb_scan("");
            // What can't be opened or compared now is read after what can.
            self.truth.forget_order();
            return Err(io::Error::from_raw_os_error(code));
        }
        Ok(())
    }

    /// An error of an open file: one that can't be compared with its checkpoint is read from the start.
    fn read_fault(&mut self) -> io::Result<()> {
        self.tree_fault(INPUT_OUTPUT).inspect_err(|_| self.truth.forget_checkpoints())
    }

    /// The error of what can't be read for a while.
    fn denial(&mut self, path: &str) -> io::Result<()> {
        if self.is_denied(path) {
            self.note(|| format!("{path} is denied"));
            // A file's directory may not have been looked at as far as this file goes.
            self.disturb_scan(path);
            self.disturb_scan(parent_of(path).0);
            return Err(io::Error::from_raw_os_error(ACCESS_DENIED));
        }
        Ok(())
    }

    /// Somebody else may act between any two calls of the agent.
    fn somebody_acts(&mut self) {
        if self.faults && self.chance.one_in(self.plan.race_odds) {
            self.disturb_scan("");
            kubelet::act(self);
        }
    }
}

/// The tree, as the agent sees it.
#[derive(Debug)]
pub(super) struct SimulatedTree(pub(super) Shared);

fn text(path: &Path) -> &str {
    path.to_str().expect("simulated paths are text")
}

impl LogTree for SimulatedTree {
    fn directory(&mut self, path: &Path) -> io::Result<DirectoryState> {
        let mut world = self.0.lock();
        world.somebody_acts();
        world.tree_fault(ACCESS_DENIED)?;
        world.denial(parent_of(text(path)).0)?;
        let directory = world.tree.directories.get(text(path));
        let directory = directory.ok_or_else(|| io::Error::from_raw_os_error(NOT_FOUND))?;
        // The kernel's clock ticks in steps of four milliseconds.
        let changed_at = unix_nanos(directory.changed_at) / 4_000_000 * 4_000_000;
        let changed_at = UNIX_EPOCH + Duration::from_nanos(changed_at);
        let identity = DirectoryIdentity {
            inode: Inode { device: DEVICE + world.tree.remounts, inode: directory.inode },
            born_unix_nanos: Some(unix_nanos(directory.born_at)),
        };
        Ok(DirectoryState { identity, changed_at: Some(changed_at) })
    }

    fn entries(&mut self, path: &Path) -> io::Result<Vec<Entry>> {
        let mut world = self.0.lock();
        world.somebody_acts();
        world.tree_fault(TOO_MANY_OPEN_FILES)?;
        world.denial(text(path))?;
        let directory = world.tree.directories.get(text(path));
        let directory = directory.ok_or_else(|| io::Error::from_raw_os_error(NOT_FOUND))?;
        let entry = |(name, item): (&String, &Item)| {
            let (kind, inode) = match item {
                Item::Directory(inode) => (EntryKind::Directory, *inode),
                Item::File(id) => (EntryKind::File, world.tree.nodes[*id].inode),
            };
            Entry { name: OsString::from(name), kind, inode }
        };
        let mut entries: Vec<Entry> = directory.items.iter().map(entry).collect();
        if world.chance.one_in(2) {
            entries.reverse();
        }
        Ok(entries)
    }

    fn open(&mut self, root: &Path, relative: &Path) -> io::Result<Option<Opened>> {
        let mut world = self.0.lock();
        world.somebody_acts();
        let code = world.chance.pick(&[ACCESS_DENIED, TOO_MANY_OPEN_FILES, INPUT_OUTPUT]);
        let path = root.join(relative);
        if let Err(error) = world.tree_fault(code) {
            if code == TOO_MANY_OPEN_FILES {
                world.waits_for_descriptor(text(&path));
            }
            return Err(error);
        }
        world.denial(text(&path))?;
        let id = world.file_at(text(&path));
        let id = id.ok_or_else(|| io::Error::from_raw_os_error(NOT_FOUND))?;
        let (generation, is_counted) = (world.generation, !world.tree.is_stopping);
        world.tree.open_files += 1;
        if !world.has_room_to_open() {
            // What can't be opened in time is read after what can.
            world.truth.forget_order();
        }
        let node = &mut world.tree.nodes[id];
        node.handles += 1;
        if node.handles == 1 {
            node.read_from = 0;
        }
        let (inode, bytes, content) = (node.inode, node.bytes.len() as u64, node.content);
        if let Some(content) = content {
            if world.tree.contents[content].may_be_another {
                // It may be taken for the one before it, which was renamed.
                world.truth.forget_order();
            }
            world.note_name(content, parent_of(text(&path)).1);
            if is_counted {
                let content = &mut world.tree.contents[content];
                let before = content.opened_in.replace(generation);
                content.opens = if before == Some(generation) { content.opens + 1 } else { 1 };
            }
        }
        world.note(|| format!("agent opens {} inode {inode}, {bytes} bytes", path.display()));
        let inode = Inode { device: DEVICE + world.tree.remounts, inode };
        let (shared, use_of) = (self.0.clone(), Use { is_counted, ..Use::default() });
        let file = Box::new(SimulatedFile { shared, id, use_of });
        Ok(Some(Opened { file, inode, bytes, through: None }))
    }

    fn look_at(&mut self, path: &Path) -> io::Result<Looked> {
        let world = self.0.lock();
        let id = world.file_at(text(path));
        let id = id.ok_or_else(|| io::Error::from_raw_os_error(NOT_FOUND))?;
        let node = &world.tree.nodes[id];
        Ok(Looked {
            inode: Inode { device: DEVICE + world.tree.remounts, inode: node.inode },
            born_unix_nanos: world.plan.knows_births.then(|| unix_nanos(node.born_at)),
            bytes: node.bytes.len() as u64,
            modified_unix_nanos: node.modified_at,
        })
    }
}

/// An open file.
#[derive(Debug)]
struct SimulatedFile {
    shared: Shared,
    id: NodeId,
    use_of: Use,
}

/// What came of an open file so far.
#[derive(Debug, Default)]
struct Use {
    is_counted: bool,
    was_read: AtomicBool,
    has_failed: AtomicBool,
}

impl LogFile for SimulatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut world = self.shared.lock();
        world.somebody_acts();
        world
            .read_fault()
            .inspect_err(|_| self.use_of.has_failed.store(true, Ordering::Relaxed))?;
        self.use_of.was_read.store(true, Ordering::Relaxed);
        let node = &mut world.tree.nodes[self.id];
        // What is read to recognise a file is not taken.
        // Nor is what is read of a file behind the place where it was cut.
        let is_cut = node.read_from == u64::MAX && offset > 0;
        if buffer.len() > HEAD_BYTES_MAX && !is_cut {
            node.read_from = offset;
        }
        let start = node.bytes.len().min(offset as usize);
        let read = buffer.len().min(node.bytes.len() - start);
        buffer[..read].copy_from_slice(&node.bytes[start..start + read]);
        let inode = node.inode;
        world.note(|| format!("agent reads {read} bytes of inode {inode} from {offset}"));
        Ok(read)
    }

    fn state(&self) -> io::Result<FileState> {
        let mut world = self.shared.lock();
        world
            .read_fault()
            .inspect_err(|_| self.use_of.has_failed.store(true, Ordering::Relaxed))?;
        let node = &world.tree.nodes[self.id];
        Ok(FileState {
            bytes: node.bytes.len() as u64,
            modified_unix_nanos: node.modified_at,
            has_name: node.names > 0,
        })
    }

    fn born_unix_nanos(&self) -> Option<u64> {
        let world = self.shared.lock();
        world.plan.knows_births.then(|| unix_nanos(world.tree.nodes[self.id].born_at))
    }
}

impl Drop for SimulatedFile {
    fn drop(&mut self) {
        let mut world = self.shared.lock();
        world.tree.nodes[self.id].handles -= 1;
        world.tree.open_files -= 1;
        let Use { is_counted, was_read, has_failed } = &mut self.use_of;
        if *is_counted && *has_failed.get_mut() && !*was_read.get_mut() {
            // Nobody could find out what it was: it will be opened again, if it is still there.
            world.not_opened(self.id);
        }
        world.free_if_unused(self.id);
    }
}
