//! Opens what discovery found: regular files only, no symbolic link on the way below the root,
//! never waiting for a FIFO's writer. Where the file itself is a link, what it leads to is opened by the
//! same rules beneath another root, if one allows it.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat2, readlinkat},
    io::Errno,
};

use super::links::LinkRules;
use crate::{limits::LINKS_IN_A_ROW_MAX, tail::identity::Inode, world::Opened};

/// No file outside of a directory, and no symbolic link on the way.
const RESOLVE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// Opens `relative`, beneath `root`; where it is a symbolic link, what it leads to, if the rules allow
/// that. `Ok(None)`: it is no regular file, a link is on the way, or it leads where none may.
///
/// Each link is read and what it says is opened: whoever replaces one meanwhile gains nothing.
pub fn open_following(
    rules: &LinkRules,
    root: &Path,
    relative: &Path,
) -> io::Result<Option<Opened>> {
    let (mut root, mut relative) = (root.to_owned(), relative.to_owned());
    let mut through: Option<Box<Path>> = None;
    for _ in 0..=LINKS_IN_A_ROW_MAX {
        let directory = open_root(&root)?;
        if let Some(opened) = open_beneath(&directory, &relative)? {
            return Ok(Some(Opened { through, ..opened }));
        }
        let Some(says) = read_link(&directory, &relative)? else { return Ok(None) };
        if says.components().any(|part| part == Component::ParentDir) {
            return Ok(None);
        }
        // What is relative begins where the link is.
        let target = root.join(&relative).parent().unwrap_or(&root).join(says);
        let Some(allowed) = rules.root_of(&target) else { return Ok(None) };
        relative = target.strip_prefix(allowed).unwrap_or(Path::new("")).to_owned();
        if relative.as_os_str().is_empty() {
            return Ok(None);
        }
        root = allowed.to_owned();
        through.get_or_insert(target.into());
    }
    Ok(None)
}

/// What a symbolic link says; `None` when it is none, or one is on the way.
fn read_link(root: &File, relative: &Path) -> io::Result<Option<PathBuf>> {
    let (Some(parent), Some(name)) = (relative.parent(), relative.file_name()) else {
        return Ok(None);
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let said = openat2(root, parent, flags, Mode::empty(), RESOLVE)
        .and_then(|parent| readlinkat(parent, name, Vec::new()));
    match said {
        Ok(said) => Ok(Some(OsStr::from_bytes(said.as_bytes()).into())),
        Err(Errno::LOOP | Errno::XDEV | Errno::INVAL) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Opens `relative`, beneath `root`. `Ok(None)`: it isn't a regular file, or a symbolic link is on
/// the way.
pub fn open_beneath(root: &File, relative: &Path) -> io::Result<Option<Opened>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match openat2(root, relative, flags, Mode::empty(), RESOLVE) {
        Ok(file) => File::from(file),
        Err(Errno::LOOP | Errno::XDEV | Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let stat = fstat(&file)?;
    if !FileType::from_raw_mode(stat.st_mode).is_file() {
        return Ok(None);
    }
    let inode = Inode { device: stat.st_dev, inode: stat.st_ino };
    Ok(Some(Opened {
        file: Box::new(file),
        inode,
        bytes: u64::try_from(stat.st_size).unwrap_or(0),
        through: None,
    }))
}

/// Opens a root directory, which may itself be reached through links.
pub fn open_root(root: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY;
    Ok(File::from(rustix::fs::openat(CWD, root, flags, Mode::empty())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Scenario: a regular file, a link to it, a linked directory, a way out by `..`, a FIFO
    /// without a writer, a directory, and nothing.
    /// Guarantees: only the regular file is opened, and nothing waits.
    #[test]
    fn only_regular_files_beneath_the_root() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir(at("real")).unwrap();
        std::fs::write(at("real/file"), b"12345").unwrap();
        symlink(at("real/file"), at("link")).unwrap();
        symlink(at("real"), at("linked")).unwrap();
        rustix::fs::mkfifoat(CWD, at("fifo"), Mode::RUSR | Mode::WUSR).unwrap();
        let root = open_root(directory.path()).unwrap();
        let opened = open_beneath(&root, Path::new("real/file")).unwrap().unwrap();
        assert_eq!(opened.bytes, 5);
        for refused in ["link", "linked/file", "../x", "fifo", "real"] {
            assert!(open_beneath(&root, Path::new(refused)).unwrap().is_none(), "{refused}");
        }
        let missing = open_beneath(&root, Path::new("missing")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    /// A node: `pods` is included but for one namespace, `docker` a directory that links may lead into.
    struct Node {
        directory: tempfile::TempDir,
        rules: LinkRules,
    }

    impl Node {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let at = |name: &str| directory.path().join(name);
            for one in ["pods/ns_a_1/c", "pods/no_a_2/c", "docker/id", "docker2", "secret"] {
                std::fs::create_dir_all(at(one)).unwrap();
            }
            for file in ["docker/id/json.log", "docker2/json.log", "secret/shadow"] {
                std::fs::write(at(file), file).unwrap();
            }
            for file in ["pods/ns_a_1/c/0.log", "pods/ns_a_1/c/token", "pods/no_a_2/c/0.log"] {
                std::fs::write(at(file), file).unwrap();
            }
            let text = |name: &str| at(name).display().to_string();
            let yaml = format!(
                "receivers: {{filelog: {{include: ['{}'], exclude: ['{}']}}}}\n\
                 exporters: {{otlp: {{endpoint: 'a:1'}}}}\n\
                 service: {{pipelines: {{logs: {{receivers: [filelog], exporters: [otlp]}}}}}}\n",
                text("pods/*/*/*.log"),
                text("pods/no_*/*/*.log"),
            );
            let config = crate::config::Config::parse(&yaml, "test.yaml").unwrap();
            let source = crate::discover::Source::new(&config.receivers[0]).unwrap();
            let rules = LinkRules::new(vec![source], vec![at("docker")]);
            Self { directory, rules }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        /// What is opened where `pods/ns_a_1/c/link.log` is a link to this: its path, as its content.
        fn read(&self, target: impl AsRef<Path>) -> Option<String> {
            self.link(target.as_ref(), "pods/ns_a_1/c/link.log");
            self.open().map(|opened| {
                let mut buffer = [0; 64];
                let read = opened.file.read_at(&mut buffer, 0).unwrap();
                String::from_utf8_lossy(&buffer[..read]).into_owned()
            })
        }

        fn open(&self) -> Option<Opened> {
            let relative = Path::new("ns_a_1/c/link.log");
            open_following(&self.rules, &self.at("pods"), relative).unwrap()
        }

        fn link(&self, target: &Path, name: &str) {
            let fresh = self.at("fresh");
            symlink(target, &fresh).unwrap();
            std::fs::rename(fresh, self.at(name)).unwrap();
        }
    }

    /// Scenario: links to a file that is included, to one beneath a directory that is named for links,
    /// relative ones, and from one link to the next, up to the limit.
    /// Guarantees: what they lead to is opened, and where the first led to is said.
    #[test]
    fn links_to_what_the_configuration_allows_are_followed() {
        let node = Node::new();
        let own = "pods/ns_a_1/c/0.log";
        assert_eq!(node.read(node.at(own)).as_deref(), Some(own));
        assert_eq!(node.read("0.log").as_deref(), Some(own));
        assert_eq!(node.read("./0.log").as_deref(), Some(own));
        let docker = node.at("docker/id/json.log");
        assert_eq!(node.read(&docker).as_deref(), Some("docker/id/json.log"));
        assert_eq!(node.open().unwrap().through.as_deref(), Some(&*docker));
        for (number, leads_to) in [(1, docker), (2, node.at("pods/ns_a_1/c/1.log"))] {
            node.link(&leads_to, &format!("pods/ns_a_1/c/{number}.log"));
            let found = node.read(format!("{number}.log"));
            assert_eq!(found.as_deref(), Some("docker/id/json.log"), "{number}");
        }
        assert_eq!(node.open().unwrap().through.as_deref(), Some(&*node.at("pods/ns_a_1/c/2.log")));
    }

    /// Scenario: links to a file outside of everything, to a sibling of a directory whose name begins
    /// alike, out by `..`, to a file that is excluded, to one of a container that is no log, to
    /// directories, a FIFO, a device, itself, one link too many, through a linked directory, and to
    /// links beneath allowed directories that lead out of them.
    /// Guarantees: none is opened, and nothing waits. A link to nothing is not there.
    #[test]
    fn hostile_links_are_refused() {
        let node = Node::new();
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mkfifoat(CWD, node.at("docker/fifo.log"), mode).unwrap();
        symlink(node.at("secret"), node.at("docker/linked")).unwrap();
        symlink(node.at("secret/shadow"), node.at("docker/out.log")).unwrap();
        symlink(node.at("secret/shadow"), node.at("pods/ns_a_1/c/9.log")).unwrap();
        for number in 1..=LINKS_IN_A_ROW_MAX {
            let next = format!("{}.log", number - 1);
            symlink(next, node.at(&format!("pods/ns_a_1/c/{number}.log"))).unwrap();
        }
        assert!(node.read(format!("{}.log", LINKS_IN_A_ROW_MAX - 1)).is_some());
        let outside = ["/etc/shadow", "/dev/zero", "/proc/self/environ"].map(PathBuf::from);
        let beneath = [
            "secret/shadow",
            "docker2/json.log",
            "docker/../secret/shadow",
            "docker/id/../id/json.log",
            "docker",
            "docker/id",
            "docker/fifo.log",
            "docker/linked/shadow",
            "docker/out.log",
            "pods/no_a_2/c/0.log",
            "pods/ns_a_1/c/token",
            "pods/ns_a_1/c",
            "pods/ns_a_1/c/link.log",
            "pods/ns_a_1/c/9.log",
        ];
        let relative = ["../c/0.log", "../../../secret/shadow", ".", "link.log"];
        let too_many = format!("{LINKS_IN_A_ROW_MAX}.log");
        let targets = beneath.iter().map(|one| node.at(one)).chain(outside);
        for target in targets.chain(relative.map(PathBuf::from)).chain([too_many.into()]) {
            assert_eq!(node.read(&target), None, "{target:?}");
        }
        node.link(&node.at("docker/missing"), "pods/ns_a_1/c/link.log");
        let relative = Path::new("ns_a_1/c/link.log");
        let missing = open_following(&node.rules, &node.at("pods"), relative).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        // Without rules, none is followed.
        node.link(&node.at("pods/ns_a_1/c/0.log"), "pods/ns_a_1/c/link.log");
        let none = open_following(&LinkRules::default(), &node.at("pods"), relative);
        assert!(none.unwrap().is_none());
    }

    /// Scenario: a link, what it leads to and a directory on the way are replaced by links to a secret
    /// and back, as fast as can be, while the link is opened.
    /// Guarantees: what is opened is never the secret.
    #[test]
    fn a_link_that_is_replaced_meanwhile_gains_nothing() {
        let node = Node::new();
        let (good, secret) = (node.at("docker/id/json.log"), node.at("secret/shadow"));
        let ends = std::sync::atomic::AtomicBool::new(false);
        let done = || ends.load(std::sync::atomic::Ordering::Relaxed);
        node.link(&good, "pods/ns_a_1/c/link.log");
        std::thread::scope(|scope| {
            let node = &node;
            scope.spawn(move || {
                while !done() {
                    for target in [&secret, &good] {
                        node.link(target, "pods/ns_a_1/c/link.log");
                    }
                    // The target itself, and the directory that it is in.
                    let aside = node.at("docker/id/aside");
                    std::fs::rename(&good, &aside).unwrap();
                    node.link(&secret, "docker/id/json.log");
                    std::fs::rename(&aside, &good).unwrap();
                    std::fs::rename(node.at("docker/id"), node.at("docker/kept")).unwrap();
                    node.link(&node.at("secret"), "docker/id");
                    std::fs::remove_file(node.at("docker/id")).unwrap();
                    std::fs::rename(node.at("docker/kept"), node.at("docker/id")).unwrap();
                }
            });
            let (start, mut opens) = (std::time::Instant::now(), 0);
            let seconds = |most| start.elapsed() < std::time::Duration::from_secs(most);
            // Whatever comes of it, the other thread has to end.
            let mut read = b"docker/id/json.log".to_vec();
            while read == b"docker/id/json.log" && (opens < 200 || seconds(1)) && seconds(30) {
                // What is missing for a moment is an error.
                let relative = Path::new("ns_a_1/c/link.log");
                let found = open_following(&node.rules, &node.at("pods"), relative);
                if let Ok(Some(opened)) = found {
                    read.resize(64, 0);
                    let bytes = opened.file.read_at(&mut read, 0).unwrap_or(0);
                    read.truncate(bytes);
                    opens += 1;
                }
            }
            ends.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(String::from_utf8_lossy(&read), "docker/id/json.log");
            assert!(opens > 0, "it was never there");
        });
    }
}
