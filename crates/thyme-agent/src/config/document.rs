//! YAML as a tree that remembers its lines: what the strict reader walks.
//!
//! This file owns the way from text to [`Node`]. It knows no key of the configuration.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{MessageFormatter, NonFiniteFloatPolicy, Spanned, UserMessageFormatter};

/// A value of the document with the line it is reported at.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    /// Line of the key for the value of a mapping, of the item in a list; from 1.
    pub(super) line: u64,
    /// What stands there.
    pub(super) value: Value,
    /// The text that an environment variable was, where `value` is what YAML makes of it: a key
    /// that takes text takes this.
    pub(super) text: Option<String>,
}

/// The kinds of YAML values.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// Nothing after the colon, `~` or `null`.
    Null,
    /// `true` or `false`, nothing else.
    Flag(bool),
    /// A whole number.
    Integer(i128),
    /// A number with a fraction or an exponent.
    Float(f64),
    /// Any other scalar, and each quoted one.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in the order of the document; each key once.
    Map(Vec<(String, Node)>),
    /// What a reference stands for that could not be replaced. That is noted, and nothing more is to be said
    /// of it.
    Unresolved,
}

impl Value {
    /// The kind as an error message calls it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Flag(_) => "true or false",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
            Self::Unresolved => "what could not be replaced",
        }
    }
}

/// Why a text is no YAML document that a configuration can be read from.
#[derive(Debug)]
pub(super) struct SyntaxError {
    /// Line of the fault; 1 where the parser does not know it.
    pub(super) line: u64,
    /// What is wrong.
    pub(super) message: String,
}

/// What aliases may bring in, in all: events of YAML's parser, about one a value. A few hundred bytes
/// of aliases of aliases would otherwise take seconds and a hundred megabytes.
const ALIAS_EVENTS_MAX: usize = 20_000;

/// How deep values may lie in each other: reading them recurses, and a level takes up to 33 KiB of
/// the stack in a debug build. The deepest key lies ten deep.
const NESTING_MAX: usize = 32;

/// Parses one document. An empty one is [`Value::Null`].
pub(super) fn parse(text: &str) -> Result<Node, SyntaxError> {
    if text.trim().is_empty() {
        return Ok(Node { line: 1, value: Value::Null, text: None });
    }
    let options = serde_saphyr::options! {
        strict_booleans: true,
        with_snippet: false,
        // The key says that it takes none, beside what else is wrong.
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        budget: serde_saphyr::budget! { max_depth: NESTING_MAX },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: ALIAS_EVENTS_MAX },
    };
    let tree = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let error = error.without_snippet();
        let line = error.location().map_or(1, |location| location.line().max(1));
        SyntaxError { line, message: words(&UserMessageFormatter.format_message(error)) }
    })?;
    Ok(node(tree, None))
}

/// The parser's words, or better ones where these speak of its inside.
fn words(said: &str) -> String {
    let better = match said {
        "expected string scalar" | "null is not allowed here" => {
            "a key must be text: put it in quotes, or is there a `?`, `[` or `{` too many?"
        }
        "reference to unknown value" => "an alias (`*name`) needs an anchor (`&name`) above it",
        "Recursive reference not allowed here" => {
            "an alias (`*name`) can't stand within what its anchor (`&name`) names"
        }
        "YAML merge value must be mapping or sequence of mappings" => {
            "`<<` takes an alias of a mapping, or a list of such"
        }
        _ if said.starts_with("invalid u64") || said.starts_with("invalid i64") => {
            "the tag `!!int` takes a whole number"
        }
        _ => said,
    };
    better.to_owned()
}

/// What serde hands over: lines are still on the wrappers.
enum Tree {
    Scalar(Value),
    List(Vec<Spanned<Tree>>),
    Map(Vec<(Spanned<String>, Spanned<Tree>)>),
}

/// Moves the lines to where the reader wants them; `line` is the key's, if there is one.
fn node(tree: Spanned<Tree>, line: Option<u64>) -> Node {
    let line = line.unwrap_or_else(|| tree.referenced.line());
    let value = match tree.value {
        Tree::Scalar(value) => value,
        Tree::List(items) => Value::List(items.into_iter().map(|item| node(item, None)).collect()),
        Tree::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| (key.value, node(value, Some(key.referenced.line()))))
                .collect(),
        ),
    };
    Node { line, value, text: None }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Flag(flag)))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Integer(number.into())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Integer(number.into())))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Float(number)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Text(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Tree::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every path of a tree with its line.
    fn lines(node: &Node, path: &str, out: &mut Vec<String>) {
        out.push(format!("{path}:{}", node.line));
        match &node.value {
            Value::Map(entries) => {
                entries.iter().for_each(|(key, child)| lines(child, &format!("{path}/{key}"), out));
            }
            Value::List(items) => {
                items.iter().for_each(|item| lines(item, &format!("{path}/-"), out));
            }
            _ => {}
        }
    }

    fn entry(text: &str) -> Value {
        match parse(&format!("key: {text}")).unwrap().value {
            Value::Map(mut entries) => entries.remove(0).1.value,
            other => panic!("{other:?}"),
        }
    }

    /// Scenario: mappings, lists, comments, an alias and a merge over several lines.
    /// Guarantees: values are reported at their key's line, items at their own, and what an alias
    /// brings in at the alias.
    #[test]
    fn lines_are_those_of_keys_and_items() {
        let text = "# first\na:\n  b: 1\n\n  c:\n    - x\n    -\n      y: 2\nd: &anchor\n  e: true\n\
                    f:\n  <<: *anchor\ng: {h: 1, i: [1,\n 2]}\n";
        let mut found = Vec::new();
        lines(&parse(text).unwrap(), "", &mut found);
        let expected = ":2 /a:2 /a/b:3 /a/c:5 /a/c/-:6 /a/c/-:8 /a/c/-/y:8 /d:9 /d/e:10 /f:11 \
                        /f/e:12 /g:13 /g/h:13 /g/i:13 /g/i/-:13 /g/i/-:14";
        assert_eq!(found.join(" "), expected);
    }

    /// Scenario: plain and quoted scalars of each kind.
    /// Guarantees: only `true` and `false` are booleans, quoting makes text, and nothing is null.
    #[test]
    fn scalars_have_the_kinds_of_yaml_1_2() {
        assert_eq!(entry("true"), Value::Flag(true));
        assert_eq!(entry("yes"), Value::Text("yes".into()));
        assert_eq!(entry("'1'"), Value::Text("1".into()));
        assert_eq!(entry("0x10"), Value::Integer(16));
        assert_eq!(entry("-3"), Value::Integer(-3));
        assert_eq!(entry("1.5"), Value::Float(1.5));
        assert_eq!(entry("200ms"), Value::Text("200ms".into()));
        assert_eq!(entry("${env:X:-8}"), Value::Text("${env:X:-8}".into()));
        assert_eq!(entry(""), Value::Null);
        assert_eq!(entry("~"), Value::Null);
        assert_eq!(parse("").unwrap().value, Value::Null);
        assert_eq!(parse("# only a comment\n").unwrap().value, Value::Null);
    }

    /// Scenario: aliases of lists of aliases, which would become some hundred million values.
    /// Guarantees: they are refused, at a line of theirs.
    #[test]
    fn aliases_of_aliases_are_bounded() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let alias = format!("*a{}", level - 1);
            text += &format!("a{level}: &a{level} [{}]\n", [&alias[..]; 9].join(", "));
        }
        let error = parse(&text).unwrap_err();
        assert!((2..=9).contains(&error.line), "{}: {}", error.line, error.message);
    }

    /// Scenario: lists in lists and mappings in mappings, 30 deep and 10,000 deep.
    /// Guarantees: the former are read, the latter are errors, and the stack of a thread holds.
    #[test]
    fn nesting_is_bounded() {
        for (open, close) in [("[", "]"), ("{a: ", "}"), ("- ", "")] {
            let nested = |depth| format!("{}x{}", open.repeat(depth), close.repeat(depth));
            assert!(parse(&nested(30)).is_ok(), "{open}");
            let error = parse(&nested(10_000)).unwrap_err();
            assert_eq!(error.line, 1, "{open}: {}", error.message);
        }
    }

    /// Scenario: texts that are no single YAML document with unique keys.
    /// Guarantees: the line and the fault are named, without advice meant for programmers.
    #[test]
    fn faults_name_their_line() {
        let fault = |text| {
            let error = parse(text).unwrap_err();
            format!("{}: {}", error.line, error.message)
        };
        assert_eq!(fault("a: 1\nb: 2\na: 3\n"), "3: duplicate mapping key `a` is not allowed here");
        assert_eq!(fault("a:\n  - [1\n"), "2: unclosed bracket '['");
        assert_eq!(fault("x: 1\na: b: c\n"), "2: mapping values are not allowed in this context");
        assert!(fault("a: 1\n---\nb: 2\n").starts_with("3: "), "{}", fault("a: 1\n---\nb: 2\n"));
    }
}
