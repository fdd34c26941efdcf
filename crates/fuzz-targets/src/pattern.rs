//! Patterns of files and the names of rotation: matching level by level agrees with matching the
//! whole path, and a name is taken apart without loss.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Component, Path},
};

use thyme_agent::{
    discover::pattern::{Level, LogName, Pattern, path_matcher},
    enrich::PathMetadata,
};

/// The first line is a pattern, the second a path.
pub(crate) fn check(data: &[u8]) {
    let mut lines = data.splitn(2, |&byte| byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let path = Path::new(OsStr::from_bytes(lines.next().unwrap_or_default()));
    check_name(OsStr::from_bytes(first));
    check_metadata(path);
    let Ok(text) = std::str::from_utf8(first) else { return };
    let Ok(patterns) = Pattern::all(text) else { return };
    for pattern in &patterns {
        assert!(pattern.root.is_absolute() && !pattern.levels.is_empty());
        assert!(matches!(pattern.levels.last(), Some(Level::Name(_))));
    }
    // Paths have other names than these patterns say, and within alternates globset takes `**` for
    // `*`.
    let odd = ["..", "./", "//", "{/", "/}", ",/", "/,", "{,", ",}", ",,", "{}", "**,", "**}"];
    let is_odd = odd.iter().chain(&["{**", ",**"]).any(|odd| text.contains(odd));
    let is_plain = path.is_absolute()
        && path.components().skip(1).all(|part| matches!(part, Component::Normal(_)))
        && path.components().collect::<std::path::PathBuf>().as_os_str() == path.as_os_str();
    if is_odd || !is_plain || text.ends_with(['/', '.']) {
        return;
    }
    let Ok(whole) = path_matcher(text) else { return };
    let by_level = patterns.iter().any(|pattern| matches_by_level(pattern, path));
    assert_eq!(by_level, whole.is_match(path), "{text} and {}", path.display());
}

/// How discovery descends.
fn matches_by_level(pattern: &Pattern, path: &Path) -> bool {
    let Ok(below) = path.strip_prefix(&pattern.root) else { return false };
    let parts: Vec<&OsStr> = below.iter().collect();
    matches_parts(&pattern.levels, &parts)
}

fn matches_parts(levels: &[Level], parts: &[&OsStr]) -> bool {
    match (levels, parts) {
        ([], []) => true,
        ([], _) | (_, []) => false,
        ([Level::Name(glob), levels @ ..], [part, parts @ ..]) => {
            glob.is_match(part) && matches_parts(levels, parts)
        }
        ([Level::AnyDepth, after @ ..], [_, rest @ ..]) => {
            matches_parts(after, parts) || matches_parts(levels, rest)
        }
    }
}

fn check_name(name: &OsStr) {
    let Some(parsed) = LogName::parse(name) else {
        assert!(name.as_bytes().ends_with(b".tmp"));
        return;
    };
    let mut again = parsed.live.as_bytes().to_vec();
    if let Some(time) = parsed.rotated_at {
        again.push(b'.');
        again.extend_from_slice(time.as_bytes());
    }
    assert_eq!(again, parsed.plain.as_bytes());
    if parsed.compressed {
        again.extend_from_slice(b".gz");
    }
    assert_eq!(again, name.as_bytes());
    assert!(parsed.rotated_at.is_some() || !parsed.compressed);
}

fn check_metadata(path: &Path) {
    let Some(found) = PathMetadata::from_path(path) else { return };
    let PathMetadata { namespace, pod, uid, container, restart_count } = &found;
    let end = format!("{namespace}_{pod}_{uid}/{container}/{restart_count}.log");
    assert!(path.ends_with(&end), "{end}");
}
