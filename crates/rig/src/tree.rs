//! The temporary tree that one run lives in, and the disk space that it may need. It is removed
//! when its owner is dropped, so it must be dropped after every process that writes to it.

use crate::{
    error::{Error, Result, io_error},
    limits::DISK_OVERHEAD_BYTES,
};
use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
};

/// How many names are tried for a new tree.
const NAMES_MAX: u32 = 1000;

/// A directory of this run's own.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    keep: bool,
}

impl Tree {
    /// Makes `thyme-rig-PID-N` in `base`, with `pods` (laid out as `/var/log/pods`), `state` (the
    /// agent's) and `children` (what the children print) in it.
    pub fn create(base: &Path, keep: bool) -> Result<Self> {
        let root = create_new(base)?;
        let tree = Self { root, keep };
        for directory in [tree.pods(), tree.state(), tree.children()] {
            fs::create_dir(&directory)
                .map_err(io_error(format!("making {}", directory.display())))?;
        }
        Ok(tree)
    }

    /// Where the generator writes and the agent reads.
    pub fn pods(&self) -> PathBuf {
        self.root.join("pods")
    }

    /// The agent's own directory; it outlives a killed agent.
    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// What the children print.
    pub fn children(&self) -> PathBuf {
        self.root.join("children")
    }

    /// The agent's configuration.
    pub fn agent_config(&self) -> PathBuf {
        self.root.join("agent.yaml")
    }

    /// The manifest of a generator, by its name.
    pub fn manifest(&self, generator: &str) -> PathBuf {
        self.root.join(format!("{generator}.manifest.jsonl"))
    }

    /// The tree's path.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if !self.keep {
            // Nothing is left to be told: the caller is on its way out.
            let _result = fs::remove_dir_all(&self.root);
        }
    }
}

fn create_new(base: &Path) -> Result<PathBuf> {
    for number in 0..NAMES_MAX {
        let root = base.join(format!("thyme-rig-{}-{number}", process::id()));
        match fs::create_dir(&root) {
            Ok(()) => {
                return root
                    .canonicalize()
                    .map_err(io_error(format!("resolving {}", root.display())));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io_error(format!("making {}", root.display()))(error)),
        }
    }
    Err(Error::Usage(format!("{} is full of old trees", base.display())))
}

/// What decides how much a run may write.
#[derive(Clone, Copy, Debug)]
pub struct Volume {
    /// Lines per second, all pods together.
    pub rate: u64,
    /// Containers.
    pub pods: u64,
    /// Length of the load.
    pub seconds: f64,
    /// Mean length of a line in a file, its CRI header included.
    pub line_bytes: u64,
    /// Files kept for each container, the live one included.
    pub files: u64,
    /// Size at which a file is rotated.
    pub file_bytes: u64,
    /// How often sizes are looked at; a file grows beyond its size for as long.
    pub check_seconds: f64,
}

impl Volume {
    /// The most that may lie on the disk at once. Compression is not counted on: archives wait for
    /// the generator's single compressing thread.
    pub fn disk_bytes_max(&self) -> u64 {
        let bytes_per_second = self.rate as f64 * self.line_bytes as f64;
        let written = bytes_per_second * self.seconds;
        let overshoot = bytes_per_second * self.check_seconds / self.pods as f64;
        // One file more than is kept: the oldest goes only after the new one is there.
        let kept = (self.files + 1) as f64 * (self.file_bytes as f64 + overshoot);
        let logs = written.min(kept * self.pods as f64);
        // Saturates: a hopeless wish stays hopeless.
        (logs as u64).saturating_add(DISK_OVERHEAD_BYTES)
    }
}

/// Refuses to start what would fill the disk under `base`.
pub fn check_space(base: &Path, needed: u64) -> Result<()> {
    let space = rustix::fs::statvfs(base)
        .map_err(io::Error::from)
        .map_err(io_error(format!("asking for the free space of {}", base.display())))?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    if needed > free {
        return Err(Error::DiskSpace { path: base.to_owned(), needed, free });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOLUME: Volume = Volume {
        rate: 50_000,
        pods: 20,
        seconds: 30.0,
        line_bytes: 300,
        files: 5,
        file_bytes: 10 << 20,
        check_seconds: 10.0,
    };

    /// Scenario: a short run, a long run, and one that nothing could hold.
    /// Guarantees: the estimate is what is written, at most what rotation keeps, and never wraps.
    #[test]
    fn space_is_bounded_by_time_and_by_rotation() {
        assert_eq!(VOLUME.disk_bytes_max(), 50_000 * 300 * 30 + DISK_OVERHEAD_BYTES);
        let kept = 20 * 6 * ((10 << 20) + 50_000 * 300 * 10 / 20);
        let long = Volume { seconds: 1e6, ..VOLUME };
        assert_eq!(long.disk_bytes_max(), kept + DISK_OVERHEAD_BYTES);
        let endless = Volume { seconds: 1e300, file_bytes: u64::MAX, ..VOLUME };
        assert_eq!(endless.disk_bytes_max(), u64::MAX);
    }

    /// Scenario: one byte is wanted, then more than any disk has.
    /// Guarantees: the first is granted; the second is refused with both figures.
    #[test]
    fn space_is_compared_with_what_is_free() {
        let base = tempfile::tempdir().unwrap();
        check_space(base.path(), 1).unwrap();
        let error = check_space(base.path(), u64::MAX).unwrap_err();
        assert!(error.to_string().contains("too little disk space"), "{error}");
    }

    /// Scenario: two trees at the same base, one of them to be kept.
    /// Guarantees: they differ; dropping removes one with its content and leaves the other.
    #[test]
    fn a_tree_is_removed_unless_kept() {
        let base = tempfile::tempdir().unwrap();
        let gone = Tree::create(base.path(), false).unwrap();
        let kept = Tree::create(base.path(), true).unwrap();
        assert_ne!(gone.root(), kept.root());
        fs::write(gone.pods().join("x"), "x").unwrap();
        let (gone_root, kept_root) = (gone.root().to_owned(), kept.root().to_owned());
        drop((gone, kept));
        assert!(!gone_root.exists());
        assert!(kept_root.join("pods").is_dir());
    }
}
