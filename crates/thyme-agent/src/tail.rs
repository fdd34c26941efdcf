//! Reading files: where their bytes come from, which file is which, and what of it has been
//! acknowledged.

pub mod acknowledge;
pub mod descriptors;
pub mod gzip;
pub mod identity;
pub mod idle_watch;
pub mod source;
pub mod uid;
