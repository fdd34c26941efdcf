//! `service` and the document as a whole: which components are in use, and what they make.

use super::{
    BatchConfig, Config, ExporterConfig, FileStorageConfig, FilelogConfig, HealthCheckConfig,
    Origin, Protocol, Secret, ThymeConfig,
    component::{Component, Components, IN_SERVICE},
    exporter::{self, Exporter},
    extension::{self, Extension},
    processor,
    read::{Field, Problems, Reference, Section},
    receiver::{self, Receiver},
    telemetry,
};
use crate::export::{HeaderFault, configured_header};

/// Room beside the body in a request that holds a single record: its resource, attributes and
/// framing. Paths and names of pods are far shorter.
const RECORD_OVERHEAD_BYTES: usize = 64 << 10;

/// Reads the document.
pub(super) fn read(root: &Field<'_>, problems: &Problems) -> Option<Config> {
    root.section(&["connectors"], |body| {
        let defined = Defined {
            receivers: Components::read(body, "receivers", receiver::TYPES),
            processors: Components::read(body, "processors", processor::TYPES),
            exporters: Components::read(body, "exporters", exporter::TYPES),
            extensions: Components::read(body, "extensions", extension::TYPES),
        };
        body.required("service")?.section(&[], |service| read_service(service, &defined, problems))
    })
}

/// The components of the document, in use or not.
struct Defined {
    receivers: Components<Receiver>,
    processors: Components<BatchConfig>,
    exporters: Components<Exporter>,
    extensions: Components<Extension>,
}

fn read_service(service: &Section<'_>, defined: &Defined, problems: &Problems) -> Option<Config> {
    let telemetry = service
        .field("telemetry")
        .and_then(|field| field.section(&[], |body| Some(telemetry::read(body))));
    let extensions = service.field("extensions").and_then(|field| in_service(&field, defined));
    let extensions = extensions.unwrap_or_default();
    refuse_idle_thyme(&extensions, defined, problems);
    let pipelines = service.required("pipelines").and_then(|field| pipelines(&field));
    let pipeline = pipelines?.section(&[], |body| pipeline(body, defined))?;
    let thyme = extensions.thyme.clone().unwrap_or_default();
    let around = Around { defined, in_service: &extensions.named, thyme: &thyme, problems };
    let mut storages = Vec::new();
    let receivers = pipeline
        .receivers
        .iter()
        .filter_map(|component| around.receiver(component, &mut storages))
        .collect::<Vec<_>>();
    refuse_mixed_storage(&pipeline.receivers, problems);
    let exporter = around.exporter(pipeline.exporter?, &receivers, &mut storages)?;
    Some(Config {
        receivers,
        batch: pipeline.batch.unwrap_or_default(),
        exporter,
        file_storage: around.the_one_storage(&storages),
        health_check: extensions.health_check,
        thyme,
        telemetry: telemetry.unwrap_or_default(),
        origin: Origin::default(),
    })
}

/// The extensions that `service.extensions` names.
#[derive(Default)]
struct InService {
    /// All of them.
    named: Vec<String>,
    health_check: Option<HealthCheckConfig>,
    thyme: Option<ThymeConfig>,
}

fn in_service(list: &Field<'_>, defined: &Defined) -> Option<InService> {
    let mut found = InService::default();
    for reference in list.items()? {
        let Some(component) = defined.extensions.resolve(&reference) else { continue };
        // As in the Collector, which starts it once.
        if found.named.contains(&component.id) {
            continue;
        }
        found.named.push(component.id.clone());
        let second = match component.value.clone() {
            Some(Extension::HealthCheck(config)) => found.health_check.replace(config).is_some(),
            Some(Extension::Thyme(config)) => found.thyme.replace(config).is_some(),
            // Others name which of these they use.
            Some(Extension::FileStorage(_) | Extension::BearerToken(_)) | None => false,
        };
        if second {
            reference.refuse("only one extension of this type can be in service");
        }
    }
    Some(found)
}

/// Someone who writes limits means them: the other extensions are allowed to lie idle.
fn refuse_idle_thyme(extensions: &InService, defined: &Defined, problems: &Problems) {
    let thyme =
        |component: &&Component<Extension>| matches!(component.value, Some(Extension::Thyme(_)));
    if let Some(component) = defined.extensions.iter().find(thyme)
        && extensions.thyme.is_none()
        && !problems.is_about(IN_SERVICE)
    {
        component.refuse(problems, "defined, but not listed in service::extensions");
    }
}

/// A batch holds lines of all receivers, and its end moves all of their positions.
fn refuse_mixed_storage(receivers: &[&Component<Receiver>], problems: &Problems) {
    let read = || receivers.iter().filter_map(|one| Some((one, one.value.as_ref()?)));
    let has_storage = read().any(|(_, receiver)| receiver.has_storage);
    for (component, receiver) in read() {
        if has_storage && !receiver.has_storage {
            let message = "`storage` is missing, which other receivers of the pipeline have: it must \
                           be set on all of them or on none";
            component.refuse(problems, message);
        }
    }
}

/// The one pipeline.
fn pipelines<'a>(field: &Field<'a>) -> Option<Field<'a>> {
    let mut logs = None;
    for (id, body) in field.entries()? {
        let (signal, _) = id.split_once('/').unwrap_or((id, ""));
        if signal != "logs" {
            body.refuse("thyme's pipelines are `logs` and `logs/name`");
        } else if logs.is_some() {
            body.refuse("one pipeline is all that thyme supports yet");
        } else {
            logs = Some(body);
        }
    }
    if logs.is_none() {
        field.refuse("the pipeline `logs` is missing");
    }
    logs
}

struct Pipeline<'a> {
    receivers: Vec<&'a Component<Receiver>>,
    batch: Option<BatchConfig>,
    exporter: Option<&'a Component<Exporter>>,
}

fn pipeline<'a>(body: &Section<'_>, defined: &'a Defined) -> Option<Pipeline<'a>> {
    let receivers = references(body, "receivers", &defined.receivers, true);
    let processors = references(body, "processors", &defined.processors, false);
    let exporters = references(body, "exporters", &defined.exporters, true);
    if processors.len() > 1 {
        body.refuse("one processor `batch` is all that thyme supports yet");
    }
    if exporters.len() > 1 {
        body.refuse("several exporters in a pipeline are not supported yet: name one");
    }
    Some(Pipeline {
        receivers,
        batch: processors.first().and_then(|component| component.value.clone()),
        exporter: exporters.first().copied(),
    })
}

/// What a list of the pipeline names.
fn references<'a, T>(
    body: &Section<'_>,
    key: &'static str,
    defined: &'a Components<T>,
    needed: bool,
) -> Vec<&'a Component<T>> {
    let list = if needed { body.required(key) } else { body.field(key) };
    let items = list.as_ref().and_then(Field::items).unwrap_or_default();
    if let (true, Some(list)) = (needed && items.is_empty(), list) {
        list.refuse("must name at least one component");
    }
    let mut found: Vec<&Component<T>> = Vec::new();
    for item in items {
        let Some(component) = defined.resolve(&item) else { continue };
        if found.iter().any(|other| other.id == component.id) {
            item.refuse(format!("`{}` is named twice", component.id));
        }
        found.push(component);
    }
    found
}

/// What the components of the pipeline are checked against.
struct Around<'a> {
    defined: &'a Defined,
    /// Names of the extensions in service.
    in_service: &'a [String],
    thyme: &'a ThymeConfig,
    problems: &'a Problems,
}

impl<'a> Around<'a> {
    fn extension(&self, wanted: &Reference, kind: &str) -> Option<&'a Component<Extension>> {
        self.defined.extensions.in_service(wanted, kind, self.in_service, self.problems)
    }

    /// A receiver, and the storage that it names.
    fn receiver(
        &self,
        component: &Component<Receiver>,
        storages: &mut Vec<Reference>,
    ) -> Option<FilelogConfig> {
        let Receiver { mut config, has_storage, storage } = component.value.clone()?;
        config.storage = has_storage;
        if let Some(wanted) = storage {
            storages.extend(self.extension(&wanted, "file_storage").map(|_| wanted));
        }
        let thyme = self.thyme;
        let body_bytes_max = thyme.request_bytes_max.saturating_sub(RECORD_OVERHEAD_BYTES);
        if config.max_log_size_bytes > body_bytes_max.min(thyme.partial_bytes_max)
            && !self.is_limit_doubtful(component)
        {
            component.refuse(
                self.problems,
                "`max_log_size` must be at least 64KiB less than thyme's `request_bytes_max`, and \
                 not more than its `partial_bytes_max`",
            );
        }
        Some(config)
    }

    /// Whether a limit on lengths may be a default in the place of one that could not be read.
    fn is_limit_doubtful(&self, component: &Component<Receiver>) -> bool {
        let own = ["max_log_size", "operators"].map(|key| component.path(key));
        let is_thyme = |one: &&Component<Extension>| one.kind == Some("thyme");
        let thyme = self.defined.extensions.iter().filter(is_thyme);
        let limits = thyme
            .flat_map(|one| ["request_bytes_max", "partial_bytes_max"].map(|key| one.path(key)));
        let mut paths = own.into_iter().chain(limits).chain([IN_SERVICE.to_owned()]);
        paths.any(|path| self.problems.is_about(&path))
    }

    /// The exporter, and the storage that it names.
    fn exporter(
        &self,
        component: &Component<Exporter>,
        receivers: &[FilelogConfig],
        storages: &mut Vec<Reference>,
    ) -> Option<ExporterConfig> {
        let config = self.authenticated(component)?;
        let place = component.value.as_ref().and_then(|exporter| exporter.storage.clone());
        if let (Some(id), Some(place)) = (config.queue.storage.clone(), place) {
            let wanted = Reference { id, place };
            self.extension(&wanted, "file_storage")?;
            if receivers.iter().any(|receiver| !receiver.storage) {
                self.problems.at(
                    &wanted.place,
                    "it needs `storage` on every receiver of the pipeline: what is kept on disk \
                     would be read again after a restart",
                );
            }
            storages.push(wanted);
        }
        Some(config)
    }

    /// The storage that all of the pipeline name; without any, the first one in service.
    fn the_one_storage(&self, storages: &[Reference]) -> Option<FileStorageConfig> {
        let Some(first) = storages.first() else {
            let in_service = |id: &String| self.file_storage(id);
            return self.in_service.iter().find_map(in_service);
        };
        for other in storages.iter().filter(|other| other.id != first.id) {
            let message = format!(
                "`{}` is another `file_storage` than `{}`, which the pipeline uses already: \
                 positions and kept requests belong together, in one directory",
                other.id, first.id
            );
            self.problems.at(&other.place, message);
        }
        self.file_storage(&first.id)
    }

    fn file_storage(&self, id: &str) -> Option<FileStorageConfig> {
        match self.defined.extensions.iter().find(|one| one.id == *id)?.value.clone()? {
            Extension::FileStorage(config) => Some(config),
            _ => None,
        }
    }

    /// The pipeline's exporter with the authenticator that it names.
    fn authenticated(&self, component: &Component<Exporter>) -> Option<ExporterConfig> {
        let Exporter { mut config, authenticator, .. } = component.value.clone()?;
        let Some(wanted) = authenticator else { return Some(config) };
        let found = self.extension(&wanted, "bearertokenauth")?;
        // What is wrong with it is noted already.
        let Some(Extension::BearerToken(found)) = found.value.clone() else { return None };
        let wanted = &wanted.id;
        if let Err(HeaderFault::Name(reason)) =
            configured_header(config.protocol, &found.header, &Secret::from(String::new()))
        {
            let message = format!("the header `{}` of `{wanted}` {reason}", found.header);
            component.refuse(self.problems, message);
        }
        if config.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(&found.header)) {
            let message =
                format!("`headers` and `{wanted}` both set the header `{}`", found.header);
            component.refuse(self.problems, message);
        }
        // As in the Collector, whose gRPC refuses to send tokens in plain text.
        let is_plain = config.endpoint.starts_with("http://")
            || (config.tls.insecure && !config.endpoint.starts_with("https://"));
        if config.protocol == Protocol::Grpc && is_plain {
            component.refuse(self.problems, "over gRPC a token is sent with TLS only");
        }
        config.auth = Some(found);
        Some(config)
    }
}
