//! Why a request is refused, and what that is in HTTP and in gRPC. The codes are those of stock
//! receivers (the OpenTelemetry Collector on grpc-go and net/http).

use http::StatusCode;
use thyme_core::otlp::walk::WalkError;

use crate::decompress::DecompressError;

/// Status codes of gRPC (grpc/grpc, `doc/statuscodes.md`).
pub mod grpc_code {
    /// Success.
    pub const OK: u32 = 0;
    /// The request is wrong; a repetition would be, too.
    pub const INVALID_ARGUMENT: u32 = 3;
    /// The caller may not.
    pub const PERMISSION_DENIED: u32 = 7;
    /// Too large, or too much at a time.
    pub const RESOURCE_EXHAUSTED: u32 = 8;
    /// No such method, or an encoding that isn't supported.
    pub const UNIMPLEMENTED: u32 = 12;
    /// The framing is broken.
    pub const INTERNAL: u32 = 13;
    /// Not now.
    pub const UNAVAILABLE: u32 = 14;
    /// The caller isn't known.
    pub const UNAUTHENTICATED: u32 = 16;
}

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("nothing is served at {path}")]
    UnknownPath { path: String },
    #[error("only POST is served here")]
    Method,
    #[error("an HTTP/1.1 request says in one Host header whom it is for")]
    Host,
    #[error("unsupported content type {found:?}; supported: {supported}")]
    ContentType { found: String, supported: &'static str },
    #[error("unsupported compression {found:?}; supported: gzip, zstd, identity")]
    ContentEncoding { found: String },
    #[error("the body ended early: {cause}")]
    Interrupted { cause: String },
    #[error("the body is larger than {bytes_max} bytes")]
    TooLarge { bytes_max: usize },
    #[error("too many bytes of requests are being received")]
    Overloaded,
    #[error("{cause}")]
    Framing { cause: &'static str },
    #[error(transparent)]
    Decompress(#[from] DecompressError),
    #[error("not an ExportLogsServiceRequest: {0}")]
    Malformed(#[from] WalkError),
    #[error("not an ExportLogsServiceRequest in JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl Refusal {
    /// Its name in the report.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::UnknownPath { .. } => "unknown_path",
            Self::Method => "method",
            Self::Host => "host",
            Self::ContentType { .. } => "content_type",
            Self::ContentEncoding { .. } => "content_encoding",
            Self::Interrupted { .. } => "interrupted",
            Self::TooLarge { .. } | Self::Decompress(DecompressError::TooLarge { .. }) => {
                "too_large"
            }
            Self::Overloaded => "overloaded",
            Self::Framing { .. } => "framing",
            Self::Decompress(DecompressError::Invalid { .. }) => "decompression",
            Self::Malformed(_) | Self::Json(_) => "malformed",
        }
    }

    /// The status over HTTP.
    pub(crate) const fn http_status(&self) -> StatusCode {
        match self {
            Self::UnknownPath { .. } => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::ContentType { .. } | Self::ContentEncoding { .. } => {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            }
            Self::TooLarge { .. } | Self::Decompress(DecompressError::TooLarge { .. }) => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::Host
            | Self::Interrupted { .. }
            | Self::Framing { .. }
            | Self::Decompress(DecompressError::Invalid { .. })
            | Self::Malformed(_)
            | Self::Json(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// The status over gRPC.
    pub(crate) const fn grpc_code(&self) -> u32 {
        match self {
            Self::UnknownPath { .. } | Self::ContentEncoding { .. } => grpc_code::UNIMPLEMENTED,
            Self::TooLarge { .. } | Self::Decompress(DecompressError::TooLarge { .. }) => {
                grpc_code::RESOURCE_EXHAUSTED
            }
            Self::Overloaded | Self::Interrupted { .. } => grpc_code::UNAVAILABLE,
            Self::Framing { .. } | Self::Decompress(DecompressError::Invalid { .. }) => {
                grpc_code::INTERNAL
            }
            Self::Host
            | Self::Method
            | Self::ContentType { .. }
            | Self::Malformed(_)
            | Self::Json(_) => grpc_code::INVALID_ARGUMENT,
        }
    }
}
