//! Errors in one line: what went wrong, and why.

use std::error::Error;

/// An error with its causes, each of them once: many an error names its cause itself, and offers it
/// as its source all the same.
pub fn in_one_line(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !line.contains(&words) {
            line = format!("{line}: {words}");
        }
        source = cause.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use std::{fmt, io};

    use super::*;

    #[derive(Debug)]
    struct Failed {
        words: &'static str,
        cause: io::Error,
    }

    impl fmt::Display for Failed {
        fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str(self.words)
        }
    }

    impl Error for Failed {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.cause)
        }
    }

    /// Scenario: an error that names its cause, and one that does not.
    /// Guarantees: the cause is there once in both.
    #[test]
    fn a_cause_is_there_once() {
        for words in ["a.yaml: No such file", "a.yaml"] {
            let error = Failed { words, cause: io::Error::other("No such file") };
            assert_eq!(in_one_line(&error), "a.yaml: No such file");
        }
    }
}
