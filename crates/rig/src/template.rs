//! Text with placeholders such as `{logs}` filled in, and a command line split into words as a
//! shell would, but without one: nothing is expanded, substituted or redirected.

use std::net::SocketAddr;

/// What placeholders stand for.
#[derive(Clone, Debug)]
pub struct Places {
    /// `{logs}`: directory laid out as `/var/log/pods`.
    pub logs: String,
    /// `{state}`: a directory that outlives the agent's restarts.
    pub state: String,
    /// `{config}`: the agent's configuration, once filled in.
    pub config: String,
    /// `{grpc}`: where OTLP/gRPC is received, as `address:port`; `{grpc_port}` is the port alone.
    pub grpc: SocketAddr,
    /// `{http}` and `{http_port}`: where OTLP/HTTP is received.
    pub http: SocketAddr,
    /// `{metrics}` and `{metrics_port}`: a free port for the agent's own metrics.
    pub metrics: SocketAddr,
    /// `{health}` and `{health_port}`: a free port for the agent's health endpoint.
    pub health: SocketAddr,
}

impl Places {
    /// Fills in every known placeholder. Other braces stay as they are, YAML and `${env:X}` use
    /// them too; what was filled in is not looked at again.
    pub fn fill(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            out.push_str(&rest[..open]);
            rest = &rest[open..];
            let known = rest
                .find('}')
                .and_then(|close| self.value(&rest[1..close]).map(|value| (value, close + 1)));
            let (value, taken) = known.unwrap_or_else(|| ("{".to_owned(), 1));
            out.push_str(&value);
            rest = &rest[taken..];
        }
        out.push_str(rest);
        out
    }

    fn value(&self, name: &str) -> Option<String> {
        let address = |address: SocketAddr| Some(address.to_string());
        let port = |address: SocketAddr| Some(address.port().to_string());
        match name {
            "logs" => Some(self.logs.clone()),
            "state" => Some(self.state.clone()),
            "config" => Some(self.config.clone()),
            "grpc" => address(self.grpc),
            "grpc_port" => port(self.grpc),
            "http" => address(self.http),
            "http_port" => port(self.http),
            "metrics" => address(self.metrics),
            "metrics_port" => port(self.metrics),
            "health" => address(self.health),
            "health_port" => port(self.health),
            _ => None,
        }
    }
}

/// Whether an agent given this text serves its health where it is asked to.
pub fn mentions_health(text: &str) -> bool {
    text.contains("{health}") || text.contains("{health_port}")
}

/// Splits a command line at blanks. Single quotes keep everything, double quotes everything but
/// `\"` and `\\`, and a backslash outside of quotes keeps the next character.
pub fn split_words(command: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = command.chars();
    while let Some(character) = characters.next() {
        if character.is_whitespace() {
            words.extend(word.take());
            continue;
        }
        let word = word.get_or_insert_default();
        match character {
            '\'' | '"' => quoted(character, &mut characters, word)?,
            '\\' => word.push(characters.next().ok_or("a backslash ends it")?),
            other => word.push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

/// Takes characters up to the closing quote.
fn quoted(
    quote: char,
    characters: &mut std::str::Chars<'_>,
    word: &mut String,
) -> Result<(), &'static str> {
    const UNCLOSED: &str = "a quote is not closed";
    loop {
        let character = characters.next().ok_or(UNCLOSED)?;
        if character == quote {
            return Ok(());
        }
        if quote == '"' && character == '\\' {
            let escaped = characters.next().ok_or(UNCLOSED)?;
            if escaped != '"' && escaped != '\\' {
                word.push('\\');
            }
            word.push(escaped);
        } else {
            word.push(character);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    fn places() -> Places {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Places {
            logs: "/t/{state}".into(),
            state: "/s".into(),
            config: "/c.yaml".into(),
            grpc: address(1),
            http: address(2),
            metrics: address(3),
            health: address(4),
        }
    }

    /// Scenario: placeholders among YAML's and the Collector's own braces; a value that looks like
    /// a placeholder; unclosed braces.
    /// Guarantees: the known ones are filled in once, everything else is kept.
    #[test]
    fn only_known_placeholders_are_filled() {
        let text = "a: {logs} {b: {grpc}} ${env:X} {health_port} {nope} {{http_port}} {";
        let filled = places().fill(text);
        assert_eq!(filled, "a: /t/{state} {b: 127.0.0.1:1} ${env:X} 4 {nope} {2} {");
    }

    /// Scenario: quotes, escapes and blanks as people write them.
    /// Guarantees: the words a shell would see.
    #[test]
    fn words_are_split_as_by_a_shell() {
        let cases: [(&str, &[&str]); 6] = [
            ("", &[]),
            ("  a  b\tc\n", &["a", "b", "c"]),
            (r#"a 'b c' "d e""#, &["a", "b c", "d e"]),
            (r#"a'b'"c"d ''"#, &["abcd", ""]),
            (r#"a\ b "\"\\\n" '\'"#, &["a b", r#""\\n"#, r"\"]),
            ("--config={config}", &["--config={config}"]),
        ];
        for (command, words) in cases {
            assert_eq!(split_words(command).unwrap(), words, "{command}");
        }
        for command in ["'", "\"a", "a\\", "\"\\"] {
            assert!(split_words(command).is_err(), "{command}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Scenario: any mixture of letters, blanks, quotes and backslashes.
        /// Guarantees: where both a real shell (the oracle) and this code accept the command line,
        /// they see the same words.
        #[test]
        fn words_equal_the_shells(command in "[ab '\"\\\\]{0,12}") {
            let script = format!("for w in {command}\ndo printf '%s|' \"$w\"; done");
            let shell = Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
            // A trailing backslash would join the script's next line; the shell's view of that is
            // not the question.
            if let (Ok(words), true) = (split_words(&command), shell.status.success()) {
                let ours: String = words.iter().map(|word| format!("{word}|")).collect();
                prop_assert_eq!(ours, String::from_utf8_lossy(&shell.stdout));
            }
        }
    }
}
