//! Puts the catalog's instruments over the counters: they look when a reader asks.
//!
//! A collection calls the instruments one after the other, in the order of their registration, on
//! the thread of its reader. The first of them looks at all terms of the conservation equation at
//! one moment, and the others show what it saw: so the equation holds in every collection.

use std::{cell::Cell, sync::Arc};

use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, Histogram, Meter},
};

use super::{
    catalog::{About, DERIVED, DROPPED, Instrument, Kind, LOST, PLAIN, TERMS},
    process::Process,
};
use crate::{
    config::Config,
    metrics::{DropReason, LossReason, Metrics, Terms},
};

/// Bounds of the Collector's `batch` processor.
const BATCH_SIZE_BOUNDS: [f64; 22] = [
    10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1e3, 2e3, 3e3, 4e3, 5e3, 6e3, 7e3, 8e3,
    9e3, 1e4, 2e4, 3e4, 5e4, 1e5,
];

/// Registers every instrument of the catalog.
pub(super) fn register(meter: &Meter, config: &Config, metrics: Arc<Metrics>) {
    let labels = Labels::new(config);
    register_process(meter, Process::starting_now(), Arc::clone(&metrics));
    for row in PLAIN {
        let (metrics, count) = (Arc::clone(&metrics), row.count);
        let series = Series::new(labels.of(row.instrument.about), move || count(&metrics).get());
        observe(meter, row.instrument, vec![series]);
    }
    for row in DERIVED {
        let value = row.value;
        let value = move || at_least_zero(value(&SEEN.get()));
        let series = Series::new(labels.of(row.instrument.about), value);
        observe(meter, row.instrument, vec![series]);
    }
    register_conservation(meter, &metrics);
    let capacity = config.exporter.queue.queue_size as u64;
    let instrument = Instrument {
        name: "otelcol_exporter_queue_capacity",
        kind: Kind::Gauge,
        about: About::Queue,
        unit: "{request}",
        description: "Fixed capacity of the sending queue",
    };
    observe(meter, instrument, vec![Series::new(labels.of(About::Queue), move || capacity)]);
}

thread_local! {
    /// What the collection that runs on this thread saw of the terms, when it began.
    static SEEN: Cell<Terms> = const { Cell::new(Terms::NOTHING) };
}

/// The histogram of the batches that are sent.
pub(super) fn batch_send_size(meter: &Meter) -> Histogram<u64> {
    meter
        .u64_histogram("otelcol_processor_batch_batch_send_size")
        .with_description("Number of units in the batch")
        .with_unit("{unit}")
        .with_boundaries(BATCH_SIZE_BOUNDS.to_vec())
        .build()
}

/// One line of an instrument: a value with its attributes.
struct Series {
    attributes: Vec<KeyValue>,
    value: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl Series {
    fn new(attributes: Vec<KeyValue>, value: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { attributes, value: Box::new(value) }
    }
}

fn observe(meter: &Meter, instrument: Instrument, series: Vec<Series>) {
    let Instrument { name, kind, about: _, unit, description } = instrument;
    let look = move |observer: &dyn AsyncInstrument<u64>| {
        for line in &series {
            observer.observe((line.value)(), &line.attributes);
        }
    };
    match kind {
        Kind::Counter => drop(
            meter
                .u64_observable_counter(name)
                .with_unit(unit)
                .with_description(description)
                .with_callback(look)
                .build(),
        ),
        Kind::Gauge => drop(
            meter
                .u64_observable_gauge(name)
                .with_unit(unit)
                .with_description(description)
                .with_callback(look)
                .build(),
        ),
    }
}

/// The attributes that the Collector gives its components.
struct Labels {
    receiver: Vec<KeyValue>,
    processor: Vec<KeyValue>,
    exporter: Vec<KeyValue>,
    queue: Vec<KeyValue>,
}

impl Labels {
    fn new(config: &Config) -> Self {
        let receivers: Vec<_> = config.receivers.iter().map(|receiver| &*receiver.id).collect();
        let exporter = KeyValue::new("exporter", config.exporter.id.clone());
        Self {
            // One counter serves all receivers of the pipeline.
            receiver: vec![
                KeyValue::new("receiver", receivers.join(",")),
                KeyValue::new("transport", ""),
            ],
            processor: vec![
                KeyValue::new("processor", config.batch.id.clone()),
                KeyValue::new("otel.signal", "logs"),
            ],
            exporter: vec![exporter.clone()],
            queue: vec![exporter, KeyValue::new("data_type", "logs")],
        }
    }

    fn of(&self, about: About) -> Vec<KeyValue> {
        match about {
            About::Agent => Vec::new(),
            About::Receiver => self.receiver.clone(),
            About::Processor => self.processor.clone(),
            About::Exporter => self.exporter.clone(),
            About::Queue => self.queue.clone(),
        }
    }
}

fn register_conservation(meter: &Meter, metrics: &Arc<Metrics>) {
    // Terms of one name stand together in the table.
    for terms in TERMS.chunk_by(|a, b| a.names == b.names) {
        let mut pair = Pair::default();
        for term in terms {
            let stage = term.stage.map(|stage| KeyValue::new("stage", stage));
            pair.add(stage, term.amount);
        }
        pair.observe(meter, terms[0].names, terms[0].kind, terms[0].description);
    }
    let mut pair = Pair::default();
    for reason in DropReason::ALL {
        let attribute = KeyValue::new("reason", reason.as_str());
        pair.add(Some(attribute), move |terms| terms.dropped[reason as usize]);
    }
    pair.observe(meter, DROPPED, Kind::Counter, "Dropped, by reason");
    let lost = meter.u64_observable_counter(LOST);
    let metrics = Arc::clone(metrics);
    let look = move |observer: &dyn AsyncInstrument<u64>| {
        for reason in LossReason::ALL {
            let attribute = KeyValue::new("reason", reason.as_str());
            observer.observe(metrics.lost(reason).get(), &[attribute]);
        }
    };
    let description = "Bytes of deleted files that were never read, by reason";
    let _lives_in_the_meter =
        lost.with_unit("By").with_description(description).with_callback(look).build();
}

/// A term's series in records, and those in source bytes.
#[derive(Default)]
struct Pair {
    records: Vec<Series>,
    bytes: Vec<Series>,
}

impl Pair {
    fn add(
        &mut self,
        attribute: Option<KeyValue>,
        amount: impl Fn(&Terms) -> (i64, i64) + Copy + Send + Sync + 'static,
    ) {
        let attributes: Vec<_> = attribute.into_iter().collect();
        let records = move || at_least_zero(amount(&SEEN.get()).0);
        self.records.push(Series::new(attributes.clone(), records));
        let bytes = move || at_least_zero(amount(&SEEN.get()).1);
        self.bytes.push(Series::new(attributes, bytes));
    }

    fn observe(
        self,
        meter: &Meter,
        names: [&'static str; 2],
        kind: Kind,
        description: &'static str,
    ) {
        let [records, bytes] = names;
        let instrument =
            |name, unit| Instrument { name, kind, about: About::Agent, unit, description };
        observe(meter, instrument(records, "{record}"), self.records);
        observe(meter, instrument(bytes, "By"), self.bytes);
    }
}

/// The process, and what must be registered before all others: see [`SEEN`].
fn register_process(meter: &Meter, process: Process, metrics: Arc<Metrics>) {
    let seconds = |name: &'static str, description: &'static str| {
        meter.f64_observable_counter(name).with_unit("s").with_description(description)
    };
    seconds("otelcol_process_uptime", "Uptime of the process")
        .with_callback(move |observer| {
            SEEN.set(metrics.terms());
            observer.observe(process.uptime_seconds(), &[]);
        })
        .build();
    seconds("otelcol_process_cpu_seconds", "Total CPU user and system time in seconds")
        .with_callback(move |observer| {
            if let Some(seconds) = process.cpu_seconds() {
                observer.observe(seconds, &[]);
            }
        })
        .build();
    meter
        .u64_observable_gauge("otelcol_process_memory_rss")
        .with_unit("By")
        .with_description("Total physical memory (resident set size)")
        .with_callback(move |observer| {
            if let Some(bytes) = process.resident_bytes() {
                observer.observe(bytes, &[]);
            }
        })
        .build();
}

/// No term is negative at any moment: a mistake that would make it so must not show as 2^64.
fn at_least_zero(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
