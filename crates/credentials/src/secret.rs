//! A text that no print shows.

use std::fmt;

/// A password, a token, the value of a header, a private key in PEM. It has no `Display`, and its
/// `Debug` does not show it: who needs it has to say so with [`Secret::expose`].
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// The text itself: for the wire, never for a message.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a secret within a structure is printed in both forms of `Debug`.
    /// Guarantees: the text is in neither; it is still there for who asks.
    #[test]
    fn a_secret_is_not_shown() {
        let secret = Secret::from("hunter2");
        assert_eq!(format!("{:?}", Some(&secret)), "Some([redacted])");
        assert!(!format!("{:#?}", [&secret]).contains("hunter2"));
        assert_eq!(secret.expose(), "hunter2");
    }
}
