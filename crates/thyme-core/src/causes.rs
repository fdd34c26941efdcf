//! Errors in one line: what went wrong, and why.

use std::error::Error;

/// An error with its causes, each of them once: many an error names its cause itself, and offers it
/// as its source all the same.
pub fn in_one_line(error: &(dyn Error + 'static)) -> String {
    in_words(error, |error| error.to_string())
}

/// The same, where somebody knows better words for some of them.
pub fn in_words(
    error: &(dyn Error + 'static),
    words: impl Fn(&(dyn Error + 'static)) -> String,
) -> String {
    let mut line = words(error);
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_words = words(cause);
        if !line.contains(&cause_words) {
            line = format!("{line}: {cause_words}");
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

    /// Scenario: a cause for which there are better words.
    /// Guarantees: they are there instead of its own.
    #[test]
    fn better_words_take_the_place_of_a_cause() {
        let error = Failed { words: "a.yaml", cause: io::Error::other("ENOENT") };
        let words = |error: &(dyn Error + 'static)| match error.to_string().as_str() {
            "ENOENT" => "No such file".to_owned(),
            other => other.to_owned(),
        };
        assert_eq!(in_words(&error, words), "a.yaml: No such file");
    }
}
