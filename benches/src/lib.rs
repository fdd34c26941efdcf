//! Corpora, criterion benches and the corpus benchmark of the agent against pure compression.
