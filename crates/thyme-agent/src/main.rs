//! Entry point of `thyme-agent`.

fn main() {}
