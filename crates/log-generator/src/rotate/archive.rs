//! The archives of a log file: their names, and what exists under each. Looks and removes, never
//! makes or changes one.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::line::time::second_text;

/// Ending of a compressed archive.
const COMPRESSED: &str = ".gz";

/// Ending of a compressed archive in the making.
const TEMPORARY: &str = ".tmp";

/// One rotated file, by whatever names it has at the moment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Archive {
    plain: PathBuf,
}

impl Archive {
    /// The archive whose plain name is `path`.
    pub fn at(path: &Path) -> Self {
        Self { plain: path.to_owned() }
    }

    /// Its name while it is plain: `0.log.YYYYMMDD-HHMMSS`.
    pub fn plain(&self) -> &Path {
        &self.plain
    }

    /// Its name when it is compressed.
    pub fn compressed(&self) -> PathBuf {
        self.with(COMPRESSED)
    }

    /// The name under which it is being compressed.
    pub fn temporary(&self) -> PathBuf {
        self.with(TEMPORARY)
    }

    /// Whether it is there, plain or compressed.
    pub fn exists(&self) -> io::Result<bool> {
        Ok(self.plain.try_exists()? || self.compressed().try_exists()?)
    }

    /// Removes it, plain and compressed.
    pub fn remove(&self) -> io::Result<()> {
        remove_if_there(&self.plain)?;
        remove_if_there(&self.compressed())
    }

    fn with(&self, ending: &str) -> PathBuf {
        let mut path = self.plain.clone().into_os_string();
        path.push(ending);
        PathBuf::from(path)
    }
}

/// The archives of a live file, oldest first, temporary files not counted.
pub fn archives(live: &Path) -> io::Result<Vec<Archive>> {
    list(live, |ending| matches!(ending, "" | COMPRESSED))
}

/// The archives of a live file that have a temporary file.
pub fn unfinished(live: &Path) -> io::Result<Vec<Archive>> {
    list(live, |ending| ending == TEMPORARY)
}

/// Removes a file that may be gone already.
pub fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What the kubelet appends to a name in that second: `.YYYYMMDD-HHMMSS`, here in UTC.
pub fn archive_suffix(unix_seconds: u64) -> String {
    let second = second_text(unix_seconds);
    let digits: String =
        second.iter().filter(|byte| byte.is_ascii_digit()).map(|&byte| char::from(byte)).collect();
    format!(".{}-{}", &digits[..8], &digits[8..])
}

/// Length of what [`archive_suffix`] makes.
const SUFFIX_BYTES: usize = ".YYYYMMDD-HHMMSS".len();

fn list(live: &Path, has: fn(&str) -> bool) -> io::Result<Vec<Archive>> {
    let (Some(directory), Some(name)) = (live.parent(), live.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let name = name.to_string_lossy();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?.file_name();
        let Some((suffix, ending)) = entry
            .to_str()
            .and_then(|entry| entry.strip_prefix(&*name))
            .and_then(|rest| rest.split_at_checked(SUFFIX_BYTES))
        else {
            continue;
        };
        if is_suffix(suffix) && has(ending) {
            found.insert(Archive { plain: directory.join(format!("{name}{suffix}")) });
        }
    }
    Ok(found.into_iter().collect())
}

fn is_suffix(text: &str) -> bool {
    text.bytes().enumerate().all(|(at, byte)| match at {
        0 => byte == b'.',
        9 => byte == b'-',
        _ => byte.is_ascii_digit(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: the last second of a leap day.
    /// Guarantees: Go's layout `20060102-150405`, and it is recognised as such.
    #[test]
    fn suffixes() {
        assert_eq!(archive_suffix(1_709_251_199), ".20240229-235959");
        assert!(is_suffix(".20240229-235959"));
        assert!(!is_suffix(".20240229_235959") && !is_suffix(".2024022x-235959"));
    }
}
