//! The keys of `tls` of an exporter.

use std::time::Duration;

use rustls::pki_types::ServerName;

use super::{
    Source, TlsConfig, TlsIdentity, TlsVersion,
    read::{Field, Section},
};

const RELOAD_INTERVAL_MIN: Duration = Duration::from_secs(1);
const RELOAD_INTERVAL_MAX: Duration = Duration::from_secs(24 * 3600);

/// Keys of the Collector that are not taken yet.
pub(super) const LATER: &[&str] = &[
    "cipher_suites",
    "curve_preferences",
    "include_insecure_cipher_suites",
    "include_system_ca_certs_pool",
    "max_version",
    "tpm",
];

/// Reads the section.
pub(super) fn read(body: &Section<'_>) -> Option<TlsConfig> {
    let versions =
        [("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3), ("", TlsVersion::default())];
    let authorities = source(body, "ca_file", "ca_pem");
    let certificate = source(body, "cert_file", "cert_pem");
    let key = source(body, "key_file", "key_pem");
    let identity = match (certificate, key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some(TlsIdentity { certificate, key }),
        _ => {
            let keys = ["cert_file", "cert_pem", "key_file", "key_pem"];
            body.refuse_of(&keys, "a certificate needs its key: `cert_file` with `key_file`");
            None
        }
    };
    let insecure_skip_verify = body.flag("insecure_skip_verify", false);
    if insecure_skip_verify && authorities.is_some() {
        body.refuse("with `insecure_skip_verify` nobody is asked: take the authorities away");
    }
    let range = RELOAD_INTERVAL_MIN..=RELOAD_INTERVAL_MAX;
    Some(TlsConfig {
        insecure: body.flag("insecure", false),
        insecure_skip_verify,
        authorities,
        identity,
        server_name_override: body
            .field("server_name_override")
            .and_then(|name| server_name(&name)),
        min_version: body.one_of("min_version", &versions, TlsVersion::default()),
        reload_interval: body.field("reload_interval").and_then(|field| field.duration(range)),
    })
}

/// A content from a file, or from the configuration itself.
fn source(body: &Section<'_>, file: &'static str, text: &'static str) -> Option<Source> {
    let from_file = body.field(file).and_then(|field| field.file_path());
    let from_text = body.field(text).and_then(|field| field.text());
    match (from_file, from_text) {
        (Some(_), Some(_)) => {
            body.refuse(format!("`{file}` and `{text}` exclude each other"));
            None
        }
        (Some(path), None) => Some(Source::File(path)),
        (None, Some(text)) => Some(Source::Inline(text.into())),
        (None, None) => None,
    }
}

fn server_name(field: &Field<'_>) -> Option<String> {
    let name = field.text()?;
    if ServerName::try_from(name.as_str()).is_err() {
        field.refuse("expected the name or the address that the sink's certificate has");
        return None;
    }
    Some(name)
}
