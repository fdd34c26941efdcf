//! The agent's own log: on stderr, as lines for people or as JSON. An event is one line, whatever
//! names of files or words of a sink are in it: nobody else than the agent begins a line.
//!
//! Whoever logs never waits for whoever reads: a thread writes, and what it has no room for is
//! dropped and counted.

use std::{
    io::{self, Write},
    sync::Arc,
};

use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use super::{
    TelemetryError,
    log_writer::{Event, LogWriter},
};
use crate::{
    config::{LogEncoding, LogLevel, TelemetryConfig},
    limits::LOG_EVENT_BYTES_MAX,
    metrics::Metrics,
};

/// Libraries whose words below a warning are about their own work, not the agent's.
const QUIET: [&str; 9] = [
    "h2",
    "hyper",
    "hyper_util",
    "mio",
    "opentelemetry",
    "opentelemetry_sdk",
    "rustls",
    "tonic",
    "tower",
];

/// Starts the log, once in a process. Panics are events of it, too: on their own way to stderr they
/// would wait for its reader. What is returned writes the last of it at the end.
///
/// # Errors
/// There is a log already, or no thread for it.
pub fn start_log(
    config: &TelemetryConfig,
    metrics: Arc<Metrics>,
) -> Result<LogWriter, TelemetryError> {
    let writer = LogWriter::start(metrics).map_err(TelemetryError::LogThread)?;
    let events = writer.events();
    let layer = fmt::layer().with_writer(move || OneLine(Event::new(events.clone())));
    let layer = match config.log_encoding {
        LogEncoding::Console => layer.with_ansi(false).boxed(),
        LogEncoding::Json => layer.json().flatten_event(true).boxed(),
    };
    let filter = filter(config.log_level);
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()?;
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(thread, %panic, %backtrace, "a thread panicked");
    }));
    Ok(writer)
}

/// Writes each event as one line: control characters and those that change the direction of text
/// are escaped, but for the newline at its end. The form of the escapes is JSON's.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    /// Takes an event as a whole, as the formatter hands it over.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        if let Some(line) = shortened(&text) {
            self.0.write_all(line.as_bytes())?;
            return Ok(event.len());
        }
        let (body, end) = match text.strip_suffix('\n') {
            Some(body) => (body, "\n"),
            None => (&*text, ""),
        };
        if body.chars().any(is_forging) {
            self.0.write_all((escaped(body) + end).as_bytes())?;
        } else {
            self.0.write_all(event)?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn escaped(text: &str) -> String {
    let mut line = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_forging(character) {
            line += &format!("\\u{:04x}", u32::from(character));
        } else {
            line.push(character);
        }
    }
    line
}

/// An event in JSON that is too long for the log, with its texts cut so that it is JSON all the same.
fn shortened(event: &str) -> Option<String> {
    if event.len() <= LOG_EVENT_BYTES_MAX || !event.starts_with('{') {
        return None;
    }
    let mut value: serde_json::Value = serde_json::from_str(event).ok()?;
    let mut text_chars_max = LOG_EVENT_BYTES_MAX;
    while text_chars_max > 0 {
        text_chars_max /= 2;
        cut_texts(&mut value, text_chars_max);
        let line = escaped(&value.to_string()) + "\n";
        if line.len() <= LOG_EVENT_BYTES_MAX {
            return Some(line);
        }
    }
    None
}

fn cut_texts(value: &mut serde_json::Value, chars_max: usize) {
    use serde_json::Value;
    match value {
        Value::String(text) => {
            if let Some((end, _)) = text.char_indices().nth(chars_max + 1) {
                text.truncate(end);
                text.pop();
                text.push('…');
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|one| cut_texts(one, chars_max)),
        Value::Object(map) => map.values_mut().for_each(|one| cut_texts(one, chars_max)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Whether a character can make a terminal or an editor show another line than there is. All are
/// in Unicode's first plane.
fn is_forging(character: char) -> bool {
    let changes_direction = matches!(
        character,
        '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') || changes_direction
}

fn filter(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    let quiet = QUIET.into_iter().map(|target| (target, level.min(LevelFilter::WARN)));
    Targets::new().with_default(level).with_targets(quiet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tracing::Level;

    /// What an event with these words becomes in one of the encodings.
    fn logged(encoding: LogEncoding, words: &str) -> String {
        #[derive(Clone, Default)]
        struct Kept(Arc<Mutex<Vec<u8>>>);
        impl Write for Kept {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let kept = Kept::default();
        let writer = kept.clone();
        let layer = fmt::layer().with_writer(move || OneLine(writer.clone()));
        let layer = match encoding {
            LogEncoding::Console => layer.with_ansi(false).boxed(),
            LogEncoding::Json => layer.json().flatten_event(true).boxed(),
        };
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(path = %words, said = words, "{words}");
        });
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    }

    /// Scenario: a file's name and a sink's words hold line breaks, terminal escapes in both of
    /// their forms, and characters that turn the direction of text, as fields and as message.
    /// Guarantees: an event stays one line without any of them, in both encodings; JSON stays
    /// JSON and holds the words as they were.
    #[test]
    fn nobody_else_begins_a_line() {
        let words = "a\n2026 ERROR forged\r\x1b[31m\u{9b}31m\u{2028}b\u{202e}c\0ü";
        let console = logged(LogEncoding::Console, words);
        let json = logged(LogEncoding::Json, words);
        for text in [&console, &json] {
            let body = text.strip_suffix('\n').unwrap();
            assert!(!body.contains(is_forging), "{body:?}");
            assert!(body.contains('ü'), "{body}");
        }
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&value["path"], &value["said"]), (&words.into(), &words.into()));
    }

    /// Scenario: an event whose words are a megabyte, of characters of several bytes that are escaped, as JSON.
    /// Guarantees: it is JSON all the same, within the bound, with its words cut and all else as it was.
    #[test]
    fn a_long_event_stays_json() {
        for words in ["é".repeat(1 << 19), "\u{202e}\0".repeat(1 << 18)] {
            let json = logged(LogEncoding::Json, &words);
            assert!(json.len() <= LOG_EVENT_BYTES_MAX && json.ends_with("}\n"), "{}", json.len());
            assert!(!json[..json.len() - 1].contains(is_forging));
            let value: serde_json::Value = serde_json::from_str(&json).unwrap();
            let said = value["said"].as_str().unwrap();
            assert!(said.len() > 1_000 && words.starts_with(said.strip_suffix('…').unwrap()));
            assert_eq!(value["level"], "WARN");
        }
    }

    /// Scenario: events of the agent and of its HTTP/2 library at each level.
    /// Guarantees: the configured level counts for the agent, warnings at least for libraries.
    #[test]
    fn libraries_are_quiet() {
        let debug = filter(LogLevel::Debug);
        assert!(debug.would_enable("thyme_agent::tail", &Level::DEBUG));
        assert!(!debug.would_enable("h2::codec", &Level::INFO));
        assert!(debug.would_enable("h2::codec", &Level::WARN));
        let error = filter(LogLevel::Error);
        assert!(!error.would_enable("thyme_agent", &Level::WARN));
        assert!(!error.would_enable("hyper", &Level::WARN));
    }
}
