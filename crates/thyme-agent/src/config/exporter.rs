//! The keys of the `otlp` and `otlphttp` exporters.

use std::time::Duration;

use http::Uri;

use super::{
    Compression, ExporterConfig, Protocol, ProxyConfig, QueueConfig, RetryConfig, Secret,
    component::Type,
    read::{Field, Place, Reference, Section, all},
    tls,
};
use crate::export::{ExportError, HeaderFault, configured_header, endpoint::Endpoint};

const GRPC_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
const HTTP_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
const INTERVAL_MIN: Duration = Duration::from_millis(1);
const INTERVAL_MAX: Duration = Duration::from_secs(24 * 3600);
const MULTIPLIER_MAX: f64 = 100.0;
const CONSUMERS_MAX: i64 = 1000;
const QUEUE_REQUESTS_MAX: i64 = 1_000_000;

const ZSTD_LEVEL_DEFAULT: i64 = 1;
const ZSTD_LEVEL_MAX: i64 = 22;
const GZIP_LEVEL_DEFAULT: i64 = 6;
const GZIP_LEVEL_MAX: i64 = 9;

/// An exporter before its authenticator is looked up.
#[derive(Clone, Debug)]
pub(super) struct Exporter {
    pub(super) config: ExporterConfig,
    /// `auth::authenticator`.
    pub(super) authenticator: Option<Reference>,
    /// Where `sending_queue::storage` stands.
    pub(super) storage: Option<Place>,
}

pub(super) const TYPES: &[Type<Exporter>] = &[
    Type {
        names: &["otlp", "otlp_grpc"],
        later: &[
            "authority",
            "balancer_name",
            "keepalive",
            "middlewares",
            "read_buffer_size",
            "user_agent",
            "wait_for_ready",
            "write_buffer_size",
        ],
        read: |id, body| read(id, body, Protocol::Grpc),
    },
    Type {
        names: &["otlphttp", "otlp_http"],
        later: &[
            "cookies",
            "disable_keep_alives",
            "encoding",
            "force_attempt_http2",
            "http2_ping_timeout",
            "http2_read_idle_timeout",
            "idle_conn_timeout",
            "keepalive",
            "logs_endpoint",
            "max_conns_per_host",
            "max_idle_conns",
            "max_idle_conns_per_host",
            "metrics_endpoint",
            "middlewares",
            "profiles_endpoint",
            "read_buffer_size",
            "traces_endpoint",
            "write_buffer_size",
        ],
        read: |id, body| read(id, body, Protocol::Http),
    },
];

fn read(id: &str, body: &Section<'_>, protocol: Protocol) -> Option<Exporter> {
    let timeout_default = match protocol {
        Protocol::Grpc => GRPC_TIMEOUT_DEFAULT,
        Protocol::Http => HTTP_TIMEOUT_DEFAULT,
    };
    let endpoint = body.required("endpoint").and_then(|field| endpoint(&field, protocol));
    let compression = body.one_of(
        "compression",
        &[
            ("none", Compression::None),
            ("gzip", Compression::Gzip),
            ("zstd", Compression::Zstd),
            ("", Compression::None),
        ],
        Compression::Gzip,
    );
    let tls = body.field("tls").and_then(|field| field.section(tls::LATER, tls::read));
    let authenticator = body
        .field("auth")
        .and_then(|field| field.section(&[], |auth| auth.required("authenticator")?.reference()));
    let retry = body.field("retry_on_failure").and_then(|field| field.section(&[], retry));
    // As in the Collector, gRPC has only what the environment says.
    let proxy = match protocol {
        Protocol::Grpc => None,
        Protocol::Http => body.field("proxy_url").and_then(|field| proxy(&field)),
    };
    let mut storage = None;
    let queue = body
        .field("sending_queue")
        .and_then(|field| field.section(QUEUE_LATER, |body| queue(body, &mut storage)));
    let config = ExporterConfig {
        id: id.to_owned(),
        protocol,
        compression,
        compression_level: compression_level(body, compression),
        headers: body
            .field("headers")
            .and_then(|field| headers(&field, protocol))
            .unwrap_or_default(),
        auth: None,
        timeout: body.duration("timeout", INTERVAL_MIN..=INTERVAL_MAX, timeout_default),
        tls: tls.unwrap_or_default(),
        proxy,
        retry: retry.unwrap_or_default(),
        queue: queue.unwrap_or_default(),
        endpoint: endpoint?,
    };
    Some(Exporter { config, authenticator, storage })
}

/// gRPC: `host:port`, with `http://`, `https://` or `dns:///` before it. HTTP: a URL.
fn endpoint(field: &Field<'_>, protocol: Protocol) -> Option<String> {
    let text = field.text()?;
    let (text, expected) = match protocol {
        Protocol::Grpc => (
            // Every address of a name is used, as gRPC's `dns` resolver would.
            text.strip_prefix("dns:///").unwrap_or(&text).to_owned(),
            "host:port, such as collector:4317 or https://collector:4317",
        ),
        Protocol::Http => (text, "a URL, such as http://collector:4318"),
    };
    if refuse_credentials(field, &text) {
        return None;
    }
    if let Err(reason) = check_endpoint(&text, protocol) {
        field.refuse(format!("expected {expected}, found {}: {reason}", field.found()));
        return None;
    }
    Some(text)
}

/// A proxy; an empty text is none. No message shows it.
fn proxy(field: &Field<'_>) -> Option<ProxyConfig> {
    let text = field.text_or_empty().filter(|text| !text.is_empty())?;
    ProxyConfig::parse(&text).map_err(|why| field.refuse(why)).ok()
}

/// Whether a URL names a user; noted. Endpoints are shown in messages and logs.
pub(super) fn refuse_credentials(field: &Field<'_>, url: &str) -> bool {
    let (_, target) = url.split_once("://").unwrap_or(("", url));
    let names_user = target.split(['/', '?', '#']).next().unwrap_or_default().contains('@');
    if names_user {
        field.refuse("credentials do not belong here, where they would be shown: use `headers`");
    }
    names_user
}

/// Whether the exporter takes it, and it is a URL but for a missing scheme; if not, why.
pub(super) fn check_endpoint(text: &str, protocol: Protocol) -> Result<(), &'static str> {
    let read = match protocol {
        // Whether TLS is spoken makes no difference to the form.
        Protocol::Grpc => Endpoint::grpc(text, false),
        Protocol::Http => Endpoint::http(text),
    };
    match read {
        Err(ExportError::Endpoint { reason, .. }) => return Err(reason),
        Err(_) => return Err("it is none"),
        Ok(_) => {}
    }
    let Ok(uri) = text.parse::<Uri>() else { return Err("it is malformed") };
    match (uri.scheme_str(), protocol) {
        (Some("http" | "https"), _) | (None, Protocol::Grpc) => Ok(()),
        _ => Err("its scheme is neither http nor https"),
    }
}

/// The level for the library that compresses; 0 is the default, as in the Collector.
fn compression_level(body: &Section<'_>, compression: Compression) -> i32 {
    let (most, default) = match compression {
        Compression::None => (0, 0),
        Compression::Gzip => (GZIP_LEVEL_MAX, GZIP_LEVEL_DEFAULT),
        Compression::Zstd => (ZSTD_LEVEL_MAX, ZSTD_LEVEL_DEFAULT),
    };
    let params = body.field("compression_params");
    let level = params
        .and_then(|field| field.section(&[], |params| Some(params.integer("level", 0..=most, 0))));
    let level = level.filter(|&level| level != 0).unwrap_or(default);
    i32::try_from(level).expect("the range of levels is within 0..=22")
}

/// A mapping of names to values, or a list of `{name, value}`. No message shows a value.
pub(super) fn headers(field: &Field<'_>, protocol: Protocol) -> Option<Vec<(String, Secret)>> {
    let Some(items) = field.is_list().then(|| field.items()).flatten() else {
        let header = |(name, value): (&str, Field<'_>)| header(&value, name, &value, protocol);
        return all(field.entries()?.into_iter().map(header));
    };
    let pair = |item: Field<'_>| {
        item.section(&[], |pair| {
            let (name, value) = (pair.required("name"), pair.required("value"));
            let (name, value) = (name?, value?);
            header(&name, &name.text()?, &value, protocol)
        })
    };
    all(items.into_iter().map(pair))
}

/// What the exporter itself would refuse is refused here, with its line.
fn header(
    place: &Field<'_>,
    name: &str,
    value: &Field<'_>,
    protocol: Protocol,
) -> Option<(String, Secret)> {
    let secret = Secret::from(value.text_or_empty()?);
    match configured_header(protocol, name, &secret) {
        Ok(_) => return Some((name.to_owned(), secret)),
        Err(HeaderFault::Name(reason)) => place.refuse(format!("`{name}` {reason}")),
        Err(HeaderFault::Value(reason)) => value.refuse(reason),
    }
    None
}

fn retry(body: &Section<'_>) -> Option<RetryConfig> {
    let default = RetryConfig::default();
    let number = |key, range, default| {
        body.field(key).and_then(|field| field.number(range)).unwrap_or(default)
    };
    let config = RetryConfig {
        enabled: body.flag("enabled", default.enabled),
        initial_interval: body.duration(
            "initial_interval",
            INTERVAL_MIN..=INTERVAL_MAX,
            default.initial_interval,
        ),
        max_interval: body.duration(
            "max_interval",
            INTERVAL_MIN..=INTERVAL_MAX,
            default.max_interval,
        ),
        multiplier: number("multiplier", 1.0..=MULTIPLIER_MAX, default.multiplier),
        randomization_factor: number(
            "randomization_factor",
            0.0..=1.0,
            default.randomization_factor,
        ),
        max_elapsed: Some(body.duration(
            "max_elapsed_time",
            Duration::ZERO..=Duration::MAX,
            Duration::ZERO,
        ))
        .filter(|elapsed| !elapsed.is_zero()),
    };
    // As in the Collector, what is switched off is not looked at.
    if !config.enabled {
        return Some(config);
    }
    if config.initial_interval > config.max_interval {
        let keys = ["initial_interval", "max_interval"];
        body.refuse_of(&keys, "`initial_interval` must not be more than `max_interval`");
    }
    if config.max_elapsed.is_some_and(|elapsed| elapsed < config.max_interval) {
        let keys = ["max_elapsed_time", "max_interval"];
        body.refuse_of(&keys, "`max_elapsed_time` must not be less than `max_interval`");
    }
    Some(config)
}

const QUEUE_LATER: &[&str] = &["batch", "wait_for_result"];

fn queue(body: &Section<'_>, place: &mut Option<Place>) -> Option<QueueConfig> {
    let default = QueueConfig::default();
    let count = |key, most, default: usize| {
        let default = i64::try_from(default).expect("the defaults are small");
        usize::try_from(body.integer(key, 1..=most, default)).expect("the range is positive")
    };
    let config = QueueConfig {
        num_consumers: count("num_consumers", CONSUMERS_MAX, default.num_consumers),
        queue_size: count("queue_size", QUEUE_REQUESTS_MAX, default.queue_size),
        storage: body.field("storage").and_then(|field| {
            *place = Some(field.place());
            field.text()
        }),
    };
    if let Some(sizer) = body.field("sizer") {
        sizer.one_of(&[("requests", ())]);
    }
    if let Some(block) = body.field("block_on_overflow")
        && block.flag() == Some(false)
    {
        block.refuse("thyme never drops at a full queue: reading stops until there is room");
    }
    // Without a queue the Collector's pipeline waits for each request.
    let direct = QueueConfig { num_consumers: 1, queue_size: 1, storage: None };
    Some(if body.flag("enabled", true) { config } else { direct })
}
