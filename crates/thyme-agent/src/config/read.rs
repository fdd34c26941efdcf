//! The strict reader: takes typed values out of the document, and notes all that it can't take.
//!
//! A [`Section`] knows which keys were asked for. When the closure that reads it returns, every
//! other key of it is a problem: so nothing in a configuration is ever ignored, and the list of the
//! known keys is the code that reads them. Reading goes on after a problem, to report all of them:
//! such a closure asks for every key before it gives up on one, or the others would seem unknown.

use std::{
    cell::{Cell, RefCell},
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};

use super::{
    document::{Node, Value},
    error::Problem,
    units,
};

/// Everything found wrong so far.
#[derive(Debug, Default)]
pub(super) struct Problems {
    found: RefCell<Vec<(u64, String, String)>>,
}

impl Problems {
    /// Notes one.
    pub(super) fn add(&self, line: u64, key: &str, message: impl Into<String>) {
        self.found.borrow_mut().push((line, key.to_owned(), message.into()));
    }

    /// Notes one at a place that was remembered.
    pub(super) fn at(&self, place: &Place, message: impl Into<String>) {
        self.add(place.line, &place.path, message);
    }

    /// Whether something is wrong with what stands at a key, or beneath it: then a default may stand in its
    /// place, and nothing that compares it with other values is to be said.
    pub(super) fn is_about(&self, path: &str) -> bool {
        self.found.borrow().iter().any(|(_, key, _)| {
            let rest = key.strip_prefix(path);
            rest.is_some_and(|rest| {
                rest.is_empty() || rest.starts_with("::") || rest.starts_with('[')
            })
        })
    }

    /// All of them by line, each with the name of the file.
    pub(super) fn into_list(self, file: &str) -> Vec<Problem> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|&(line, ..)| line);
        let problem = |(line, key, message)| Problem { file: file.to_owned(), line, key, message };
        found.into_iter().map(problem).collect()
    }
}

/// Where a value stands, for what is found wrong with it once all components are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    line: u64,
    path: String,
}

/// The name of another component, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) id: String,
    pub(super) place: Place,
}

/// A value with the way to it. The readers return `None` after noting what is wrong.
#[derive(Clone)]
pub(super) struct Field<'a> {
    path: String,
    node: &'a Node,
    problems: &'a Problems,
}

impl<'a> Field<'a> {
    /// The whole document.
    pub(super) fn root(node: &'a Node, problems: &'a Problems) -> Self {
        Self { path: String::new(), node, problems }
    }

    /// Line that this value is reported at, from 1.
    pub(super) fn line(&self) -> u64 {
        self.node.line
    }

    /// Notes that this value won't do, unless it is noted already that nobody knows it.
    pub(super) fn refuse(&self, message: impl Into<String>) {
        if self.node.value != Value::Unresolved {
            self.problems.add(self.node.line, &self.path, message);
        }
    }

    fn expected<T>(&self, what: &str) -> Option<T> {
        self.refuse(format!("expected {what}, found {}", self.node.value.kind()));
        None
    }

    /// What stands here, as far as it may be shown: what a reference stands for may be a secret that was put
    /// at the wrong key.
    pub(super) fn found(&self) -> String {
        match (&self.node.value, &self.node.text) {
            (_, Some(_)) => "another text".to_owned(),
            (Value::Text(text), None) => format!("`{}`", text.escape_debug()),
            (value, None) => value.kind().to_owned(),
        }
    }

    /// The path of a file or directory, for the operating system: that takes none with a NUL.
    pub(super) fn file_path(&self) -> Option<PathBuf> {
        let text = self.text()?;
        if text.contains('\0') {
            self.refuse(format!("expected a path, found {}: there is a NUL in it", self.found()));
            return None;
        }
        Some(text.into())
    }

    /// A text that is not empty.
    pub(super) fn text(&self) -> Option<String> {
        let text = self.text_or_empty()?;
        if text.is_empty() {
            self.refuse("must not be empty");
            return None;
        }
        Some(text)
    }

    /// Where this value stands.
    pub(super) fn place(&self) -> Place {
        Place { line: self.node.line, path: self.path.clone() }
    }

    /// The name of another component.
    pub(super) fn reference(&self) -> Option<Reference> {
        Some(Reference { id: self.text()?, place: self.place() })
    }

    /// Any text. A number without quotes is none, unless an environment variable held it.
    pub(super) fn text_or_empty(&self) -> Option<String> {
        match (&self.node.text, &self.node.value) {
            (Some(text), _) | (None, Value::Text(text)) => Some(text.clone()),
            (None, Value::Flag(_) | Value::Integer(_) | Value::Float(_)) => {
                let kind = self.node.value.kind();
                self.refuse(format!("expected text, found {kind}: put it in quotes"));
                None
            }
            _ => self.expected("text"),
        }
    }

    /// `true` or `false`.
    pub(super) fn flag(&self) -> Option<bool> {
        match self.node.value {
            Value::Flag(flag) => Some(flag),
            _ => self.expected("true or false"),
        }
    }

    /// A whole number within `range`.
    pub(super) fn integer(&self, range: RangeInclusive<i64>) -> Option<i64> {
        let Value::Integer(number) = self.node.value else {
            self.refuse(format!("expected a whole number, found {}", self.found()));
            return None;
        };
        match i64::try_from(number) {
            Ok(number) if range.contains(&number) => Some(number),
            _ => {
                let (least, most) = range.into_inner();
                self.refuse(format!("must be from {least} to {most}, found {number}"));
                None
            }
        }
    }

    /// A number within `range`.
    pub(super) fn number(&self, range: RangeInclusive<f64>) -> Option<f64> {
        let number = match self.node.value {
            #[expect(clippy::cast_precision_loss, reason = "only compared with a small range")]
            Value::Integer(number) => number as f64,
            Value::Float(number) => number,
            _ => {
                self.refuse(format!("expected a number, found {}", self.found()));
                return None;
            }
        };
        if range.contains(&number) {
            return Some(number);
        }
        let (least, most) = range.into_inner();
        self.refuse(format!("must be from {least} to {most}, found {number}"));
        None
    }

    /// A duration in Go's syntax within `range`.
    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let parsed = match &self.node.value {
            Value::Integer(0) => Some(Duration::ZERO),
            Value::Text(text) => units::parse_duration(text),
            _ => None,
        };
        let Some(duration) = parsed else {
            let expected = "expected a duration with its unit, such as 200ms, 5s or 1m30s";
            self.refuse(format!("{expected}, found {}", self.found()));
            return None;
        };
        if range.contains(&duration) {
            return Some(duration);
        }
        let [least, most, found] =
            [*range.start(), *range.end(), duration].map(units::format_duration);
        self.refuse(format!("must be from {least} to {most}, found {found}"));
        None
    }

    /// A number of bytes within `range`, plain or with a unit.
    pub(super) fn bytes(&self, range: RangeInclusive<usize>) -> Option<usize> {
        let parsed = match &self.node.value {
            Value::Integer(number) => u64::try_from(*number).ok(),
            Value::Text(text) => units::parse_bytes(text),
            _ => None,
        };
        let Some(bytes) = parsed else {
            let expected = "expected a number of bytes, such as 4096, 16kb or 1MiB";
            let found = match self.node.value {
                Value::Integer(number) => number.to_string(),
                _ => self.found(),
            };
            self.refuse(format!("{expected}, found {found}"));
            return None;
        };
        match usize::try_from(bytes) {
            Ok(bytes) if range.contains(&bytes) => Some(bytes),
            _ => {
                let [least, most, found] =
                    [*range.start() as u64, *range.end() as u64, bytes].map(units::format_bytes);
                self.refuse(format!("must be from {least} to {most}, found {found}"));
                None
            }
        }
    }

    /// One of some words; the first for which `same` holds.
    pub(super) fn one_of<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.text_or_empty()?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let mut known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            known.retain(|word| !word.is_empty());
            let one_of = if known.len() > 1 { "one of " } else { "" };
            let known = known.join(", ");
            self.refuse(format!("expected {one_of}{known}, found {}", self.found()));
        }
        found.map(|&(_, value)| value)
    }

    /// The items of a list.
    pub(super) fn items(&self) -> Option<Vec<Self>> {
        let Value::List(items) = &self.node.value else {
            return self.expected("a list");
        };
        let item = |(index, node)| Self {
            path: format!("{}[{index}]", self.path),
            node,
            problems: self.problems,
        };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// The entries of a mapping whose keys are free, such as names of components or headers.
    pub(super) fn entries(&self) -> Option<Vec<(&'a str, Self)>> {
        match &self.node.value {
            Value::Null => Some(Vec::new()),
            Value::Map(entries) => Some(
                entries.iter().map(|(key, node)| (key.as_str(), self.child(key, node))).collect(),
            ),
            _ => self.expected("a mapping"),
        }
    }

    /// Reads a mapping with known keys; nothing at all is an empty one. `later` names keys that the
    /// Collector knows and thyme doesn't yet: they are refused as such.
    pub(super) fn section<T>(
        &self,
        later: &[&str],
        read: impl FnOnce(&Section<'a>) -> Option<T>,
    ) -> Option<T> {
        let entries: &[(String, Node)] = match &self.node.value {
            Value::Null => &[],
            Value::Map(entries) => entries,
            _ => return self.expected("a mapping"),
        };
        let section = Section {
            field: self.clone(),
            entries,
            known: RefCell::default(),
            is_open: Cell::default(),
        };
        let value = read(&section);
        section.refuse_unknown(later);
        value
    }

    /// Whether a list stands here.
    pub(super) fn is_list(&self) -> bool {
        matches!(self.node.value, Value::List(_))
    }

    /// Whether nothing stands here.
    pub(super) fn is_null(&self) -> bool {
        self.node.value == Value::Null && self.node.text.is_none()
    }

    fn child(&self, key: &str, node: &'a Node) -> Self {
        let path = match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}::{key}"),
        };
        Self { path, node, problems: self.problems }
    }
}

/// A mapping with known keys, while it is read.
pub(super) struct Section<'a> {
    field: Field<'a>,
    entries: &'a [(String, Node)],
    /// The keys that were asked for.
    known: RefCell<Vec<&'static str>>,
    /// No key is unknown.
    is_open: Cell<bool>,
}

impl<'a> Section<'a> {
    /// The value of a key; `None` where it is missing or nothing stands there.
    pub(super) fn field(&self, key: &'static str) -> Option<Field<'a>> {
        self.known.borrow_mut().push(key);
        let (_, node) = self.entries.iter().find(|(name, _)| name == key)?;
        let field = self.field.child(key, node);
        (!field.is_null()).then_some(field)
    }

    /// Takes every key as known: what they mean depends on one that is wrong.
    pub(super) fn all_are_known(&self) {
        self.is_open.set(true);
    }

    /// The value of a key that must be there.
    pub(super) fn required(&self, key: &'static str) -> Option<Field<'a>> {
        let field = self.field(key);
        if field.is_none() {
            match self.entries.iter().find(|(name, _)| name == key) {
                Some((_, node)) => self.field.child(key, node).refuse("must not be empty"),
                None => self.refuse(format!("the key `{key}` is missing")),
            }
        }
        field
    }

    /// Notes that the section as a whole won't do.
    pub(super) fn refuse(&self, message: impl Into<String>) {
        self.field.refuse(message);
    }

    /// Notes that values of the section don't go together, unless one of them is wrong by itself.
    pub(super) fn refuse_of(&self, keys: &[&str], message: impl Into<String>) {
        if !self.is_doubtful(keys) {
            self.refuse(message);
        }
    }

    /// Whether something is wrong with one of these values, so far.
    pub(super) fn is_doubtful(&self, keys: &[&str]) -> bool {
        let found = self.entries.iter().filter(|(key, _)| keys.contains(&key.as_str()));
        let mut paths = found.map(|(key, node)| self.field.child(key, node).path);
        paths.any(|path| self.field.problems.is_about(&path))
    }

    /// [`Field::flag`] of a key, or its default.
    pub(super) fn flag(&self, key: &'static str, default: bool) -> bool {
        self.field(key).and_then(|field| field.flag()).unwrap_or(default)
    }

    /// [`Field::integer`] of a key, or its default.
    pub(super) fn integer(
        &self,
        key: &'static str,
        range: RangeInclusive<i64>,
        default: i64,
    ) -> i64 {
        self.field(key).and_then(|field| field.integer(range)).unwrap_or(default)
    }

    /// [`Field::duration`] of a key, or its default.
    pub(super) fn duration(
        &self,
        key: &'static str,
        range: RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        self.field(key).and_then(|field| field.duration(range)).unwrap_or(default)
    }

    /// [`Field::bytes`] of a key, or its default.
    pub(super) fn bytes(
        &self,
        key: &'static str,
        range: RangeInclusive<usize>,
        default: usize,
    ) -> usize {
        self.field(key).and_then(|field| field.bytes(range)).unwrap_or(default)
    }

    /// [`Field::one_of`] of a key, or its default.
    pub(super) fn one_of<T: Copy>(&self, key: &'static str, words: &[(&str, T)], default: T) -> T {
        self.field(key).and_then(|field| field.one_of(words)).unwrap_or(default)
    }

    fn refuse_unknown(&self, later: &[&str]) {
        let known = self.known.borrow();
        if self.is_open.get() {
            return;
        }
        for (key, node) in self.entries {
            if known.contains(&key.as_str()) {
                continue;
            }
            let message = if later.contains(&key.as_str()) {
                "the Collector knows this key, but thyme does not support it yet".to_owned()
            } else {
                unknown("key", key, known.iter().copied())
            };
            // Also where its value could not be replaced.
            let path = self.field.child(key, node).path;
            self.field.problems.add(node.line, &path, message);
        }
    }
}

/// All values, if each of them could be read; reading goes on after one that could not.
pub(super) fn all<T>(values: impl Iterator<Item = Option<T>>) -> Option<Vec<T>> {
    let values: Vec<Option<T>> = values.collect();
    values.into_iter().collect()
}

/// The message for a name that is not among the known ones; it names the nearest of them.
pub(super) fn unknown<'n>(what: &str, name: &str, known: impl Iterator<Item = &'n str>) -> String {
    let likeness = |other: &str| strsim::normalized_damerau_levenshtein(name, other);
    match known.max_by(|a, b| likeness(a).total_cmp(&likeness(b))) {
        Some(nearest) => format!("unknown {what}, the nearest known one is `{nearest}`"),
        None => format!("unknown {what}, there are none here"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::document;

    /// What reading `text` notes, without the file's name.
    fn noted(text: &str, read: impl FnOnce(&Section<'_>)) -> Vec<String> {
        let (node, problems) = (document::parse(text).unwrap(), Problems::default());
        Field::root(&node, &problems).section(&["later"], |section| {
            read(section);
            Some(())
        });
        let found = problems.into_list("f");
        found.iter().map(|p| format!("{}: {}: {}", p.line, p.key, p.message)).collect()
    }

    /// Scenario: a section with an unknown key, one of the Collector's, and one without a value.
    /// Guarantees: the first two are problems at their lines, the third counts as missing.
    #[test]
    fn what_was_not_asked_for_is_a_problem() {
        let found = noted("timeuot: 1s\nlater: 2\ntimeout:\n", |section| {
            let second = Duration::from_secs(1);
            let range = Duration::ZERO..=second;
            assert_eq!(section.duration("timeout", range, second), second);
            assert!(section.required("endpoint").is_none());
        });
        assert_eq!(
            found,
            [
                "1: : the key `endpoint` is missing",
                "1: timeuot: unknown key, the nearest known one is `timeout`",
                "2: later: the Collector knows this key, but thyme does not support it yet",
            ]
        );
    }

    /// Scenario: values of the wrong type, and beyond their range.
    /// Guarantees: each problem says what was expected and what was found.
    #[test]
    fn wrong_types_say_what_was_expected() {
        let text = "a: 1\nb: maybe\nc: 1.5\nd: 5\ne: 1 MB/s\nf: fast\ng: {}\nh: x\ni: 10\nj: 2h\nk: 1kib\n";
        let found = noted(text, |section| {
            let field = |key| section.field(key).unwrap();
            assert_eq!(field("a").text(), None);
            assert_eq!(field("b").flag(), None);
            assert_eq!(field("c").integer(0..=1), None);
            let hour = Duration::ZERO..=Duration::from_secs(3600);
            assert_eq!(field("d").duration(hour.clone()), None);
            assert_eq!(field("e").bytes(0..=1), None);
            assert_eq!(field("f").one_of(&[("gzip", 1), ("none", 2), ("", 2)]), None);
            assert!(field("g").items().is_none());
            assert!(field("h").entries().is_none());
            assert_eq!(field("i").integer(1..=9), None);
            assert_eq!(field("j").duration(hour), None);
            assert_eq!(field("k").bytes(2048..=4096), None);
        });
        assert_eq!(
            found,
            [
                "1: a: expected text, found a whole number: put it in quotes",
                "2: b: expected true or false, found text",
                "3: c: expected a whole number, found a number",
                "4: d: expected a duration with its unit, such as 200ms, 5s or 1m30s, found a whole number",
                "5: e: expected a number of bytes, such as 4096, 16kb or 1MiB, found `1 MB/s`",
                "6: f: expected one of gzip, none, found `fast`",
                "7: g: expected a list, found a mapping",
                "8: h: expected a mapping, found text",
                "9: i: must be from 1 to 9, found 10",
                "10: j: must be from 0s to 1h, found 2h",
                "11: k: must be from 2KiB to 4KiB, found 1KiB",
            ]
        );
    }
}
