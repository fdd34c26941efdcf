//! `${env:NAME}` and `${file:PATH}` in the scalars of a document, after it is parsed: so lines stay
//! those of the file.
//!
//! As in the Collector: `${NAME}` is short for `${env:NAME}`, `${env:NAME:-default}` has a default,
//! references nest, `$$` is a dollar sign, and where a scalar is nothing but one reference, YAML
//! decides what the variable's text is (a number, a list, ...). Unlike the Collector, a variable
//! that is not set and has no default is an error, not an empty text; what a variable or a file
//! holds is taken as it is, so that a password may hold `$`; and a file ends without its newline.

use std::{io, path::Path};

use credentials::regular_file;

use super::{
    document::{self, Node, Value},
    read::Problems,
};

/// How deep references may lie in references: the expansion recurses.
const REFERENCE_NESTING_MAX: u32 = 32;

/// Most bytes of a file that a reference names.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Looks up what references name.
#[derive(Clone, Copy)]
pub(super) struct Lookup<'a> {
    /// The text of a variable, if it is set.
    pub(super) variable: &'a dyn Fn(&str) -> Option<String>,
    /// The content of a file.
    pub(super) file: &'a dyn Fn(&Path) -> io::Result<String>,
}

/// Reads a small regular file.
pub(super) fn read_file(path: &Path) -> io::Result<String> {
    regular_file::read_text(path, FILE_BYTES_MAX)
}

/// Expands every scalar of the tree.
pub(super) fn expand(node: &mut Node, lookup: Lookup<'_>, problems: &Problems) {
    expand_at("", node, lookup, problems);
}

fn expand_at(path: &str, node: &mut Node, lookup: Lookup<'_>, problems: &Problems) {
    match &mut node.value {
        Value::Map(entries) => {
            for (key, child) in entries {
                let path = if path.is_empty() { key.clone() } else { format!("{path}::{key}") };
                expand_at(&path, child, lookup, problems);
            }
        }
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                expand_at(&format!("{path}[{index}]"), item, lookup, problems);
            }
        }
        Value::Text(text) if text.contains('$') => match expand_text(text, lookup, 0) {
            Ok(Expanded { text, whole: true }) => retype(node, text),
            Ok(Expanded { text, whole: false }) => node.value = Value::Text(text),
            Err(message) => {
                problems.add(node.line, path, message);
                node.value = Value::Unresolved;
            }
        },
        _ => {}
    }
}

/// Lets YAML decide what a variable's text is; what is no YAML is text.
fn retype(node: &mut Node, text: String) {
    let line = node.line;
    match document::parse(&text) {
        Ok(mut parsed) => {
            move_to(line, &mut parsed);
            node.value = parsed.value;
        }
        Err(_) => node.value = Value::Text(text.clone()),
    }
    node.text = Some(text);
}

fn move_to(line: u64, node: &mut Node) {
    node.line = line;
    match &mut node.value {
        Value::Map(entries) => entries.iter_mut().for_each(|(_, child)| move_to(line, child)),
        Value::List(items) => items.iter_mut().for_each(|item| move_to(line, item)),
        _ => {}
    }
}

struct Expanded {
    text: String,
    /// The scalar was one reference and nothing else.
    whole: bool,
}

/// Expands a text that lies in `depth` references.
fn expand_text(text: &str, lookup: Lookup<'_>, depth: u32) -> Result<Expanded, String> {
    if depth > REFERENCE_NESTING_MAX {
        return Err(format!("references are nested deeper than {REFERENCE_NESTING_MAX}"));
    }
    let mut out = String::with_capacity(text.len());
    let mut whole = false;
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(reference) = after.strip_prefix('{') {
            let end = closing_brace(reference)
                .ok_or_else(|| "`${` without its `}`; a dollar sign is written `$$`".to_owned())?;
            whole = rest.len() == text.len() && dollar == 0 && end + 1 == reference.len();
            out.push_str(&resolve(&reference[..end], lookup, depth)?);
            rest = &reference[end + 1..];
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    Ok(Expanded { text: out, whole })
}

/// Where the reference ends that `text` begins in; nested ones are passed over.
fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 0;
    let mut previous = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' if previous == b'$' => depth += 1,
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
            _ => {}
        }
        previous = byte;
    }
    None
}

/// What stands for `${reference}`.
fn resolve(reference: &str, lookup: Lookup<'_>, depth: u32) -> Result<String, String> {
    let (scheme, variable) = match reference.split_once(':') {
        Some((scheme, variable)) if !scheme.contains('$') => (scheme, variable),
        _ => ("env", reference),
    };
    match scheme {
        "env" => {}
        "file" => {
            let path = expand_text(variable, lookup, depth + 1)?.text;
            let content = (lookup.file)(Path::new(&path));
            let mut content = content.map_err(|error| format!("the file `{path}`: {error}"))?;
            content.truncate(content.trim_end_matches(['\r', '\n']).len());
            return Ok(content);
        }
        _ => {
            return Err(format!(
                "`${{{scheme}:...}}` is not supported, only `${{env:NAME}}` and `${{file:PATH}}` are"
            ));
        }
    }
    let (name, default) = match variable.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (variable, None),
    };
    let name = expand_text(name, lookup, depth + 1)?.text;
    if !is_name(&name) {
        return Err(format!("`{name}` can't be the name of an environment variable"));
    }
    match ((lookup.variable)(&name), default) {
        (Some(value), _) => Ok(value),
        (None, Some(default)) => Ok(expand_text(default, lookup, depth + 1)?.text),
        (None, None) => Err(format!(
            "the environment variable `{name}` is not set; \
             `${{env:{name}:-}}` would be empty without it"
        )),
    }
}

fn is_name(name: &str) -> bool {
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(name: &str) -> Option<String> {
        let value = match name {
            "HOST" => "collector",
            "PORT" => "4317",
            "LIST" => "[a, 1]",
            "PASSWORD" => "$pa$$${HOST}: *x",
            "EMPTY" => "",
            _ => return None,
        };
        Some(value.to_owned())
    }

    fn file(path: &Path) -> io::Result<String> {
        match path.to_str() {
            Some("/run/token") => Ok("$pa$$: *x\n".into()),
            Some("/run/collector") => Ok("8192\n".into()),
            _ => Err(io::Error::from(io::ErrorKind::NotFound)),
        }
    }

    fn expanded(scalar: &str) -> Result<Node, String> {
        let mut node = Node {
            line: 7,
            value: Value::Map(vec![("key".into(), text_node(scalar))]),
            text: None,
        };
        let problems = Problems::default();
        expand(&mut node, Lookup { variable: &variables, file: &file }, &problems);
        let problems = problems.into_list("f");
        match (problems.first(), node.value) {
            (Some(problem), _) => Err(problem.to_string()),
            (None, Value::Map(mut entries)) => Ok(entries.remove(0).1),
            other => panic!("{other:?}"),
        }
    }

    fn text_node(text: &str) -> Node {
        Node { line: 7, value: Value::Text(text.into()), text: None }
    }

    fn value(scalar: &str) -> Value {
        expanded(scalar).unwrap().value
    }

    /// Scenario: references alone and inside text, with defaults, nested and escaped.
    /// Guarantees: the same values as the Collector's.
    #[test]
    fn references_are_replaced() {
        assert_eq!(value("${env:HOST}:${PORT}"), Value::Text("collector:4317".into()));
        assert_eq!(value("${env:PORT}"), Value::Integer(4317));
        assert_eq!(value("${env:NONE:-8192}"), Value::Integer(8192));
        assert_eq!(value("${env:NONE:-${env:HOST}}"), Value::Text("collector".into()));
        assert_eq!(value("${env:NONE:-http://x:1}"), Value::Text("http://x:1".into()));
        assert_eq!(value("${env:EMPTY}"), Value::Null);
        assert_eq!(value("$${env:HOST}"), Value::Text("${env:HOST}".into()));
        assert_eq!(value("a$b$$c$"), Value::Text("a$b$c$".into()));
        let list = Value::List(vec![
            text_node("a"),
            Node { line: 7, value: Value::Integer(1), text: None },
        ]);
        assert_eq!(value("${env:LIST}"), list);
    }

    /// Scenario: a variable that is a number, and one that looks like references and aliases.
    /// Guarantees: the text is kept for keys that take text, and is not expanded again.
    #[test]
    fn the_variables_text_is_kept() {
        assert_eq!(expanded("${env:PORT}").unwrap().text.as_deref(), Some("4317"));
        let password = expanded("${env:PASSWORD}").unwrap();
        assert_eq!(password.text.as_deref(), Some("$pa$$${HOST}: *x"));
        assert_eq!(password.value, Value::Text("$pa$$${HOST}: *x".into()));
        assert_eq!(value("x ${env:PASSWORD}"), Value::Text("x $pa$$${HOST}: *x".into()));
    }

    /// Scenario: files with a token that looks like a reference, and with a number; a path that a
    /// variable is part of; a device and a directory.
    /// Guarantees: the content is taken without its last newline and not expanded again; what is
    /// no regular file is not read.
    #[test]
    fn files_are_taken_as_they_are() {
        let token = expanded("${file:/run/token}").unwrap();
        assert_eq!(token.text.as_deref(), Some("$pa$$: *x"));
        assert_eq!(value("Bearer ${file:/run/token}"), Value::Text("Bearer $pa$$: *x".into()));
        assert_eq!(value("${file:/run/${env:HOST}}"), Value::Integer(8192));
        for path in ["/dev/zero", "/"] {
            assert!(read_file(Path::new(path)).is_err(), "{path}");
        }
    }

    /// Scenario: a variable that is not set, another scheme, a bad name, an open brace.
    /// Guarantees: each is an error that names line, key and fault.
    #[test]
    fn what_cannot_be_replaced_is_an_error() {
        assert_eq!(
            expanded("${env:NONE}").unwrap_err(),
            "f:7: key: the environment variable `NONE` is not set; `${env:NONE:-}` would be empty \
             without it"
        );
        assert_eq!(
            expanded("${http:secret}").unwrap_err(),
            "f:7: key: `${http:...}` is not supported, only `${env:NAME}` and `${file:PATH}` are"
        );
        assert_eq!(
            expanded("${file:/run/nothing}").unwrap_err(),
            "f:7: key: the file `/run/nothing`: entity not found"
        );
        assert_eq!(
            expanded("${env:a-b}").unwrap_err(),
            "f:7: key: `a-b` can't be the name of an environment variable"
        );
        assert_eq!(
            expanded("${env:HOST").unwrap_err(),
            "f:7: key: `${` without its `}`; a dollar sign is written `$$`"
        );
    }
}
