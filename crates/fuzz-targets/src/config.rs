//! Configurations: any text is one, or an error that names a line of it; and what the parser
//! accepts, the stages accept.

use thyme_agent::{
    config::{Config, ConfigError, Protocol},
    discover::Source,
    fuzzing::{self, SinkEndpoint},
};

/// The value of a variable that must never be shown.
const SECRET: &str = "geheim-4711";

fn variable(name: &str) -> Option<String> {
    let value = match name {
        "HOST" => "collector",
        "PORT" => "4317",
        "SIZE" => "1MiB",
        "LIST" => "[a, {b: 1}]",
        "ODD" => "$pa$$${HOST}: *x",
        "EMPTY" => "",
        "SECRET" => SECRET,
        _ => return None,
    };
    Some(value.to_owned())
}

/// Parses the text.
pub(crate) fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match fuzzing::config(text, "thyme.yaml", &variable) {
        Ok(config) => check_config(&config),
        Err(ConfigError::Read { .. }) => panic!("nothing was to be read"),
        Err(error) => {
            assert!(!error.problems().is_empty());
            // The parser of YAML counts all of its line breaks.
            let breaks = ['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'];
            let lines = text.matches(breaks).count() as u64 + 1;
            for problem in error.problems() {
                let is_there = (1..=lines).contains(&problem.line);
                assert!(is_there, "line {} of {lines}: {problem}", problem.line);
                assert!(!problem.message.is_empty());
                let place = format!("thyme.yaml:{}: ", problem.line);
                assert!(problem.to_string().starts_with(&place), "{problem}");
            }
        }
    }
}

fn check_config(config: &Config) {
    let secrets = config.exporter.headers.iter().any(|(_, value)| value.expose().contains(SECRET));
    let elsewhere = config.exporter.headers.iter().any(|(name, _)| name.contains(SECRET))
        || [&config.exporter.id, &config.exporter.endpoint, &config.batch.id]
            .iter()
            .any(|text| text.contains(SECRET));
    if secrets && !elsewhere {
        assert!(!format!("{:?}", config.exporter).contains(SECRET), "a secret is shown");
    }
    assert!(!config.receivers.is_empty());
    for receiver in &config.receivers {
        assert!(!receiver.include.is_empty());
        let source = Source::new(receiver);
        assert!(source.is_ok(), "discovery refuses what the parser accepted: {source:?}");
    }
    let endpoint = match config.exporter.protocol {
        Protocol::Grpc => {
            SinkEndpoint::grpc(&config.exporter.endpoint, config.exporter.tls.insecure)
        }
        Protocol::Http => SinkEndpoint::http(&config.exporter.endpoint),
    };
    let named = &config.exporter.endpoint;
    assert!(endpoint.is_some(), "the exporter refuses what the parser accepted: {named}");
}
