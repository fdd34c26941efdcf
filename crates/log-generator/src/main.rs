//! Entry point of `log-generator`.

fn main() {}
