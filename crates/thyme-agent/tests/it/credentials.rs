//! Certificates and tokens that are exchanged while requests are under way: the exporter alone, and
//! the program as a process.

use std::{
    fs,
    sync::mpsc,
    time::{Duration, Instant},
};

use http::HeaderValue;
use nop_collector::{Collector, Fault, OnThreads, Options};
use thyme_agent::{
    config::{
        BearerTokenConfig, ExporterConfig, Protocol, Source, TlsConfig, TlsIdentity, TlsVersion,
    },
    export::Timing,
};

use crate::{
    authority::{Authority, TlsDirectory},
    export::{
        Exporter, Names, PATIENCE, PROTOCOLS, address, config, numbers, sink_with, taken, timing,
    },
    node::{append, cri, wait_until},
    program::Program,
};

/// The exporter's `tls` with the files of a directory.
fn mutual_tls(files: &TlsDirectory) -> TlsConfig {
    let file = |name| Source::File(files.path(name));
    TlsConfig {
        authorities: Some(file("ca.crt")),
        identity: Some(TlsIdentity { certificate: file("tls.crt"), key: file("tls.key") }),
        ..TlsConfig::default()
    }
}

fn with_tls(protocol: Protocol, tls: TlsConfig) -> ExporterConfig {
    ExporterConfig { tls, endpoint: "https://localhost:4317".to_owned(), ..config(protocol) }
}

/// Waits until so many attempts have failed.
async fn failed(exporter: &Exporter, retries: u64) {
    let deadline = Instant::now() + PATIENCE;
    while exporter.metrics.send_retries.get() < retries {
        assert!(Instant::now() < deadline, "no attempt fails");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Scenario: row 28: the sink demands certificates. Those of sink and agent, and the authorities of
/// both, are exchanged while requests flow over connections that are replaced every 50 ms; first
/// only on the sink's side, so that neither trusts the other for a while.
/// Guarantees: nothing is sent to a sink without trust in both directions, nothing is lost or
/// dropped, and the new certificates come into use without a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutual_tls_survives_an_exchange_of_everything() {
    for protocol in PROTOCOLS {
        let (old, new) = (Authority::new(), Authority::new());
        let sink_files = TlsDirectory::new(&old, &old);
        let agent_files = TlsDirectory::new(&old, &old);
        let sink = sink_with(|options| options.tls = Some(sink_files.for_collector(true))).await;
        let config = with_tls(protocol, mutual_tls(&agent_files));
        let timing = Timing { connection_age_max: Duration::from_millis(50), ..timing() };
        let names = Names::of([address(&sink, protocol)]);
        let exporter = Exporter::start_with(&config, &names, timing);
        exporter.send_numbers(0..20).await;
        exporter.all_acknowledged(20).await;

        sink_files.exchange(&new, &new);
        // What is connected may go on; a new connection can't be made.
        sink.stop_listening().await;
        sink.listen_again().await.unwrap();
        let before = exporter.metrics.send_retries.get();
        exporter.send_numbers(20..40).await;
        failed(&exporter, before + 4).await;
        assert_eq!(sink.report().requests, 20);
        agent_files.exchange(&new, &new);
        exporter.all_acknowledged(20).await;
        exporter.send_numbers(40..60).await;
        exporter.all_acknowledged(20).await;
        let mut arrived: Vec<usize> =
            taken(&sink).iter().map(|body| body.parse().unwrap()).collect();
        arrived.sort_unstable();
        assert!(arrived.into_iter().eq(0..60));
    }
}

/// Scenario: a sink that demands certificates gets an exporter without one, and one with a
/// stranger's.
/// Guarantees: neither gets a request in, both keep what they have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_certificate_nothing_gets_in() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let sink_files = TlsDirectory::new(&authority, &authority);
    let agent_files = TlsDirectory::new(&stranger, &authority);
    let sink = sink_with(|options| options.tls = Some(sink_files.for_collector(true))).await;
    let foreign = mutual_tls(&agent_files);
    let without = TlsConfig { identity: None, ..foreign.clone() };
    for tls in [foreign, without] {
        let exporter = Exporter::start(
            &with_tls(Protocol::Grpc, tls),
            &Names::of([address(&sink, Protocol::Grpc)]),
        );
        exporter.send_numbers(0..1).await;
        failed(&exporter, 3).await;
        assert_eq!(sink.report().requests, 0);
    }
}

/// Scenario: the sink's certificate is for another name than the endpoint's, of an authority that
/// the agent does not know.
/// Guarantees: nothing is sent, until the name is configured and the authority is known, or
/// `insecure_skip_verify` is. TLS 1.3 alone will do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_and_versions_are_checked() {
    let authority = Authority::new();
    let files = TlsDirectory::new(&authority, &authority);
    let (certificate, key) = authority.issue_for("collector.internal");
    files.write("tls.crt", &certificate);
    files.write("tls.key", &key);
    let sink = sink_with(|options| options.tls = Some(files.for_collector(false))).await;
    let trusting = TlsConfig {
        authorities: Some(Source::Inline(authority.pem.clone().into())),
        min_version: TlsVersion::V1_3,
        ..TlsConfig::default()
    };
    let named = TlsConfig {
        server_name_override: Some("collector.internal".to_owned()),
        ..trusting.clone()
    };
    let any = TlsConfig { insecure_skip_verify: true, ..TlsConfig::default() };
    for (tls, gets_in) in [(trusting, false), (named, true), (any, true)] {
        for protocol in PROTOCOLS {
            let names = Names::of([address(&sink, protocol)]);
            let exporter = Exporter::start(&with_tls(protocol, tls.clone()), &names);
            exporter.send_numbers(0..1).await;
            if gets_in {
                exporter.all_acknowledged(1).await;
            } else {
                failed(&exporter, 3).await;
                assert_eq!(sink.report().requests, 0);
            }
        }
    }
}

/// Scenario: row 24: the sink demands a token that is not in the agent's file yet, over both
/// protocols; then somebody writes it there.
/// Guarantees: until then nothing counts and nothing is given up; then everything arrives, by the
/// next attempt of each request, and the token is in the header as the scheme has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_changes_loses_nothing() {
    for protocol in PROTOCOLS {
        let authority = Authority::new();
        let files = TlsDirectory::new(&authority, &authority);
        files.write("token", "old\n");
        let sink = sink_with(|options| options.tls = Some(files.for_collector(false))).await;
        demand(&sink, "Bearer new");
        let auth = BearerTokenConfig {
            id: "bearertokenauth".into(),
            header: "authorization".into(),
            scheme: "Bearer".into(),
            token: Source::File(files.path("token")),
        };
        let authorities = Some(Source::File(files.path("ca.crt")));
        let tls = TlsConfig { authorities, ..TlsConfig::default() };
        let config = ExporterConfig { auth: Some(auth), ..with_tls(protocol, tls) };
        // The file is looked at when the sink complains, not before.
        let timing = Timing { token_read_interval: Duration::from_secs(3600), ..timing() };
        let names = Names::of([address(&sink, protocol)]);
        let exporter = Exporter::start_with(&config, &names, timing);
        exporter.send_numbers(0..20).await;
        failed(&exporter, 5).await;
        assert_eq!(sink.report().received, 0);
        files.write("token", "new\n");
        exporter.all_acknowledged(20).await;
        let mut arrived = taken(&sink);
        arrived.sort_by_key(|body| body.parse::<usize>().unwrap());
        assert_eq!(arrived, numbers(0..20));
    }
}

/// Scenario: row 24: the token's file is exchanged before the agent looks at it again; after a
/// refusal the exporter would wait for an hour.
/// Guarantees: the refused request goes out again with the new token at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_token_is_replaced_without_waiting() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "old").unwrap();
    let sink = sink_with(|_| {}).await;
    demand(&sink, "Bearer new");
    let auth = BearerTokenConfig {
        id: "bearertokenauth".into(),
        header: "authorization".into(),
        scheme: "Bearer".into(),
        token: Source::File(file.path().to_owned()),
    };
    let hour = Duration::from_secs(3600);
    let mut config = ExporterConfig { auth: Some(auth), ..config(Protocol::Http) };
    (config.retry.initial_interval, config.retry.max_interval) = (hour, hour);
    let timing = Timing { token_read_interval: hour, ..timing() };
    let exporter = Exporter::start_with(&config, &Names::of([sink.http_addr()]), timing);
    fs::write(file.path(), "new").unwrap();
    exporter.send_numbers(0..1).await;
    exporter.all_acknowledged(1).await;
    assert_eq!((sink.faults().applied(), sink.report().records), (1, 1));
}

/// Answers 401 to whoever comes without this `authorization`.
fn demand(sink: &nop_collector::Running, value: &'static str) {
    let fault =
        Fault::GrpcStatus { code: nop_collector::grpc_code::UNAUTHENTICATED, retry_delay: None };
    let value = HeaderValue::from_static(value);
    sink.faults().demand_header(http::header::AUTHORIZATION, value, fault);
}

/// A configuration that reads `logs` and sends with TLS and a token, all out of one directory.
fn yaml(files: &TlsDirectory, sink: &OnThreads) -> String {
    let logs = files.path("logs");
    fs::create_dir_all(&logs).unwrap();
    format!(
        "extensions:
  bearertokenauth: {{filename: {token}}}
  file_storage: {{directory: {state}, create_directory: true}}
  thyme: {{scan_interval: 100ms}}
receivers:
  filelog:
    include: [{logs}/*.log]
    start_at: beginning
    storage: file_storage
    operators: [{{type: container}}]
processors:
  batch: {{timeout: 10ms}}
exporters:
  otlp:
    endpoint: https://localhost:{port}
    auth: {{authenticator: bearertokenauth}}
    retry_on_failure: {{initial_interval: 20ms, max_interval: 100ms}}
    tls:
      ca_file: {ca}
      cert_file: {certificate}
      key_file: {key}
      reload_interval: 1s
service:
  extensions: [bearertokenauth, file_storage, thyme]
  pipelines:
    logs: {{receivers: [filelog], processors: [batch], exporters: [otlp]}}
  telemetry:
    metrics: {{level: none}}
",
        token = files.path("token").display(),
        state = files.path("state").display(),
        logs = logs.display(),
        port = sink.grpc_addr().port(),
        ca = files.path("ca.crt").display(),
        certificate = files.path("tls.crt").display(),
        key = files.path("tls.key").display(),
    )
}

/// Scenario: the program has no certificate for a sink that demands one, which is said only after
/// the handshake.
/// Guarantees: its log names what may be wrong, and nothing is taken for the requests' own fault.
#[test]
fn the_program_says_that_its_certificate_is_not_taken() {
    let authority = Authority::new();
    let files = TlsDirectory::new(&authority, &authority);
    files.write("token", "token");
    let tls = Some(files.for_collector(true));
    let sink = Collector::start_on_threads(Options { tls, ..Options::ephemeral() }, 1).unwrap();
    let without = |line: &&str| !line.contains("cert_file") && !line.contains("key_file");
    let yaml: Vec<_> = yaml(&files, &sink).lines().filter(without).map(str::to_owned).collect();
    let config = files.path("agent.yaml");
    fs::write(&config, yaml.join("\n")).unwrap();
    append(&files.path("logs").join("0.log"), cri("a line"));
    let mut program = Program::start(&config);
    let said = program.line("no connection to the sink");
    assert!(said.contains("perhaps for the want of a certificate"), "{said}");
    assert_eq!(sink.report().requests, 0);
}

/// Scenario: rows 24 and 28 on the real program, with mutual TLS and a token, while a line is
/// written every few milliseconds: the sink demands a new token before the agent has it, then
/// certificates and authorities of both sides are exchanged, the sink's first.
/// Guarantees: every line arrives; the log says what was taken over; it holds neither token.
#[test]
fn the_program_survives_new_tokens_and_certificates() {
    let (old, new) = (Authority::new(), Authority::new());
    let sink_files = TlsDirectory::new(&old, &old);
    let files = TlsDirectory::new(&old, &old);
    files.write("token", "first-token");
    let tls = Some(sink_files.for_collector(true));
    let options = Options { tls, keep_requests: true, ..Options::ephemeral() };
    let sink = Collector::start_on_threads(options, 1).unwrap();
    demand(&sink, "Bearer first-token");
    let config = files.path("agent.yaml");
    fs::write(&config, yaml(&files, &sink)).unwrap();
    let mut program = Program::start(&config);

    let (stop, stopped) = mpsc::channel();
    let log = files.path("logs").join("0.log");
    let writer = std::thread::spawn(move || {
        let mut written = 0_usize;
        while matches!(
            stopped.recv_timeout(Duration::from_millis(3)),
            Err(mpsc::RecvTimeoutError::Timeout)
        ) {
            append(&log, cri(&format!("line-{written}")));
            written += 1;
        }
        written
    });
    wait_until("lines arrive", || sink.report().records > 20);
    demand(&sink, "Bearer second-token");
    program.line("refuses the credentials");
    files.write("token", "second-token");
    program.line("took over a changed token");
    let records = sink.report().records;
    wait_until("lines arrive with the new token", || sink.report().records > records + 20);

    sink_files.exchange(&new, &new);
    program.line("TLS");
    files.exchange(&new, &new);
    program.line("took over changed authorities or certificates");
    let records = sink.report().records;
    wait_until("lines arrive with new certificates", || sink.report().records > records + 20);

    stop.send(()).unwrap();
    let written = writer.join().unwrap();
    let mut lines = std::collections::BTreeSet::new();
    wait_until("every line arrives", || {
        lines.extend(crate::export::taken(&sink));
        lines.len() >= written
    });
    assert!((0..written).all(|number| lines.contains(&format!("line-{number}"))));
    let log = program.stop().join("\n");
    assert!(!log.contains("first-token") && !log.contains("second-token"), "{log}");
}
