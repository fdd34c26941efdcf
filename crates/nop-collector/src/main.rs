//! Entry point of `nop-collector`.

fn main() {}
