//! Endpoints of exporters: what is accepted can be written out and read again.

use thyme_agent::fuzzing::SinkEndpoint;

/// Reads the text as both kinds of endpoint.
pub(crate) fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for insecure in [false, true] {
        if let Some(found) = SinkEndpoint::grpc(text, insecure) {
            check_found(&found);
            let again = format!("{}://{}", scheme(&found), found.authority);
            assert_eq!(SinkEndpoint::grpc(&again, insecure), Some(found), "{again}");
        }
    }
    if let Some(found) = SinkEndpoint::http(text) {
        check_found(&found);
        let base = found.path.strip_suffix("/v1/logs").expect("requests go to /v1/logs");
        let again = format!("{}://{}{base}", scheme(&found), found.authority);
        let read = SinkEndpoint::http(&again);
        // One slash at the end of a base is not part of it.
        if !base.ends_with('/') {
            assert_eq!(read, Some(found), "{again}");
        }
    }
}

fn scheme(endpoint: &SinkEndpoint) -> &'static str {
    if endpoint.tls { "https" } else { "http" }
}

fn check_found(found: &SinkEndpoint) {
    assert!(!found.host.is_empty() && found.port > 0);
    assert!(!found.host.contains(['[', ']', '/', '@', ' ']), "{found:?}");
    assert!(found.authority.contains(&found.host), "{found:?}");
    assert!(found.path.starts_with('/'), "{found:?}");
}
