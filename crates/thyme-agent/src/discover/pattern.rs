//! Include and exclude patterns, and the names that rotation gives a live file.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use globset::{Glob, GlobBuilder, GlobMatcher};

/// Why a pattern can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PatternError {
    /// Not a glob.
    #[error("{pattern}: {source}")]
    Glob {
        /// As written.
        pattern: String,
        /// What is wrong with it.
        source: globset::Error,
    },
    /// A pattern must have a level for files.
    #[error("{pattern}: expected a file or a pattern of files, this is the root directory")]
    NoFile {
        /// As written.
        pattern: String,
    },
    /// Alternates that hold directories make a pattern each.
    #[error(
        "{pattern}: its alternates make more than {ALTERNATES_MAX} patterns: take some of them as \
         patterns of their own, or a wildcard"
    )]
    TooMany {
        /// As written.
        pattern: String,
    },
    /// No path has one.
    #[error("{pattern}: there is a NUL in it, which no path has")]
    Nul {
        /// As written, with `\0` for each.
        pattern: String,
    },
    /// A pattern must say where it begins.
    #[error("{pattern}: expected an absolute path, such as /var/log/pods/*/*/*.log")]
    Relative {
        /// As written.
        pattern: String,
    },
}

/// One level of a pattern below its root.
#[derive(Clone, Debug)]
pub enum Level {
    /// One directory or file name.
    Name(GlobMatcher),
    /// `**`: any number of directories.
    AnyDepth,
}

/// An include pattern: the directory that it is rooted in, and a matcher for each level below.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// The longest leading path without wildcards; of a pattern without any, its directory.
    pub root: PathBuf,
    /// At least one; the last is for files.
    pub levels: Vec<Level>,
}

/// Patterns that the alternates of one may make.
const ALTERNATES_MAX: usize = 64;

impl Pattern {
    /// Parses an absolute path with `*`, `?`, `[…]`, `{…}` and `**`. Alternates that reach over
    /// several levels, as in `{pods/*/*,containers}/*.log`, make several patterns.
    ///
    /// # Errors
    /// It is no glob, not absolute, without a level for files, or its alternates are too many.
    pub fn all(pattern: &str) -> Result<Vec<Self>, PatternError> {
        let mut alternates = vec![pattern.to_owned()];
        let mut at = 0;
        while let Some(one) = alternates.get(at) {
            match split_alternates(one) {
                Some(split) => drop(alternates.splice(at..=at, split)),
                None => at += 1,
            }
            if alternates.len() > ALTERNATES_MAX {
                return Err(PatternError::TooMany { pattern: pattern.to_owned() });
            }
        }
        alternates.iter().map(|one| Self::new(one)).collect()
    }

    /// One without alternates that hold a slash.
    fn new(pattern: &str) -> Result<Self, PatternError> {
        if pattern.contains('\0') {
            return Err(PatternError::Nul { pattern: pattern.replace('\0', "\\0") });
        }
        let path = Path::new(pattern);
        if !path.is_absolute() {
            return Err(PatternError::Relative { pattern: pattern.to_owned() });
        }
        let parts: Vec<&str> = path
            .components()
            .filter(|part| !matches!(part, Component::RootDir))
            .filter_map(|part| part.as_os_str().to_str())
            .collect();
        if parts.is_empty() {
            return Err(PatternError::NoFile { pattern: pattern.to_owned() });
        }
        let has_wildcard = |part: &&str| part.contains(['*', '?', '[', '{', '\\']);
        let first_wild = parts.iter().position(has_wildcard).unwrap_or(parts.len());
        let root_parts = first_wild.min(parts.len().saturating_sub(1));
        let mut root = PathBuf::from("/");
        root.extend(&parts[..root_parts]);
        let level = |part: &&str| match *part {
            "**" => Ok(Level::AnyDepth),
            name => glob(name).map(|glob| Level::Name(glob.compile_matcher())),
        };
        let mut levels: Vec<Level> =
            parts[root_parts..].iter().map(level).collect::<Result<_, _>>()?;
        // `dir/**` means every file below, as doublestar has it.
        if matches!(levels.last(), Some(Level::AnyDepth)) {
            levels.push(Level::Name(glob("*")?.compile_matcher()));
        }
        // Several of `**` mean the same as one, which may stand for no directory at all.
        levels.dedup_by(|one, other| matches!((one, other), (Level::AnyDepth, Level::AnyDepth)));
        Ok(Self { root, levels })
    }

    /// Whether a whole path is one of its files.
    pub fn matches(&self, path: &Path) -> bool {
        let Ok(below) = path.strip_prefix(&self.root) else { return false };
        let names: Vec<&OsStr> = below.iter().collect();
        matches_levels(&self.levels, &names)
    }
}

fn matches_levels(levels: &[Level], names: &[&OsStr]) -> bool {
    match (levels, names) {
        ([], []) => true,
        ([Level::AnyDepth, rest @ ..], _) => {
            (0..=names.len()).any(|depth| matches_levels(rest, &names[depth..]))
        }
        ([Level::Name(glob), rest @ ..], [name, below @ ..]) => {
            glob.is_match(name) && matches_levels(rest, below)
        }
        _ => false,
    }
}

/// The patterns that the first group of alternates with a slash makes; `None` without such a group.
fn split_alternates(pattern: &str) -> Option<Vec<String>> {
    // Where each open brace stands, with the commas of its group and whether it holds a slash.
    let mut open: Vec<(usize, Vec<usize>, bool)> = Vec::new();
    let mut characters = pattern.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => drop(characters.next()),
            '[' => skip_class(&mut characters),
            '{' => open.push((at, vec![at], false)),
            ',' => open.last_mut().into_iter().for_each(|(_, commas, _)| commas.push(at)),
            '/' => open.iter_mut().for_each(|(_, _, has_slash)| *has_slash = true),
            '}' => {
                let (start, mut borders, has_slash) = open.pop()?;
                // Inner groups come later: what is beside them must not be there twice.
                if has_slash && open.is_empty() {
                    borders.push(at);
                    let (before, after) = (&pattern[..start], &pattern[at + 1..]);
                    let alternate = |pair: &[usize]| &pattern[pair[0] + 1..pair[1]];
                    let parts = borders.windows(2).map(alternate);
                    return Some(parts.map(|part| format!("{before}{part}{after}")).collect());
                }
            }
            _ => {}
        }
    }
    None
}

/// Passes over the rest of a class such as `[!a-z]`, in which braces are characters like others.
fn skip_class(characters: &mut std::str::CharIndices<'_>) {
    let mut is_first = true;
    for (_, character) in characters {
        match character {
            '!' | '^' if is_first => continue,
            ']' if !is_first => return,
            _ => is_first = false,
        }
    }
}

/// A matcher of whole paths, for `exclude`.
pub fn path_matcher(pattern: &str) -> Result<GlobMatcher, PatternError> {
    Ok(glob(pattern)?.compile_matcher())
}

fn glob(pattern: &str) -> Result<Glob, PatternError> {
    GlobBuilder::new(pattern)
        .literal_separator(true)
        .backslash_escape(true)
        .build()
        .map_err(|source| PatternError::Glob { pattern: pattern.to_owned(), source })
}

/// What a file's name says about its place in a rotation by the kubelet
/// (kubernetes/kubernetes, `pkg/kubelet/logs/container_log_manager.go`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogName<'a> {
    /// Name of the live file that it is, or was before its rotation.
    pub live: &'a OsStr,
    /// The name without `.gz`: what the file was called before it was compressed.
    pub plain: &'a OsStr,
    /// When it was rotated, `YYYYMMDD-HHMMSS`; `None` while it is live.
    pub rotated_at: Option<&'a OsStr>,
    /// Whether it is a complete `.gz`.
    pub compressed: bool,
}

impl<'a> LogName<'a> {
    /// Reads a name; `None` for an archive that is still being written (`.tmp`).
    pub fn parse(name: &'a OsStr) -> Option<Self> {
        let bytes = name.as_bytes();
        if let Some(stem) = bytes.strip_suffix(b".tmp")
            && split_rotated(stem).is_some()
        {
            return None;
        }
        let (plain, compressed) = match bytes.strip_suffix(b".gz") {
            Some(plain) => (plain, true),
            None => (bytes, false),
        };
        Some(match split_rotated(plain) {
            Some((live, time)) => Self {
                live: OsStr::from_bytes(live),
                plain: OsStr::from_bytes(plain),
                rotated_at: Some(OsStr::from_bytes(time)),
                compressed,
            },
            None => Self { live: name, plain: name, rotated_at: None, compressed: false },
        })
    }
}

/// Splits `N.log.YYYYMMDD-HHMMSS`.
fn split_rotated(name: &[u8]) -> Option<(&[u8], &[u8])> {
    const TIME_BYTES: usize = 15;
    let dot = name.len().checked_sub(TIME_BYTES + 1)?;
    let (live, time) = (&name[..dot], &name[dot + 1..]);
    let is_time = time.iter().enumerate().all(|(at, byte)| match at {
        8 => *byte == b'-',
        _ => byte.is_ascii_digit(),
    });
    (is_time && name[dot] == b'.' && !live.is_empty()).then_some((live, time))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: live, rotated, compressed and half-compressed names, and near misses.
    /// Guarantees: each is recognised for what the kubelet means by it.
    #[test]
    fn names_of_a_rotation() {
        let parse = |name: &'static str| {
            LogName::parse(OsStr::new(name)).map(|parsed| {
                (
                    parsed.live.to_str().unwrap(),
                    parsed.plain.to_str().unwrap(),
                    parsed.rotated_at.map(|time| time.to_str().unwrap()),
                    parsed.compressed,
                )
            })
        };
        assert_eq!(parse("0.log"), Some(("0.log", "0.log", None, false)));
        let rotated = "0.log.20260102-030405";
        assert_eq!(parse(rotated), Some(("0.log", rotated, Some("20260102-030405"), false)));
        assert_eq!(
            parse("0.log.20260102-030405.gz"),
            Some(("0.log", rotated, Some("20260102-030405"), true))
        );
        assert_eq!(parse("0.log.20260102-030405.tmp"), None);
        for name in ["0.log.gz", "0.log.20260102-03040", "0.log.20260102_030405", "x.tmp"] {
            assert_eq!(parse(name), Some((name, name, None, false)));
        }
    }

    /// Scenario: patterns with and without wildcards.
    /// Guarantees: the root is the part without any, and a pattern must be absolute.
    #[test]
    fn patterns_have_roots() {
        let root = |pattern: &str| {
            let pattern = Pattern::new(pattern).unwrap();
            (pattern.root.to_str().unwrap().to_owned(), pattern.levels.len())
        };
        assert_eq!(root("/var/log/pods/*/*/*.log"), ("/var/log/pods".to_owned(), 3));
        assert_eq!(root("/var/log/x.log"), ("/var/log".to_owned(), 1));
        assert_eq!(root("/var/log/**"), ("/var/log".to_owned(), 2));
        assert_eq!(root("/x.log"), ("/".to_owned(), 1));
        assert!(Pattern::new("logs/*.log").is_err());
        assert!(Pattern::new("/logs/[a.log").is_err());
    }

    /// Scenario: alternates that reach over several levels, nested ones, at the beginning, in classes
    /// and behind backslashes; those of a single level; and too many of them.
    /// Guarantees: each alternate with a slash is a pattern with its own root, as bash would expand
    /// it; others stay what they are; their number is bounded.
    #[test]
    fn alternates_may_hold_slashes() {
        let split = |pattern: &str| {
            let all = Pattern::all(pattern).unwrap();
            let one = |one: &Pattern| format!("{}+{}", one.root.display(), one.levels.len());
            all.iter().map(one).collect::<Vec<_>>()
        };
        let logs = "/var/log/{pods/*/*,containers}/*.log";
        assert_eq!(split(logs), ["/var/log/pods+3", "/var/log/containers+1"]);
        assert_eq!(split("{/a,/b/c}/*.log"), ["/a+1", "/b/c+1"]);
        assert_eq!(
            split("/x/{a,b{c/d,e}}/f.log"),
            ["/x/a+1", "/x/bc/d+1", "/x/be+1"],
            "no pattern comes twice"
        );
        assert_eq!(split("/x/{a,b}/*.log"), ["/x+2"]);
        assert_eq!(split("/x/[{]/[}]/*.log"), ["/x+3"]);
        assert_eq!(split("/x/\\{a/b,c\\}/d.log"), ["/x+3"]);
        assert_eq!(split("/x/{a/b,}c.log"), ["/x/a+1", "/x+1"]);
        let many = "/{a/b,c}".repeat(7);
        assert!(matches!(Pattern::all(&many), Err(PatternError::TooMany { .. })));
        assert!(Pattern::all("/x/{a/b,c/*.log").is_err());
    }

    /// Scenario: patterns that name the root directory and nothing in it.
    /// Guarantees: they are refused, since there would be no level to match a file with.
    #[test]
    fn a_pattern_without_a_level_is_refused() {
        for pattern in ["/", "//", "/."] {
            assert!(Pattern::new(pattern).is_err(), "{pattern}");
        }
    }
}
