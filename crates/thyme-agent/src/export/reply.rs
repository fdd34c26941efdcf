//! The status that a sink refuses with, `google.rpc.Status`, and the codes of gRPC's headers around
//! it. It is small and rare beside what is sent, so prost decodes it. Strings are read as bytes: text
//! of a sink that isn't UTF-8 must not cost us the number beside it.

use std::time::Duration;

use prost::Message;

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Status {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) message: Vec<u8>,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(bytes = "vec", tag = "1")]
    type_url: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<ProtoDuration>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct ProtoDuration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

impl Status {
    /// The `RetryInfo` among the details: `Some(0)` where it names no delay.
    pub(crate) fn retry_delay(&self) -> Option<Duration> {
        let is_retry_info = |any: &&Any| any.type_url.ends_with(b"/google.rpc.RetryInfo");
        let any = self.details.iter().find(is_retry_info)?;
        let delay = RetryInfo::decode(&any.value[..]).ok()?.retry_delay.unwrap_or_default();
        let seconds = u64::try_from(delay.seconds).unwrap_or_default();
        let nanos = u32::try_from(delay.nanos).unwrap_or_default();
        Some(Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos.into())))
    }
}

/// Decodes base64 with or without padding; `None` for anything else.
pub(crate) fn base64_decode(text: &[u8]) -> Option<Vec<u8>> {
    let unpadded = match text {
        [rest @ .., b'=', b'='] if text.len().is_multiple_of(4) => rest,
        [rest @ .., b'='] if text.len().is_multiple_of(4) => rest,
        _ => text,
    };
    let mut decoded = Vec::with_capacity(unpadded.len() * 3 / 4);
    for group in unpadded.chunks(4) {
        let mut bits = 0_u32;
        for &digit in group {
            bits = bits << 6 | sextet(digit)?;
        }
        let bytes = match group.len() {
            4 => 3,
            3 => 2,
            2 => 1,
            _ => return None,
        };
        bits <<= 6 * (4 - group.len());
        decoded.extend_from_slice(&bits.to_be_bytes()[1..1 + bytes]);
    }
    Some(decoded)
}

fn sextet(digit: u8) -> Option<u32> {
    let value = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

/// Decodes the `%xx` of a gRPC status message; what is no such code stays as it is.
pub(crate) fn percent_decode(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let code = match rest {
            [b'%', high, low, ..] => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match code {
            Some((high, low)) => {
                decoded.push(high << 4 | low);
                rest = &rest[3..];
            }
            None => {
                decoded.push(*first);
                rest = tail;
            }
        }
    }
    decoded
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An encoded `google.rpc.Status` with a `RetryInfo`.
    pub(in super::super) fn status_with_retry_info(seconds: i64, nanos: i32) -> Vec<u8> {
        let retry_info = RetryInfo { retry_delay: Some(ProtoDuration { seconds, nanos }) };
        let any = |type_url: &str, value| Any { type_url: type_url.into(), value };
        let details = vec![
            any("type.googleapis.com/google.rpc.DebugInfo", vec![8, 1]),
            any("type.googleapis.com/google.rpc.RetryInfo", retry_info.encode_to_vec()),
        ];
        Status { code: 0, message: b"slow down".into(), details }.encode_to_vec()
    }

    /// Base64 without padding, as gRPC writes it.
    pub(in super::super) fn base64_encode(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for group in bytes.chunks(3) {
            let mut bits = [0, 0, 0, 0];
            bits[1..=group.len()].copy_from_slice(group);
            let bits = u32::from_be_bytes(bits);
            for digit in 0..=group.len() {
                text.push(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize].into());
            }
        }
        text
    }

    proptest! {
        /// Scenario: any bytes in base64, padded as most write it or not, as gRPC does.
        /// Guarantees: both decode to the bytes.
        #[test]
        fn base64_with_and_without_padding(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let bare = base64_encode(&bytes);
            let padded = format!("{bare}{}", "=".repeat((4 - bare.len() % 4) % 4));
            prop_assert_eq!(base64_decode(bare.as_bytes()), Some(bytes.clone()));
            prop_assert_eq!(base64_decode(padded.as_bytes()), Some(bytes));
        }

        /// Scenario: any bytes as base64, as percent code, or as a status.
        /// Guarantees: nothing panics.
        #[test]
        fn garbage_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            base64_decode(&bytes);
            prop_assert!(percent_decode(&bytes).len() <= bytes.len());
            Status::decode(&bytes[..]).map(|status| status.retry_delay()).ok();
        }
    }

    /// Scenario: the examples of RFC 4648, and what is no base64.
    /// Guarantees: the encoder above is right too; garbage is refused.
    #[test]
    fn base64_of_the_standard() {
        for (plain, coded) in [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64_encode(plain.as_bytes()), coded);
            assert_eq!(base64_decode(coded.as_bytes()), Some(plain.into()));
        }
        for garbage in ["Z", "Zm9vY", "Z===", "Zg=", "Z g", "Zm-_"] {
            assert_eq!(base64_decode(garbage.as_bytes()), None, "{garbage}");
        }
    }

    /// Scenario: percent codes whole, cut, wrong.
    /// Guarantees: whole ones are decoded, the others stay.
    #[test]
    fn percent_codes() {
        for (coded, plain) in [
            ("a%20b", "a b"),
            ("%E2%82%AC%e2", "\u{20ac}\u{fffd}"),
            ("100%", "100%"),
            ("%4", "%4"),
            ("%zz%+1", "%zz%+1"),
        ] {
            assert_eq!(String::from_utf8_lossy(&percent_decode(coded.as_bytes())), plain);
        }
    }

    /// Scenario: a status with a `RetryInfo` among its details; one with a negative delay; none.
    /// Guarantees: the delay is read, a negative one is zero, none is none.
    #[test]
    fn retry_info_among_details() {
        let delay = |bytes: &[u8]| Status::decode(bytes).unwrap().retry_delay();
        let status = status_with_retry_info(2, 500_000_000);
        assert_eq!(delay(&status), Some(Duration::from_millis(2500)));
        assert_eq!(delay(&status_with_retry_info(-2, -5)), Some(Duration::ZERO));
        assert_eq!(delay(b""), None);
    }
}
