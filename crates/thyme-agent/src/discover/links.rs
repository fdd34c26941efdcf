//! Symbolic links in the place of log files, as cri-dockerd and `/var/log/containers` have them.
//! Whoever may make a link must not thereby say what is read: where it leads has to be a file that the
//! configuration includes as well, or lie beneath a directory that it names for that (`link_roots`).
//!
//! A link raises no event when what it leads to is rotated. So discovery looks where links lead, a
//! number of them at a time.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    ops::Bound,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use super::{
    Source,
    look::Look,
    scan::{Scanner, is_absent},
};
use crate::{limits::LINKS_PER_LOOK, tail::identity::Inode, world::LogTree};

/// Where links may lead.
#[derive(Debug, Default)]
pub struct LinkRules {
    sources: Vec<Source>,
    roots: Vec<PathBuf>,
}

impl LinkRules {
    /// To what these receivers include, and to anything beneath these directories.
    pub fn new(sources: Vec<Source>, roots: Vec<PathBuf>) -> Self {
        Self { sources, roots }
    }

    /// The directory beneath which a link's target may be opened; `None` when it may not be. One with
    /// `..` is never followed: what it means depends on links on the way.
    pub fn root_of(&self, target: &Path) -> Option<&Path> {
        if target.components().any(|part| part == Component::ParentDir) {
            return None;
        }
        let included = self.sources.iter().find_map(|source| source.root_of(target));
        let beneath = |root: &&PathBuf| target.starts_with(root);
        included.or_else(|| self.roots.iter().find(beneath).map(PathBuf::as_path))
    }
}

/// The links that discovery found, by directory and name, and which file each led to.
#[derive(Debug, Default)]
pub(super) struct Links {
    led_to: BTreeMap<(Arc<Path>, OsString), Option<Inode>>,
    /// The one that was looked at last.
    last: Option<(Arc<Path>, OsString)>,
}

impl Links {
    /// Forgets those of a directory, which is about to be read anew or gone.
    pub(super) fn forget(&mut self, directory: &Path) {
        if self.led_to.is_empty() {
            return;
        }
        let first = (Arc::from(directory), OsString::new());
        let of_directory = self.led_to.range(first..).map(|(link, _)| link);
        let gone: Vec<_> = of_directory.take_while(|link| *link.0 == *directory).cloned().collect();
        for link in gone {
            self.led_to.remove(&link);
        }
    }

    /// Which file a link led to.
    pub(super) fn get(&self, directory: &Arc<Path>, name: &OsStr) -> Option<Option<Inode>> {
        if self.led_to.is_empty() {
            return None;
        }
        self.led_to.get(&(Arc::clone(directory), name.to_owned())).copied()
    }

    /// Looks at the next of them; the directories of those that lead to another file now, or to none.
    fn changed(&mut self, tree: &mut dyn LogTree) -> Vec<Arc<Path>> {
        let after = self.last.take().map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.led_to.range((after, Bound::Unbounded)).take(LINKS_PER_LOOK);
        let mut changed: Vec<Arc<Path>> = Vec::new();
        let mut looks = 0;
        for (link, led_to) in next {
            looks += 1;
            self.last = Some(link.clone());
            let leads_to = tree.look_at(&link.0.join(&link.1)).ok().map(|looked| looked.inode);
            if leads_to != *led_to && changed.last() != Some(&link.0) {
                changed.push(Arc::clone(&link.0));
            }
        }
        if looks < LINKS_PER_LOOK {
            // That was the end: the next look begins at the front.
            self.last = None;
        }
        changed
    }
}

impl Scanner {
    /// Directories with a link that leads elsewhere than at the last look, as far as it was looked at.
    pub(super) fn changed_links(&mut self) -> Vec<Arc<Path>> {
        self.links.changed(&mut *self.tree)
    }
}

impl Look<'_> {
    /// The number of the file that a link leads to; `None` when there is none now. Whether it may be
    /// read is found out when it is opened.
    pub(super) fn number_behind(&mut self, name: &OsStr) -> Option<u64> {
        let looked = self.scanner.tree.look_at(&self.directory.join(name));
        let is_missing = looked.as_ref().is_err_and(is_absent);
        let led_to = looked.ok().map(|looked| looked.inode);
        self.scanner.links.led_to.insert((Arc::clone(self.directory), name.to_owned()), led_to);
        (!is_missing).then(|| led_to.map_or(0, |inode| inode.inode))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{DirectoryState, Entry, Looked, Opened};
    use std::io;

    /// A tree in which only one link has been switched; it counts how often it is asked.
    struct Switched {
        link: PathBuf,
        asked: usize,
    }

    impl LogTree for Switched {
        fn directory(&mut self, _: &Path) -> io::Result<DirectoryState> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn entries(&mut self, _: &Path) -> io::Result<Vec<Entry>> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn open(&mut self, _: &Path, _: &Path) -> io::Result<Option<Opened>> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn look_at(&mut self, path: &Path) -> io::Result<Looked> {
            self.asked += 1;
            let inode = Inode { device: 1, inode: if self.link == path { 2 } else { 1 } };
            Ok(Looked { inode, born_unix_nanos: None, bytes: 0, modified_unix_nanos: 0 })
        }
    }

    /// Scenario: row 64. 300 links in several directories, of which any one is switched; then all of one
    /// directory are forgotten.
    /// Guarantees: it is found in three looks, each of a bounded number of links; the others are not taken
    /// for changed. What was forgotten is not looked at.
    #[test]
    fn links_are_looked_at_in_turn() {
        let mut links = Links::default();
        let all: Vec<_> = (0..300).map(|number| (number % 7, format!("{number}.log"))).collect();
        for (directory, name) in &all {
            let directory = Arc::from(Path::new(&format!("/logs/{directory}")));
            links.led_to.insert((directory, name.into()), Some(Inode { device: 1, inode: 1 }));
        }
        for (directory, name) in &all {
            let directory = format!("/logs/{directory}");
            let mut tree = Switched { link: Path::new(&directory).join(name), asked: 0 };
            let mut changed = Vec::new();
            for _ in 0..3 {
                let asked = tree.asked;
                changed.extend(links.changed(&mut tree));
                assert!(tree.asked - asked <= LINKS_PER_LOOK);
            }
            assert_eq!(tree.asked, 300);
            assert_eq!(changed, [Arc::from(Path::new(&directory))]);
        }
        links.forget(Path::new("/logs/3"));
        let mut tree = Switched { link: "/logs/3/3.log".into(), asked: 0 };
        for _ in 0..3 {
            assert!(links.changed(&mut tree).is_empty());
        }
        assert_eq!(tree.asked, all.iter().filter(|(directory, _)| *directory != 3).count());
    }
}
