//! The `endpoint` of an exporter, read once at the start: transport security, name, port, path.
//! Resolves nothing and connects to nothing.

use http::uri::Authority;

use super::ExportError;

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Whether TLS is spoken.
    pub(crate) tls: bool,
    /// Name or address, without brackets.
    pub(crate) host: String,
    /// TCP port.
    pub(crate) port: u16,
    /// `host[:port]` as requests name it.
    pub(crate) authority: String,
    /// Path of every request, with its leading slash.
    pub(crate) path: String,
}

/// The method that OTLP/gRPC calls.
const GRPC_PATH: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// What OTLP/HTTP adds to the base URL.
const HTTP_PATH: &str = "/v1/logs";

impl Endpoint {
    /// Reads the endpoint of an `otlp` exporter: `host:port`, `dns:///host:port`, or `http://` or
    /// `https://` before `host:port`. Without a scheme it is TLS unless `insecure`. (In the
    /// Collector `http://` alone does not switch TLS off; here the scheme means what it says.)
    ///
    /// # Errors
    /// When it is none of these, or has no port.
    pub(crate) fn grpc(text: &str, insecure: bool) -> Result<Self, ExportError> {
        let refuse = |reason| ExportError::Endpoint { endpoint: text.to_owned(), reason };
        let (tls, target) = match text.split_once("://") {
            None => (!insecure, text.strip_prefix("dns:").unwrap_or(text)),
            Some((scheme, rest)) => match scheme.to_ascii_lowercase().as_str() {
                "http" => (false, rest.strip_suffix('/').unwrap_or(rest)),
                "https" => (true, rest.strip_suffix('/').unwrap_or(rest)),
                "dns" | "passthrough" => {
                    let name = rest.strip_prefix('/').ok_or_else(|| {
                        refuse("no other name server than the system's can be asked")
                    })?;
                    (!insecure, name)
                }
                _ => return Err(refuse("its scheme is not one of http, https, dns")),
            },
        };
        let authority = parse_authority(target).map_err(refuse)?;
        let port = authority.port_u16().ok_or_else(|| refuse("it needs a port"))?;
        Ok(Self {
            tls,
            host: bare_host(&authority),
            port,
            authority: authority.to_string(),
            path: GRPC_PATH.to_owned(),
        })
    }

    /// Reads the endpoint of an `otlphttp` exporter: a base URL, to which `/v1/logs` is added.
    ///
    /// # Errors
    /// When it is not an `http` or `https` URL, or has more than a path.
    pub(crate) fn http(text: &str) -> Result<Self, ExportError> {
        let refuse = |reason| ExportError::Endpoint { endpoint: text.to_owned(), reason };
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| refuse("it needs http:// or https://"))?;
        let (tls, default_port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (false, 80),
            "https" => (true, 443),
            _ => return Err(refuse("its scheme is neither http nor https")),
        };
        if rest.contains(['?', '#']) {
            return Err(refuse("a base URL can't have a query or a fragment"));
        }
        let (target, base) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let authority = parse_authority(target).map_err(refuse)?;
        let path = format!("{}{HTTP_PATH}", base.strip_suffix('/').unwrap_or(base));
        if path.parse::<http::uri::PathAndQuery>().is_err() {
            return Err(refuse("its path is malformed"));
        }
        Ok(Self {
            tls,
            host: bare_host(&authority),
            port: authority.port_u16().unwrap_or(default_port),
            authority: authority.to_string(),
            path,
        })
    }
}

fn parse_authority(text: &str) -> Result<Authority, &'static str> {
    if !text.is_ascii() {
        return Err("a name beyond ASCII must be written in its ASCII form, `xn--…`");
    }
    if let Some((_, port)) = text.rsplit_once(':')
        && !port.is_empty()
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_err()
    {
        return Err("its port is not a number up to 65535");
    }
    let authority: Authority = text.parse().map_err(|_| "it is not host:port")?;
    if text.contains('@') {
        return Err("credentials belong into headers");
    }
    if authority.host().is_empty() {
        return Err("it has no host");
    }
    if !has_valid_brackets(authority.host()) {
        return Err("brackets belong around an IPv6 address");
    }
    if !authority.host().starts_with('[') && !is_name(authority.host()) {
        return Err("its host is neither an address nor a name");
    }
    if authority.port_u16() == Some(0) {
        return Err("port 0 can't be connected to");
    }
    // `Authority` takes more colons, and brackets, before the last one.
    let after = text.strip_prefix(authority.host()).unwrap_or(text);
    let digits = after.strip_prefix(':').unwrap_or(after);
    let is_port =
        digits.bytes().all(|byte| byte.is_ascii_digit()) && authority.port_u16().is_some();
    if !after.is_empty() && !is_port {
        return Err("its port is not a number up to 65535");
    }
    Ok(authority)
}

/// Whether a host in brackets is an IPv6 address, with or without a zone, and another has none.
fn has_valid_brackets(host: &str) -> bool {
    if !host.contains(['[', ']']) {
        return true;
    }
    let inside = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = inside.map(|inside| inside.split_once('%').map_or(inside, |(bare, _)| bare));
    address.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok())
}

/// Whether it may be the name of a host, which an IPv4 address may as well: parts of letters, digits, `-` and
/// `_`, none of which begins or ends with `-`.
fn is_name(text: &str) -> bool {
    let is_part = |part: &str| {
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        !part.is_empty()
            && part.len() <= 63
            && part.chars().all(is_of_name)
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    // A dot at the end says that the name is whole.
    text.strip_suffix('.').unwrap_or(text).split('.').all(is_part)
}

/// The host without the brackets of an IPv6 address.
fn bare_host(authority: &Authority) -> String {
    authority.host().trim_start_matches('[').trim_end_matches(']').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grpc(text: &str) -> Option<(bool, String, u16)> {
        Endpoint::grpc(text, false).ok().map(|found| (found.tls, found.host, found.port))
    }

    fn http(text: &str) -> Option<(bool, String, u16, String)> {
        Endpoint::http(text).ok().map(|found| (found.tls, found.authority, found.port, found.path))
    }

    /// Scenario: the forms of a gRPC endpoint that Collector configurations have.
    /// Guarantees: a scheme decides about TLS, else `insecure` does; anything else is refused.
    #[test]
    fn grpc_forms() {
        let sink = |tls, host: &str| Some((tls, host.to_owned(), 4317));
        assert_eq!(grpc("sink:4317"), sink(true, "sink"));
        assert_eq!(grpc("http://sink:4317"), sink(false, "sink"));
        assert_eq!(grpc("https://sink:4317/"), sink(true, "sink"));
        assert_eq!(grpc("HTTPS://sink:4317"), sink(true, "sink"));
        assert_eq!(grpc("dns:///sink.ns.svc:4317"), sink(true, "sink.ns.svc"));
        assert_eq!(grpc("dns:sink:4317"), sink(true, "sink"));
        assert_eq!(grpc("http://dns:4317"), sink(false, "dns"));
        assert_eq!(grpc("[::1]:4317"), sink(true, "::1"));
        assert_eq!(grpc("http://[::1]:4317"), sink(false, "::1"));
        assert!(!Endpoint::grpc("sink:4317", true).unwrap().tls);
        assert!(!Endpoint::grpc("dns:///sink:4317", true).unwrap().tls);
        assert!(Endpoint::grpc("https://sink:4317", true).unwrap().tls);
        let bad = ["", "sink", "http://sink", "sink:", "sink:x", "sink:70000", ":4317"];
        let worse = ["unix:///run/sink", "dns://8.8.8.8/sink:1", "http://sink:1/p", "a:b@sink:1"];
        for text in bad.into_iter().chain(worse).chain(["sink:0", "sink :1"]) {
            assert_eq!(grpc(text), None, "{text}");
        }
    }

    /// Scenario: brackets around and in names, around addresses, and half of a pair.
    /// Guarantees: only IPv6 addresses stand in brackets; no other name loses some.
    #[test]
    fn brackets_are_of_addresses_only() {
        for text in ["ht[::1]:1", "[sink]:1", "[::1:1", "sink]:1", "[]:1", "[[::1]]:1", "a::b[]:1"]
        {
            assert_eq!(grpc(text), None, "{text}");
            assert_eq!(http(&format!("http://{text}/")), None, "{text}");
        }
    }

    /// Scenario: names of hosts with odd characters, with empty parts, and with `-` at the end of one.
    /// Guarantees: what no host can be called is refused, whatever would be said of its certificate later.
    #[test]
    fn hosts_have_names() {
        for text in ["-5s:1", "a-:1", "a..b:1", ".a:1", "a~b:1", "a%20b:1", "a!:1"] {
            assert_eq!(grpc(text), None, "{text}");
            assert_eq!(http(&format!("https://{text}/")), None, "{text}");
        }
        assert_eq!(grpc(&format!("{}:1", "a".repeat(64))), None);
        for text in ["5s", "a-b.c_d", "sink.ns.svc.", "10.0.0.1", "xn--bcher-kva"] {
            assert_eq!(grpc(&format!("{text}:4317")), Some((true, text.to_owned(), 4317)));
        }
    }

    /// Scenario: base URLs of an HTTP endpoint.
    /// Guarantees: `/v1/logs` is added to their path; what can't be a base is refused.
    #[test]
    fn http_forms() {
        let plain = |authority: &str, port, path: &str| {
            Some((false, authority.to_owned(), port, path.to_owned()))
        };
        assert_eq!(http("http://sink"), plain("sink", 80, "/v1/logs"));
        assert_eq!(http("http://sink:4318"), plain("sink:4318", 4318, "/v1/logs"));
        assert_eq!(http("http://sink:4318/"), plain("sink:4318", 4318, "/v1/logs"));
        assert_eq!(http("http://sink/otlp/"), plain("sink", 80, "/otlp/v1/logs"));
        assert_eq!(http("http://sink/otlp"), plain("sink", 80, "/otlp/v1/logs"));
        assert_eq!(http("http://[::1]:1"), plain("[::1]:1", 1, "/v1/logs"));
        assert_eq!(http("https://sink").map(|found| (found.0, found.2)), Some((true, 443)));
        let bad = ["sink:4318", "ftp://sink", "http://", "http:///p", "http://s?q", "http://s/#f"];
        for text in bad.into_iter().chain(["http://u:p@sink", "http://sink:x/", "http://s/ p"]) {
            assert_eq!(http(text), None, "{text}");
        }
    }
}
