//! A run in which nothing goes wrong, for whoever counts its instructions. Chance decides over the
//! lines and rotations only, so that faults which others add to the simulation leave it as it was.

use std::{sync::Arc, time::Duration};

use super::{
    chance::Chance,
    plan::{Mood, Plan},
    run::run_calmly,
};
use crate::{
    config::{BatchConfig, Compression},
    limits::SPAN_BYTES,
};

/// Turns in which containers write.
const TURNS: u64 = 1_000;

/// Runs it and returns how many lines arrived.
///
/// # Errors
/// A promise was broken.
pub fn run_steadily() -> Result<u64, String> {
    let report = run_calmly(Plan::steady(), Chance::new(1), TURNS)?;
    if report.excused.iter().sum::<u64>() + report.duplicates > 0 {
        return Err(format!("nothing went wrong, and yet {report:?}"));
    }
    Ok(report.lines)
}

impl Plan {
    fn steady() -> Self {
        let mut plan = Self::outage(&mut Chance::new(1));
        let config = Arc::make_mut(&mut plan.config);
        config.receivers[0].poll_interval = Duration::from_millis(100);
        config.receivers[0].max_log_size_bytes = 4_000;
        config.batch = BatchConfig {
            send_batch_size: 8192,
            send_batch_max_size: 0,
            timeout: Duration::from_millis(200),
            ..BatchConfig::default()
        };
        config.thyme.workers = 2;
        config.thyme.request_bytes_max = 50_000;
        config.thyme.in_flight_bytes_max = 1_000_000;
        config.thyme.scan_interval = Duration::from_secs(5);
        config.exporter.compression = Compression::Zstd;
        config.exporter.queue.num_consumers = 2;
        config.exporter.queue.queue_size = 1000;
        config.exporter.queue.storage = None;
        Self {
            pods_max: 4,
            rotate_weight: 1,
            partial_odds: 10,
            malformed_odds: 50,
            long_odds: 0,
            unterminated_odds: 0,
            moods: vec![Mood::Good],
            span_bytes: SPAN_BYTES,
            ..plan
        }
    }
}

/// Scenario: the run whose instructions are counted.
/// Guarantees: it does what it is taken for: thousands of lines, each of which arrived.
#[test]
fn the_counted_run_delivers_its_lines() {
    let lines = run_steadily().unwrap();
    assert!((2_000..20_000).contains(&lines), "{lines} lines");
}
