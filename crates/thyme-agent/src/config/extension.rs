//! The keys of the extensions, `thyme` among them.

use std::{
    path::{Component, PathBuf},
    time::Duration,
};

use http::HeaderValue;

use super::{
    BearerTokenConfig, FileStorageConfig, HealthCheckConfig, Protocol, Secret, Source, ThymeConfig,
    component::Type,
    read::{Field, Section},
    units::format_bytes,
};

use crate::export::{HeaderFault, configured_header};

const WORKERS_MAX: i64 = 64;
const REQUEST_BYTES_MIN: usize = 64 << 10;
const REQUEST_BYTES_MAX: usize = 64 << 20;
const IN_FLIGHT_BYTES_MAX: usize = 64 << 30;
const PARTIAL_BYTES_MIN: usize = 1 << 20;
const PARTIAL_BYTES_MAX: usize = 16 << 30;
const SHUTDOWN_TIMEOUT_MAX: Duration = Duration::from_secs(3600);
const OPEN_FILES_MIN: i64 = 16;
const OPEN_FILES_MAX: i64 = 1_000_000;
const SPOOL_BYTES_MIN: usize = 32 << 20;
const SPOOL_BYTES_MAX: usize = 1 << 50;
const DELETED_FILES_BYTES_MAX: usize = 1 << 50;
const CONTAINER_LOG_FILES_MIN: i64 = 2;
const CONTAINER_LOG_FILES_MAX: i64 = 10_000;
const LINK_ROOTS_MAX: usize = 16;
const SCAN_INTERVAL_MIN: Duration = Duration::from_millis(100);
const SCAN_INTERVAL_MAX: Duration = Duration::from_secs(3600);

/// What an extension says.
#[derive(Clone, Debug)]
pub(super) enum Extension {
    BearerToken(BearerTokenConfig),
    FileStorage(FileStorageConfig),
    HealthCheck(HealthCheckConfig),
    Thyme(ThymeConfig),
}

pub(super) const TYPES: &[Type<Extension>] = &[
    Type {
        names: &["bearertokenauth"],
        later: &["tokens"],
        read: |id, body| Some(Extension::BearerToken(bearer_token(id, body)?)),
    },
    Type {
        names: &["file_storage"],
        later: &["compaction", "directory_permissions", "fsync", "max_size", "recreate", "timeout"],
        read: |id, body| Some(Extension::FileStorage(file_storage(id, body))),
    },
    Type {
        names: &["health_check"],
        later: &[
            "auth",
            "check_collector_pipeline",
            "compression_algorithms",
            "cors",
            "include_metadata",
            "max_request_body_size",
            "response_body",
            "response_headers",
            "tls",
        ],
        read: |id, body| Some(Extension::HealthCheck(health_check(id, body))),
    },
    Type { names: &["thyme"], later: &[], read: |_, body| Some(Extension::Thyme(thyme(body))) },
];

fn bearer_token(id: &str, body: &Section<'_>) -> Option<BearerTokenConfig> {
    let header = body.field("header").map_or(Some("authorization".to_owned()), |field| {
        let name = field.text()?.to_ascii_lowercase();
        // What one of the protocols has names of its own for, its exporter finds out.
        let header = configured_header(Protocol::Http, &name, &Secret::from(String::new()));
        match header {
            Err(HeaderFault::Name(reason)) => field.refuse(format!("`{name}` {reason}")),
            _ if name == "host" => field.refuse("`host` names the sink, and can't hold a token"),
            _ => {}
        }
        Some(name)
    });
    let scheme = body.field("scheme").map_or(Some("Bearer".to_owned()), |field| {
        let scheme = field.text_or_empty()?;
        if HeaderValue::from_str(&scheme).is_err() {
            field.refuse("a header can't hold this: expected text without control characters");
        }
        Some(scheme)
    });
    let text = body.field("token").and_then(|field| {
        let token = field.text()?;
        if HeaderValue::from_str(&token).is_err() {
            field
                .refuse("a header can't hold this value: expected text without control characters");
        }
        Some(token)
    });
    let file = body.field("filename").and_then(|field| field.file_path());
    let token = match (text, file) {
        (Some(token), None) => Source::Inline(token.into()),
        (None, Some(path)) => Source::File(path),
        _ => {
            body.refuse_of(&["token", "filename"], "expected one of `token` and `filename`");
            return None;
        }
    };
    Some(BearerTokenConfig { id: id.to_owned(), header: header?, scheme: scheme?, token })
}

fn file_storage(id: &str, body: &Section<'_>) -> FileStorageConfig {
    let directory = body.field("directory").and_then(|field| field.file_path());
    FileStorageConfig {
        id: id.to_owned(),
        directory: directory.unwrap_or_else(|| "/var/lib/otelcol/file_storage".into()),
        create_directory: body.flag("create_directory", false),
    }
}

fn health_check(id: &str, body: &Section<'_>) -> HealthCheckConfig {
    let endpoint = body.field("endpoint").and_then(|field| host_and_port(&field));
    let path = body.field("path").and_then(|field| {
        let path = field.text()?;
        // Others would be patterns for the router that serves it.
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "/-._~".contains(c);
        if !path.starts_with('/') || !path.chars().all(is_plain) {
            field.refuse("expected a path of letters, digits, `/`, `-`, `.`, `_` and `~`");
        }
        Some(path)
    });
    HealthCheckConfig {
        id: id.to_owned(),
        endpoint: endpoint.unwrap_or_else(|| "localhost:13133".into()),
        path: path.unwrap_or_else(|| "/".into()),
    }
}

/// Absolute paths, without `..`, which would mean something else behind a link.
fn directories(field: &Field<'_>) -> Vec<PathBuf> {
    let items = field.items().unwrap_or_default();
    if items.len() > LINK_ROOTS_MAX {
        field.refuse(format!("at most {LINK_ROOTS_MAX} directories"));
    }
    let directory = |item: &Field<'_>| {
        let path = item.file_path()?;
        let is_plain = !path.components().any(|part| part == Component::ParentDir);
        let expected = "expected the absolute path of a directory, without `..`, such as \
                        /var/lib/docker/containers";
        if !path.is_absolute() || !is_plain {
            item.refuse(format!("{expected}, found {}", item.found()));
        } else if path.parent().is_none() {
            // Whoever may make a link must not thereby say what is read.
            item.refuse(format!(
                "{expected}, found {}: links could lead to any file of the node",
                item.found()
            ));
        }
        Some(path)
    };
    items.iter().filter_map(directory).collect()
}

/// An address to listen on. No host at all is every address of the machine, as Go has it.
fn host_and_port(field: &Field<'_>) -> Option<String> {
    let text = field.text()?;
    if let Some((host, port)) = text.rsplit_once(':')
        && port.parse::<u16>().is_ok()
    {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_address = bare.is_some_and(|bare| bare.contains(':') && is_host(bare));
        if host.is_empty() {
            return Some(format!("0.0.0.0:{port}"));
        } else if is_address || (!host.contains(':') && is_host(host)) {
            return Some(text);
        }
    }
    let expected =
        "expected host:port with a port up to 65535, such as localhost:13133 or [::1]:13133";
    field.refuse(format!("{expected}, found {}", field.found()));
    None
}

/// Whether it is the form of an address without brackets, or of a name; whether there is such a
/// host, the start finds out.
pub(super) fn is_host(text: &str) -> bool {
    let address = text.split_once('%').map_or(text, |(address, _)| address);
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    address.parse::<std::net::IpAddr>().is_ok() || (!text.is_empty() && text.chars().all(is_name))
}

fn thyme(body: &Section<'_>) -> ThymeConfig {
    let default = ThymeConfig::default();
    let count = |key, range, default: usize| {
        let default = i64::try_from(default).expect("the defaults are small");
        usize::try_from(body.integer(key, range, default)).expect("the ranges are positive")
    };
    let workers = count("workers", 1..=WORKERS_MAX, default.workers);
    let request_bytes_max = body.bytes(
        "request_bytes_max",
        REQUEST_BYTES_MIN..=REQUEST_BYTES_MAX,
        default.request_bytes_max,
    );
    // Each worker fills one request while another one is under way.
    let in_flight_bytes_min = 2 * request_bytes_max * workers;
    let in_flight = body.field("in_flight_bytes_max");
    let in_flight_bytes_max = in_flight.and_then(|field| {
        let bytes = field.bytes(REQUEST_BYTES_MIN..=IN_FLIGHT_BYTES_MAX)?;
        if bytes < in_flight_bytes_min && !body.is_doubtful(&["request_bytes_max", "workers"]) {
            field.refuse(format!(
                "must be at least 2 x request_bytes_max x workers = {}",
                format_bytes(in_flight_bytes_min as u64)
            ));
        }
        Some(bytes)
    });
    ThymeConfig {
        workers,
        request_bytes_max,
        in_flight_bytes_max: in_flight_bytes_max
            .unwrap_or(default.in_flight_bytes_max.max(in_flight_bytes_min)),
        partial_bytes_max: body.bytes(
            "partial_bytes_max",
            PARTIAL_BYTES_MIN..=PARTIAL_BYTES_MAX,
            default.partial_bytes_max,
        ),
        shutdown_timeout: body.duration(
            "shutdown_timeout",
            Duration::ZERO..=SHUTDOWN_TIMEOUT_MAX,
            default.shutdown_timeout,
        ),
        open_files_max: count(
            "open_files_max",
            OPEN_FILES_MIN..=OPEN_FILES_MAX,
            default.open_files_max,
        ),
        spool_bytes_max: body.bytes(
            "spool_bytes_max",
            // Two segments, and room for requests that are longer than those.
            (2 * request_bytes_max).max(SPOOL_BYTES_MIN)..=SPOOL_BYTES_MAX,
            default.spool_bytes_max,
        ),
        deleted_files_bytes_max: body.bytes(
            "deleted_files_bytes_max",
            0..=DELETED_FILES_BYTES_MAX,
            default.deleted_files_bytes_max,
        ),
        container_log_max_files: count(
            "container_log_max_files",
            CONTAINER_LOG_FILES_MIN..=CONTAINER_LOG_FILES_MAX,
            default.container_log_max_files,
        ),
        scan_interval: body.duration(
            "scan_interval",
            SCAN_INTERVAL_MIN..=SCAN_INTERVAL_MAX,
            default.scan_interval,
        ),
        link_roots: body.field("link_roots").map_or_else(Vec::new, |field| directories(&field)),
        record_uid: body.flag("record_uid", default.record_uid),
    }
}
