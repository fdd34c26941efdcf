//! The token that requests carry, from the configuration or from a file that somebody exchanges
//! while the agent runs (failure mode 24). It follows the file's content; when a request may be
//! sent again is not decided here.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use credentials::{ByContent, Contents, Fault, Refreshed};
use http::{HeaderName, HeaderValue};

use super::{ExportError, limits::Timing, outcome::Quote};
use crate::config::BearerTokenConfig;

/// A header whose value changes with a file.
#[derive(Debug)]
pub(super) struct Token {
    name: HeaderName,
    value: Arc<ByContent<HeaderValue>>,
    timing: Timing,
    /// When the file is read next, if nobody complains before.
    read_at: Mutex<Instant>,
}

/// A header's value, and which one of all that were in force.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) value: Arc<HeaderValue>,
    generation: u64,
}

impl Token {
    /// Reads the token for the first time.
    ///
    /// # Errors
    /// When there is none, or it can't stand in a header: better said at the start.
    pub(super) fn load(config: &BearerTokenConfig, timing: Timing) -> Result<Self, ExportError> {
        let name = config.header.parse().map_err(|_| ExportError::Header {
            name: config.header.clone(),
            reason: "it is not a header's name",
        })?;
        let scheme = config.scheme.clone();
        let value = ByContent::load(vec![Some(config.token.clone())], move |contents| {
            header_value(&scheme, contents)
        });
        let value = Arc::new(value.map_err(ExportError::Token)?);
        let read_at = Mutex::new(Instant::now() + timing.token_read_interval);
        Ok(Self { name, value, timing, read_at })
    }

    /// The header that carries it.
    pub(super) const fn name(&self) -> &HeaderName {
        &self.name
    }

    /// The token for the next request; read again if that was long ago.
    pub(super) async fn current(&self) -> Current {
        let is_due = {
            let now = Instant::now();
            let mut read_at = self.read_at.lock().unwrap_or_else(PoisonError::into_inner);
            let is_due = *read_at <= now;
            if is_due {
                *read_at = now + self.timing.token_read_interval;
            }
            is_due
        };
        if is_due {
            self.refresh().await;
        }
        let (value, generation) = self.value.current();
        Current { value, generation }
    }

    /// Whether there is another token than the one that the sink just refused; reads the file.
    pub(super) async fn has_changed_since(&self, refused: &Current) -> bool {
        if self.value.current().1 == refused.generation {
            self.refresh().await;
        }
        self.value.current().1 != refused.generation
    }

    async fn refresh(&self) {
        if !self.value.has_files() {
            return;
        }
        let value = Arc::clone(&self.value);
        // Only a panic or the end of the runtime fails it; what is there will do then.
        let Ok(refreshed) = tokio::task::spawn_blocking(move || value.refresh()).await else {
            return;
        };
        match refreshed {
            Refreshed::Same => {}
            Refreshed::Changed => tracing::info!("took over a changed token"),
            Refreshed::Failed(error) => tracing::warn!(
                error = %Quote::of_error(&error),
                "can't take over the token; the one before stays in force"
            ),
        }
    }
}

/// `scheme token`; the token is the first line, without blanks around it.
fn header_value(scheme: &str, contents: &Contents) -> Result<HeaderValue, Fault> {
    let fault = |cause: &str| Fault { source: 0, cause: cause.to_owned() };
    let content = contents.first().and_then(Option::as_deref).unwrap_or_default();
    let text = std::str::from_utf8(content).map_err(|_| fault("the token is not text"))?;
    let token = text.trim().lines().next().unwrap_or_default().trim_end();
    if token.is_empty() {
        return Err(fault("there is no token in it"));
    }
    let value = if scheme.is_empty() { token.to_owned() } else { format!("{scheme} {token}") };
    let mut value =
        HeaderValue::try_from(value).map_err(|_| fault("a header can't hold the token"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use credentials::Source;
    use std::{fs, time::Duration};

    fn config(token: Source, scheme: &str) -> BearerTokenConfig {
        let (id, header) = ("bearertokenauth".into(), "authorization".into());
        BearerTokenConfig { id, header, scheme: scheme.into(), token }
    }

    fn timing(token_read_interval: Duration) -> Timing {
        Timing { token_read_interval, ..Timing::default() }
    }

    async fn text(token: &Token) -> String {
        token.current().await.value.to_str().unwrap().to_owned()
    }

    /// Scenario: row 24: the file of a token is exchanged, emptied and filled again; once the sink
    /// complains before the interval is over, once nobody does.
    /// Guarantees: the new token counts at once after a complaint, else after the interval; an
    /// empty file leaves the old one in force; nothing prints it.
    #[tokio::test]
    async fn a_token_follows_its_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "first\n").unwrap();
        let config = config(Source::File(file.path().to_owned()), "Bearer");
        let patient = Token::load(&config, timing(Duration::from_secs(3600))).unwrap();
        let hasty = Token::load(&config, timing(Duration::ZERO)).unwrap();
        assert_eq!(text(&patient).await, "Bearer first");
        let refused = patient.current().await;
        assert!(!patient.has_changed_since(&refused).await);

        fs::write(file.path(), " second\nthird\n").unwrap();
        assert_eq!(text(&patient).await, "Bearer first");
        assert_eq!(text(&hasty).await, "Bearer second");
        assert!(patient.has_changed_since(&refused).await);
        assert_eq!(text(&patient).await, "Bearer second");
        // Who was refused with the first one need not wait for another.
        assert!(patient.has_changed_since(&refused).await);

        for useless in [&b""[..], b"\n", b"a\x01b", b"\xff"] {
            fs::write(file.path(), useless).unwrap();
            let refused = patient.current().await;
            assert!(!patient.has_changed_since(&refused).await);
            assert_eq!(text(&hasty).await, "Bearer second");
        }
        assert!(!format!("{patient:?} {:?}", patient.current().await).contains("second"));
    }

    /// Scenario: a token without a scheme; none at all.
    /// Guarantees: the first stands alone in its header; the second is said at the start.
    #[tokio::test]
    async fn schemes_and_nothing() {
        let token = Token::load(&config(Source::Inline("abc".into()), ""), Timing::default());
        assert_eq!(text(&token.unwrap()).await, "abc");
        let missing = config(Source::File("/nonexistent/token".into()), "Bearer");
        let error = Token::load(&missing, Timing::default()).unwrap_err();
        assert!(matches!(error, ExportError::Token(_)), "{error}");
    }
}
