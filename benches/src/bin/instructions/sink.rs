//! A sink that costs little and says yes, as a task beside the exporter's.

use std::{io, net::SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, Response};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

/// Starts it, by protocol.
pub(super) async fn start(protocol: &str) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let is_grpc = protocol == "grpc";
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            connection.set_nodelay(true).expect("a socket");
            if is_grpc {
                tokio::spawn(grpc(connection));
            } else {
                tokio::spawn(http1(connection));
            }
        }
    });
    Ok(address)
}

/// More than a request has, so that windows make nobody wait.
const WINDOW_BYTES: u32 = 8 << 20;

async fn grpc(connection: TcpStream) {
    let mut connection = h2::server::Builder::new()
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .handshake::<_, Bytes>(connection)
        .await
        .expect("the exporter speaks HTTP/2");
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        tokio::spawn(async move {
            let mut body = request.into_body();
            while let Some(data) = body.data().await {
                let bytes = data.expect("a whole request").len();
                body.flow_control().release_capacity(bytes).expect("it was received");
            }
            let head = Response::builder().header("content-type", "application/grpc");
            let head = head.body(()).expect("a response");
            let mut answer = respond.send_response(head, false).expect("a connection");
            // An empty message.
            answer.send_data(Bytes::from_static(&[0; 5]), false).expect("a connection");
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
            answer.send_trailers(trailers).expect("a connection");
        });
    }
}

async fn http1(connection: TcpStream) -> io::Result<()> {
    let mut connection = BufReader::with_capacity(1 << 17, connection);
    let mut line = String::new();
    let mut body = Vec::new();
    loop {
        let mut body_bytes = 0;
        loop {
            line.clear();
            if connection.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let header = line.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(length) = header.strip_prefix("content-length:") {
                body_bytes = length.trim().parse().unwrap_or(0);
            }
        }
        body.resize(body_bytes, 0);
        connection.read_exact(&mut body).await?;
        let answer =
            b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        connection.get_mut().write_all(answer).await?;
    }
}
