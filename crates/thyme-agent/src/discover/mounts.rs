//! Mounts beneath the roots of patterns: no watch tells of one, nor does the directory above. The kernel
//! says that its table of mounts has changed to whoever polls it.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, File},
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The kernel's table of this process's mounts.
const TABLE: &str = "/proc/self/mountinfo";

/// A mount: its number, and where it is.
type Mount = (u64, PathBuf);

/// What is mounted beneath roots, as the table last said.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    /// Open, so that it can be polled; `None` where nobody looks.
    table: Option<File>,
    mounts: BTreeSet<Mount>,
}

impl Mounts {
    /// Those of the operating system.
    pub(super) fn new(roots: &[&Path]) -> Self {
        let table = File::open(TABLE).ok();
        // What comes between the two is said by the first poll.
        let mounts = if table.is_some() { read(roots) } else { BTreeSet::new() };
        Self { table, mounts }
    }

    /// Where something was mounted or unmounted beneath a root since this was asked last.
    pub(super) fn changed(&mut self, roots: &[&Path]) -> BTreeSet<PathBuf> {
        if !self.table.as_ref().is_some_and(has_changed) {
            return BTreeSet::new();
        }
        let before = std::mem::replace(&mut self.mounts, read(roots));
        before.symmetric_difference(&self.mounts).map(|(_, place)| place.clone()).collect()
    }
}

/// Whether the table is another one than at the last poll of it.
fn has_changed(table: &File) -> bool {
    let mut asked = [PollFd::new(table, PollFlags::PRI)];
    poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok()
        && asked[0].revents().intersects(PollFlags::PRI | PollFlags::ERR)
}

fn read(roots: &[&Path]) -> BTreeSet<Mount> {
    let table = fs::read(TABLE).unwrap_or_default();
    // The table has no links in its paths; a root may be reached through some.
    let real = |root: &&Path| Some((fs::canonicalize(root).ok()?, root.to_path_buf()));
    let roots: Vec<(PathBuf, PathBuf)> = roots.iter().filter_map(real).collect();
    parse(&table, &roots)
}

/// The mounts beneath roots, which are given by their real path and by their own.
fn parse(table: &[u8], roots: &[(PathBuf, PathBuf)]) -> BTreeSet<Mount> {
    let mut mounts = BTreeSet::new();
    for line in table.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ');
        let number = fields.next().and_then(|field| str::from_utf8(field).ok()?.parse().ok());
        let (Some(number), Some(place)) = (number, fields.nth(3)) else { continue };
        let place = PathBuf::from(unescaped(place));
        let beneath = roots.iter().filter_map(|(real, root)| {
            let relative = place.strip_prefix(real).ok()?;
            // Where a root itself leads is looked at anyway.
            (!relative.as_os_str().is_empty()).then(|| root.join(relative))
        });
        mounts.extend(beneath.map(|place| (number, place)));
    }
    mounts
}

/// A path as it is: in the table, blanks, newlines and backslashes stand as three octal digits.
fn unescaped(field: &[u8]) -> OsString {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match escaped.filter(|_| byte == b'\\') {
            Some(escaped) => {
                path.push(escaped);
                rest = &after[3..];
            }
            None => {
                path.push(byte);
                rest = after;
            }
        }
    }
    OsString::from_vec(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: row 38. A table with mounts elsewhere, at a root, beneath it, twice in one place, with a blank
    /// in its name, and at a directory whose name begins as the root's; the root is reached through a link.
    /// Guarantees: those beneath the root are found, under the root's own path.
    #[test]
    fn mounts_beneath_roots_are_found() {
        let table = b"20 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            21 20 0:5 / /data/pods rw shared:1 - tmpfs t rw\n\
            22 21 0:6 / /data/pods/a rw - tmpfs t rw\n\
            23 22 0:7 / /data/pods/a rw - tmpfs t rw\n\
            24 21 0:8 /x /data/pods/b\\040c/\\134d rw - tmpfs t rw\n\
            25 20 0:9 / /data/pods2/e rw - tmpfs t rw\n\
            not a line\n";
        let roots = [("/data/pods".into(), "/logs".into())];
        let expected = [(22, "/logs/a"), (23, "/logs/a"), (24, "/logs/b c/\\d")];
        let expected = expected.map(|(number, place)| (number, PathBuf::from(place)));
        assert_eq!(parse(table, &roots), BTreeSet::from(expected));
    }
}
