//! What the start would refuse, found without starting anything: `validate` and the start ask here
//! first, so that neither takes what the other refuses. It runs the constructors that the start
//! runs; what only the start can know (whether ports are free, whether the state directory can be
//! had) is not asked.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tokio::runtime::Handle;

use crate::{
    checkpoint,
    config::{Config, ConfigError, MetricsReader, Problem},
    discover::Source,
    export, spool, telemetry,
};

/// Checks the configuration; OTLP readers are made on `runtime`, and send nothing.
///
/// # Errors
/// All that is wrong, each with its line and key.
pub fn check(config: &Config, runtime: &Handle) -> Result<(), ConfigError> {
    let mut problems: Vec<Problem> = Vec::new();
    for receiver in &config.receivers {
        let key = format!("receivers::{}", receiver.id);
        match Source::new(receiver) {
            Ok(source) => problems.extend(reads_own_state(config, &key, &source)),
            Err(error) => problems.push(config.origin.problem(&key, error.to_string())),
        }
    }
    problems.extend(shared_port(config));
    if let Err(error) = export::check(&config.exporter) {
        let key = error.key(&config.exporter);
        problems.push(config.origin.problem(&key, error.to_string()));
    }
    for (index, error) in telemetry::check(&config.telemetry, runtime) {
        let key = format!("service::telemetry::metrics::readers[{index}]");
        problems.push(config.origin.problem(&key, error.to_string()));
    }
    problems.sort_by_key(|problem| problem.line);
    if problems.is_empty() { Ok(()) } else { Err(ConfigError::Invalid(problems)) }
}

/// A receiver that reads what the agent keeps, which grows with each line that is read.
fn reads_own_state(config: &Config, key: &str, source: &Source) -> Option<Problem> {
    let storage = config.file_storage.as_ref()?;
    let absolute = std::path::absolute(&storage.directory).ok()?;
    // What a link in its path leads to is where the files are.
    let real = fs::canonicalize(&absolute).ok();
    let directories = [Some(absolute.clone()), real];
    let names = checkpoint::FILE_NAMES.iter().chain(spool::FILE_NAMES);
    let mut paths = directories
        .iter()
        .flatten()
        .flat_map(|directory| names.clone().map(|name| directory.join(name)));
    paths.find(|path| source.includes(path))?;
    let (id, directory) = (&storage.id, absolute.display());
    let message = format!(
        "it includes the agent's own state in {directory} (`extensions::{id}::directory`), which grows \
         with each line that is read: add `{directory}/**` to `exclude`"
    );
    Some(config.origin.problem(&format!("{key}::include"), message))
}

/// A port of its own that the agent would listen on twice.
fn shared_port(config: &Config) -> Option<Problem> {
    let mut ports: Vec<(String, String)> = Vec::new();
    if let Some(check) = &config.health_check {
        ports.push((format!("extensions::{}::endpoint", check.id), check.endpoint.clone()));
    }
    for (index, reader) in config.telemetry.readers.iter().enumerate() {
        if let MetricsReader::Prometheus(page) = reader {
            let reader = format!("service::telemetry::metrics::readers[{index}]");
            ports.push((format!("{reader}::pull::exporter::prometheus::port"), page.endpoint()));
        }
    }
    let pairs = ports.iter().enumerate().flat_map(|(at, one)| {
        let others = ports[..at].iter();
        others.map(move |other| (one, other))
    });
    let is_shared = |(one, other): &(&(String, String), &(String, String))| {
        listen_on_the_same(&one.1, &other.1)
    };
    let ((key, endpoint), (other_key, other)) = pairs.into_iter().find(is_shared)?;
    let message = format!(
        "{endpoint} is what `{other_key}` ({other}) listens on already: each needs a port of its own"
    );
    Some(config.origin.problem(key, message))
}

/// Whether two `host:port` can't both be listened on; port 0 is another one each time.
fn listen_on_the_same(one: &str, other: &str) -> bool {
    let split =
        |text: &str| text.rsplit_once(':').map(|(host, port)| (host.to_owned(), port.to_owned()));
    let (Some((one, port)), Some((other, other_port))) = (split(one), split(other)) else {
        return false;
    };
    let host = |host: &str| match host.to_ascii_lowercase().as_str() {
        "localhost" => "127.0.0.1".to_owned(),
        host => host.to_owned(),
    };
    let is_any = |host: &str| matches!(host, "0.0.0.0" | "[::]" | "");
    let is_same = host(&one) == host(&other) || is_any(&one) || is_any(&other);
    port.parse::<u16>().ok() == other_port.parse::<u16>().ok() && port != "0" && is_same
}

/// Where the agent's log goes, if that is a file that a receiver includes: each line about reading it
/// would be read. It is excluded from now on.
pub fn exclude_own_log(config: &mut Config) -> Option<PathBuf> {
    // A pipe or a terminal has no such path.
    let path = fs::read_link("/proc/self/fd/2").ok().filter(|path| path.is_absolute())?;
    exclude(config, &path).then_some(path)
}

fn exclude(config: &mut Config, path: &Path) -> bool {
    let Some(text) = path.to_str() else { return false };
    let includes = |source: Source| source.includes(path);
    let mut is_included = false;
    for receiver in &mut config.receivers {
        if Source::new(receiver).is_ok_and(includes) {
            let escaped = text.chars().flat_map(|c| {
                let special = "*?[]{}!\\,".contains(c).then_some('\\');
                special.into_iter().chain([c])
            });
            receiver.exclude.push(escaped.collect());
            is_included = true;
        }
    }
    is_included
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(include: &str, extensions: &str, telemetry: &str) -> Config {
        let text = format!(
            "receivers: {{filelog: {{include: ['{include}'], storage: file_storage}}}}\n\
             exporters: {{otlp: {{endpoint: 'http://a:1'}}}}\n\
             extensions:\n  file_storage: {{directory: /var/lib/thyme}}\n  {extensions}\n\
             service:\n  extensions: [file_storage, health_check]\n  telemetry: {telemetry}\n  \
             pipelines: {{logs: {{receivers: [filelog], exporters: [otlp]}}}}\n"
        );
        Config::parse(&text, "f.yaml").unwrap()
    }

    fn found(config: &Config) -> String {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        check(config, runtime.handle()).err().map(|error| error.to_string()).unwrap_or_default()
    }

    /// Scenario: health check and metrics are to listen on one port: by the same words, by a name and its
    /// address, by all addresses of the machine, by a default; and on different ones, or on any.
    /// Guarantees: the former is refused with both keys, the latter not.
    #[test]
    fn two_ports_of_its_own_are_not_one() {
        let reader = |host: &str, port: u16| {
            format!(
                "{{metrics: {{readers: [{{pull: {{exporter: {{prometheus: {{host: '{host}', port: \
                 {port}}}}}}}}}]}}}}"
            )
        };
        let told = |endpoint: &str, telemetry: &str| {
            let health = format!("health_check: {{endpoint: '{endpoint}'}}");
            found(&config("/var/log/*.log", &health, telemetry))
        };
        for (endpoint, host) in [
            ("localhost:9000", "localhost"),
            ("127.0.0.1:9000", "localhost"),
            ("0.0.0.0:9000", "localhost"),
            ("localhost:9000", "0.0.0.0"),
            ("[::1]:9000", "::1"),
        ] {
            let message = told(endpoint, &reader(host, 9000));
            assert!(message.starts_with("f.yaml:8: service::telemetry::metrics"), "{message}");
            assert!(message.contains("`extensions::health_check::endpoint`"), "{message}");
        }
        assert!(told("localhost:8888", "{}").contains("own"), "the default's port is one, too");
        assert_eq!(told("localhost:9001", &reader("localhost", 9000)), "");
        assert_eq!(told("127.0.0.2:9000", &reader("127.0.0.1", 9000)), "");
        assert_eq!(told("localhost:0", &reader("localhost", 0)), "");
    }

    /// Scenario: a receiver includes all below the directory that the state is in, its spool, or both but
    /// for what `exclude` says.
    /// Guarantees: refused with the key and what to exclude; not where that is excluded.
    #[test]
    fn own_state_is_not_read() {
        let health = "health_check:";
        for include in ["/var/lib/**/*", "/var/lib/thyme/journal.*", "/var/lib/*/spool/*.segment"] {
            let message = found(&config(include, health, "{}"));
            assert!(message.starts_with("f.yaml:1: receivers::filelog::include: "), "{message}");
            assert!(message.contains("add `/var/lib/thyme/**` to `exclude`"), "{message}");
        }
        let mut excluded = config("/var/lib/**/*", health, "{}");
        excluded.receivers[0].exclude.push("/var/lib/thyme/**".into());
        assert_eq!(found(&excluded), "");
        assert_eq!(found(&config("/var/lib/*/*.log", health, "{}")), "");
    }

    /// Scenario: the agent's log goes to a file that a receiver includes, whose name has what globs have.
    /// Guarantees: it is not read from then on, and others are.
    #[test]
    fn own_log_is_not_read() {
        let mut config = config("/var/log/*.log", "health_check:", "{}");
        assert!(exclude(&mut config, Path::new("/var/log/a[1]*{x}.log")));
        let source = Source::new(&config.receivers[0]).unwrap();
        assert!(!source.includes(Path::new("/var/log/a[1]*{x}.log")));
        assert!(source.includes(Path::new("/var/log/a1x.log")));
        assert!(!exclude(&mut config, Path::new("/elsewhere/a.log")));
    }
}
