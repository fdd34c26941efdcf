//! The way to the sink through a proxy of HTTP, as the environment or the configuration has it.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
};

use nop_collector::{Collector, Options};

use crate::{
    authority::{Authority, TlsDirectory},
    node::{Node, append, cri, wait_until},
    program::{Program, Setup, program},
};

/// A proxy that knows one target, and keeps the heads of the requests that it got.
struct TestProxy {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    /// What it answers instead of connecting.
    refusal: Arc<Mutex<Option<&'static str>>>,
}

impl TestProxy {
    fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (heads, refusal) = (Arc::<Mutex<Vec<String>>>::default(), Arc::default());
        let proxy = Self { address, heads: Arc::clone(&heads), refusal: Arc::clone(&refusal) };
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (heads, refusal) = (Arc::clone(&heads), *refusal.lock().unwrap());
                std::thread::spawn(move || serve(client, target, &heads, refusal));
            }
        });
        proxy
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    fn refuse_with(&self, refusal: Option<&'static str>) {
        *self.refusal.lock().unwrap() = refusal;
    }
}

/// One connection; whatever breaks ends it.
fn serve(
    mut client: TcpStream,
    target: SocketAddr,
    heads: &Mutex<Vec<String>>,
    refusal: Option<&'static str>,
) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let text = String::from_utf8(head.clone()).ok()?;
    heads.lock().unwrap().push(text.clone());
    if let Some(status) = refusal {
        return write!(client, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").ok();
    }
    let mut sink = TcpStream::connect(target).ok()?;
    if text.starts_with("CONNECT ") {
        client.write_all(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n").ok()?;
    } else {
        sink.write_all(&head).ok()?;
    }
    let (mut from_client, mut to_sink) = (client.try_clone().ok()?, sink.try_clone().ok()?);
    let there = std::thread::spawn(move || {
        std::io::copy(&mut from_client, &mut to_sink).ok();
        to_sink.shutdown(Shutdown::Write).ok();
    });
    std::io::copy(&mut sink, &mut client).ok();
    client.shutdown(Shutdown::Write).ok();
    there.join().ok()
}

/// An agent whose environment has these variables and no others about proxies.
fn start(config: &Path, variables: &[(&str, String)]) -> Program {
    let mut command = program();
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_ascii_lowercase());
    }
    command.arg("--config").arg(config).envs(variables.iter().map(|(name, value)| (name, value)));
    Program::spawn(&mut command)
}

/// The configuration of a node's agent whose sink has a name that only a proxy knows.
fn write_config(node: &Node, grpc: bool, changes: &[(&str, String)]) -> std::path::PathBuf {
    let path = Setup { grpc, ..Setup::default() }.write(node);
    let mut text = fs::read_to_string(&path).unwrap();
    let own = match grpc {
        true => node.collector.grpc_addr(),
        false => node.collector.http_addr(),
    };
    text = text.replace(&own.to_string(), "sink.example:4318");
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    fs::write(&path, text).unwrap();
    path
}

/// Scenario: the sink's name is known to the proxy alone; `HTTPS_PROXY` and `HTTP_PROXY` name it
/// with a user and a password.
/// Guarantees: gRPC, also without TLS, goes through a tunnel by CONNECT, as with grpc-go; plain HTTP
/// is sent to the proxy in absolute form; credentials go with both, and stand in no line of the log.
#[test]
fn the_environments_proxy_is_used_as_by_the_collector() {
    for grpc in [true, false] {
        let node = Node::new();
        let (own, of_other) = match grpc {
            true => (node.collector.grpc_addr(), "HTTP_PROXY"),
            false => (node.collector.http_addr(), "HTTPS_PROXY"),
        };
        let proxy = TestProxy::start(own);
        let variable = if grpc { "HTTPS_PROXY" } else { "http_proxy" };
        let text = format!("http://Aladdin:open%20sesame@{}", proxy.address);
        let config = write_config(&node, grpc, &[]);
        let variables = [(variable, text), (of_other, "http://127.0.0.1:1".to_owned())];
        let mut agent = start(&config, &variables);
        append(&node.container("pod").join("0.log"), cri("one"));
        node.wait_records(1);
        let line = agent.line("the sink is reached through a proxy");
        assert!(line.contains(&proxy.address.to_string()), "{line}");
        let head = proxy.heads().remove(0);
        let begins = match grpc {
            true => "CONNECT sink.example:4318 HTTP/1.1\r\n",
            false => "POST http://sink.example:4318/v1/logs HTTP/1.1\r\n",
        };
        assert!(head.starts_with(begins), "{head}");
        let head = head.to_ascii_lowercase();
        assert!(head.contains("host: sink.example:4318\r\n"), "{head}");
        assert!(
            head.contains("proxy-authorization: basic qwxhzgrpbjpvcgvuihnlc2ftzq==\r\n"),
            "{head}"
        );
        let log = agent.stop().join("\n");
        assert!(!log.contains("sesame") && !log.contains("QWxh"), "{log}");
    }
}

/// Scenario: the agent's own metrics are pushed to a name that the proxy alone knows.
/// Guarantees: they are sent to the proxy, with its credentials.
#[test]
fn metrics_are_pushed_through_the_proxy() {
    let node = Node::new();
    let proxy = TestProxy::start(node.collector.http_addr());
    let text = format!("http://Aladdin:open%20sesame@{}", proxy.address);
    let push = "readers: [{periodic: {interval: 50, exporter: {otlp: {protocol: http/protobuf, \
                endpoint: 'http://metrics.example:4318/v1/metrics'}}}}, "
        .to_owned();
    let config = write_config(&node, false, &[("readers: [", push)]);
    let agent = start(&config, &[("HTTP_PROXY", text)]);
    let begins = "POST http://metrics.example:4318/v1/metrics HTTP/1.1\r\n";
    let pushed = || proxy.heads().into_iter().find(|head| head.starts_with(begins));
    wait_until("metrics are pushed", || pushed().is_some());
    let head = pushed().unwrap().to_ascii_lowercase();
    assert!(head.contains("proxy-authorization: basic qwxhzgrpbjpvcgvuihnlc2ftzq==\r\n"), "{head}");
    agent.stop();
}

/// Scenario: `HTTPS_PROXY` names a proxy that does not answer; the endpoint is this machine, or
/// `NO_PROXY` lists it.
/// Guarantees: requests go straight to it.
#[test]
fn what_is_exempt_is_reached_directly() {
    let node = Node::new();
    let config = Setup { grpc: true, ..Setup::default() }.write(&node);
    let dead = "http://127.0.0.1:1".to_owned();
    let mut agent = start(&config, &[("HTTPS_PROXY", dead.clone()), ("HTTP_PROXY", dead)]);
    append(&node.container("pod").join("0.log"), cri("one"));
    node.wait_records(1);
    assert!(!agent.log().iter().any(|line| line.contains("proxy")));
    agent.stop();
}

/// Scenario: `proxy_url` for an https endpoint on this machine, beside an environment that names
/// another proxy; the proxy refuses at first, for want of credentials and then altogether.
/// Guarantees: `proxy_url` counts, with TLS to the sink through the tunnel; each refusal is said in
/// words with its status, lines wait, and arrive once the proxy lets them through.
#[test]
fn proxy_url_outranks_the_environment_and_refusals_are_said() {
    let node = Node::new();
    let authority = Authority::new();
    let files = TlsDirectory::new(&authority, &authority);
    let tls = Options { tls: Some(files.for_collector(false)), ..Options::ephemeral() };
    let sink = Collector::start_on_threads(tls, 1).unwrap();
    let proxy = TestProxy::start(sink.http_addr());
    proxy.refuse_with(Some("407 Proxy Authentication Required"));
    let port = sink.http_addr().port();
    let keys = format!(
        "endpoint: https://localhost:{port}\n    proxy_url: http://{}\n    tls: {{ca_file: {}}}",
        proxy.address,
        files.path("ca.crt").display()
    );
    let config = write_config(&node, false, &[("endpoint: http://sink.example:4318", keys)]);
    let other = ("HTTPS_PROXY", "http://127.0.0.1:1".to_owned());
    let mut agent = start(&config, &[other]);
    append(&node.container("pod").join("0.log"), cri("one"));
    let line = agent.line("it wants credentials, or other ones (HTTP 407)");
    assert!(line.contains(&format!("the proxy {}", proxy.address)), "{line}");
    proxy.refuse_with(Some("403 Forbidden"));
    agent.line(&format!("it does not connect to localhost:{port} (HTTP 403 Forbidden)"));
    proxy.refuse_with(None);
    wait_until("the record arrives", || sink.report().records == 1);
    let expected = format!("CONNECT localhost:{port} HTTP/1.1\r\n");
    assert!(proxy.heads().iter().all(|head| head.starts_with(&expected)));
    agent.stop();
}

/// Scenario: no connection to the proxy can be made, over gRPC and plain HTTP; a proxy that passes plain HTTP on
/// wants credentials.
/// Guarantees: each is said to be the proxy's, not the sink's.
#[test]
fn what_the_proxy_fails_at_is_said_to_be_its() {
    for grpc in [true, false] {
        let node = Node::new();
        let config = write_config(&node, grpc, &[]);
        let dead = "http://127.0.0.1:1".to_owned();
        let mut agent = start(&config, &[("HTTPS_PROXY", dead.clone()), ("HTTP_PROXY", dead)]);
        append(&node.container("pod").join("0.log"), cri("one"));
        agent.line("the proxy 127.0.0.1:1: no connection to it: ");
        agent.kill();
    }
    let node = Node::new();
    let proxy = TestProxy::start(node.collector.http_addr());
    proxy.refuse_with(Some("407 Proxy Authentication Required"));
    let config = write_config(&node, false, &[]);
    let mut agent = start(&config, &[("HTTP_PROXY", format!("http://{}", proxy.address))]);
    append(&node.container("pod").join("0.log"), cri("one"));
    agent.line("HTTP 407: a proxy wants credentials, or other ones");
    proxy.refuse_with(None);
    node.wait_records(1);
    agent.stop();
}

/// Scenario: proxies of no use: of SOCKS in the environment, a text in `proxy_url`.
/// Guarantees: `validate` and the start say so with line and key, and show no password.
#[test]
fn a_proxy_of_no_use_is_refused() {
    let node = Node::new();
    let config = write_config(&node, false, &[]);
    let check = |arguments: &[&str]| {
        let mut command = program();
        command.args(arguments).arg("--config").arg(&config);
        let output = command.env("HTTP_PROXY", "socks5://a:hunter2@proxy:1").output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    for said in [check(&["validate"]), check(&[])] {
        let expected = "exporters::otlp_http::endpoint: the environment variable `HTTP_PROXY`: \
                        proxies of SOCKS are not supported";
        assert!(said.contains(expected) && !said.contains("hunter2"), "{said}");
    }
    let text = fs::read_to_string(&config).unwrap();
    let keys = "endpoint: http://sink.example:4318\n    proxy_url: 'ftp://a:hunter2@proxy'";
    fs::write(&config, text.replace("endpoint: http://sink.example:4318", keys)).unwrap();
    let said = check(&["validate"]);
    assert!(said.contains("exporters::otlp_http::proxy_url: expected a URL of a proxy"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}
