//! A value that is made from the contents of files, and made again when a content changes.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{Secret, regular_file};

/// Most bytes of a file that is read: bundles of authorities have a few hundred KiB.
pub const CONTENT_BYTES_MAX: u64 = 4 << 20;

/// Where a content comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file, read again at each refresh.
    File(PathBuf),
    /// The content itself; it never changes.
    Inline(Secret),
}

/// The contents of the sources, in their order; `None` where there is no source.
pub type Contents = [Option<Vec<u8>>];

/// Why nothing can be made from the contents.
#[derive(Debug)]
pub struct Fault {
    /// Which of the sources is to blame, counted from 0.
    pub source: usize,
    /// What is wrong with it, without any of its content.
    pub cause: String,
}

/// Why there is no value, or no newer one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {cause}")]
pub struct ContentError {
    /// Which of the sources is to blame, counted from 0.
    pub index: usize,
    /// The file, or the words for a content that is no file.
    pub place: String,
    /// What is wrong with it, without any of its content.
    pub cause: String,
}

/// What came of a refresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// The contents are as they were, or as wrong as the last refresh found them.
    Same,
    /// A new value is in force.
    Changed,
    /// The value before stays in force; said once for each cause.
    Failed(ContentError),
}

type Build<T> = dyn Fn(&Contents) -> Result<T, Fault> + Send + Sync;

/// A value and the contents that it was made from.
pub struct ByContent<T> {
    sources: Vec<Option<Source>>,
    build: Box<Build<T>>,
    state: Mutex<State<T>>,
}

struct State<T> {
    /// What `value` was made from.
    contents: Vec<Option<Vec<u8>>>,
    value: Arc<T>,
    /// How often the value changed.
    generation: u64,
    /// What the last refresh failed of.
    failure: Option<ContentError>,
}

impl<T> ByContent<T> {
    /// Reads the sources and makes the first value.
    ///
    /// # Errors
    /// A file can't be read or is too large, or `build` finds a fault.
    pub fn load(
        sources: Vec<Option<Source>>,
        build: impl Fn(&Contents) -> Result<T, Fault> + Send + Sync + 'static,
    ) -> Result<Self, ContentError> {
        let contents = read(&sources)?;
        let value = make(&build, &sources, &contents)?;
        let state = State { contents, value: Arc::new(value), generation: 0, failure: None };
        Ok(Self { sources, build: Box::new(build), state: Mutex::new(state) })
    }

    /// The value in force, and how often it changed before.
    pub fn current(&self) -> (Arc<T>, u64) {
        let state = self.lock();
        (Arc::clone(&state.value), state.generation)
    }

    /// Whether anything can change at all.
    pub fn has_files(&self) -> bool {
        self.sources.iter().flatten().any(|source| matches!(source, Source::File(_)))
    }

    /// Reads the files again, which blocks, and makes a new value if a content has changed.
    pub fn refresh(&self) -> Refreshed {
        if !self.has_files() {
            return Refreshed::Same;
        }
        let made = read(&self.sources).and_then(|contents| {
            if self.lock().contents == contents {
                return Ok(None);
            }
            let value = make(&*self.build, &self.sources, &contents)?;
            Ok(Some((contents, value)))
        });
        let mut state = self.lock();
        match made {
            Ok(None) => {
                state.failure = None;
                Refreshed::Same
            }
            // Another refresh was quicker.
            Ok(Some((contents, _))) if state.contents == contents => Refreshed::Same,
            Ok(Some((contents, value))) => {
                let (value, generation) = (Arc::new(value), state.generation + 1);
                *state = State { contents, value, generation, failure: None };
                Refreshed::Changed
            }
            Err(error) if state.failure.as_ref() == Some(&error) => Refreshed::Same,
            Err(error) => {
                state.failure = Some(error.clone());
                Refreshed::Failed(error)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for ByContent<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ByContent").field("sources", &self.sources).finish_non_exhaustive()
    }
}

fn make<T>(
    build: &Build<T>,
    sources: &[Option<Source>],
    contents: &Contents,
) -> Result<T, ContentError> {
    build(contents).map_err(|Fault { source, cause }| ContentError {
        index: source,
        place: match sources.get(source) {
            Some(Some(Source::File(path))) => path.display().to_string(),
            _ => "the configuration".to_owned(),
        },
        cause,
    })
}

fn read(sources: &[Option<Source>]) -> Result<Vec<Option<Vec<u8>>>, ContentError> {
    let content = |(index, source): (usize, &Option<Source>)| match source {
        None => Ok(None),
        Some(Source::Inline(text)) => Ok(Some(text.expose().as_bytes().to_vec())),
        Some(Source::File(path)) => {
            regular_file::read(path, CONTENT_BYTES_MAX).map(Some).map_err(|cause| ContentError {
                index,
                place: path.display().to_string(),
                cause: cause.to_string(),
            })
        }
    };
    sources.iter().enumerate().map(content).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Texts that end in a full stop, joined.
    fn sentences(contents: &Contents) -> Result<String, Fault> {
        let mut joined = String::new();
        for (source, content) in contents.iter().enumerate() {
            let text = String::from_utf8_lossy(content.as_deref().unwrap_or_default());
            if content.is_some() && !text.ends_with('.') {
                return Err(Fault { source, cause: "no full stop".into() });
            }
            joined += &text;
        }
        Ok(joined)
    }

    fn value(by_content: &ByContent<String>) -> String {
        by_content.current().0.as_str().to_owned()
    }

    /// Scenario: row 28: of two files one is exchanged, then half-written, then removed, then
    /// whole again; the other source is a text, a third is not there.
    /// Guarantees: each whole content counts, once; what is wrong changes nothing and is said
    /// once, with the file's name and none of its content.
    #[test]
    fn only_whole_contents_count() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "one.").unwrap();
        let sources = vec![
            Some(Source::File(file.path().to_owned())),
            None,
            Some(Source::Inline("inline.".into())),
        ];
        let tested = ByContent::load(sources, sentences).unwrap();
        assert_eq!((value(&tested).as_str(), tested.refresh()), ("one.inline.", Refreshed::Same));

        fs::write(file.path(), "two.").unwrap();
        assert_eq!(tested.refresh(), Refreshed::Changed);
        assert_eq!((value(&tested).as_str(), tested.current().1), ("two.inline.", 1));

        fs::write(file.path(), "hunter2").unwrap();
        let Refreshed::Failed(error) = tested.refresh() else { panic!("it must fail") };
        assert_eq!(error.to_string(), format!("{}: no full stop", file.path().display()));
        assert_eq!(tested.refresh(), Refreshed::Same);
        fs::remove_file(file.path()).unwrap();
        assert!(matches!(tested.refresh(), Refreshed::Failed(_)));
        assert_eq!((value(&tested).as_str(), tested.current().1), ("two.inline.", 1));

        // As it was is no change; but the next failure is a new one.
        fs::write(file.path(), "two.").unwrap();
        assert_eq!(tested.refresh(), Refreshed::Same);
        fs::remove_file(file.path()).unwrap();
        assert!(matches!(tested.refresh(), Refreshed::Failed(_)));
        assert!(!format!("{tested:?}").contains("inline."));
    }

    /// Scenario: a file that never ends, and a FIFO that nobody writes to, stand in for a credential.
    /// Guarantees: each is refused at once, with its path and what it is.
    #[test]
    fn what_is_no_regular_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("token");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
        for (path, what) in [(fifo, "a FIFO"), ("/dev/zero".into(), "a device")] {
            let sources = vec![Some(Source::File(path.clone()))];
            let error = ByContent::load(sources, sentences).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{}: it is {what}", path.display())), "{error}");
        }
    }
}
