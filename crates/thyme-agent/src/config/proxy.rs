//! Which proxy an endpoint is reached through: `proxy_url`, else what the environment says.
//!
//! `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, also in lower case, mean what they mean to the
//! Collector (Go's `golang.org/x/net/http/httpproxy`). hyper-util's matcher follows curl, which knows
//! no ports in `NO_PROXY` and asks a proxy for the machine itself. Unlike in Go, a value that is no
//! proxy is an error.

use std::net::IpAddr;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::uri::Authority;
use percent_encoding::percent_decode_str;

use super::{Config, MetricsReader, Protocol, Secret};
use crate::export::endpoint::Endpoint;

/// A proxy of HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyConfig {
    /// Whether TLS is spoken with the proxy itself.
    pub tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Value of `Proxy-Authorization`.
    pub credentials: Option<Secret>,
}

impl ProxyConfig {
    /// Reads a URL; without a scheme it is `http`.
    ///
    /// # Errors
    /// In words that have nothing of the text, in which a password may be.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "expected a URL of a proxy, such as http://proxy:3128";
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let (tls, port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (false, 80),
            "https" => (true, 443),
            "socks4" | "socks4a" | "socks5" | "socks5h" => {
                return Err("proxies of SOCKS are not supported, only http:// and https://");
            }
            _ => return Err(EXPECTED),
        };
        let target = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (user, target) = match target.rsplit_once('@') {
            Some((user, target)) => (Some(user), target),
            None => (None, target),
        };
        let authority: Authority = target.parse().map_err(|_| EXPECTED)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let has_port = target.len() > authority.host().len();
        if host.is_empty() || (has_port && authority.port_u16().unwrap_or(0) == 0) {
            return Err(EXPECTED);
        }
        Ok(Self {
            tls,
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(port),
            credentials: user.map(basic).transpose()?,
        })
    }

    /// `host:port`, for messages and for the wire.
    pub fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

/// `user:password`, percent-encoded in the URL, as RFC 7617 sends it.
fn basic(user: &str) -> Result<Secret, &'static str> {
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let decode = |text| percent_decode_str(text).collect::<Vec<u8>>();
    let pair = [&decode(name)[..], b":", &decode(password)].concat();
    if pair.iter().any(u8::is_ascii_control) {
        return Err("the proxy's user or password holds a control character");
    }
    Ok(Secret::from(format!("Basic {}", STANDARD.encode(pair))))
}

/// Fills in what the environment says for endpoints without a `proxy_url`; returns what is wrong
/// with it, each with the key of the endpoint.
pub(super) fn fill(
    config: &mut Config,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Vec<(String, String)> {
    let environment = Environment { variable };
    let mut problems = Vec::new();
    let exporter = &mut config.exporter;
    if exporter.proxy.is_none() {
        let endpoint = match exporter.protocol {
            Protocol::Grpc => Endpoint::grpc(&exporter.endpoint, exporter.tls.insecure),
            Protocol::Http => Endpoint::http(&exporter.endpoint),
        };
        // As grpc-go, which asks for the proxy of https whether it speaks TLS or not.
        let is_https = |endpoint: &Endpoint| endpoint.tls || exporter.protocol == Protocol::Grpc;
        let found = endpoint.map_or(Ok(None), |endpoint| {
            environment.proxy_for(is_https(&endpoint), &endpoint.host, endpoint.port)
        });
        match found {
            Ok(proxy) => exporter.proxy = proxy,
            Err(message) => {
                problems.push((format!("exporters::{}::endpoint", exporter.id), message));
            }
        }
    }
    for (index, reader) in config.telemetry.readers.iter_mut().enumerate() {
        let MetricsReader::Otlp(reader) = reader else { continue };
        let Ok(uri) = reader.endpoint.parse::<http::Uri>() else { continue };
        let is_https = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        match environment.proxy_for(is_https || reader.protocol == Protocol::Grpc, host, port) {
            Ok(proxy) => reader.proxy = proxy,
            Err(message) => {
                let key = format!(
                    "service::telemetry::metrics::readers[{index}]::periodic::exporter::otlp::endpoint"
                );
                problems.push((key, message));
            }
        }
    }
    problems
}

/// The variables about proxies.
struct Environment<'a> {
    variable: &'a dyn Fn(&str) -> Option<String>,
}

impl Environment<'_> {
    /// The name and text of the first of these variables that says something.
    fn first(&self, names: [&'static str; 2]) -> Option<(&'static str, String)> {
        let said = |name| Some((name, (self.variable)(name).filter(|text| !text.is_empty())?));
        names.into_iter().find_map(said)
    }

    /// The proxy for a host, if there is one.
    fn proxy_for(
        &self,
        is_https: bool,
        host: &str,
        port: u16,
    ) -> Result<Option<ProxyConfig>, String> {
        let names =
            if is_https { ["HTTPS_PROXY", "https_proxy"] } else { ["HTTP_PROXY", "http_proxy"] };
        let Some((name, text)) = self.first(names) else { return Ok(None) };
        let no_proxy = self.first(["NO_PROXY", "no_proxy"]).map(|(_, text)| text);
        if is_exempt(&no_proxy.unwrap_or_default(), host, port) {
            return Ok(None);
        }
        // There a client of the web server sets HTTP_PROXY, with a header named Proxy.
        let is_cgi = (self.variable)("REQUEST_METHOD").is_some_and(|method| !method.is_empty());
        if is_cgi && !is_https {
            return Err(format!(
                "the environment variable `{name}` is not trusted where `REQUEST_METHOD` is set, as in \
                 a CGI program"
            ));
        }
        let parsed = ProxyConfig::parse(&text);
        parsed.map(Some).map_err(|why| format!("the environment variable `{name}`: {why}"))
    }
}

/// Whether a host is reached without a proxy: the machine itself, and what `NO_PROXY` lists.
fn is_exempt(no_proxy: &str, host: &str, port: u16) -> bool {
    let address = host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
    if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
        return true;
    }
    let host = host.trim().to_ascii_lowercase();
    let mut entries = no_proxy.split(',').map(|entry| entry.trim().to_ascii_lowercase());
    entries.any(|entry| entry == "*" || is_match(&entry, &host, address, port))
}

/// One entry: a network, an address or a name, the latter two perhaps with a port. A name stands for
/// itself and all below it; with `.` or `*.` before it only for those below it.
fn is_match(entry: &str, host: &str, address: Option<IpAddr>, port: u16) -> bool {
    if let Some(network) = Network::parse(entry) {
        return address.is_some_and(|address| network.contains(address));
    }
    let (name, entry_port) = split_port(entry);
    if name.is_empty() || entry_port.is_some_and(|entry_port| entry_port != port.to_string()) {
        return false;
    }
    if let Ok(named) = name.parse::<IpAddr>() {
        return address == Some(named.to_canonical());
    }
    let name = name.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(name);
    match name.strip_prefix('.') {
        Some(_) => host.ends_with(name),
        None => {
            let above = host.strip_suffix(name);
            above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
        }
    }
}

/// `name:port` and `[address]:port`, as Go's `net.SplitHostPort`; anything else has no port.
fn split_port(entry: &str) -> (&str, Option<&str>) {
    let bracketed = entry.strip_prefix('[').and_then(|rest| rest.split_once("]:"));
    match bracketed.or_else(|| entry.split_once(':')) {
        Some((name, port)) if !port.contains(':') => (name, Some(port).filter(|p| !p.is_empty())),
        _ => (entry, None),
    }
}

/// A network in CIDR notation.
struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let (address, bits) = (address.parse::<IpAddr>().ok()?, bits.parse::<u32>().ok()?);
        let most = if address.is_ipv4() { 32 } else { 128 };
        (bits <= most).then_some(Self { address, bits })
    }

    fn contains(&self, address: IpAddr) -> bool {
        let (network, address, width) = match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                (u128::from(network.to_bits()), u128::from(address.to_bits()), 32)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                (network.to_bits(), address.to_bits(), 128)
            }
            _ => return false,
        };
        let differing = network ^ address;
        differing.checked_shr(width - self.bits).unwrap_or(0) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: proxies as people write them.
    /// Guarantees: scheme, port and credentials as in Go and curl; credentials are decoded and in no
    /// print; what is no proxy is refused without being shown.
    #[test]
    fn proxies_are_urls() {
        let parse = |text: &str| {
            ProxyConfig::parse(text).map(|proxy| {
                let credentials = proxy.credentials.as_ref().map(|one| one.expose().to_owned());
                (proxy.tls, proxy.authority(), credentials)
            })
        };
        let plain = |authority: &str| Ok((false, authority.to_owned(), None));
        assert_eq!(parse("http://proxy:3128"), plain("proxy:3128"));
        assert_eq!(parse("http://proxy:3128/"), plain("proxy:3128"));
        assert_eq!(parse("proxy:3128"), plain("proxy:3128"));
        assert_eq!(parse("proxy"), plain("proxy:80"));
        assert_eq!(parse("[::1]:3128"), plain("[::1]:3128"));
        assert_eq!(parse("HTTPS://proxy"), Ok((true, "proxy:443".into(), None)));
        let own = parse("http://Aladdin:open%20sesame@proxy:1").unwrap();
        assert_eq!(own.2.as_deref(), Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
        assert!(!format!("{:?}", ProxyConfig::parse("http://a:geheim@p")).contains("geheim"));
        for text in
            ["ftp://geheim", "http://", "geheim:0", "a geheim", "p:99999", "socks5://geheim"]
        {
            let error = parse(text).unwrap_err();
            assert!(!error.contains("geheim"), "{text}: {error}");
        }
        assert!(parse("http://a:b%0ac@proxy").is_err());
    }

    /// Scenario: entries of `NO_PROXY`; the table is that of Go's `httpproxy` tests.
    /// Guarantees: the same hosts are exempt.
    #[test]
    fn no_proxy_means_what_it_means_in_go() {
        let list = "foobar.com, .barbaz.net, *.wild.net,10.10.1.0/24, 192.168.1.1, 192.168.1.2:81, \
                    192.168.1.3:80, 10.0.0.0/30, 2001:db8::52:0:1, [2001:db8::52:0:2]:443, \
                    [2001:db8::52:0:3]:80, 2002:db8:a::45/64, only.com:8443";
        let cases = [
            ("localhost", 80, true),
            ("127.0.0.1", 80, true),
            ("127.0.0.2", 80, true),
            ("::1", 80, true),
            ("::ffff:127.0.0.1", 80, true),
            ("::2", 80, false),
            ("192.168.1.1", 80, true),
            ("192.168.1.2", 80, false),
            ("192.168.1.2", 81, true),
            ("192.168.1.3", 80, true),
            ("192.168.1.4", 80, false),
            ("10.0.0.2", 80, true),
            ("10.0.0.4", 80, false),
            ("10.10.1.200", 80, true),
            ("2001:db8::52:0:1", 80, true),
            ("2001:db8::52:0:2", 443, true),
            ("2001:db8::52:0:2", 80, false),
            ("2001:db8::52:0:3", 80, true),
            ("2002:db8:a::123", 80, true),
            ("fe80::424b:c8be:1643:a1b6", 80, false),
            ("barbaz.net", 80, false),
            ("www.barbaz.net", 80, true),
            ("wild.net", 80, false),
            ("a.wild.net", 80, true),
            ("foobar.com", 80, true),
            ("FOOBAR.com", 80, true),
            ("www.foobar.com", 80, true),
            ("foofoobar.com", 80, false),
            ("baz.com", 80, false),
            ("localhost.net", 80, false),
            ("local.localhost", 80, false),
            ("barbarbaz.net", 80, false),
            ("only.com", 8443, true),
            ("only.com", 443, false),
        ];
        for (host, port, exempt) in cases {
            assert_eq!(is_exempt(list, host, port), exempt, "{host}:{port}");
        }
        assert!(is_exempt("*", "anything.example", 1));
        assert!(!is_exempt(", ,:80, x/y, 10.0.0.0/33", "10.0.0.1", 80));
        assert!(is_exempt("0.0.0.0/0", "8.8.8.8", 80) && is_exempt("::/0", "2001:db8::1", 80));
    }

    fn found(variables: &[(&str, &str)], is_https: bool, host: &str) -> Result<String, String> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let proxy = Environment { variable: &variable }.proxy_for(is_https, host, 4318)?;
        Ok(proxy.map_or_else(String::new, |proxy| proxy.authority()))
    }

    /// Scenario: variables in upper and lower case, empty ones, those of the other scheme, a CGI
    /// program's, and a value that is no proxy.
    /// Guarantees: upper case first, and each scheme its own, as in Go; in a CGI program HTTP_PROXY
    /// is not trusted; a value of no use is said by its variable's name.
    #[test]
    fn the_environment_says_which_proxy() {
        let both = [("HTTPS_PROXY", "s:1"), ("https_proxy", "l:1"), ("http_proxy", "p:2")];
        assert_eq!(found(&both, true, "sink"), Ok("s:1".into()));
        assert_eq!(found(&both, false, "sink"), Ok("p:2".into()));
        assert_eq!(
            found(&[("HTTPS_PROXY", ""), ("https_proxy", "l:1")], true, "sink"),
            Ok("l:1".into())
        );
        assert_eq!(found(&[("ALL_PROXY", "a:1")], true, "sink"), Ok(String::new()));
        let listed = [("HTTPS_PROXY", "s:1"), ("no_proxy", "sink")];
        assert_eq!(found(&listed, true, "sink"), Ok(String::new()));
        assert_eq!(found(&listed, true, "other"), Ok("s:1".into()));
        let cgi = [("HTTP_PROXY", "p:2"), ("HTTPS_PROXY", "s:1"), ("REQUEST_METHOD", "GET")];
        assert!(found(&cgi, false, "sink").unwrap_err().contains("REQUEST_METHOD"));
        assert_eq!(found(&cgi, true, "sink"), Ok("s:1".into()));
        let bad = found(&[("HTTPS_PROXY", "socks5://geheim:1")], true, "sink").unwrap_err();
        assert!(bad.contains("`HTTPS_PROXY`") && !bad.contains("geheim"), "{bad}");
    }
}
