//! How long to wait before the next attempt. Pure arithmetic: time and chance are arguments.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderMap, header};
use jiff::{Timestamp, civil::DateTime, fmt::rfc2822, tz::Offset};

use super::limits::{RETRY_AFTER_MAX, THROTTLE_SPREAD};
use crate::config::RetryConfig;

/// Exponential backoff with jitter, as the Collector's: each wait is drawn from
/// `interval * (1 ± randomization_factor)`, then the interval grows by `multiplier` up to
/// `max_interval`.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    /// Middle of the next wait; at most `interval_max`.
    interval: Duration,
    interval_max: Duration,
    multiplier: f64,
    randomization_factor: f64,
}

impl Backoff {
    pub(super) fn new(config: &RetryConfig) -> Self {
        Self {
            interval: config.initial_interval.min(config.max_interval),
            interval_max: config.max_interval,
            multiplier: config.multiplier.max(1.0),
            randomization_factor: config.randomization_factor.clamp(0.0, 1.0),
        }
    }

    /// The next wait; `random` is from 0 to 1.
    pub(super) fn next(&mut self, random: f64) -> Duration {
        let interval = self.interval.as_secs_f64();
        let spread = interval * self.randomization_factor;
        let grown = interval * self.multiplier;
        self.interval = if grown < self.interval_max.as_secs_f64() {
            Duration::from_secs_f64(grown)
        } else {
            self.interval_max
        };
        let wait = (interval - spread) + 2.0 * spread * random.clamp(0.0, 1.0);
        Duration::try_from_secs_f64(wait).unwrap_or(self.interval_max)
    }
}

/// The wait that the sink asked for, which holds for all consumers.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    /// No request is sent before; it only moves on.
    until: Mutex<Option<Instant>>,
}

impl Throttle {
    /// Takes the sink's wish into account.
    pub(super) fn extend(&self, now: Instant, wait: Duration) {
        let until = now + wait.min(RETRY_AFTER_MAX);
        let mut current = self.lock();
        *current = Some(current.map_or(until, |current| current.max(until)));
    }

    /// How long a consumer has to wait now: a little longer than asked for, by chance, so that not
    /// all of them come back at once.
    pub(super) fn remaining(&self, now: Instant, random: f64) -> Option<Duration> {
        let until = (*self.lock())?;
        let remaining = until.checked_duration_since(now).filter(|wait| !wait.is_zero())?;
        Some(remaining + remaining.mul_f64(THROTTLE_SPREAD * random.clamp(0.0, 1.0)))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The wait that `Retry-After` asks for, in either of its forms (RFC 9110, 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = SystemTime::from(http_date(text)?);
    // A date in the past asks for no wait, but says that a retry is welcome.
    Some(date.duration_since(now).unwrap_or_default())
}

/// A date in one of the three forms that HTTP has had (RFC 9110, 5.6.7).
fn http_date(text: &str) -> Option<Timestamp> {
    static PARSER: rfc2822::DateTimeParser = rfc2822::DateTimeParser::new();
    if let Ok(timestamp) = PARSER.parse_timestamp(text) {
        return Some(timestamp);
    }
    let obsolete = ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];
    let date = obsolete.iter().find_map(|form| DateTime::strptime(form, text).ok())?;
    Offset::UTC.to_timestamp(date).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config(initial: u64, max: u64, multiplier: f64, randomization_factor: f64) -> RetryConfig {
        RetryConfig {
            enabled: true,
            initial_interval: Duration::from_secs(initial),
            max_interval: Duration::from_secs(max),
            multiplier,
            randomization_factor,
            max_elapsed: None,
        }
    }

    /// Scenario: the Collector's defaults, without chance.
    /// Guarantees: its series of waits.
    #[test]
    fn waits_grow_to_the_maximum() {
        let mut backoff = Backoff::new(&config(5, 30, 1.5, 0.5));
        let waits: Vec<f64> = (0..7).map(|_| backoff.next(0.5).as_secs_f64()).collect();
        assert_eq!(waits, [5.0, 7.5, 11.25, 16.875, 25.3125, 30.0, 30.0]);
    }

    proptest! {
        /// Scenario: any configuration, absurd ones included, and any chance.
        /// Guarantees: no panic, and each wait lies within the randomized interval.
        #[test]
        fn waits_stay_within_bounds(
            initial in 0_u64..100,
            max in 0_u64..100,
            multiplier in prop_oneof![-1.0..10.0, Just(f64::MAX), Just(f64::NAN)],
            factor in -1.0..2.0,
            random in 0.0..=1.0,
        ) {
            let mut backoff = Backoff::new(&config(initial, max, multiplier, factor));
            let factor = factor.clamp(0.0, 1.0);
            for _ in 0..20 {
                let wait = backoff.next(random).as_secs_f64();
                prop_assert!(wait >= initial.min(max) as f64 * (1.0 - factor) - 1e-6);
                prop_assert!(wait <= max as f64 * (1.0 + factor) + 1e-6);
            }
        }
    }

    /// Scenario: the header in seconds, in each of HTTP's three date forms, and as garbage.
    /// Guarantees: the wait is read; a date in the past is no wait; garbage is nothing.
    #[test]
    fn both_forms_of_retry_after() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 90);
        let wait = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers, now)
        };
        assert_eq!(wait("120"), Some(Duration::from_secs(120)));
        assert_eq!(wait(" 0 "), Some(Duration::ZERO));
        assert_eq!(wait("99999999999999999999"), Some(Duration::from_secs(u64::MAX)));
        for date in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(wait(date), Some(Duration::from_secs(90)), "{date}");
        }
        assert_eq!(wait("Sat, 05 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        for garbage in ["", "-1", "1.5", "soon", "Mon, 06 Nov 1994 08:49:37 GMT"] {
            assert_eq!(wait(garbage), None, "{garbage}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    /// Scenario: the sink asks for 10 s, then for 2 s, then for a year.
    /// Guarantees: the longest wish holds, the year is capped, and chance only adds.
    #[test]
    fn throttle_is_shared_and_capped() {
        let throttle = Throttle::default();
        let now = Instant::now();
        assert_eq!(throttle.remaining(now, 1.0), None);
        throttle.extend(now, Duration::from_secs(10));
        throttle.extend(now, Duration::from_secs(2));
        assert_eq!(throttle.remaining(now, 0.0), Some(Duration::from_secs(10)));
        assert_eq!(throttle.remaining(now, 1.0), Some(Duration::from_secs(11)));
        assert_eq!(throttle.remaining(now + Duration::from_secs(10), 1.0), None);
        throttle.extend(now, Duration::from_secs(365 * 86_400));
        assert_eq!(throttle.remaining(now, 0.0), Some(RETRY_AFTER_MAX));
    }
}
