//! Formats that two of thyme's binaries share: CRI lines, OTLP logs on the wire, the stamp and the
//! manifest; how all of them print errors and figures and read quantities, and how a seed becomes
//! numbers. No I/O, no clocks, no threads: bytes in, bytes out.

pub mod causes;
pub mod cri;
pub mod manifest;
pub mod otlp;
pub mod quantity;
pub mod splitmix;
pub mod stamp;
pub mod table;
pub mod version;
