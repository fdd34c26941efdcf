//! The catalog of instruments: the Collector's names where it has one, `thyme_` otherwise.
//!
//! Tables only. A field of [`Metrics`] that has no row here fails a test.

use crate::metrics::{Count, Metrics, Terms};

/// An instrument as others see it.
#[derive(Clone, Copy)]
pub(super) struct Instrument {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) about: About,
    /// In UCUM's words.
    pub(super) unit: &'static str,
    pub(super) description: &'static str,
}

/// Whether a value only grows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
}

/// Which component a value is about: its attributes are the Collector's.
#[derive(Clone, Copy)]
pub(super) enum About {
    Agent,
    Receiver,
    Processor,
    Exporter,
    Queue,
}

/// A value that is one field of [`Metrics`].
pub(super) struct Plain {
    #[cfg_attr(not(test), expect(dead_code, reason = "a test compares them with the struct"))]
    pub(super) field: &'static str,
    pub(super) instrument: Instrument,
    pub(super) count: fn(&Metrics) -> &Count,
}

macro_rules! plain {
    ($field:ident, $kind:ident, $about:ident, $name:literal, $unit:literal, $description:literal) => {
        Plain {
            field: stringify!($field),
            instrument: Instrument {
                name: $name,
                kind: Kind::$kind,
                about: About::$about,
                unit: $unit,
                description: $description,
            },
            count: |metrics| &metrics.$field,
        }
    };
}

#[rustfmt::skip] // A table: one row, one line, as far as they go.
pub(super) const PLAIN: &[Plain] = &[
    plain!(malformed_lines, Counter, Agent, "thyme_parse_malformed_lines", "{line}",
        "Lines that did not parse and were passed on raw"),
    plain!(invalid_utf8_bodies, Counter, Agent, "thyme_parse_invalid_utf8_bodies", "{record}",
        "Bodies with invalid UTF-8, sent as bytes"),
    plain!(split_records, Counter, Agent, "thyme_parse_split_records", "{record}",
        "Records that are a piece of a longer line"),
    plain!(skipped_nuls, Counter, Agent, "thyme_parse_skipped_nul_bytes", "By",
        "NULs before lines, which belong to no record: holes that a crash or a truncation left"),
    plain!(truncated_files, Counter, Agent, "thyme_files_truncated", "{file}",
        "Files truncated in place, or smaller than their checkpoint"),
    plain!(lost_files, Counter, Agent, "thyme_files_lost", "{file}",
        "Files deleted with unread bytes that could not be read any more"),
    plain!(late_files, Counter, Agent, "thyme_files_late", "{file}",
        "Rotated files that were written to after they had been read to their end and closed: their rest is read"),
    plain!(bytes_at_risk, Gauge, Agent, "thyme_files_at_risk_bytes", "By",
        "Bytes of files deleted, or about to be, that neither the sink nor the spool has"),
    plain!(deleted_open_bytes, Gauge, Agent, "thyme_files_deleted_open_bytes", "By",
        "Bytes of deleted files that are kept open until they are read"),
    plain!(refused_files, Counter, Agent, "thyme_files_refused", "{file}",
        "Directory entries refused: links that may not be followed, FIFOs, devices, compressed files that are none of the kubelet's archives"),
    plain!(refused_paths, Counter, Agent, "thyme_files_refused_paths", "{path}",
        "Paths with the kubelet's form whose names are none that Kubernetes allows: no attributes"),
    plain!(file_errors, Counter, Agent, "thyme_files_errors", "{error}",
        "Failures to open or read a file"),
    plain!(archive_bytes, Counter, Agent, "thyme_files_archive_bytes", "By",
        "Bytes of compressed archives read, decompressed"),
    plain!(open_files, Gauge, Agent, "thyme_files_open", "{file}",
        "Files open now"),
    plain!(unopened_files, Gauge, Agent, "thyme_files_unopened", "{file}",
        "Files that could not be opened yet, or again to be read on, for want of descriptors or of permission"),
    plain!(directory_events, Counter, Agent, "thyme_watch_directory_events", "{event}",
        "Events of the operating system about directories"),
    plain!(file_events, Counter, Agent, "thyme_watch_file_events", "{event}",
        "Events of the operating system about idle files"),
    plain!(event_overflows, Counter, Agent, "thyme_watch_overflows", "{overflow}",
        "Overflows of the operating system's event queue"),
    plain!(requests, Counter, Exporter, "thyme_exporter_requests", "{request}",
        "Requests built"),
    plain!(send_attempts, Counter, Exporter, "thyme_exporter_send_attempts", "{attempt}",
        "Attempts to send a request"),
    plain!(send_retries, Counter, Exporter, "thyme_exporter_send_retries", "{attempt}",
        "Attempts that failed and are made again"),
    plain!(sent_bytes, Counter, Exporter, "thyme_exporter_sent_bytes", "By",
        "Bytes of request bodies handed to the network, each attempt counted"),
    plain!(in_flight_requests, Gauge, Queue, "otelcol_exporter_in_flight_requests", "{request}",
        "Number of export requests currently in-flight"),
    plain!(queue_requests, Gauge, Queue, "otelcol_exporter_queue_size", "{request}",
        "Current size of the sending queue, requests in flight included"),
    plain!(last_attempt_unix_ms, Gauge, Exporter, "thyme_exporter_last_attempt_unix_ms", "ms",
        "Unix time of the last finished attempt, good or bad"),
    plain!(panicked_requests, Gauge, Exporter, "thyme_exporter_panicked_requests", "{request}",
        "Requests whose sending has hit a fault of the agent, and that are tried again"),
    plain!(spool_bytes, Gauge, Queue, "thyme_spool_bytes", "By",
        "Bytes of the spool on disk"),
    plain!(spool_requests, Gauge, Queue, "thyme_spool_requests", "{request}",
        "Requests in the spool"),
    plain!(spool_kept_requests, Counter, Queue, "thyme_spool_kept_requests", "{request}",
        "Requests that the spool took"),
    plain!(spool_secured_requests, Counter, Queue, "thyme_spool_secured_requests", "{request}",
        "Copies of requests under way that the spool took"),
    plain!(spool_damaged_requests, Counter, Queue, "thyme_spool_damaged_requests", "{request}",
        "Requests of the spool that could not be read again"),
    plain!(spool_duplicate_requests, Counter, Queue, "thyme_spool_duplicate_requests", "{request}",
        "Requests found in the spool at the start a second time, which are not sent twice"),
    plain!(spool_unreadable_bytes, Counter, Queue, "thyme_spool_unreadable_bytes", "By",
        "Bytes found in the spool at the start that are no whole request"),
    plain!(spool_errors, Counter, Queue, "thyme_spool_errors", "{error}",
        "Failures to write to the spool, to find room in it, or to read it"),
    plain!(spool_full, Gauge, Queue, "thyme_spool_full", "{state}",
        "1 while the spool takes nothing, for want of room or because of the disk"),
    plain!(spool_lacks_room, Gauge, Queue, "thyme_spool_lacks_room", "{state}",
        "1 while that is for want of room, within spool_bytes_max or on the disk"),
    plain!(checkpoints_written, Counter, Agent, "thyme_checkpoint_writes", "{write}",
        "Writes of checkpoints, each of what has changed since the last"),
    plain!(checkpoints_forgotten, Counter, Agent, "thyme_checkpoint_forgotten", "{file}",
        "Positions of files that could not be found, forgotten because there were too many"),
    plain!(checkpoint_errors, Counter, Agent, "thyme_checkpoint_errors", "{error}",
        "Failures to write checkpoints"),
    plain!(checkpoint_bytes, Counter, Agent, "thyme_checkpoint_bytes", "By",
        "Bytes written for checkpoints"),
    plain!(log_events_dropped, Counter, Agent, "thyme_log_events_dropped", "{event}",
        "Events of the agent's own log dropped because stderr was not read"),
];

/// A value that several fields make up.
pub(super) struct Derived {
    pub(super) instrument: Instrument,
    pub(super) value: fn(&Terms) -> i64,
}

macro_rules! derived {
    ($value:expr, $about:ident, $name:literal, $unit:literal, $description:literal) => {
        Derived {
            instrument: Instrument {
                name: $name,
                kind: Kind::Counter,
                about: About::$about,
                unit: $unit,
                description: $description,
            },
            value: $value,
        }
    };
}

#[rustfmt::skip] // A table.
pub(super) const DERIVED: &[Derived] = &[
    derived!(read_records, Receiver, "otelcol_receiver_accepted_log_records", "{record}",
        "Number of log records successfully pushed into the pipeline"),
    derived!(|_| 0, Receiver, "otelcol_receiver_refused_log_records", "{record}",
        "Always 0: when the pipeline is full, reading stops"),
    derived!(|_| 0, Receiver, "otelcol_receiver_failed_log_records", "{record}",
        "Always 0: a line that does not parse is passed on"),
    derived!(batched_records, Processor, "otelcol_processor_incoming_items", "{item}",
        "Number of items passed to the processor"),
    derived!(requested_records, Processor, "otelcol_processor_outgoing_items", "{item}",
        "Number of items emitted from the processor"),
    derived!(|terms| terms.acknowledged.0, Exporter,
        "otelcol_exporter_sent_log_records", "{record}",
        "Number of log records successfully sent to destination"),
    derived!(failed_records, Exporter, "otelcol_exporter_send_failed_log_records", "{record}",
        "Number of log records that were given up: dropped or dead-lettered"),
    derived!(|_| 0, Exporter, "otelcol_exporter_enqueue_failed_log_records", "{record}",
        "Always 0: when the queue is full, reading stops"),
];

fn read_records(terms: &Terms) -> i64 {
    terms.read.0
}

fn batched_records(terms: &Terms) -> i64 {
    read_records(terms) - terms.queued_partial.0
}

fn requested_records(terms: &Terms) -> i64 {
    batched_records(terms) - terms.queued_batch.0
}

fn failed_records(terms: &Terms) -> i64 {
    let dropped: i64 = terms.dropped.iter().map(|(records, _)| records).sum();
    dropped + terms.dead_lettered.0
}

/// One term of the conservation equation, in records and in source bytes.
pub(super) struct Term {
    #[cfg_attr(not(test), expect(dead_code, reason = "a test compares them with the struct"))]
    pub(super) field: &'static str,
    /// The instrument of the records, that of the bytes.
    pub(super) names: [&'static str; 2],
    pub(super) kind: Kind,
    /// Value of the attribute `stage`, where several terms have the same instruments.
    pub(super) stage: Option<&'static str>,
    pub(super) description: &'static str,
    pub(super) amount: fn(&Terms) -> (i64, i64),
}

macro_rules! term {
    ($field:ident, $kind:ident, $name:literal, $stage:expr, $description:literal) => {
        Term {
            field: stringify!($field),
            names: [concat!($name, "_records"), concat!($name, "_bytes")],
            kind: Kind::$kind,
            stage: $stage,
            description: $description,
            amount: |terms| terms.$field,
        }
    };
}

/// All terms but `dropped`, which has one for each reason: see [`DROPPED`].
#[rustfmt::skip] // A table.
pub(super) const TERMS: &[Term] = &[
    term!(read, Counter, "thyme_conservation_read", None,
        "Read from files"),
    term!(acknowledged, Counter, "thyme_conservation_acknowledged", None,
        "Acknowledged by the sink"),
    term!(queued_partial, Gauge, "thyme_conservation_queued", Some("partial"),
        "In open partial lines, open batches and unsettled requests"),
    term!(queued_batch, Gauge, "thyme_conservation_queued", Some("batch"),
        "In open partial lines, open batches and unsettled requests"),
    term!(queued_request, Gauge, "thyme_conservation_queued", Some("request"),
        "In open partial lines, open batches and unsettled requests"),
    term!(queued_spool, Gauge, "thyme_conservation_queued", Some("spool"),
        "In open partial lines, open batches and unsettled requests"),
    term!(recovered, Counter, "thyme_conservation_recovered", None,
        "Found in the spool at the start"),
    term!(dead_lettered, Counter, "thyme_conservation_dead_lettered", None,
        "Too large for the sink even alone"),
];

/// The instruments of [`Metrics::dropped`]: one series for each reason.
pub(super) const DROPPED: [&str; 2] =
    ["thyme_conservation_dropped_records", "thyme_conservation_dropped_bytes"];

/// The instrument of [`Metrics::lost_bytes`]: one series for each reason.
pub(super) const LOST: &str = "thyme_files_lost_bytes";
