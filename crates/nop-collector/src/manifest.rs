//! Reads manifests: JSON lines, checked to be consistent before anything is proved with them.

use thyme_core::manifest::ManifestLine;
use thyme_core::stamp::SEQUENCE_MAX;

use crate::limits::STREAMS_MAX;

/// Why a text isn't a manifest.
#[derive(Debug, thiserror::Error)]
#[error("line {line} of the manifest: {cause}")]
pub struct ManifestError {
    /// The line's number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub cause: ManifestCause,
}

/// What is wrong with a line of a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestCause {
    /// It isn't the JSON of a manifest's line.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// `first`, `last` and `lines` contradict each other.
    #[error("first {first}, last {last} and lines {lines} contradict each other")]
    Contradiction {
        /// First sequence number.
        first: u64,
        /// Last sequence number.
        last: u64,
        /// Number of lines.
        lines: u64,
    },
    /// There are more writers than are told apart.
    #[error("more than {STREAMS_MAX} writers")]
    TooMany,
}

/// Reads a manifest; empty lines are passed over.
///
/// # Errors
/// Names the first line that is wrong.
pub fn parse(text: &[u8]) -> Result<Vec<ManifestLine>, ManifestError> {
    let mut lines = Vec::new();
    for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let at = |cause| ManifestError { line: index + 1, cause };
        if line.trim_ascii().is_empty() {
            continue;
        }
        if lines.len() == STREAMS_MAX {
            return Err(at(ManifestCause::TooMany));
        }
        lines.push(parse_line(line).map_err(at)?);
    }
    Ok(lines)
}

fn parse_line(line: &[u8]) -> Result<ManifestLine, ManifestCause> {
    // Paths are for people who read the manifest; here they would only take memory.
    let line = ManifestLine { path: None, ..serde_json::from_slice(line)? };
    let &ManifestLine { first, last, lines, .. } = &line;
    let consistent = first <= last && last <= SEQUENCE_MAX && lines == last - first + 1;
    if consistent { Ok(line) } else { Err(ManifestCause::Contradiction { first, last, lines }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        r#"{"run":1,"writer":2,"stream":"stdout","first":0,"last":9,"lines":10,"bytes":99}"#;

    /// Scenario: good lines, with empty ones and CR LF between them.
    /// Guarantees: all are read.
    #[test]
    fn good_manifests_are_read() {
        let text = format!("{GOOD}\r\n\n{GOOD}");
        assert_eq!(parse(text.as_bytes()).unwrap().len(), 2);
        assert_eq!(parse(b"").unwrap().len(), 0);
    }

    /// Scenario: manifests that are no JSON, or contradict themselves.
    /// Guarantees: the error names the line.
    #[test]
    fn bad_manifests_name_the_line() {
        let error = parse(format!("{GOOD}\nwhat").as_bytes()).unwrap_err();
        assert_eq!(error.line, 2);
        for (from, to) in [("\"last\":9", "\"last\":8"), ("\"first\":0", "\"first\":10")] {
            let error = parse(GOOD.replace(from, to).as_bytes()).unwrap_err();
            assert!(error.to_string().starts_with("line 1 of the manifest: first"), "{error}");
        }
    }
}
