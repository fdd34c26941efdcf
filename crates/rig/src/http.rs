//! A small HTTP/1.1 client for admin ports on this machine: one request a connection, bounded in
//! time and size. It is no general client: no TLS, no redirects, no host names.

use crate::limits::{HTTP_RESPONSE_BYTES_MAX, HTTP_STEP_MAX};
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
};

/// Longest line of a response's head, and of a chunk's.
const LINE_BYTES_MAX: u64 = 16 << 10;

/// Most headers of a response.
const HEADERS_MAX: usize = 100;

/// Why an exchange failed.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Connecting, sending or receiving failed, or took too long.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The other side does not speak HTTP as this client understands it.
    #[error("malformed response: {0}")]
    Malformed(&'static str),
    /// The answer is larger than anything expected.
    #[error("the response is larger than {HTTP_RESPONSE_BYTES_MAX} bytes")]
    TooLarge,
    /// The answer was not 200.
    #[error("status {status}: {text}")]
    Status {
        /// Status code.
        status: u16,
        /// Start of the answer's body.
        text: String,
    },
}

/// A response of any status.
#[derive(Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Body, with any chunking undone.
    pub body: Vec<u8>,
}

impl Response {
    /// The body of a 200.
    pub fn ok(self) -> Result<Vec<u8>, HttpError> {
        if self.status == 200 {
            return Ok(self.body);
        }
        let text = String::from_utf8_lossy(&self.body).chars().take(200).collect();
        Err(HttpError::Status { status: self.status, text })
    }
}

/// Sends a request and reads the whole response.
///
/// Each step (connect, write, read) may take [`HTTP_STEP_MAX`].
pub fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &[u8],
) -> Result<Response, HttpError> {
    let mut stream = TcpStream::connect_timeout(&address, HTTP_STEP_MAX)?;
    stream.set_read_timeout(Some(HTTP_STEP_MAX))?;
    stream.set_write_timeout(Some(HTTP_STEP_MAX))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    read_response(&mut BufReader::new(stream))
}

/// How the end of a body is told.
#[derive(Clone, Copy)]
enum Framing {
    Length(usize),
    Chunked,
    Close,
}

fn read_response(input: &mut impl BufRead) -> Result<Response, HttpError> {
    let status_line = read_line(input)?;
    let status = status_line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|code| code.parse().ok())
        .ok_or(HttpError::Malformed("status line"))?;
    let framing = read_headers(input)?;
    let mut body = Vec::new();
    match framing {
        Framing::Length(length) => read_exactly(input, length, &mut body)?,
        Framing::Chunked => read_chunks(input, &mut body)?,
        Framing::Close => {
            input.take(HTTP_RESPONSE_BYTES_MAX as u64 + 1).read_to_end(&mut body)?;
            if body.len() > HTTP_RESPONSE_BYTES_MAX {
                return Err(HttpError::TooLarge);
            }
        }
    }
    Ok(Response { status, body })
}

fn read_headers(input: &mut impl BufRead) -> Result<Framing, HttpError> {
    let mut framing = Framing::Close;
    for _ in 0..HEADERS_MAX {
        let line = read_line(input)?;
        if line.is_empty() {
            return Ok(framing);
        }
        let (name, value) = line.split_once(':').ok_or(HttpError::Malformed("header"))?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("transfer-encoding") {
            if !value.eq_ignore_ascii_case("chunked") {
                return Err(HttpError::Malformed("transfer-encoding"));
            }
            framing = Framing::Chunked;
        } else if name.eq_ignore_ascii_case("content-length")
            && !matches!(framing, Framing::Chunked)
        {
            let length = value.parse().map_err(|_| HttpError::Malformed("content-length"))?;
            framing = Framing::Length(length);
        }
    }
    Err(HttpError::Malformed("too many headers"))
}

fn read_chunks(input: &mut impl BufRead, body: &mut Vec<u8>) -> Result<(), HttpError> {
    loop {
        let line = read_line(input)?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let length =
            usize::from_str_radix(digits, 16).map_err(|_| HttpError::Malformed("chunk length"))?;
        read_exactly(input, length, body)?;
        // A zero-length chunk is followed by trailers; they end with an empty line like any chunk.
        let mut after = read_line(input)?;
        if length == 0 {
            while !after.is_empty() {
                after = read_line(input)?;
            }
            return Ok(());
        }
        if !after.is_empty() {
            return Err(HttpError::Malformed("chunk end"));
        }
    }
}

fn read_exactly(
    input: &mut impl BufRead,
    length: usize,
    body: &mut Vec<u8>,
) -> Result<(), HttpError> {
    if length > HTTP_RESPONSE_BYTES_MAX - body.len().min(HTTP_RESPONSE_BYTES_MAX) {
        return Err(HttpError::TooLarge);
    }
    let read = input.take(length as u64).read_to_end(body)?;
    if read == length { Ok(()) } else { Err(HttpError::Malformed("cut short")) }
}

fn read_line(input: &mut impl BufRead) -> Result<String, HttpError> {
    let mut line = Vec::new();
    input.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(HttpError::Malformed("cut short"));
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map_err(|_| HttpError::Malformed("not text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::TcpListener, thread};

    fn parse(text: &str) -> Result<Response, HttpError> {
        read_response(&mut text.as_bytes())
    }

    /// Scenario: the three ways in which a body's end is told.
    /// Guarantees: each gives the same body; bytes after a told end are left alone.
    #[test]
    fn bodies_end_in_three_ways() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloEXTRA",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nT: 1\r\n\r\n",
            "HTTP/1.0 200 OK\n\nhello",
        ] {
            let response = parse(text).unwrap();
            assert_eq!((response.status, response.body.as_slice()), (200, &b"hello"[..]), "{text}");
        }
    }

    /// Scenario: responses that are cut, absurd or hostile.
    /// Guarantees: each is an error, none panics or allocates what it announces.
    #[test]
    fn malformed_responses_are_errors() {
        for text in [
            "",
            "HTTP/1.1 200 OK",
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n",
            "HTTP/1.1 200 OK\r\nno header\r\n\r\n",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    /// Scenario: a real socket whose server answers 404 and keeps the connection open.
    /// Guarantees: the request is well formed, the answer is not waited beyond its length, and the
    /// status becomes an error with the text.
    #[test]
    fn a_request_goes_over_a_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut received = Vec::new();
            while !received.ends_with(b"\r\n\r\nbody") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                received.push(byte[0]);
            }
            stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nnope").unwrap();
            (stream, String::from_utf8(received).unwrap())
        });
        let error = request(address, "POST", "/x?y=1", b"body").unwrap().ok().unwrap_err();
        assert_eq!(error.to_string(), "status 404: nope");
        let (_open, received) = server.join().unwrap();
        assert!(received.starts_with("POST /x?y=1 HTTP/1.1\r\n"), "{received}");
        assert!(received.contains("content-length: 4\r\n"), "{received}");
    }
}
