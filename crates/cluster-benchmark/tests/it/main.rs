//! Integration tests: the program against stand-ins of the tools, which record what they are asked.

#![expect(clippy::unwrap_used, reason = "a test may end where its own set-up fails")]

mod bench;

mod aws;
mod endings;
mod here;
