//! Scripted faults, for the tests of agents: what the next requests, or all, get instead of a plain
//! success. Decides; the servers act.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

/// What a request gets instead of a plain success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This HTTP status; nothing of the request counts. On the gRPC port it comes without a
    /// `grpc-status`, as from a proxy on the way.
    HttpStatus {
        /// The status, 100 to 999.
        status: u16,
        /// A `retry-after` header: seconds or an HTTP date.
        retry_after: Option<String>,
    },
    /// This gRPC status; nothing of the request counts. On the HTTP port it comes as the HTTP
    /// status that OTLP has for it, with the same `google.rpc.Status` as its body.
    GrpcStatus {
        /// The code; see [`crate::grpc_code`].
        code: u32,
        /// A `RetryInfo` among the status's details (and over HTTP a `retry-after` header).
        retry_delay: Option<Duration>,
    },
    /// A success that rejects some records: the request's last ones, which don't count.
    PartialSuccess {
        /// How many; all, if the request has fewer.
        rejected: u64,
    },
    /// The request counts, and the connection is closed instead of answering: a lost
    /// acknowledgement.
    Disconnect,
    /// The request counts, and is answered only after this time.
    Delay(Duration),
    /// The request is never answered, and doesn't count.
    Stall,
}

/// The script that a collector's servers follow. Requests of both ports take from it once they
/// have arrived in full, in the order of their arrival.
#[derive(Debug, Default)]
pub struct Faults {
    script: Mutex<Script>,
}

#[derive(Debug, Default)]
struct Script {
    /// For the next requests, one each.
    next: VecDeque<Fault>,
    /// For those after them, until told otherwise.
    always: Option<Fault>,
    /// For requests above a decompressed size, bytes; they take nothing from the others.
    larger_than: Option<(usize, Fault)>,
    /// For requests that lack this header with this value; before all others.
    demanded: Option<(HeaderName, HeaderValue, Fault)>,
    applied: u64,
}

impl Faults {
    /// Gives a fault to each of the next `count` requests, after those that were scripted before.
    pub fn next(&self, count: usize, fault: Fault) {
        self.lock().next.extend(std::iter::repeat_n(fault, count));
    }

    /// Gives a fault to every request after the scripted ones, until [`Self::clear`].
    pub fn always(&self, fault: Fault) {
        self.lock().always = Some(fault);
    }

    /// Gives a fault to every request whose decompressed message is larger, until [`Self::clear`].
    pub fn refuse_larger_than(&self, decompressed_bytes: usize, fault: Fault) {
        self.lock().larger_than = Some((decompressed_bytes, fault));
    }

    /// Gives a fault to every request that does not have this header with this value, until
    /// [`Self::clear`]: a sink that demands a token.
    pub fn demand_header(&self, name: HeaderName, value: HeaderValue, fault: Fault) {
        self.lock().demanded = Some((name, value, fault));
    }

    /// Forgets the script. Requests that are stalled or delayed stay so.
    pub fn clear(&self) {
        let mut script = self.lock();
        *script = Script { applied: script.applied, ..Script::default() };
    }

    /// How many requests got a fault so far.
    pub fn applied(&self) -> u64 {
        self.lock().applied
    }

    /// What a request of that size and with those headers gets.
    pub(crate) fn take(&self, decompressed_bytes: usize, headers: &HeaderMap) -> Option<Fault> {
        let mut script = self.lock();
        let fault = match (&script.demanded, &script.larger_than) {
            (Some((name, value, fault)), _) if headers.get(name) != Some(value) => {
                Some(fault.clone())
            }
            (_, Some((bytes_max, fault))) if decompressed_bytes > *bytes_max => Some(fault.clone()),
            _ => script.next.pop_front().or_else(|| script.always.clone()),
        };
        script.applied += u64::from(fault.is_some());
        fault
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Script> {
        self.script.lock().expect("nothing panics while the script is locked")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: two scripted faults, a standing one, and one for large requests.
    /// Guarantees: large requests get theirs without using up the others; the standing one stays.
    #[test]
    fn faults_come_in_order() {
        let (faults, headers) = (Faults::default(), HeaderMap::new());
        let take = |bytes| faults.take(bytes, &headers);
        assert_eq!(take(1), None);
        faults.next(2, Fault::Stall);
        faults.always(Fault::Disconnect);
        faults.refuse_larger_than(10, Fault::PartialSuccess { rejected: 1 });
        let taken: Vec<_> = [1, 11, 10, 1, 1].map(|size| take(size).unwrap()).into();
        let large = Fault::PartialSuccess { rejected: 1 };
        let stall = Fault::Stall;
        assert_eq!(taken, [stall.clone(), large, stall, Fault::Disconnect, Fault::Disconnect]);
        faults.clear();
        assert_eq!((take(11), faults.applied()), (None, 5));
    }

    /// Scenario: a token is demanded; requests come without it, with another, and with it.
    /// Guarantees: only the last gets through.
    #[test]
    fn a_demanded_header_must_be_there() {
        let faults = Faults::default();
        let (name, value) = (http::header::AUTHORIZATION, HeaderValue::from_static("Bearer new"));
        faults.demand_header(name.clone(), value.clone(), Fault::Stall);
        let mut headers = HeaderMap::new();
        assert_eq!(faults.take(1, &headers), Some(Fault::Stall));
        headers.insert(name.clone(), HeaderValue::from_static("Bearer old"));
        assert_eq!(faults.take(1, &headers), Some(Fault::Stall));
        headers.insert(name, value);
        assert_eq!((faults.take(1, &headers), faults.applied()), (None, 2));
    }
}
