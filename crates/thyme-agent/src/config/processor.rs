//! The `batch` processor's keys.

use std::time::Duration;

use super::{BatchConfig, component::Type, read::Section};

const TIMEOUT_MAX: Duration = Duration::from_secs(3600);

pub(super) const TYPES: &[Type<BatchConfig>] =
    &[Type { names: &["batch"], later: &["metadata_keys", "metadata_cardinality_limit"], read }];

fn read(id: &str, body: &Section<'_>) -> Option<BatchConfig> {
    let default = BatchConfig::default();
    let records = |key, default: u64| {
        let most = i64::from(u32::MAX);
        let default = i64::try_from(default).unwrap_or(most);
        body.integer(key, 0..=most, default).unsigned_abs()
    };
    let mut config = BatchConfig {
        id: id.to_owned(),
        send_batch_size: records("send_batch_size", default.send_batch_size),
        send_batch_max_size: records("send_batch_max_size", default.send_batch_max_size),
        timeout: body.duration("timeout", Duration::ZERO..=TIMEOUT_MAX, default.timeout),
    };
    let (size, size_max) = (config.send_batch_size, config.send_batch_max_size);
    if size_max > 0 && size_max < size {
        let message = format!(
            "send_batch_max_size ({size_max}) must not be less than send_batch_size ({size})"
        );
        body.refuse_of(&["send_batch_max_size", "send_batch_size"], message);
    }
    if size == 0 {
        // In the Collector: the size is ignored and data is sent at once.
        config.timeout = Duration::ZERO;
        config.send_batch_size = if size_max > 0 { size_max } else { default.send_batch_size };
    }
    Some(config)
}
