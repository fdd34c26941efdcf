//! The `filelog` receiver's keys.

use std::time::Duration;

use super::{
    ContainerFormat, FilelogConfig, LineFormat, StartAt,
    component::Type,
    read::{Field, Reference, Section, all},
};
use crate::discover::pattern::{Pattern, PatternError, path_matcher};

/// A growing file's longest wait; the Collector's default is the time between two scans, 200 ms.
const POLL_INTERVAL_DEFAULT: Duration = Duration::from_millis(50);
const POLL_INTERVAL_MIN: Duration = Duration::from_millis(1);
const POLL_INTERVAL_MAX: Duration = Duration::from_secs(60);

const MAX_LOG_SIZE_BYTES_DEFAULT: usize = 1 << 20;
const MAX_LOG_SIZE_BYTES_MIN: usize = 1 << 10;
const MAX_LOG_SIZE_BYTES_MAX: usize = 1 << 30;

/// A receiver with what can only be checked once all components are known.
#[derive(Clone, Debug)]
pub(super) struct Receiver {
    pub(super) config: FilelogConfig,
    /// Whether `storage` is set at all.
    pub(super) has_storage: bool,
    /// The extension that it names; `None` also where that can't be read.
    pub(super) storage: Option<Reference>,
}

pub(super) const TYPES: &[Type<Receiver>] = &[Type {
    names: &["filelog", "file_log"],
    later: &[
        "acquire_fs_lock",
        "attributes",
        "compression",
        "delete_after_read",
        "encoding",
        "exclude_older_than",
        "file_cache_advise",
        "fingerprint_size",
        "force_flush_period",
        "header",
        "id",
        "include_file_name_resolved",
        "include_file_owner_group_name",
        "include_file_owner_name",
        "include_file_path_resolved",
        "include_file_permissions",
        "include_file_record_number",
        "include_file_record_offset",
        "initial_buffer_size",
        "max_batches",
        "max_concurrent_files",
        "max_log_size_behavior",
        "multiline",
        "on_truncate",
        "ordering_criteria",
        "output",
        "polls_to_archive",
        "preserve_leading_whitespaces",
        "preserve_trailing_whitespaces",
        "resource",
        "retry_on_failure",
        "skip_unmodified_files",
    ],
    read,
}];

fn read(id: &str, body: &Section<'_>) -> Option<Receiver> {
    let include = body
        .required("include")
        .and_then(|field| globs(&field, |text| Pattern::all(text).map(drop)));
    if include.as_ref().is_some_and(Vec::is_empty) {
        body.refuse_of(&["include"], "`include` must name at least one file or glob");
    }
    let exclude =
        body.field("exclude").and_then(|field| globs(&field, |text| path_matcher(text).map(drop)));
    let start_at = [("end", StartAt::End), ("beginning", StartAt::Beginning)];
    let sizes = MAX_LOG_SIZE_BYTES_MIN..=MAX_LOG_SIZE_BYTES_MAX;
    let line_bytes_max = body.bytes("max_log_size", sizes, MAX_LOG_SIZE_BYTES_DEFAULT);
    let operator = body.field("operators").and_then(|field| operators(&field));
    let storage = body.field("storage");
    let has_storage = storage.is_some();
    let storage = storage.and_then(|field| field.reference());
    let config = FilelogConfig {
        id: id.to_owned(),
        start_at: body.one_of("start_at", &start_at, StartAt::End),
        poll_interval: body.duration(
            "poll_interval",
            POLL_INTERVAL_MIN..=POLL_INTERVAL_MAX,
            POLL_INTERVAL_DEFAULT,
        ),
        include_file_path: body.flag("include_file_path", false),
        include_file_name: body.flag("include_file_name", true),
        // The operator's limit is that of the joined body, so it is the one that matters.
        max_log_size_bytes: operator
            .as_ref()
            .and_then(|operator| operator.max_log_size_bytes)
            .unwrap_or(line_bytes_max),
        storage: false,
        format: operator.map_or(LineFormat::Raw, |operator| operator.format),
        include: include?,
        exclude: exclude.unwrap_or_default(),
    };
    Some(Receiver { config, has_storage, storage })
}

/// A list of what `check` takes, which is what discovery uses: so a pattern that it would refuse is
/// a problem of its line.
fn globs(
    field: &Field<'_>,
    check: impl Fn(&str) -> Result<(), PatternError>,
) -> Option<Vec<String>> {
    let glob = |item: Field<'_>| {
        item.file_path()?;
        let text = item.text()?;
        match check(&text) {
            Ok(()) => return Some(text),
            Err(PatternError::Glob { source, .. }) => {
                item.refuse(format!("`{text}` is no glob: {}", source.kind()));
            }
            Err(error) => item.refuse(error.to_string()),
        }
        None
    };
    all(field.items()?.into_iter().map(glob))
}

struct ContainerOperator {
    format: LineFormat,
    max_log_size_bytes: Option<usize>,
}

/// At most one operator, which is `container`.
fn operators(field: &Field<'_>) -> Option<ContainerOperator> {
    let mut operators = field.items()?;
    if let Some(second) = operators.get(1) {
        second.refuse("one operator is all that thyme supports yet");
    }
    operators.drain(..).next()?.section(
        &[
            "body",
            "if",
            "on_error",
            "output",
            "parse_from",
            "parse_to",
            "scope_name",
            "severity",
            "timestamp",
            "trace",
        ],
        operator,
    )
}

fn operator(body: &Section<'_>) -> Option<ContainerOperator> {
    let kind = body.required("type").and_then(|field| field.one_of(&[("container", ())]));
    if kind.is_none() {
        // The other keys are those of another operator.
        body.all_are_known();
        return None;
    }
    // An operator's name serves only as a target of others' `output`; there are none.
    if let Some(id) = body.field("id") {
        id.text();
    }
    let formats = [
        ("", ContainerFormat::Auto),
        ("docker", ContainerFormat::Docker),
        ("crio", ContainerFormat::Crio),
        ("containerd", ContainerFormat::Containerd),
    ];
    let format = body.one_of("format", &formats, ContainerFormat::Auto);
    let add_metadata_from_filepath = body.flag("add_metadata_from_filepath", true);
    let max_log_size = body.field("max_log_size");
    let max_log_size_bytes =
        max_log_size.and_then(|field| field.bytes(MAX_LOG_SIZE_BYTES_MIN..=MAX_LOG_SIZE_BYTES_MAX));
    Some(ContainerOperator {
        format: LineFormat::Container { format, add_metadata_from_filepath },
        max_log_size_bytes,
    })
}
