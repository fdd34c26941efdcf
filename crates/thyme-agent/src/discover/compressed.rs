//! Files that somebody else than the kubelet has compressed: a pattern such as `app.log*` matches
//! logrotate's `app.log.1.gz`. Their content was read before they were compressed, as far as anybody can
//! tell, and is no text: they are not read. A name alone proves nothing, so the first bytes are asked.

use std::ffi::OsStr;

use super::pattern::LogName;
use crate::world::{FileState, LogFile};

/// Ends of names, and what such a file begins with.
const MAGICS: [(&[u8], &[u8]); 4] = [
    (b".gz", b"\x1f\x8b"),
    (b".bz2", b"BZh"),
    (b".xz", b"\xfd7zXZ\0"),
    (b".zst", b"\x28\xb5\x2f\xfd"),
];

/// What a file is, as far as its name and its first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// It may be a log.
    Log,
    /// It is compressed; what it was just before that was asked.
    Compressed(FileState),
    /// Its name says that it will be compressed, and it has too few bytes yet.
    TooShort(FileState),
}

/// What a file of this name is. One that the kubelet has compressed is a log.
pub(super) fn content_of(name: &OsStr, file: &dyn LogFile) -> Content {
    let bytes = name.as_encoded_bytes();
    let Some((_, magic)) = MAGICS.iter().find(|(end, _)| bytes.ends_with(end)) else {
        return Content::Log;
    };
    if LogName::parse(name).is_some_and(|parsed| parsed.compressed) {
        return Content::Log;
    }
    // What can't be asked or read now shows that again when it is to be.
    let Ok(state) = file.state() else { return Content::Log };
    let mut first = [0; 6];
    let first = &mut first[..magic.len()];
    match file.read_at(first, 0) {
        Ok(read) if read < magic.len() => Content::TooShort(state),
        Ok(_) if first == *magic => Content::Compressed(state),
        _ => Content::Log,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// Scenario: row 76. Files of several names: empty, with text, with the first bytes of compressed ones.
    /// Guarantees: only what is compressed by name and content is taken for it, and never an archive of the
    /// kubelet's.
    #[test]
    fn compressed_files_are_known_by_name_and_content() {
        let content = |name: &str, bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            match content_of(OsStr::new(name), &file) {
                Content::Log => "log",
                Content::Compressed(_) => "compressed",
                Content::TooShort(_) => "too short",
            }
        };
        for (end, magic) in MAGICS {
            let name = format!("app.log.1{}", str::from_utf8(end).unwrap());
            assert_eq!(content(&name, &[magic, b"more"].concat()), "compressed");
            assert_eq!(content(&name, magic), "compressed");
            assert_eq!(content(&name, b""), "too short");
            assert_eq!(content(&name, &magic[..1]), "too short");
            assert_eq!(content(&name, b"a line of text"), "log");
            assert_eq!(content("app.log", magic), "log");
        }
        assert_eq!(content("0.log.20260101-000000.gz", b"\x1f\x8b"), "log");
    }
}
