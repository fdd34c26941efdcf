//! Entry point of `rig`.

fn main() {}
