//! `service` and the document as a whole: which components are in use, and what they make.

use super::{
    BatchConfig, BearerTokenConfig, Config, ExporterConfig, FileStorageConfig, FilelogConfig,
    HealthCheckConfig, Protocol, ThymeConfig,
    component::{Component, Components},
    exporter::{self, Exporter},
    extension::{self, Extension},
    processor,
    read::{Field, Problems, Section},
    receiver::{self, Receiver},
    telemetry,
};

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
    let thyme = extensions.thyme.unwrap_or_default();
    let storage = extensions.file_storage;
    let storage_id = storage.as_ref().map(|(id, _)| id.as_str());
    let receivers = pipeline
        .receivers
        .into_iter()
        .filter_map(|component| in_use(component, storage_id, &thyme, problems))
        .collect::<Vec<_>>();
    let tokens = &extensions.bearer_tokens;
    let exporter = exporter_in_use(pipeline.exporter?, storage_id, &receivers, tokens, problems)?;
    Some(Config {
        receivers,
        batch: pipeline.batch.unwrap_or_default(),
        exporter,
        file_storage: storage.map(|(_, config)| config),
        health_check: extensions.health_check,
        thyme,
        telemetry: telemetry.unwrap_or_default(),
    })
}

/// The extensions that `service.extensions` names.
#[derive(Default)]
struct InService {
    bearer_tokens: Vec<BearerTokenConfig>,
    file_storage: Option<(String, FileStorageConfig)>,
    health_check: Option<HealthCheckConfig>,
    thyme: Option<ThymeConfig>,
}

fn in_service(list: &Field<'_>, defined: &Defined) -> Option<InService> {
    let mut found = InService::default();
    for reference in list.items()? {
        let Some(component) = defined.extensions.resolve(&reference) else { continue };
        let second = match component.value.clone() {
            Some(Extension::FileStorage(config)) => {
                found.file_storage.replace((component.id.clone(), config)).is_some()
            }
            Some(Extension::HealthCheck(config)) => found.health_check.replace(config).is_some(),
            Some(Extension::Thyme(config)) => found.thyme.replace(config).is_some(),
            // Each exporter names its own.
            Some(Extension::BearerToken(config)) => {
                found.bearer_tokens.push(config);
                false
            }
            None => false,
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
    {
        component.refuse(problems, "defined, but not listed in service::extensions");
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

/// The exporter of the pipeline, checked against what surrounds it.
fn exporter_in_use(
    component: &Component<Exporter>,
    storage: Option<&str>,
    receivers: &[FilelogConfig],
    bearer_tokens: &[BearerTokenConfig],
    problems: &Problems,
) -> Option<ExporterConfig> {
    let config = authenticated(component, bearer_tokens, problems)?;
    if let Some(wanted) = &config.queue.storage {
        if storage != Some(wanted.as_str()) {
            component.refuse(
                problems,
                format!(
                    "`sending_queue.storage: {wanted}` is no `file_storage` in service::extensions"
                ),
            );
        } else if receivers.iter().any(|receiver| !receiver.storage) {
            component.refuse(
                problems,
                "`sending_queue.storage` needs `storage` on every receiver of the pipeline: what is \
                 kept on disk would be read again after a restart",
            );
        }
    }
    Some(config)
}

/// A receiver of the pipeline, checked against what surrounds it.
fn in_use(
    component: &Component<Receiver>,
    storage: Option<&str>,
    thyme: &ThymeConfig,
    problems: &Problems,
) -> Option<FilelogConfig> {
    let Receiver { mut config, storage: wanted } = component.value.clone()?;
    if let Some(wanted) = wanted {
        if storage != Some(wanted.as_str()) {
            component.refuse(
                problems,
                format!("`storage: {wanted}` is no `file_storage` in service::extensions"),
            );
        }
        config.storage = true;
    }
    let body_bytes_max = thyme.request_bytes_max.saturating_sub(RECORD_OVERHEAD_BYTES);
    if config.max_log_size_bytes > body_bytes_max.min(thyme.partial_bytes_max) {
        component.refuse(
            problems,
            "`max_log_size` must be at least 64KiB less than thyme's `request_bytes_max`, and not \
             more than its `partial_bytes_max`",
        );
    }
    Some(config)
}

/// The pipeline's exporter with the authenticator that it names.
fn authenticated(
    component: &Component<Exporter>,
    bearer_tokens: &[BearerTokenConfig],
    problems: &Problems,
) -> Option<ExporterConfig> {
    let Exporter { mut config, authenticator } = component.value.clone()?;
    let Some(wanted) = authenticator else { return Some(config) };
    let Some(found) = bearer_tokens.iter().find(|one| one.id == wanted) else {
        let message =
            format!("`authenticator: {wanted}` is no `bearertokenauth` in service::extensions");
        component.refuse(problems, message);
        return None;
    };
    if config.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(&found.header)) {
        let message = format!("`headers` and `{wanted}` both set the header `{}`", found.header);
        component.refuse(problems, message);
    }
    // As in the Collector, whose gRPC refuses to send tokens in plain text.
    let is_plain = config.endpoint.starts_with("http://")
        || (config.tls.insecure && !config.endpoint.starts_with("https://"));
    if config.protocol == Protocol::Grpc && is_plain {
        component.refuse(problems, "over gRPC a token is sent with TLS only");
    }
    config.auth = Some(found.clone());
    Some(config)
}
