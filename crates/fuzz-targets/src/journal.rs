//! Journals of checkpoints: what is whole is applied, what is torn is left out, and neither panics.

use thyme_agent::fuzzing;

/// Reads the bytes as a journal's batches, then as the records of one batch, twice in a row, and with
/// a tear behind them.
pub(crate) fn check(data: &[u8]) {
    let (files, torn) = fuzzing::replay_journal(&[], data);
    assert!(torn <= data.len());
    let batch = fuzzing::journal_batch(data);
    let (once, rest) = fuzzing::replay_journal(&files, &batch);
    // Records that are none end the reading where they begin.
    assert!(rest == 0 || rest == batch.len());
    let mut journal = batch.clone();
    journal.extend_from_slice(&batch[..batch.len() - 1]);
    let (torn, rest) = fuzzing::replay_journal(&files, &journal);
    assert_eq!(torn, once, "half of a batch was applied");
    assert!(rest >= batch.len() - 1);
    if rest == batch.len() - 1 {
        // Records say how things are, not by how much they changed.
        let (twice, _) = fuzzing::replay_journal(&files, &[&batch[..], &batch].concat());
        assert_eq!(twice, once);
    }
}
