//! Rust text with comments and literals blanked out, and where its functions and tests are. It is
//! no parser: it knows just enough to match braces and words, and must never fail.

use std::ops::Range;

/// A Rust file.
#[derive(Clone, Debug)]
pub struct Source {
    /// Path from the workspace's root, with `/`.
    pub path: String,
    /// As it is.
    pub text: String,
    /// The same length and lines, but with comments, strings and characters blanked out.
    pub code: String,
}

/// A function with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Lines from `fn` to the closing brace, counted from zero.
    pub lines: Range<usize>,
}

impl Source {
    /// Prepares a file.
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        let code = blank_out(&text);
        Self { path: path.into(), text, code }
    }

    /// All functions with a body, nested ones included.
    pub fn functions(&self) -> Vec<Function> {
        let mut functions = Vec::new();
        for at in word_positions(&self.code, "fn") {
            let after = self.code[at + 2..].trim_start();
            let name: String = after.chars().take_while(|&c| is_word(c)).collect();
            // No name: a function pointer's type, or a macro's `fn $name`.
            if name.is_empty() {
                continue;
            }
            if let Some(end) = item_end(&self.code, at).filter(|end| end.has_body) {
                let lines = self.line_of(at)..self.line_of(end.at) + 1;
                functions.push(Function { name, lines });
            }
        }
        functions
    }

    /// Lines of items under `#[cfg(test)]`, counted from zero.
    pub fn test_lines(&self) -> Vec<Range<usize>> {
        let starts = self.code.match_indices("#[cfg(test)]").map(|(at, _)| at);
        starts
            .filter_map(|at| {
                let end = item_end(&self.code, at)?;
                Some(self.line_of(at)..self.line_of(end.at) + 1)
            })
            .collect()
    }

    /// Names of modules in files of their own that are under `#[cfg(test)]`.
    pub fn test_modules(&self) -> Vec<String> {
        let mut names = Vec::new();
        for (at, _) in self.code.match_indices("#[cfg(test)]") {
            let Some(end) = item_end(&self.code, at).filter(|end| !end.has_body) else { continue };
            let item = &self.code[at..end.at];
            if let Some(at) = word_positions(item, "mod").next() {
                names.push(item[at + 3..].trim().to_owned());
            }
        }
        names
    }

    /// Number of the line that holds a byte, counted from zero.
    pub fn line_of(&self, at: usize) -> usize {
        self.code.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count()
    }
}

/// Where a word stands by itself.
pub fn word_positions<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

struct End {
    /// Position of the closing brace or of the semicolon.
    at: usize,
    has_body: bool,
}

/// Where the item that begins at `start` ends. Brackets and parentheses hide what is in them, so
/// that neither attributes nor array types end it.
fn item_end(code: &str, start: usize) -> Option<End> {
    let mut hidden = 0_i32;
    let mut braces = 0_i32;
    for (offset, byte) in code.as_bytes()[start..].iter().enumerate() {
        let at = start + offset;
        match byte {
            b'(' | b'[' => hidden += 1,
            b')' | b']' => hidden -= 1,
            b';' if hidden == 0 && braces == 0 => return Some(End { at, has_body: false }),
            b'{' => braces += 1,
            b'}' => {
                braces -= 1;
                if braces == 0 && hidden == 0 {
                    return Some(End { at, has_body: true });
                }
            }
            _ => {}
        }
    }
    None
}

/// Replaces comments, strings and character literals by blanks; newlines stay.
fn blank_out(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let length = hidden_length(bytes, at);
        for byte in &mut out[at..at + length] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at += length.max(1);
    }
    // Only whole characters are blanked out: what is hidden starts and ends at ASCII characters.
    String::from_utf8(out).expect("blanks replace whole characters")
}

/// Length of the comment or literal that begins here; zero when none does.
fn hidden_length(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    match rest {
        [b'/', b'/', ..] => rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => block_comment_length(rest),
        [b'"', ..] => quoted_length(rest, b'"'),
        [b'\'', ..] => character_length(rest),
        [b'r', b'"' | b'#', ..] if !follows_word(bytes, at) => raw_string_length(rest),
        _ => 0,
    }
}

/// Whether this is the inside of a word: then `r` begins no raw string. `br` and `cr` do.
fn follows_word(bytes: &[u8], at: usize) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    match at.checked_sub(1).map(|before| bytes[before]) {
        Some(b'b' | b'c') => at >= 2 && is_word(bytes[at - 2]),
        Some(before) => is_word(before),
        None => false,
    }
}

fn block_comment_length(rest: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => {
                depth += 1;
                at += 2;
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    rest.len()
}

/// A literal with escapes, from quote to quote.
fn quoted_length(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// A character literal; a lifetime is none.
fn character_length(rest: &[u8]) -> usize {
    match rest.get(1) {
        Some(b'\\') => quoted_length(rest, b'\''),
        Some(&first) => {
            // The leading byte tells the character's length; a quote must follow.
            let length = match first {
                0xf0.. => 4,
                0xe0.. => 3,
                0xc0.. => 2,
                _ => 1,
            };
            if rest.get(1 + length) == Some(&b'\'') { length + 2 } else { 0 }
        }
        None => 0,
    }
}

/// `r"…"`, `r#"…"#` and so on; a raw identifier is none.
fn raw_string_length(rest: &[u8]) -> usize {
    let hashes = rest[1..].iter().take_while(|&&byte| byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let mut end = vec![b'"'];
    end.extend(std::iter::repeat_n(b'#', hashes));
    let content = 2 + hashes;
    rest[content..]
        .windows(end.len())
        .position(|window| window == end)
        .map_or(rest.len(), |found| content + found + end.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: every kind of comment and literal, with braces and quotes inside.
    /// Guarantees: they are blank, everything else stays, and so does the length.
    #[test]
    fn comments_and_literals_are_blank() {
        let cases = [
            ("a // b {\nc", "a       \nc"),
            ("a /* { /* } */ { */ b", "a                   b"),
            (r#"f("}\"{", 'x', '\'', '{', b'}')"#, r"f(      ,    ,     ,    , b   )"),
            ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
            (r####"r#"{"}"# br"\" for r#try"####, r####"         b     for r#try"####),
            ("'ü' \"ü\"", "         "),
        ];
        for (text, expected) in cases {
            let blank = blank_out(text);
            assert_eq!(blank.len(), text.len(), "{text}");
            assert_eq!(blank.trim_end(), expected.trim_end(), "{text}");
        }
    }

    /// Scenario: text that ends within a comment or a literal.
    /// Guarantees: nothing fails, everything up to the end is blank.
    #[test]
    fn unclosed_literals_reach_the_end() {
        for text in ["/* {", "\"{", "\"\\", "'\\", "r#\"{", "'"] {
            assert!(!blank_out(text).contains('{'), "{text}");
        }
    }

    /// Scenario: methods, nested functions, declarations, pointers, and braces within types.
    /// Guarantees: names and lines of those with a body.
    #[test]
    fn functions_are_found_with_their_lines() {
        let text = "trait T { fn declared(&self); }\n\
                    const F: fn(u8) = g;\n\
                    fn outer(x: [u8; { 1 }])\n\
                    where\n\
                    {\n\
                    fn inner() {}\n\
                    let s = \"}\";\n\
                    }\n";
        let found: Vec<(String, Range<usize>)> = Source::new("x.rs", text)
            .functions()
            .into_iter()
            .map(|function| (function.name, function.lines))
            .collect();
        assert_eq!(found, [("outer".to_owned(), 2..8), ("inner".to_owned(), 5..6)]);
    }

    /// Scenario: a test module in place, one in a file of its own, and a test-only import.
    /// Guarantees: lines of all, names of the second only.
    #[test]
    fn test_items_are_found() {
        let text = "#[cfg(test)]\nuse x::{a, b};\n#[cfg(test)]\nmod oracle;\nfn f() {}\n\
                    #[cfg(test)]\n#[allow(x)]\nmod tests {\nfn g() {}\n}\n";
        let source = Source::new("x.rs", text);
        assert_eq!(source.test_lines(), [0..2, 2..4, 5..10]);
        assert_eq!(source.test_modules(), ["oracle"]);
    }
}
