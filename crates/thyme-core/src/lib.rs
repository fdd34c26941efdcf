//! Formats that two of thyme's binaries share: CRI lines, OTLP logs on the wire, and the stamp; no I/O.
