//! What the tests send, and with what: stamped requests, and clients that show the whole answer.

use std::io::Write;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message;
use thyme_core::manifest::ManifestLine;
use thyme_core::stamp::{STAMP_BYTES, Stamp};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;

/// The method of OTLP/gRPC.
pub(crate) const EXPORT: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// How long a condition may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A line of text with its stamp, written now.
pub(crate) fn line(writer: u32, sequence: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let time_unix_nano = u64::try_from(now).unwrap();
    let mut stamp = [0; STAMP_BYTES];
    Stamp { run: 1, writer, sequence, time_unix_nano, end: false }.write(&mut stamp);
    format!("hello stamp={}", std::str::from_utf8(&stamp).unwrap())
}

/// A request with these lines of a writer.
pub(crate) fn request(writer: u32, lines: Range<u64>) -> ExportLogsServiceRequest {
    let record = |sequence| LogRecord {
        body: Some(AnyValue { value: Some(Value::StringValue(line(writer, sequence))) }),
        ..Default::default()
    };
    let scope = ScopeLogs { log_records: lines.map(record).collect(), ..Default::default() };
    let resource = ResourceLogs { scope_logs: vec![scope], ..Default::default() };
    ExportLogsServiceRequest { resource_logs: vec![resource] }
}

/// The same, encoded.
pub(crate) fn message(writer: u32, lines: Range<u64>) -> Vec<u8> {
    request(writer, lines).encode_to_vec()
}

/// A manifest's line of a writer that wrote so many lines.
pub(crate) fn manifest_line(writer: u32, lines: u64) -> ManifestLine {
    let stream = "stdout".to_owned();
    ManifestLine { run: 1, writer, stream, first: 0, last: lines - 1, lines, bytes: 99, path: None }
}

/// The same bytes in gzip.
pub(crate) fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// A message in gRPC's frame.
pub(crate) fn frame(compressed: bool, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[u8::from(compressed)], &length[..], message].concat()
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
}

impl Answer {
    /// A header, or else a trailer.
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).or_else(|| self.trailers.get(name));
        value.map_or("", |value| value.to_str().unwrap())
    }
}

/// Sends one request on a connection of its own.
pub(crate) async fn send(
    address: SocketAddr,
    version: Version,
    request: Request<Bytes>,
) -> Result<Answer, hyper::Error> {
    send_over(TcpStream::connect(address).await.unwrap(), version, request).await
}

/// Sends one request over a connection.
pub(crate) async fn send_over<I>(
    io: I,
    version: Version,
    request: Request<Bytes>,
) -> Result<Answer, hyper::Error>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let request = request.map(Full::new);
    let io = TokioIo::new(io);
    let response = if version == Version::HTTP_2 {
        let (mut sender, connection) = conn::http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        sender.send_request(request).await?
    } else {
        let (mut sender, connection) = conn::http1::handshake(io).await?;
        tokio::spawn(connection);
        sender.send_request(request).await?
    };
    let (head, body) = response.into_parts();
    let body = body.collect().await?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes(), trailers })
}

/// A `POST` with these headers.
pub(crate) fn post(uri: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Request<Bytes> {
    let mut request = Request::post(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

/// A call of `Export` over gRPC with this body, framed or not.
pub(crate) async fn call(
    address: SocketAddr,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> Result<Answer, hyper::Error> {
    let mut all = vec![("content-type", "application/grpc"), ("te", "trailers")];
    all.extend_from_slice(headers);
    let request = post(&format!("http://{address}{EXPORT}"), &all, body);
    send(address, Version::HTTP_2, request).await
}

/// A `POST /v1/logs` of protobuf over HTTP/1.1.
pub(crate) async fn post_logs(
    address: SocketAddr,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> Result<Answer, hyper::Error> {
    let mut all = vec![("content-type", "application/x-protobuf"), ("host", "test")];
    all.extend_from_slice(headers);
    send(address, Version::HTTP_11, post("/v1/logs", &all, body)).await
}

/// A `GET` over HTTP/1.1.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Answer {
    let request = Request::get(path).header("host", "test").body(Bytes::new()).unwrap();
    send(address, Version::HTTP_11, request).await.unwrap()
}

/// Reads one answer of HTTP/1.1 off a connection, and returns its head.
pub(crate) async fn read_answer(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.unwrap();
    head
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
