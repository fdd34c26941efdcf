//! Whole configurations: the Collector's defaults, every key, and what is refused with which words.

mod credentials;

use std::time::Duration;

use super::*;

/// The shortest configuration there is.
const MINIMAL: &str = "\
receivers:
  filelog:
    include: [/var/log/pods/*/*/*.log]
exporters:
  otlp:
    endpoint: collector:4317
service:
  pipelines:
    logs:
      receivers: [filelog]
      exporters: [otlp]
";

/// Every key that there is.
const COMPLETE: &str = "\
receivers:
  file_log/pods:
    include: [/var/log/pods/*/*/*.log, /var/log/other.log]
    exclude:
      - /var/log/pods/kube-system_*/*/*.log
    start_at: beginning
    poll_interval: 10ms
    include_file_path: true
    include_file_name: false
    max_log_size: 2MiB
    storage: file_storage/state
    operators:
      - type: container
        id: container-parser
        format: containerd
        add_metadata_from_filepath: false
        max_log_size: 1MiB
processors:
  batch/small:
    send_batch_size: 1000
    send_batch_max_size: 2000
    timeout: 1s
exporters:
  otlp_http/backend:
    endpoint: https://collector.example:4318/base
    compression: zstd
    compression_params:
      level: 3
    headers:
      x-key: ${env:TOKEN}
    auth:
      authenticator: bearertokenauth/sink
    timeout: 10s
    tls:
      insecure: false
      insecure_skip_verify: false
      ca_file: /etc/ca.pem
      cert_file: /etc/cert.pem
      key_pem: ${env:KEY}
      server_name_override: collector.internal
      min_version: '1.3'
      reload_interval: 1m
    retry_on_failure:
      enabled: true
      initial_interval: 1s
      max_interval: 10s
      max_elapsed_time: 5m
      multiplier: 2
      randomization_factor: 0.1
    sending_queue:
      enabled: true
      num_consumers: 4
      queue_size: 100
      storage: file_storage/state
      sizer: requests
      block_on_overflow: true
extensions:
  bearertokenauth/sink:
    header: X-Token
    scheme: ''
    filename: /etc/token
  file_storage/state:
    directory: /var/lib/thyme
    create_directory: true
  health_check:
    endpoint: 0.0.0.0:13133
    path: /health
  thyme:
    workers: 2
    request_bytes_max: 3MiB
    in_flight_bytes_max: 32MiB
    partial_bytes_max: 8MiB
    shutdown_timeout: 25s
    open_files_max: 1000
    link_roots: [/var/lib/docker/containers]
    spool_bytes_max: 4GiB
    deleted_files_bytes_max: 64MiB
    container_log_max_files: 3
    scan_interval: 10s
    record_uid: true
service:
  extensions: [bearertokenauth/sink, file_storage/state, health_check, thyme]
  pipelines:
    logs/all:
      receivers: [file_log/pods]
      processors: [batch/small]
      exporters: [otlp_http/backend]
  telemetry:
    logs:
      level: debug
      encoding: json
    resource:
      service.name: my-agent
      service.instance.id:
    metrics:
      level: detailed
      readers:
        - pull:
            exporter:
              prometheus:
                host: 0.0.0.0
                port: 0
                without_scope_info: false
                without_type_suffix: false
                without_units: false
        - periodic:
            interval: 10000
            timeout: 3000
            exporter:
              otlp:
                protocol: http/protobuf
                endpoint: collector.example:4318/v1/metrics
                insecure: true
                timeout: 5000
                temporality_preference: delta
                headers:
                  - name: x-tenant
                    value: ${env:TENANT}
";

fn variables(name: &str) -> Option<String> {
    match name {
        "TOKEN" => Some("Bearer geheim".into()),
        "TENANT" => Some("42".into()),
        "KEY" => Some("geheimer\nSchluessel".into()),
        "SIZE" => Some("512".into()),
        _ => None,
    }
}

fn parse(text: &str) -> Result<Config, String> {
    parse_text(text).map_err(|error| error.to_string())
}

fn parse_text(text: &str) -> Result<Config, ConfigError> {
    let lookup = expand::Lookup { variable: &variables, file: &expand::read_file };
    parse_with(text, "agent.yaml", lookup)
}

/// The problems of `MINIMAL` with `from` replaced.
fn problems(from: &str, to: &str) -> String {
    refused(MINIMAL, from, to)
}

fn refused(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from:?} is not there once");
    parse(&text.replace(from, to)).expect_err("a configuration that should be refused")
}

/// Scenario: a configuration that says nothing beyond what is needed.
/// Guarantees: every default is the Collector's, but for those that the documentation lists.
#[test]
fn defaults_are_the_collectors() {
    let second = Duration::from_secs(1);
    let expected = Config {
        receivers: vec![FilelogConfig {
            id: "filelog".into(),
            include: vec!["/var/log/pods/*/*/*.log".into()],
            exclude: Vec::new(),
            start_at: StartAt::End,
            poll_interval: Duration::from_millis(50), // The Collector: 200ms.
            include_file_path: false,
            include_file_name: true,
            max_log_size_bytes: 1_048_576,
            storage: false,
            format: LineFormat::Raw,
        }],
        batch: BatchConfig {
            id: "batch".into(),
            send_batch_size: 8192,
            send_batch_max_size: 0,
            timeout: Duration::from_millis(200),
        },
        exporter: default_exporter(),
        file_storage: None,
        health_check: None,
        thyme: ThymeConfig {
            workers: 1,
            request_bytes_max: 3_670_016,
            in_flight_bytes_max: 16_777_216,
            partial_bytes_max: 16_777_216,
            shutdown_timeout: 20 * second,
            open_files_max: 100_000,
            spool_bytes_max: 10 << 30,
            deleted_files_bytes_max: 1 << 30,
            container_log_max_files: 5,
            scan_interval: 5 * second,
            link_roots: Vec::new(),
            record_uid: false,
        },
        telemetry: TelemetryConfig {
            log_level: LogLevel::Info,
            log_encoding: LogEncoding::Console,
            resource: Vec::new(),
            readers: vec![MetricsReader::Prometheus(PrometheusConfig {
                host: "localhost".into(),
                port: 8888,
                without_scope_info: true,
                without_type_suffix: true,
                without_units: true,
            })],
        },
        origin: Origin::default(),
    };
    let config = parse(MINIMAL).unwrap();
    assert_eq!(Config { origin: Origin::default(), ..config }, expected);
}

fn default_exporter() -> ExporterConfig {
    let second = Duration::from_secs(1);
    ExporterConfig {
        id: "otlp".into(),
        protocol: Protocol::Grpc,
        endpoint: "collector:4317".into(),
        compression: Compression::Gzip,
        compression_level: 6,
        headers: Vec::new(),
        timeout: 5 * second,
        tls: TlsConfig::default(),
        proxy: None,
        auth: None,
        retry: RetryConfig {
            enabled: true,
            initial_interval: 5 * second,
            max_interval: 30 * second,
            multiplier: 1.5,
            randomization_factor: 0.5,
            max_elapsed: None, // The Collector: 300s.
        },
        queue: QueueConfig { num_consumers: 10, queue_size: 1000, storage: None },
    }
}

/// Scenario: components whose body is empty, and sections without content.
/// Guarantees: nothing means the defaults, also where the Collector has a default of its own.
#[test]
fn nothing_means_the_defaults() {
    let text = "\
receivers: {filelog: {include: [/a.log], exclude: , operators: [{type: container}]}}
processors: {batch: }
exporters: {otlphttp: {endpoint: 'http://c:4318', tls: , headers: , sending_queue: }}
extensions: {file_storage: , health_check: , thyme: }
service:
  extensions: [file_storage, health_check, thyme]
  telemetry: {logs: , metrics: , resource: }
  pipelines: {logs: {receivers: [filelog], processors: [batch], exporters: [otlphttp]}}
";
    let config = parse(text).unwrap();
    let container =
        LineFormat::Container { format: ContainerFormat::Auto, add_metadata_from_filepath: true };
    assert_eq!(config.receivers[0].format, container);
    assert_eq!(config.batch, BatchConfig::default());
    assert_eq!(config.thyme, ThymeConfig::default());
    assert_eq!(config.telemetry, TelemetryConfig::default());
    assert_eq!(config.exporter.timeout, Duration::from_secs(30));
    let storage = config.file_storage.unwrap();
    assert_eq!(storage.directory, Path::new("/var/lib/otelcol/file_storage"));
    assert!(!storage.create_directory);
    let health = config.health_check.unwrap();
    assert_eq!((health.endpoint.as_str(), health.path.as_str()), ("localhost:13133", "/"));
}

/// Scenario: a configuration with every key, each with another value than its default.
/// Guarantees: each of them arrives.
#[test]
fn every_key_arrives() {
    let config = parse(COMPLETE).unwrap();
    let receiver = &config.receivers[0];
    assert_eq!(receiver.id, "file_log/pods");
    assert_eq!(receiver.include.len(), 2);
    assert_eq!(receiver.exclude, ["/var/log/pods/kube-system_*/*/*.log"]);
    assert_eq!(receiver.start_at, StartAt::Beginning);
    assert_eq!(receiver.poll_interval, Duration::from_millis(10));
    assert!(receiver.include_file_path && !receiver.include_file_name && receiver.storage);
    assert_eq!(receiver.max_log_size_bytes, 1 << 20, "the operator's counts for the body");
    let format = ContainerFormat::Containerd;
    assert_eq!(
        receiver.format,
        LineFormat::Container { format, add_metadata_from_filepath: false }
    );
    let batch = &config.batch;
    assert_eq!((batch.send_batch_size, batch.send_batch_max_size), (1000, 2000));
    assert_eq!((batch.id.as_str(), batch.timeout), ("batch/small", Duration::from_secs(1)));
    exporter_arrived(&config.exporter);
    let storage = config.file_storage.as_ref().unwrap();
    assert!(storage.directory == Path::new("/var/lib/thyme") && storage.create_directory);
    let health = config.health_check.as_ref().unwrap();
    assert_eq!((health.endpoint.as_str(), health.path.as_str()), ("0.0.0.0:13133", "/health"));
    let expected = ThymeConfig {
        workers: 2,
        request_bytes_max: 3 << 20,
        in_flight_bytes_max: 32 << 20,
        partial_bytes_max: 8 << 20,
        shutdown_timeout: Duration::from_secs(25),
        open_files_max: 1000,
        spool_bytes_max: 4 << 30,
        deleted_files_bytes_max: 64 << 20,
        container_log_max_files: 3,
        scan_interval: Duration::from_secs(10),
        link_roots: vec!["/var/lib/docker/containers".into()],
        record_uid: true,
    };
    assert_eq!(config.thyme, expected);
    telemetry_arrived(&config.telemetry);
}

fn exporter_arrived(exporter: &ExporterConfig) {
    assert_eq!((exporter.id.as_str(), exporter.protocol), ("otlp_http/backend", Protocol::Http));
    assert_eq!(exporter.endpoint, "https://collector.example:4318/base");
    assert_eq!((exporter.compression, exporter.compression_level), (Compression::Zstd, 3));
    assert_eq!(exporter.headers, [("x-key".into(), "Bearer geheim".into())]);
    assert_eq!(exporter.timeout, Duration::from_secs(10));
    let expected = TlsConfig {
        authorities: Some(Source::File("/etc/ca.pem".into())),
        identity: Some(TlsIdentity {
            certificate: Source::File("/etc/cert.pem".into()),
            key: Source::Inline("geheimer\nSchluessel".into()),
        }),
        server_name_override: Some("collector.internal".into()),
        min_version: TlsVersion::V1_3,
        reload_interval: Some(Duration::from_secs(60)),
        ..TlsConfig::default()
    };
    assert_eq!(exporter.tls, expected);
    let expected = BearerTokenConfig {
        id: "bearertokenauth/sink".into(),
        header: "x-token".into(),
        scheme: String::new(),
        token: Source::File("/etc/token".into()),
    };
    assert_eq!(exporter.auth, Some(expected));
    let retry = &exporter.retry;
    assert_eq!((retry.multiplier, retry.randomization_factor), (2.0, 0.1));
    assert_eq!(retry.max_elapsed, Some(Duration::from_secs(300)));
    assert_eq!(retry.initial_interval, Duration::from_secs(1));
    assert_eq!(retry.max_interval, Duration::from_secs(10));
    assert_eq!(
        exporter.queue,
        QueueConfig {
            num_consumers: 4,
            queue_size: 100,
            storage: Some("file_storage/state".into())
        }
    );
}

fn telemetry_arrived(telemetry: &TelemetryConfig) {
    let expected = TelemetryConfig {
        log_level: LogLevel::Debug,
        log_encoding: LogEncoding::Json,
        resource: vec![
            ("service.name".into(), Some("my-agent".into())),
            ("service.instance.id".into(), None),
        ],
        readers: vec![
            MetricsReader::Prometheus(PrometheusConfig {
                host: "0.0.0.0".into(),
                port: 0,
                without_scope_info: false,
                without_type_suffix: false,
                without_units: false,
            }),
            MetricsReader::Otlp(OtlpReaderConfig {
                interval: Duration::from_secs(10),
                timeout: Duration::from_secs(3),
                protocol: Protocol::Http,
                endpoint: "http://collector.example:4318/v1/metrics".into(),
                headers: vec![("x-tenant".into(), "42".into())],
                temporality: Temporality::Delta,
                proxy: None,
            }),
        ],
    };
    assert_eq!(*telemetry, expected);
}

/// Scenario: headers with a secret.
/// Guarantees: neither `Debug` nor an error message shows it.
#[test]
fn secrets_are_never_shown() {
    let shown = format!("{:?}", parse(COMPLETE).unwrap());
    assert!(shown.contains("x-key") && shown.contains("[redacted]"), "{shown}");
    assert!(!shown.contains("geheim"), "{shown}");
    let endpoint = "endpoint: collector:4317\n    headers: {a: \"geheim\\n\", 'b c': geheim}";
    assert_eq!(
        problems("endpoint: collector:4317", endpoint),
        "agent.yaml:7: exporters::otlp::headers::a: a header can't hold this value: expected text without \
         control characters\n\
         agent.yaml:7: exporters::otlp::headers::b c: `b c` can't be the name of a header"
    );
}

/// Scenario: an unknown key at each level of the document.
/// Guarantees: file, line, key and the nearest known key are named; the Collector's own keys are
/// told apart.
#[test]
fn unknown_keys_name_the_nearest() {
    assert_eq!(
        problems("include:", "inclde:"),
        "agent.yaml:2: receivers::filelog: the key `include` is missing\n\
         agent.yaml:3: receivers::filelog::inclde: unknown key, the nearest known one is `include`"
    );
    assert_eq!(
        problems("exporters:\n  otlp", "procesors: {}\nexporters:\n  otlp"),
        "agent.yaml:4: procesors: unknown key, the nearest known one is `processors`"
    );
    assert_eq!(
        problems("service:", "service:\n  extension: []"),
        "agent.yaml:8: service::extension: unknown key, the nearest known one is `extensions`"
    );
    let endpoint = "endpoint: collector:4317\n    tls:\n      insecur: true\n      tpm: x";
    assert_eq!(
        problems("endpoint: collector:4317", endpoint),
        "agent.yaml:8: exporters::otlp::tls::insecur: unknown key, the nearest known one is \
         `insecure`\n\
         agent.yaml:9: exporters::otlp::tls::tpm: the Collector knows this key, but thyme \
         does not support it yet"
    );
    assert_eq!(
        refused(COMPLETE, "workers: 2", "worker: 2"),
        "agent.yaml:69: extensions::thyme::worker: unknown key, the nearest known one is `workers`"
    );
    assert_eq!(
        refused(COMPLETE, "port: 0", "prot: 0"),
        "agent.yaml:102: service::telemetry::metrics::readers[0]::pull::exporter::prometheus::prot: \
         unknown key, the nearest known one is `port`"
    );
}

/// Scenario: components of types that thyme doesn't have, without a name, or not defined.
/// Guarantees: the supported types and the nearest definition are named.
#[test]
fn components_must_exist() {
    assert_eq!(
        problems("receivers:\n", "receivers:\n  journald:\n"),
        "agent.yaml:2: receivers::journald: unknown type, the nearest known one is `filelog`; \
         thyme's receivers are filelog"
    );
    assert_eq!(
        problems("exporters:\n", "exporters:\n  otlp/: {endpoint: 'c:1'}\n"),
        "agent.yaml:5: exporters::otlp/: the name after `/` is missing"
    );
    assert_eq!(
        problems("receivers: [filelog]", "receivers: [filelog/pods]"),
        "agent.yaml:10: service::pipelines::logs::receivers[0]: `filelog/pods` is not defined in \
         `receivers`: unknown reference, the nearest known one is `filelog`"
    );
    assert_eq!(
        problems("receivers: [filelog]", "receivers: [filelog]\n      processors: [batch]"),
        "agent.yaml:11: service::pipelines::logs::processors[0]: `batch` is not defined in \
         `processors`: unknown reference, there are none here"
    );
    assert_eq!(
        problems("receivers: [filelog]", "receivers: [filelog, filelog]"),
        "agent.yaml:10: service::pipelines::logs::receivers[1]: `filelog` is named twice"
    );
}

/// Scenario: patterns and endpoints that are in order as text, but that discovery or the exporter
/// could not work with.
/// Guarantees: they are refused with their line, and not only once the agent starts.
#[test]
fn what_a_stage_would_refuse_is_refused_with_its_line() {
    let include = |pattern: &str| {
        problems("include: [/var/log/pods/*/*/*.log]", &format!("include: ['{pattern}']"))
    };
    let many = "/{a/b,c}".repeat(7);
    for pattern in ["/", "logs/*.log", "/var/log/{a/b,c/*.log", &many] {
        let found = include(pattern);
        assert!(found.starts_with("agent.yaml:3: receivers::filelog::include[0]: "), "{found}");
        assert!(found.contains(pattern), "{found}");
    }
    for (endpoint, why) in [
        ("a:b@collector:4317", "credentials"),
        ("co[ll]ector:4317", "expected"),
        ("collector:0", "expected"),
    ] {
        let found = problems("endpoint: collector:4317", &format!("endpoint: '{endpoint}'"));
        let begins = format!("agent.yaml:6: exporters::otlp::endpoint: {why}");
        assert!(found.starts_with(&begins), "{found}");
    }
    let found = refused(COMPLETE, "[/var/lib/docker/containers]", "['/']");
    assert!(found.ends_with("found `/`: links could lead to any file of the node"), "{found}");
    for path in ["var/lib", "/", "/var/lib/../log"] {
        let found = refused(COMPLETE, "[/var/lib/docker/containers]", &format!("['{path}']"));
        let begins = "agent.yaml:75: extensions::thyme::link_roots[0]: expected the absolute path";
        assert!(found.starts_with(begins), "{found}");
    }
    let many = format!("[{}]", "/a,".repeat(17));
    let found = refused(COMPLETE, "[/var/lib/docker/containers]", &many);
    assert_eq!(found, "agent.yaml:75: extensions::thyme::link_roots: at most 16 directories");
}

/// Scenario: pipelines that the Collector could run.
/// Guarantees: what thyme can't do yet is refused in so many words, not ignored.
#[test]
fn what_comes_later_is_refused() {
    assert_eq!(
        problems("exporters: [otlp]", "exporters: [otlp, otlp/b]")
            .lines()
            .next_back()
            .map(str::to_owned),
        Some(
            "agent.yaml:11: service::pipelines::logs::exporters[1]: `otlp/b` is not defined in \
             `exporters`: unknown reference, the nearest known one is `otlp`"
                .to_owned()
        )
    );
    let text = MINIMAL.replace("exporters:\n", "exporters:\n  otlp/b: {endpoint: 'c:1'}\n");
    assert_eq!(
        refused(&text, "exporters: [otlp]", "exporters: [otlp, otlp/b]"),
        "agent.yaml:10: service::pipelines::logs: several exporters in a pipeline are not supported \
         yet: name one"
    );
    assert_eq!(
        problems("    logs:", "    traces: {}\n    logs:"),
        "agent.yaml:9: service::pipelines::traces: thyme's pipelines are `logs` and `logs/name`"
    );
    assert_eq!(
        problems("    logs:", "    logs/b: {receivers: [filelog], exporters: [otlp]}\n    logs:"),
        "agent.yaml:10: service::pipelines::logs: one pipeline is all that thyme supports yet"
    );
    let queue = "endpoint: collector:4317\n    sending_queue: {storage: file_storage}";
    assert_eq!(
        problems("endpoint: collector:4317", queue),
        "agent.yaml:7: exporters::otlp::sending_queue::storage: `file_storage` is not defined in \
         `extensions`: unknown extension of this type, there are none here"
    );
    let queue = "endpoint: collector:4317\n    sending_queue: {block_on_overflow: false}";
    assert_eq!(
        problems("endpoint: collector:4317", queue),
        "agent.yaml:7: exporters::otlp::sending_queue::block_on_overflow: thyme never drops at a \
         full queue: reading stops until there is room"
    );
    let operators = "include: [/a]\n    operators: [{type: container}, {type: json_parser}]";
    assert_eq!(
        problems("include: [/var/log/pods/*/*/*.log]", operators),
        "agent.yaml:4: receivers::filelog::operators[1]: one operator is all that thyme supports \
         yet"
    );
    let operators = "include: [/a]\n    operators: [{type: regex_parser}]";
    assert_eq!(
        problems("include: [/var/log/pods/*/*/*.log]", operators),
        "agent.yaml:4: receivers::filelog::operators[0]::type: expected container, found \
         `regex_parser`"
    );
    assert_eq!(
        problems("service:", "service:\n  telemetry: {traces: {level: none}}"),
        "agent.yaml:8: service::telemetry::traces: thyme makes no traces of its own yet"
    );
}

/// Scenario: extensions that are defined, in service, and used, or only some of that.
/// Guarantees: `storage` needs one in service, `thyme` may not lie idle, others may.
#[test]
fn extensions_must_be_in_service_to_be_used() {
    let storage = "include: [/a]\n    storage: file_storage";
    let idle = problems("include: [/var/log/pods/*/*/*.log]", storage);
    let expected = "agent.yaml:4: receivers::filelog::storage: `file_storage` is not defined in \
                    `extensions`: unknown extension of this type, there are none here";
    assert_eq!(idle, expected);
    let text = MINIMAL.replace("service:", "extensions: {file_storage: , thyme/x: }\nservice:");
    let storage = |name: &str| format!("include: [/a]\n    storage: {name}");
    let found = refused(&text, "include: [/var/log/pods/*/*/*.log]", &storage("file_storage"));
    assert!(
        found.contains(
            "agent.yaml:4: receivers::filelog::storage: `file_storage` is defined, but not listed in \
             service::extensions"
        ),
        "{found}"
    );
    let found = refused(&text, "include: [/var/log/pods/*/*/*.log]", &storage("thyme/x"));
    assert!(found.contains("storage: `thyme/x` is no `file_storage`"), "{found}");
    assert_eq!(
        problems("service:", "extensions: {thyme: {workers: 2}}\nservice:"),
        "agent.yaml:7: extensions::thyme: defined, but not listed in service::extensions"
    );
    let unused = MINIMAL.replace("service:", "extensions: {health_check: }\nservice:");
    assert_eq!(parse(&unused).unwrap().health_check, None);
    assert_eq!(
        problems("service:", "extensions: {file_storage: {directory: 1}}\nservice:"),
        "agent.yaml:7: extensions::file_storage::directory: expected text, found a whole number: \
         put it in quotes",
        "what is not in service is checked all the same"
    );
    let twice = "extensions: {health_check: , health_check/b: }\nservice:\n  extensions: \
                 [health_check, health_check/b]";
    assert_eq!(
        problems("service:", twice),
        "agent.yaml:9: service::extensions[1]: only one extension of this type can be in service"
    );
    let again =
        "extensions: {health_check: }\nservice:\n  extensions: [health_check, health_check]";
    let config = parse(&MINIMAL.replace("service:", again)).unwrap();
    assert!(config.health_check.is_some(), "as in the Collector, named twice is started once");
}

/// A pipeline with two receivers, and two storages in service.
const STORAGES: &str = "\
receivers:
  filelog/a:
    include: [/a]
    storage: file_storage/a
  filelog/b:
    include: [/b]
    storage: file_storage/a
exporters:
  otlp:
    endpoint: collector:4317
    sending_queue:
      storage: file_storage/a
extensions:
  file_storage/a: {directory: /a}
  file_storage/b: {directory: /b}
service:
  extensions: [file_storage/b, file_storage/a]
  pipelines: {logs: {receivers: [filelog/a, filelog/b], exporters: [otlp]}}
";

/// Scenario: two storages in service: one is used by all of the pipeline, or some of it uses the
/// other, or one receiver has none.
/// Guarantees: the one that is named is used, whatever else is in service; what can't be together
/// is refused at the line of the key that is to blame.
#[test]
fn several_storages_may_be_in_service() {
    let storage = parse(STORAGES).unwrap().file_storage.unwrap();
    assert_eq!(storage.directory, Path::new("/a"));
    let another = "`file_storage/b` is another `file_storage` than `file_storage/a`, which the \
                   pipeline uses already: positions and kept requests belong together, in one \
                   directory";
    assert_eq!(
        refused(STORAGES, "      storage: file_storage/a", "      storage: file_storage/b"),
        format!("agent.yaml:12: exporters::otlp::sending_queue::storage: {another}")
    );
    let receiver = "include: [/b]\n    storage: file_storage/";
    assert_eq!(
        refused(STORAGES, &format!("{receiver}a"), &format!("{receiver}b")),
        format!("agent.yaml:7: receivers::filelog/b::storage: {another}")
    );
    assert_eq!(
        refused(STORAGES, "include: [/b]\n    storage: file_storage/a", "include: [/b]"),
        "agent.yaml:5: receivers::filelog/b: `storage` is missing, which other receivers of the \
         pipeline have: it must be set on all of them or on none\n\
         agent.yaml:11: exporters::otlp::sending_queue::storage: it needs `storage` on every \
         receiver of the pipeline: what is kept on disk would be read again after a restart"
    );
}

/// Scenario: each value of two complete configurations in turn is one that can't be right there.
/// Guarantees: nothing else is complained about as unknown, missing or not defined: a key that
/// failed to be read is no reason to disbelieve its neighbours.
#[test]
fn a_bad_value_makes_no_other_key_unknown() {
    let mut refusals = 0;
    for text in [COMPLETE, STORAGES] {
        for (number, line) in text.lines().enumerate() {
            let Some((key, value)) = line.split_once(": ") else { continue };
            if value.starts_with(['{', '&']) || key.trim() == "type" {
                continue;
            }
            for bad in ["{a: [1]}", "[[]]", "'\\0'", "/var/[a.log"] {
                let changed: Vec<String> = text
                    .lines()
                    .enumerate()
                    .map(|(other, line)| match other == number {
                        true => format!("{key}: {bad}"),
                        false => line.to_owned(),
                    })
                    .collect();
                let Err(ConfigError::Invalid(problems)) = parse_text(&changed.join("\n")) else {
                    continue;
                };
                refusals += 1;
                for problem in problems.iter().filter(|one| one.line != number as u64 + 1) {
                    for words in ["unknown", "is missing", "not defined", "is no `", "nearest"] {
                        assert!(!problem.message.contains(words), "{key}: {bad}: {problem}");
                    }
                }
            }
        }
    }
    assert!(refusals > 150, "only {refusals} of the values were refused");
}

/// Scenario: the reports of false second errors: a bad glob beside `storage`, no `include` beside
/// a `storage`, an operator that there is not, with keys of its own, and a header without a name.
/// Guarantees: one error each, the true one.
#[test]
fn one_mistake_is_one_error() {
    let storages = STORAGES.replace("\n    include: [/a]", "");
    assert_eq!(
        parse(&storages).unwrap_err(),
        "agent.yaml:2: receivers::filelog/a: the key `include` is missing"
    );
    let found = refused(STORAGES, "include: [/a]", "include: ['/a/[b']");
    assert!(found.starts_with("agent.yaml:3: receivers::filelog/a::include[0]: "), "{found}");
    assert_eq!(found.lines().count(), 1, "{found}");
    let operators =
        "include: [/a]\n    operators: [{type: regex_parser, regex: x, on_error: send}]";
    assert_eq!(
        problems("include: [/var/log/pods/*/*/*.log]", operators),
        "agent.yaml:4: receivers::filelog::operators[0]::type: expected container, found \
         `regex_parser`"
    );
    let headers = "endpoint: collector:4317\n    headers: [{value: x}]";
    assert_eq!(
        problems("endpoint: collector:4317", headers),
        "agent.yaml:7: exporters::otlp::headers[0]: the key `name` is missing"
    );
}

/// Scenario: headers that describe the message, binary metadata, and hosts to listen on in a form
/// that the system does not take.
/// Guarantees: refused with line and key, and not only by the start.
#[test]
fn what_the_start_would_refuse_is_refused_before() {
    let headers = |text: &str| {
        problems(
            "endpoint: collector:4317",
            &format!("endpoint: collector:4317\n    headers: {{{text}}}"),
        )
    };
    for name in ["Content-Type", "connection", "grpc-timeout", "x-bin", "a b"] {
        let found = headers(&format!("{name}: x"));
        let begins = format!("agent.yaml:7: exporters::otlp::headers::{name}: `{name}` ");
        assert!(found.starts_with(&begins), "{found}");
    }
    let page = |host: &str| {
        let reader = format!("{{pull: {{exporter: {{prometheus: {{host: \"{host}\"}}}}}}}}");
        let telemetry = format!("service:\n  telemetry: {{metrics: {{readers: [{reader}]}}}}");
        parse(&MINIMAL.replace("service:", &telemetry))
    };
    for host in ["::1", "0.0.0.0", "localhost", "my-host.example", "fe80::1%eth0"] {
        assert!(page(host).is_ok(), "{host}");
    }
    for host in ["[::1]", "a b", "localhost:1", "1.2.3.4:5", "http://x"] {
        let found = page(host).unwrap_err();
        assert!(found.contains("prometheus::host: expected a name or an address"), "{found}");
    }
    let check = |endpoint: &str| {
        let check = format!("extensions: {{health_check: {{endpoint: \"{endpoint}\"}}}}\nservice:");
        parse(&MINIMAL.replace("service:", &check))
    };
    for endpoint in ["[::1]:1", ":1", "localhost:0", "0.0.0.0:13133"] {
        assert!(check(endpoint).is_ok(), "{endpoint}");
    }
    for endpoint in ["::1:1", "[localhost]:1", "a b:1", "x", "x:99999", "[::1]"] {
        assert!(check(endpoint).is_err(), "{endpoint}");
    }
}

/// Scenario: limits that contradict each other or their range.
/// Guarantees: each is refused with the limit that it breaks.
#[test]
fn limits_must_fit_together() {
    assert_eq!(
        refused(COMPLETE, "in_flight_bytes_max: 32MiB", "in_flight_bytes_max: 8MiB"),
        "agent.yaml:71: extensions::thyme::in_flight_bytes_max: must be at least 2 x \
         request_bytes_max x workers = 12MiB"
    );
    assert_eq!(
        refused(COMPLETE, "workers: 2", "workers: 65"),
        "agent.yaml:69: extensions::thyme::workers: must be from 1 to 64, found 65"
    );
    assert_eq!(
        refused(COMPLETE, "send_batch_max_size: 2000", "send_batch_max_size: 999"),
        "agent.yaml:19: processors::batch/small: send_batch_max_size (999) must not be less than \
         send_batch_size (1000)"
    );
    assert_eq!(
        refused(COMPLETE, "max_elapsed_time: 5m", "max_elapsed_time: 5s"),
        "agent.yaml:43: exporters::otlp_http/backend::retry_on_failure: `max_elapsed_time` must \
         not be less than `max_interval`"
    );
    let large = refused(COMPLETE, "        max_log_size: 1MiB", "        max_log_size: 4MiB");
    assert!(
        large.starts_with("agent.yaml:2: receivers::file_log/pods: `max_log_size` must"),
        "{large}"
    );
    assert_eq!(
        refused(COMPLETE, "level: 3", "level: 23"),
        "agent.yaml:28: exporters::otlp_http/backend::compression_params::level: must be from 0 to \
         22, found 23"
    );
    let many = MINIMAL
        .replace("service:", "extensions: {thyme: {workers: 8}}\nservice:\n  extensions: [thyme]");
    assert_eq!(parse(&many).unwrap().thyme.in_flight_bytes_max, 2 * 8 * 3_670_016);
}

/// Scenario: endpoints as people write them.
/// Guarantees: those of the Collector's documentation are taken; one that can't be reached is not.
#[test]
fn endpoints_must_be_reachable() {
    let endpoint = |kind: &str, text: &str| {
        let text = MINIMAL
            .replace("otlp:\n", &format!("{kind}:\n"))
            .replace("[otlp]", &format!("[{kind}]"))
            .replace("collector:4317", &format!("'{text}'"));
        parse(&text).map(|config| config.exporter.endpoint).ok()
    };
    for good in ["c:4317", "127.0.0.1:1", "[::1]:4317", "http://c:4317", "https://c:4317/"] {
        assert_eq!(endpoint("otlp", good).as_deref(), Some(good));
    }
    assert_eq!(endpoint("otlp", "dns:///c:4317").as_deref(), Some("c:4317"));
    for good in ["http://c", "https://c:4318/base/", "http://[::1]:4318"] {
        assert_eq!(endpoint("otlphttp", good).as_deref(), Some(good));
    }
    for bad in ["c", "http://c", "unix:///socket", "http://c:4317/path", "", "c:port", ":4317"] {
        assert_eq!(endpoint("otlp", bad), None, "{bad}");
    }
    for bad in ["c:4318", "ftp://c", "", "http://", "http://c?x=1"] {
        assert_eq!(endpoint("otlphttp", bad), None, "{bad}");
    }
}

/// Scenario: values from the environment, and one variable that is not set.
/// Guarantees: types are found anew, and only the missing variable is complained about.
#[test]
fn the_environment_fills_values() {
    let batch = "processors: {batch: {send_batch_size: '${env:SIZE}', timeout: '${env:NONE:-2s}'}}";
    let text = MINIMAL.replace("service:", &format!("{batch}\nservice:"));
    let text =
        text.replace("receivers: [filelog]", "receivers: [filelog]\n      processors: [batch]");
    let config = parse(&text).unwrap();
    assert_eq!(config.batch.send_batch_size, 512);
    assert_eq!(config.batch.timeout, Duration::from_secs(2));
    assert_eq!(
        problems("collector:4317", "${env:COLLECTOR}"),
        "agent.yaml:6: exporters::otlp::endpoint: the environment variable `COLLECTOR` is not set; \
         `${env:COLLECTOR:-}` would be empty without it"
    );
}

/// Scenario: variables that are not set, alone and in a text, for values of each kind, in a list and at an
/// unknown key, and mistakes beside them.
/// Guarantees: each variable is complained about once, and all other mistakes are told with it.
#[test]
fn a_variable_that_is_not_set_hides_no_other_mistake() {
    let text = "receivers:\n  filelog:\n    include: ['${env:A}/*.log', 7]\n    start_at: ${env:B}\n    \
                poll_interval: x${env:C}\n    max_log_size: ${env:D}\n    storages: ${env:E}\n    \
                operators: ${env:F}\nexporters:\n  otlp:\n    endpoint: ${env:G}\n    timeout: 1\n    \
                headers: {a: '${env:H}'}\n    tls: ${env:I}\nservice:\n  pipelines:\n    logs:\n      \
                receivers: [filelog]\n      exporters: [otlp]\n";
    let unset = |line: u32, key: &str, name: &str| {
        format!(
            "agent.yaml:{line}: {key}: the environment variable `{name}` is not set; `${{env:{name}:-}}` \
             would be empty without it"
        )
    };
    let filelog = |key: &str| format!("receivers::filelog::{key}");
    let otlp = |key: &str| format!("exporters::otlp::{key}");
    let expected = [
        unset(3, &filelog("include[0]"), "A"),
        "agent.yaml:3: receivers::filelog::include[1]: expected text, found a whole number: put it in \
         quotes"
            .to_owned(),
        unset(4, &filelog("start_at"), "B"),
        unset(5, &filelog("poll_interval"), "C"),
        unset(6, &filelog("max_log_size"), "D"),
        unset(7, &filelog("storages"), "E"),
        "agent.yaml:7: receivers::filelog::storages: unknown key, the nearest known one is `storage`"
            .to_owned(),
        unset(8, &filelog("operators"), "F"),
        unset(11, &otlp("endpoint"), "G"),
        "agent.yaml:12: exporters::otlp::timeout: expected a duration with its unit, such as 200ms, 5s \
         or 1m30s, found a whole number"
            .to_owned(),
        unset(13, &otlp("headers::a"), "H"),
        unset(14, &otlp("tls"), "I"),
    ];
    let found = parse(text).unwrap_err();
    assert_eq!(found.lines().collect::<Vec<_>>(), expected);
}

/// Scenario: values that can't be read, because a variable is not set or for themselves, each of which is compared
/// with others where it can: intervals, limits, one of two keys, a certificate's key, lists that name extensions.
/// Guarantees: each is complained about once. The default that stands in its place is compared with nothing.
#[test]
fn what_cannot_be_read_is_compared_with_nothing() {
    let text = "receivers:\n  filelog:\n    include: [/a]\n    max_log_size: 8MiB\n    storage: file_storage\n\
                processors:\n  batch: {send_batch_size: many, send_batch_max_size: 5}\n\
                exporters:\n  otlp:\n    endpoint: a:1\n    \
                retry_on_failure: {initial_interval: 60s, max_interval: '${env:A}'}\n    \
                tls: {cert_file: a.pem, key_file: '${env:B}'}\n    \
                auth: {authenticator: bearertokenauth}\n\
                extensions:\n  bearertokenauth: {token: '${env:C}'}\n  file_storage:\n  \
                thyme: {request_bytes_max: '${env:D}', in_flight_bytes_max: 1MiB}\n\
                service:\n  extensions: ['${env:E}', thime]\n  pipelines:\n    logs:\n      \
                receivers: [filelog]\n      processors: [batch]\n      exporters: [otlp]\n";
    let found = parse(text).unwrap_err();
    let places = |line: &str| line.split(": ").nth(1).unwrap_or_default().to_owned();
    assert_eq!(
        found.lines().map(places).collect::<Vec<_>>(),
        [
            "processors::batch::send_batch_size",
            "exporters::otlp::retry_on_failure::max_interval",
            "exporters::otlp::tls::key_file",
            "extensions::bearertokenauth::token",
            "extensions::thyme::request_bytes_max",
            "service::extensions[0]",
            "service::extensions[1]",
        ],
        "{found}"
    );
    // A group that can't be read defines nobody knows what.
    let text = "receivers: [a]\nexporters: 5\nprocessors: '${env:A}'\nservice:\n  pipelines:\n    logs:\n      \
                receivers: [a]\n      processors: [b]\n      exporters: [c]\n";
    let found = parse(text).unwrap_err();
    assert_eq!(
        found.lines().map(places).collect::<Vec<_>>(),
        ["receivers", "exporters", "processors"],
        "{found}"
    );
}

/// Scenario: texts that are no configuration at all.
/// Guarantees: an error with a line, never a panic.
#[test]
fn what_is_no_configuration_is_refused() {
    assert_eq!(parse("").unwrap_err(), "agent.yaml:1: the key `service` is missing");
    assert_eq!(parse("- a\n").unwrap_err(), "agent.yaml:1: expected a mapping, found a list");
    assert_eq!(
        parse("receivers:\n  filelog:\n  filelog:\n").unwrap_err(),
        "agent.yaml:3: duplicate mapping key `filelog` is not allowed here"
    );
    assert_eq!(
        parse("service:\n  pipelines:\n").unwrap_err(),
        "agent.yaml:2: service::pipelines: must not be empty"
    );
    assert_eq!(
        parse("service:\n  pipelines: {}\n").unwrap_err(),
        "agent.yaml:2: service::pipelines: the pipeline `logs` is missing"
    );
    let missing = Config::load(Path::new("/nonexistent/agent.yaml")).unwrap_err().to_string();
    assert!(missing.starts_with("/nonexistent/agent.yaml: "), "{missing}");
}

/// Scenario: a batch size of 0, a queue that is switched off, metrics that are switched off.
/// Guarantees: they mean what they mean in the Collector.
#[test]
fn switches_mean_what_the_collector_means() {
    let zero = COMPLETE.replace("send_batch_size: 1000", "send_batch_size: 0");
    let batch = parse(&zero).unwrap().batch;
    assert_eq!((batch.send_batch_size, batch.timeout), (2000, Duration::ZERO));
    let off = COMPLETE.replace("      enabled: true\n      num", "      enabled: false\n      num");
    let queue = parse(&off).unwrap().exporter.queue;
    assert_eq!(queue, QueueConfig { num_consumers: 1, queue_size: 1, storage: None });
    let none = COMPLETE.replace("level: detailed", "level: none");
    assert_eq!(parse(&none).unwrap().telemetry.readers, []);
    let forever = COMPLETE.replace("max_elapsed_time: 5m", "max_elapsed_time: 0");
    assert_eq!(parse(&forever).unwrap().exporter.retry.max_elapsed, None);
    assert_eq!(
        problems("service:", "service:\n  telemetry: {metrics: {readers: []}}"),
        "agent.yaml:8: service::telemetry::metrics: `readers` must not be empty unless `level` is \
         none"
    );
}

/// A line of `COMPLETE` that is changed: taken away, or its value replaced.
fn changed(line: usize, value: &str) -> String {
    let lines: Vec<_> = COMPLETE.lines().collect();
    let at = line % lines.len();
    let replaced = match (value, lines[at].split_once(':')) {
        ("", _) => None,
        (_, Some((key, _))) => Some(format!("{key}: {value}")),
        (_, None) => Some(value.to_owned()),
    };
    let before = lines[..at].iter().map(|&line| line.to_owned());
    let after = lines[at + 1..].iter().map(|&line| line.to_owned());
    before.chain(replaced).chain(after).collect::<Vec<_>>().join("\n")
}

proptest::proptest! {
    /// Scenario: any line of a complete configuration is missing, or holds a value of any kind.
    /// Guarantees: it is accepted, or refused with at least one problem that names a line of it.
    #[test]
    fn one_changed_line_never_panics(line in 0_usize..1000, value in 0_usize..12) {
        let values = [
            "", "~", "true", "0", "-1", "99999999999999999999", "1.5", "text", "[]", "[a, 1]",
            "{a: 1}", "1h",
        ];
        let text = changed(line, values[value]);
        if let Err(ConfigError::Invalid(problems)) = parse_text(&text) {
            let lines = text.lines().count() as u64;
            proptest::prop_assert!(problems.iter().all(|p| (1..=lines).contains(&p.line)));
        }
    }

    /// Scenario: arbitrary text.
    /// Guarantees: a verdict, never a panic.
    #[test]
    fn no_text_panics(text in "[-\\[\\]{}:,&*!|>'\"%@`#$ \na-z0-9]{0,80}") {
        proptest::prop_assert!(parse(&text).is_err());
    }
}

/// Scenario: endpoints whose port is out of range, whose host is not ASCII, or that have no port.
/// Guarantees: the message says which of it is wrong.
#[test]
fn a_bad_endpoint_says_what_is_bad() {
    for (endpoint, expected) in [
        ("collector:70000", "its port is not a number up to 65535"),
        ("http://collector:70000", "its port is not a number up to 65535"),
        ("bücher.example:4317", "must be written in its ASCII form, `xn--…`"),
        ("collector", "it needs a port"),
        ("ftp://collector:1", "its scheme is not one of http, https, dns"),
    ] {
        let message = problems("endpoint: collector:4317", &format!("endpoint: '{endpoint}'"));
        assert!(message.contains(expected), "{endpoint}: {message}");
        assert!(message.contains("exporters::otlp::endpoint: expected host:port"), "{message}");
    }
}

/// Scenario: a section that must be there is there, and empty.
/// Guarantees: it is not called missing, and told at its line.
#[test]
fn what_is_empty_is_not_called_missing() {
    assert_eq!(
        parse("exporters:\nservice:\n").unwrap_err(),
        "agent.yaml:2: service: must not be empty"
    );
}

/// Scenario: `retry_on_failure` is switched off, with limits that would contradict each other.
/// Guarantees: taken, as the Collector does.
#[test]
fn a_retry_that_is_off_is_not_looked_at() {
    let text = COMPLETE
        .replace("      enabled: true\n      initial", "      enabled: false\n      initial")
        .replace("max_elapsed_time: 5m", "max_elapsed_time: 1s");
    assert!(!parse(&text).unwrap().exporter.retry.enabled);
}

/// Scenario: the header of a token is one of the protocol's own, or binary metadata over gRPC; and an
/// include has a NUL.
/// Guarantees: refused with line and key.
#[test]
fn a_token_stands_in_no_header_of_the_protocol() {
    for name in ["Content-Type", "host", "transfer-encoding", "content-length", "te", "connection"]
    {
        let text = format!(
            "receivers: {{filelog: {{include: [/a]}}}}\nexporters: {{otlp: {{endpoint: 'https://a:1', auth: \
             {{authenticator: bearertokenauth}}}}}}\nextensions:\n  bearertokenauth:\n    token: x\n    \
             header: {name}\nservice: {{extensions: [bearertokenauth], pipelines: {{logs: {{receivers: \
             [filelog], exporters: [otlp]}}}}}}\n"
        );
        let message = parse(&text).unwrap_err();
        assert!(
            message.contains("agent.yaml:6: extensions::bearertokenauth::header: `"),
            "{message}"
        );
        let binary = text.replace(&format!("header: {name}"), "header: x-token-bin");
        let message = parse(&binary).unwrap_err();
        assert!(message.contains("exporters::otlp: the header `x-token-bin`"), "{message}");
        assert!(parse(&binary.replace("otlp", "otlphttp")).is_ok());
    }
    let nul = problems("include: [", "include: [\"/a\\0b\", ");
    assert!(
        nul.contains(
            "receivers::filelog::include[0]: expected a path, found `/a\\0b`: there is a NUL in it"
        ),
        "{nul}"
    );
}

/// Scenario: each key that holds a path has a NUL in it, which no path can have.
/// Guarantees: each is refused with its key and value, and not only when the agent starts.
#[test]
fn a_path_with_a_nul_is_refused_at_each_key() {
    let text = "receivers:\n  filelog: {include: [/a], exclude: [\"/I\"], storage: file_storage}\n\
                exporters:\n  otlp:\n    endpoint: https://a:1\n    auth: {authenticator: bearertokenauth}\n    \
                tls: {ca_file: \"/A\", cert_file: \"/B\", key_file: \"/C\"}\n\
                extensions:\n  file_storage: {directory: \"/D\"}\n  thyme: {link_roots: [\"/E\"]}\n  \
                bearertokenauth: {filename: \"/F\"}\n\
                service:\n  extensions: [file_storage, thyme, bearertokenauth]\n  \
                pipelines: {logs: {receivers: [filelog], exporters: [otlp]}}\n";
    parse(text).unwrap();
    for (path, key) in [
        ("/A", "exporters::otlp::tls::ca_file"),
        ("/B", "exporters::otlp::tls::cert_file"),
        ("/C", "exporters::otlp::tls::key_file"),
        ("/D", "extensions::file_storage::directory"),
        ("/E", "extensions::thyme::link_roots[0]"),
        ("/F", "extensions::bearertokenauth::filename"),
        ("/I", "receivers::filelog::exclude[0]"),
    ] {
        let found = refused(text, path, &format!("{path}\\0b"));
        assert!(found.contains(&format!("{key}: ")), "{found}");
        assert!(found.contains(&format!("{path}\\0b")) && found.contains("a NUL in it"), "{found}");
    }
}

/// Scenario: a reader's endpoint, ports, periods and durations are what others hold, or out of their range.
/// Guarantees: each is refused with its key, the value, and what was expected.
#[test]
fn a_wrong_value_is_shown_beside_what_was_expected() {
    let text = "receivers: {filelog: {include: [/a]}}\nexporters: {otlp: {endpoint: 'a:1', timeout: 3s}}\n\
                extensions: {health_check: {endpoint: 'b:2'}}\nservice:\n  extensions: [health_check]\n  \
                telemetry:\n    metrics:\n      readers:\n        - periodic:\n            interval: 4\n            \
                exporter: {otlp: {protocol: grpc, endpoint: 'c:5'}}\n        \
                - pull: {exporter: {prometheus: {host: d, port: 6}}}\n  \
                pipelines: {logs: {receivers: [filelog], exporters: [otlp]}}\n";
    parse(text).unwrap();
    let readers = "service::telemetry::metrics::readers";
    for (from, to, expected) in [
        (
            "'c:5'",
            "'-5s'",
            format!(
                "{readers}[0]::periodic::exporter::otlp::endpoint: expected a URL, such as \
             http://collector:4317, found `-5s`: its host is neither an address nor a name"
            ),
        ),
        (
            "interval: 4",
            "interval: -5s",
            format!("{readers}[0]::periodic::interval: expected a whole number, found `-5s`"),
        ),
        (
            "port: 6",
            "port: 65536",
            format!(
                "{readers}[1]::pull::exporter::prometheus::port: must be from 0 to 65535, found 65536"
            ),
        ),
        (
            "host: d",
            "host: 'd:1'",
            format!(
                "{readers}[1]::pull::exporter::prometheus::host: expected a name or an address without \
             brackets and port, such as localhost or ::1, found `d:1`"
            ),
        ),
        (
            "'b:2'",
            "'b:65536'",
            "extensions::health_check::endpoint: expected host:port with a port up \
          to 65535, such as localhost:13133 or [::1]:13133, found `b:65536`"
                .to_owned(),
        ),
        (
            "3s",
            "-3s",
            "exporters::otlp::timeout: expected a duration with its unit, such as 200ms, 5s \
          or 1m30s, found `-3s`"
                .to_owned(),
        ),
        (
            "'a:1'",
            "'a:65536'",
            "exporters::otlp::endpoint: expected host:port, such as collector:4317 \
          or https://collector:4317, found `a:65536`: its port is not a number up to 65535"
                .to_owned(),
        ),
    ] {
        let found = refused(text, from, to);
        assert!(found.ends_with(&expected), "{found}");
    }
}

/// Scenario: numbers that are none, or without end, stand at keys that take a duration, a text, and nothing at all,
/// beside other mistakes.
/// Guarantees: each is a mistake of its key, told together with the others.
#[test]
fn a_number_that_is_none_hides_no_other_mistake() {
    let text = "receivers:\n  filelog: {include: [/x/*.log], poll_interval: .nan, nonsense: 1}\n\
                processors: {batch: {timeout: -.inf, send_batch_size: .NaN}}\n\
                exporters: {otlp: {endpoint: .inf, wrong: .nan}}\n\
                service: {pipelines: {logs: {receivers: [filelog], exporters: [otlp]}}}\n";
    let said = parse(text).unwrap_err();
    for key in ["poll_interval", "nonsense", "timeout", "send_batch_size", "endpoint", "wrong"] {
        assert_eq!(said.matches(&format!("::{key}: ")).count(), 1, "{key}: {said}");
    }
}
