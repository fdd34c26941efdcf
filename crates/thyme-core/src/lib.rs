//! Formats that two of thyme's binaries share: CRI lines, OTLP logs on the wire, the stamp and the
//! manifest; and how all of them print an error. No I/O, no clocks, no threads: bytes in, bytes out.

pub mod causes;
pub mod cri;
pub mod manifest;
pub mod otlp;
pub mod stamp;
