//! A TCP relay in front of the sink that can refuse: then its port is closed and its connections
//! are broken, as when the sink's process has ended, while the sink itself keeps its counts.

use crate::{
    error::{Error, Result, io_error},
    interrupt::Interrupt,
    limits::{RELAY_ACCEPT_INTERVAL, RELAY_PORTS, RELAY_REOPEN_MAX, WATCH_INTERVAL},
};
use std::{
    io,
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    process,
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

/// A relay from a port of its own to the sink.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    target: SocketAddr,
    /// `None` while it refuses.
    open: Option<Open>,
}

/// What only an open relay has.
#[derive(Debug)]
struct Open {
    closing: Arc<AtomicBool>,
    connections: Arc<Connections>,
    /// Owns the listener, so the port is closed when this thread has ended.
    acceptor: JoinHandle<()>,
}

/// The connections that have not ended; the threads that copy own them.
#[derive(Debug, Default)]
struct Connections(Mutex<Vec<Weak<Connection>>>);

#[derive(Debug)]
struct Connection {
    client: TcpStream,
    server: TcpStream,
}

impl Relay {
    /// Opens a relay to `target`.
    ///
    /// Its port lies outside of the range that outgoing connections take theirs from: an agent that
    /// tries again and again to reach a closed port of that range ends up connected to itself.
    pub fn open(target: SocketAddr) -> Result<Self> {
        let ports = RELAY_PORTS.len() as u32;
        // Drivers that run at the same time start at different ports.
        let first = process::id() % ports;
        for number in 0..ports {
            let offset = ((first + number) % ports) as u16;
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, RELAY_PORTS.start + offset));
            if let Ok(listener) = TcpListener::bind(address) {
                let open = Some(serve(listener, target)?);
                return Ok(Self { address, target, open });
            }
        }
        Err(Error::Usage(format!("no port of {RELAY_PORTS:?} is free")))
    }

    /// Where it listens while it is open.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the port and breaks every connection.
    pub fn refuse(&mut self) {
        let Some(open) = self.open.take() else { return };
        open.closing.store(true, Ordering::Release);
        // A panic there would have been printed, and closed the port as well.
        let _joined = open.acceptor.join();
        // The acceptor has ended: no connection is added any more.
        for connection in open.connections.lock().drain(..).filter_map(|weak| weak.upgrade()) {
            for stream in [&connection.client, &connection.server] {
                // It may have ended by itself meanwhile.
                let _result = stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// Opens the same port again.
    pub fn accept(&mut self, interrupt: &Interrupt) -> Result<()> {
        let deadline = Instant::now() + RELAY_REOPEN_MAX;
        while self.open.is_none() {
            match TcpListener::bind(self.address) {
                Ok(listener) => self.open = Some(serve(listener, self.target)?),
                Err(error) if Instant::now() >= deadline => {
                    return Err(io_error(format!("opening {} again", self.address))(error));
                }
                Err(_taken) => interrupt.pause(WATCH_INTERVAL)?,
            }
        }
        Ok(())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.refuse();
    }
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Connection>>> {
        self.0.lock().expect("nothing panics while the connections are locked")
    }
}

fn serve(listener: TcpListener, target: SocketAddr) -> Result<Open> {
    let failed = || io_error("starting a relay");
    listener.set_nonblocking(true).map_err(failed())?;
    let closing = Arc::new(AtomicBool::new(false));
    let connections = Arc::new(Connections::default());
    let acceptor = {
        let (closing, connections) = (Arc::clone(&closing), Arc::clone(&connections));
        let accept = move || accept_until_closing(&listener, target, &closing, &connections);
        thread::Builder::new().name("relay".into()).spawn(accept).map_err(failed())?
    };
    Ok(Open { closing, connections, acceptor })
}

fn accept_until_closing(
    listener: &TcpListener,
    target: SocketAddr,
    closing: &AtomicBool,
    connections: &Connections,
) {
    while !closing.load(Ordering::Acquire) {
        match listener.accept() {
            // A connection that cannot be relayed is dropped, and so broken.
            Ok((client, _)) => drop(connect(client, target, connections)),
            Err(_none_yet) => thread::sleep(RELAY_ACCEPT_INTERVAL),
        }
    }
}

/// Connects a client with the sink, and starts to copy both ways.
fn connect(client: TcpStream, target: SocketAddr, connections: &Connections) -> io::Result<()> {
    client.set_nonblocking(false)?;
    client.set_nodelay(true)?;
    let server = TcpStream::connect(target)?;
    server.set_nodelay(true)?;
    let connection = Arc::new(Connection { client, server });
    let mut all = connections.lock();
    all.retain(|other| other.strong_count() > 0);
    all.push(Arc::downgrade(&connection));
    drop(all);
    copy_aside(Arc::clone(&connection), |connection| (&connection.client, &connection.server))?;
    copy_aside(connection, |connection| (&connection.server, &connection.client))
}

/// Copies one direction on a thread of its own, which ends with the connection.
fn copy_aside(
    connection: Arc<Connection>,
    direction: fn(&Connection) -> (&TcpStream, &TcpStream),
) -> io::Result<()> {
    let copy = move || {
        let (mut from, mut to) = direction(&connection);
        // However copying ended, the other side learns that no more comes.
        let _copied = io::copy(&mut from, &mut to);
        let _result = to.shutdown(Shutdown::Write);
    };
    thread::Builder::new().name("relay".into()).spawn(copy).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        time::Duration,
    };

    /// Answers each byte by its successor, on every connection.
    fn successor_server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                thread::spawn(move || {
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).is_ok() {
                        stream.write_all(&[byte[0] + 1]).unwrap();
                    }
                });
            }
        });
        address
    }

    fn ask(stream: &mut TcpStream, byte: u8) -> io::Result<u8> {
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.write_all(&[byte])?;
        let mut answer = [0];
        stream.read_exact(&mut answer).map(|()| answer[0])
    }

    /// Scenario: a connection through the relay; the relay refuses, then accepts again.
    /// Guarantees: bytes pass both ways; refusing breaks the connection and closes the port; the
    /// same port serves again.
    #[test]
    fn a_relay_refuses_and_accepts_again() {
        let mut relay = Relay::open(successor_server()).unwrap();
        let mut stream = TcpStream::connect(relay.address()).unwrap();
        assert_eq!(ask(&mut stream, 1).unwrap(), 2);

        relay.refuse();
        assert!(ask(&mut stream, 1).is_err());
        let refused = TcpStream::connect(relay.address()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);

        relay.accept(&Interrupt::never()).unwrap();
        let mut stream = TcpStream::connect(relay.address()).unwrap();
        assert_eq!(ask(&mut stream, 7).unwrap(), 8);
    }

    /// Scenario: two relays at once, and a sink that is not there.
    /// Guarantees: their ports differ; a connection that cannot be relayed is broken.
    #[test]
    fn relays_have_ports_of_their_own() {
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (one, other) = (Relay::open(nobody).unwrap(), Relay::open(nobody).unwrap());
        assert_ne!(one.address(), other.address());
        let mut stream = TcpStream::connect(one.address()).unwrap();
        assert!(ask(&mut stream, 1).is_err());
    }
}
