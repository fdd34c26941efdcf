//! nop-collector from the outside: stock and hand-made clients against its ports, its faults, its
//! proof, and its process.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod faults;
mod grpc;
mod http;
mod limits;
mod process;
mod proof;
mod sender;
mod tls;
