//! Runs one of the fuzz targets under libFuzzer: the one that the variable `FUZZ_TARGET` names. One
//! binary for all of them, since linking takes a good part of the build.

#![no_main]

use std::sync::LazyLock;

use fuzz_targets::Target;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    fuzz_targets::target(&name).unwrap_or_else(|| panic!("FUZZ_TARGET: `{name}` is no target"))
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    (TARGET.check)(data);
});
