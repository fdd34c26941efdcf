//! Namespaces of the kernel, in which a test may mount a small file system or lower a limit without
//! being root. Where the kernel or its administrator forbids them, a test says that it was skipped.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::program::skipped;

/// A process that keeps a user and a mount namespace open, in which this user is root.
pub(crate) struct Namespace {
    holder: Child,
}

impl Namespace {
    /// Makes one and runs a shell script in it as its root; `None`, said aloud, where that can't be
    /// done.
    pub(crate) fn new(test: &str, script: &str) -> Option<Self> {
        // Root needs no user namespace, and may be refused one.
        let is_root = rustix::process::geteuid().is_root();
        Self::with(test, if is_root { "-m" } else { "-Urm" }, script)
    }

    /// As [`Self::new`], with a user namespace in any case: limits of users belong to it.
    pub(crate) fn of_user(test: &str, script: &str) -> Option<Self> {
        Self::with(test, "-Urm", script)
    }

    fn with(test: &str, flags: &str, script: &str) -> Option<Self> {
        // The shell then waits for the end of its input, which is that of this value.
        let script = format!("set -e; {script}; echo ready; cat");
        let holder = Command::new("unshare")
            .args([flags, "--propagation", "private", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut holder = match holder {
            Ok(holder) => holder,
            Err(error) => {
                skipped(test, &format!("unshare: {error}"));
                return None;
            }
        };
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let namespace = Self { holder };
        if line.trim() == "ready" {
            return Some(namespace);
        }
        skipped(test, "this machine allows no namespaces, or not what was to be done in one");
        None
    }

    /// One with a small file system mounted at `directory`, which the test sees under
    /// [`Self::path`].
    pub(crate) fn with_small_disk(test: &str, directory: &Path, mebibytes: u32) -> Option<Self> {
        fs::create_dir_all(directory).unwrap();
        let at = directory.display();
        Self::new(test, &format!("mount -t tmpfs -o size={mebibytes}m,mode=0700 small '{at}'"))
    }

    /// A command that becomes the program within the namespace, as its root, with the same process
    /// id.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        let id = self.holder.id();
        command.arg(format!("--mount=/proc/{id}/ns/mnt"));
        let own = fs::read_link("/proc/self/ns/user").unwrap();
        if fs::read_link(format!("/proc/{id}/ns/user")).unwrap() != own {
            // This user is root in there already.
            command.args([&format!("--user=/proc/{id}/ns/user"), "--preserve-credentials"]);
        }
        command.arg("--").arg(program);
        command
    }

    /// What a path of the namespace is called outside of it.
    pub(crate) fn path(&self, path: &Path) -> PathBuf {
        let root = format!("/proc/{}/root", self.holder.id());
        Path::new(&root).join(path.strip_prefix("/").unwrap())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        // It ends with its input; what is mounted goes with the last process of the namespace.
        self.holder.wait().ok();
    }
}

/// Fills a file system up to its last block.
pub(crate) fn fill(directory: &Path) -> PathBuf {
    let path = directory.join("filler");
    let mut file = fs::File::create(&path).unwrap();
    // Large pieces until none fits, then small ones.
    for bytes in [64 * 1024, 512] {
        while file.write_all(&vec![0; bytes]).is_ok() {}
    }
    path
}
