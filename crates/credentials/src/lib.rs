//! Certificates, keys and tokens that lie in files and are exchanged while a program runs (failure
//! modes 24 and 28). What is made from them follows their content, not their times or inodes: so
//! it does not matter whether a file is written in place, renamed, or reached over the symbolic
//! links of a Kubernetes secret. A content that nothing can be made from, such as a certificate
//! without its key in the middle of an exchange, leaves what was made before in force.
//!
//! Who reads when is the caller's business, and so is what is said. No content is ever shown.

mod by_content;
mod pem;
pub mod regular_file;
mod secret;

pub use self::{
    by_content::{ByContent, CONTENT_BYTES_MAX, ContentError, Contents, Fault, Refreshed, Source},
    pem::{certificates, key, roots},
    secret::Secret,
};
