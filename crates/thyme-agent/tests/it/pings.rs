//! HTTP/2 pings, at a server that takes many of them for an attack.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use thyme_agent::{config::Protocol, export::Timing};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf},
    sync::mpsc,
};

use crate::export::{Exporter, Names, config, timing};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

/// Pings that may come too early, as with grpc-go.
const STRIKES_MAX: u32 = 2;

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

fn bytes_of(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

async fn read_frames(mut from: OwnedReadHalf, frames: mpsc::Sender<Frame>) -> Option<()> {
    let mut preface = [0; 24];
    from.read_exact(&mut preface).await.ok()?;
    loop {
        let mut head = [0; 9];
        from.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        from.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        frames.send(Frame { kind: head[3], flags: head[4], stream, payload }).await.ok()?;
    }
}

/// A gRPC server that answers each request after `answers_after`, and ends a connection that is
/// pinged more often than each `ping_interval_min`.
async fn serve(tcp: TcpStream, answers_after: Duration, ping_interval_min: Duration) -> Option<()> {
    let (from, mut to) = tcp.into_split();
    let (sender, mut frames) = mpsc::channel(16);
    tokio::spawn(read_frames(from, sender));
    to.write_all(&bytes_of(SETTINGS, 0, 0, &[])).await.ok()?;
    let (mut last_ping, mut strikes) = (None::<Instant>, 0);
    let mut answer_at: Option<(Instant, u32)> = None;
    loop {
        let at = answer_at.map_or_else(|| Instant::now() + Duration::from_secs(60), |one| one.0);
        let frame = tokio::select! {
            frame = frames.recv() => frame?,
            () = tokio::time::sleep_until(at.into()) => {
                let (_, stream) = answer_at.take()?;
                let mut block = vec![0x88, 0, 12];
                block.extend(b"content-type");
                block.push(16);
                block.extend(b"application/grpc");
                let trailers = [&[0, 11], &b"grpc-status"[..], &[1, b'0']].concat();
                let answer = [
                    bytes_of(HEADERS, 4, stream, &block),
                    bytes_of(DATA, 0, stream, &[0; 5]),
                    bytes_of(HEADERS, 5, stream, &trailers),
                ];
                to.write_all(&answer.concat()).await.ok()?;
                continue;
            }
        };
        match (frame.kind, frame.flags & 1) {
            (SETTINGS, 0) => to.write_all(&bytes_of(SETTINGS, 1, 0, &[])).await.ok()?,
            (DATA, 1) => answer_at = Some((Instant::now() + answers_after, frame.stream)),
            (PING, 0) => {
                let is_early = last_ping.is_some_and(|last| last.elapsed() < ping_interval_min);
                strikes += u32::from(is_early);
                last_ping = Some(Instant::now());
                if strikes > STRIKES_MAX {
                    let calm = [&[0, 0, 0, 1, 0, 0, 0, 11], &b"too_many_pings"[..]].concat();
                    to.write_all(&bytes_of(GOAWAY, 0, 0, &calm)).await.ok()?;
                    to.shutdown().await.ok()?;
                    return None;
                }
                to.write_all(&bytes_of(PING, 1, 0, &frame.payload)).await.ok()?;
            }
            _ => {}
        }
    }
}

/// Starts such a server; the number counts its connections.
async fn start(
    answers_after: Duration,
    ping_interval_min: Duration,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let connections = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            connections.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(serve(tcp, answers_after, ping_interval_min));
        }
    });
    (address, count)
}

/// Scenario: row 54 (D22): a request takes 2 s, the exporter pings each 100 ms, and the server ends
/// connections with GOAWAY ENHANCE_YOUR_CALM that are pinged more often than each 350 ms.
/// Guarantees: pings become rarer with each of these, so that the request is answered in the end,
/// on the third or fourth connection, and the next one at once.
#[tokio::test]
async fn refused_pings_become_rarer() {
    let interval_min = Duration::from_millis(350);
    let (address, connections) = start(Duration::from_secs(2), interval_min).await;
    let timing = Timing { keepalive_interval: Duration::from_millis(100), ..timing() };
    let exporter = Exporter::start_with(&config(Protocol::Grpc), &Names::of([address]), timing);
    exporter.send_numbers(0..1).await;
    exporter.all_acknowledged(1).await;
    let needed = connections.load(Ordering::Relaxed);
    assert!((3..=4).contains(&needed), "{needed} connections");
    exporter.send_numbers(1..2).await;
    exporter.all_acknowledged(1).await;
    assert_eq!(connections.load(Ordering::Relaxed), needed);
}

/// Scenario: as before with the interval that production uses.
/// Guarantees: it keeps to what grpc-go allows by default, one ping in five minutes.
#[test]
fn pings_are_as_rare_as_grpc_go_wants_them() {
    assert!(Timing::default().keepalive_interval > Duration::from_secs(300));
}
