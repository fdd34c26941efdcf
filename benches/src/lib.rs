//! What the benches share: corpora of finished log files, the agent's stages without its I/O, the
//! reference that its cost is compared with, and runs of the real binaries over a corpus.

pub mod assemble;
pub mod corpus;
pub mod gate;
pub mod reference;
pub mod run;
pub mod sink;
