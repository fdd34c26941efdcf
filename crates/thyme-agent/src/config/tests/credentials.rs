//! `tls`, `auth` and `bearertokenauth`; and that no secret of a configuration is ever shown.

use super::*;

/// The word that every secret holds here.
const MARKER: &str = "hunter2";

/// `MINIMAL` with `keys` in its exporter.
fn exporter(keys: &str) -> Result<Config, String> {
    let keys = keys.replace('\n', "\n    ");
    parse(&MINIMAL.replace("collector:4317", &format!("collector:4317\n    {keys}")))
}

/// `MINIMAL` with a `bearertokenauth` extension of those keys, and an exporter that uses it.
fn with_token(extension: &str, endpoint: &str, keys: &str) -> Result<Config, String> {
    let head = format!("extensions:\n  bearertokenauth: {extension}\n{MINIMAL}");
    let auth = format!("{endpoint}\n    auth: {{authenticator: bearertokenauth}}\n    {keys}");
    let text = head
        .replace("collector:4317", &auth)
        .replace("service:\n", "service:\n  extensions: [bearertokenauth]\n");
    parse(&text)
}

/// Scenario: keys of `tls` that contradict each other, lack each other or make no sense.
/// Guarantees: each is refused in words that say what would be right.
#[test]
fn tls_keys_must_fit_together() {
    for (keys, expected) in [
        ("tls: {cert_file: /c}", "a certificate needs its key: `cert_file` with `key_file`"),
        ("tls: {key_pem: k}", "a certificate needs its key: `cert_file` with `key_file`"),
        ("tls: {ca_file: /a, ca_pem: b}", "`ca_file` and `ca_pem` exclude each other"),
        ("tls: {min_version: '1.1'}", "expected one of 1.2, 1.3, found `1.1`"),
        ("tls: {server_name_override: 'a b'}", "expected the name or the address that"),
        ("tls: {reload_interval: 0s}", "must be from 1s to 24h, found 0s"),
        ("tls: {insecure_skip_verify: true, ca_file: /a}", "take the authorities away"),
        ("tls: {max_version: '1.3'}", "thyme does not support it yet"),
    ] {
        let error = exporter(keys).expect_err(keys);
        assert!(error.contains(expected), "{error}");
    }
    let tls = exporter("tls: {cert_pem: c, key_file: /k, ca_pem: a}").unwrap().exporter.tls;
    let certificate = Source::Inline("c".into());
    assert_eq!(tls.identity, Some(TlsIdentity { certificate, key: Source::File("/k".into()) }));
    assert_eq!(tls.min_version, TlsVersion::V1_2);
    assert!(!tls.insecure_skip_verify && !tls.insecure);
}

/// Scenario: authenticators that are not there, have no token or two, or would be shown to all.
/// Guarantees: each is refused; the defaults are the Collector's.
#[test]
fn authenticators_must_be_usable() {
    let auth = with_token("{token: t}", "collector:4317", "").unwrap().exporter.auth.unwrap();
    assert_eq!((auth.header.as_str(), auth.scheme.as_str()), ("authorization", "Bearer"));
    assert_eq!(auth.token, Source::Inline("t".into()));
    let error = exporter("auth: {authenticator: bearertokenauth}").unwrap_err();
    let expected = "auth::authenticator: `bearertokenauth` is not defined in `extensions`";
    assert!(error.contains(expected), "{error}");
    for (extension, endpoint, keys, expected) in [
        ("{}", "collector:4317", "", "expected one of `token` and `filename`"),
        ("{token: a, filename: /b}", "collector:4317", "", "expected one of `token`"),
        ("{token: a, header: 'b c'}", "collector:4317", "", "can't be the name of a header"),
        ("{token: \"a\\n\"}", "collector:4317", "", "a header can't hold this value"),
        ("{token: a}", "http://collector:4317", "", "a token is sent with TLS only"),
        ("{token: a}", "collector:4317", "tls: {insecure: true}", "a token is sent with TLS only"),
        (
            "{token: a}",
            "collector:4317",
            "headers: {Authorization: b}",
            "`headers` and `bearertokenauth` both set the header `authorization`",
        ),
    ] {
        let error = with_token(extension, endpoint, keys).expect_err(expected);
        assert!(error.contains(expected), "{error}");
    }
}

/// Every key that holds a secret, each with the marker in it.
const SECRETS: &str = "\
receivers:
  filelog:
    include: [/var/log/pods/*/*/*.log]
extensions:
  bearertokenauth: {token: hunter2}
exporters:
  otlp:
    endpoint: collector:4317
    headers: {x-key: hunter2}
    auth: {authenticator: bearertokenauth}
    tls: {ca_pem: hunter2, cert_pem: hunter2, key_pem: hunter2}
service:
  extensions: [bearertokenauth]
  pipelines:
    logs:
      receivers: [filelog]
      exporters: [otlp]
  telemetry:
    metrics:
      readers:
        - periodic:
            exporter:
              otlp:
                protocol: grpc
                endpoint: http://collector:4317
                headers: [{name: x-key, value: hunter2}]
";

/// Scenario: a marker stands in every key that holds a secret; the configuration is printed as it
/// is, and with each of its lines broken in turn by other values, types, keys and bad YAML.
/// Guarantees: no print and no message shows the marker.
#[test]
fn no_print_shows_a_secret() {
    let config = parse(SECRETS).unwrap();
    assert_eq!(SECRETS.matches(MARKER).count(), 6);
    let mut printed = vec![format!("{config:?}"), format!("{config:#?}")];
    let lines: Vec<&str> = SECRETS.lines().collect();
    for broken in 0..lines.len() {
        for change in [
            |line: &str| line.replace(MARKER, "[hunter2]"),
            |line: &str| line.replace(MARKER, "{hunter2: hunter2}"),
            |line: &str| line.replace(MARKER, "\"hunter2\\n\""),
            |line: &str| line.replace(MARKER, "'hunter2"),
            |line: &str| line.replace(MARKER, "*hunter2 x"),
            |line: &str| line.replace(MARKER, "!tag hunter2 : hunter2"),
            |line: &str| line.replace(MARKER, "${file:/nonexistent} hunter2"),
            |line: &str| line.replace("  ", " "),
            |line: &str| format!("{line} }} ]"),
            |line: &str| line.replace(": ", ":: "),
            |_: &str| String::new(),
            |line: &str| format!("{line}\n{line}"),
        ] {
            let mut text: Vec<String> = lines.iter().map(|&line| line.to_owned()).collect();
            text[broken] = change(lines[broken]);
            match parse(&text.join("\n")) {
                Ok(config) => printed.push(format!("{config:?}")),
                Err(error) => printed.push(error),
            }
        }
    }
    // Keys and names of files are no secrets, and are shown.
    let shown = printed.iter().filter(|text| text.contains(MARKER));
    let shown: Vec<_> = shown.filter(|text| !text.contains("key")).collect();
    assert!(shown.is_empty(), "{shown:#?}");
}

/// Scenario: credentials within the URLs of endpoints, and a secret from the environment at a key
/// that takes one of some words.
/// Guarantees: both are refused without being shown.
#[test]
fn misplaced_secrets_are_not_shown() {
    for text in [
        MINIMAL.replace("collector:4317", "http://user:hunter2@collector:4317"),
        SECRETS.replace("http://collector", "http://user:hunter2@collector"),
    ] {
        let error = parse(&text).unwrap_err();
        assert!(error.contains("credentials do not belong here"), "{error}");
        assert!(!error.contains(MARKER), "{error}");
    }
    let error = exporter("compression: ${env:TOKEN}").unwrap_err();
    assert!(error.contains("found another text") && !error.contains("geheim"), "{error}");
}

/// Scenario: a configuration that names no address to listen on.
/// Guarantees: the health check is off until it is asked for, then on localhost, as are metrics.
#[test]
fn nothing_said_is_localhost() {
    let config = parse(MINIMAL).unwrap();
    assert_eq!(config.health_check, None);
    let MetricsReader::Prometheus(prometheus) = &config.telemetry.readers[0] else {
        panic!("metrics are served unless told otherwise")
    };
    assert_eq!((prometheus.host.as_str(), config.telemetry.readers.len()), ("localhost", 1));
    let health = "extensions: {health_check: }\nservice:\n  extensions: [health_check]";
    let config = parse(&MINIMAL.replace("service:", health)).unwrap();
    assert_eq!(config.health_check.unwrap().endpoint, "localhost:13133");
}
