//! Reads Rust source just well enough to find every path in it, with its line and its module.
//!
//! Owns the lexer (comments, doc comments, strings and characters are dropped), the expansion of
//! `a::{b, c::*}` and the resolution of `crate`, `self` and `super`. Knows nothing about layers.

/// A path as it was written, groups expanded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Path {
    /// `crate`, `super`, `net`, …
    pub(super) segments: Vec<String>,
    /// The name itself is brought into scope under its own power: `as`, `*`, or `self` in a group.
    pub(super) opened: bool,
    /// 1-based.
    pub(super) line: usize,
    /// The module whose names `self` and `super` start from.
    pub(super) module: Vec<String>,
}

/// Where a path leads, from the crate's root on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Target {
    /// `super` was said once too often.
    AboveRoot,
    /// Not a path into this crate: a local name or another crate.
    Elsewhere,
    /// Segments below the root; empty is the root itself.
    Inside(Vec<String>),
}

impl Path {
    /// Resolves against the module it stands in. In a binary the library is called by its name.
    pub(super) fn target(&self, library: Option<&str>) -> Target {
        let mut at = self.module.clone();
        let mut rest = self.segments.as_slice();
        let mut ours = false;
        while let [first, tail @ ..] = rest {
            match first.as_str() {
                "crate" if !ours => at.clear(),
                "self" => {}
                "super" => {
                    if at.pop().is_none() {
                        return Target::AboveRoot;
                    }
                }
                name if !ours && Some(name) == library => at.clear(),
                _ => break,
            }
            ours = true;
            rest = tail;
        }
        if !ours {
            return Target::Elsewhere;
        }
        at.extend(rest.iter().cloned());
        Target::Inside(at)
    }
}

/// Everything that a test wants to know of a file.
pub(super) struct Scan {
    /// Every path, in order.
    pub(super) paths: Vec<Path>,
    /// Lines with `#[path]` or `include!`: code that this scan would misplace or miss.
    pub(super) hidden: Vec<usize>,
}

impl Scan {
    /// Scans the source of the file that is `module`.
    pub(super) fn new(source: &str, module: &[String]) -> Self {
        let mut walk = Walk {
            tokens: lex(source),
            at: 0,
            depth: 0,
            module: module.to_vec(),
            opened_at: Vec::new(),
            scan: Self {
                paths: Vec::new(),
                hidden: Vec::new(),
            },
        };
        walk.run();
        walk.scan
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Kind {
    Word(String),
    PathSep,
    Punct(char),
    /// A string, a character, a number or a lifetime.
    Other,
}

#[derive(Clone, Debug)]
struct Token {
    kind: Kind,
    line: usize,
}

struct Walk {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    module: Vec<String>,
    /// The depth inside the braces of each inline module.
    opened_at: Vec<usize>,
    scan: Scan,
}

impl Walk {
    fn kind(&self, at: usize) -> Option<&Kind> {
        self.tokens.get(at).map(|token| &token.kind)
    }

    fn is(&self, at: usize, punct: char) -> bool {
        self.kind(at) == Some(&Kind::Punct(punct))
    }

    fn word(&self, at: usize) -> Option<&str> {
        match self.kind(at) {
            Some(Kind::Word(word)) => Some(word),
            _ => None,
        }
    }

    fn run(&mut self) {
        while let Some(token) = self.tokens.get(self.at).cloned() {
            match token.kind {
                Kind::Punct('{') => {
                    self.depth += 1;
                    self.at += 1;
                }
                Kind::Punct('}') => {
                    if self.opened_at.last() == Some(&self.depth) {
                        self.opened_at.pop();
                        self.module.pop();
                    }
                    self.depth = self.depth.saturating_sub(1);
                    self.at += 1;
                }
                Kind::Punct('#') if self.is(self.at + 1, '[') => {
                    if self.word(self.at + 2) == Some("path") && self.is(self.at + 3, '=') {
                        self.scan.hidden.push(token.line);
                    }
                    self.at += 1;
                }
                Kind::Word(word) => self.word_at(&word, token.line),
                Kind::PathSep | Kind::Punct(_) | Kind::Other => self.at += 1,
            }
        }
    }

    fn word_at(&mut self, word: &str, line: usize) {
        if word == "mod"
            && self.is(self.at + 2, '{')
            && let Some(name) = self.word(self.at + 1).map(ToOwned::to_owned)
        {
            self.module.push(name);
            self.depth += 1;
            self.opened_at.push(self.depth);
            self.at += 3;
            return;
        }
        if word == "include" && self.is(self.at + 1, '!') {
            self.scan.hidden.push(line);
        }
        self.path(Vec::new());
    }

    /// One path, or one item of a group: the cursor stands on its first segment and ends behind it.
    fn path(&mut self, mut segments: Vec<String>) {
        let line = self.tokens.get(self.at).map_or(0, |token| token.line);
        let mut opened = false;
        loop {
            if let Some(word) = self.word(self.at).map(ToOwned::to_owned) {
                self.at += 1;
                // `a::{self}` is `a`, brought into scope.
                if word == "self" && !segments.is_empty() {
                    opened = true;
                } else {
                    segments.push(word);
                }
            } else if self.is(self.at, '*') && !segments.is_empty() {
                self.at += 1;
                opened = true;
            } else if self.is(self.at, '{') && !segments.is_empty() {
                return self.group(&segments);
            } else {
                break;
            }
            let more = matches!(self.kind(self.at + 1), Some(Kind::Word(_)))
                || self.is(self.at + 1, '{')
                || self.is(self.at + 1, '*');
            if self.kind(self.at) != Some(&Kind::PathSep) || !more {
                break;
            }
            self.at += 1;
        }
        opened |= self.word(self.at) == Some("as");
        self.scan.paths.push(Path {
            segments,
            opened,
            line,
            module: self.module.clone(),
        });
    }

    /// `{a, b::c, self}` behind `prefix`: the cursor stands on the brace and ends behind its twin.
    fn group(&mut self, prefix: &[String]) {
        self.at += 1;
        while self.at < self.tokens.len() && !self.is(self.at, '}') {
            let before = self.at;
            self.path(prefix.to_vec());
            while self.at < self.tokens.len() && !self.is(self.at, ',') && !self.is(self.at, '}') {
                self.at += 1;
            }
            if self.is(self.at, ',') || self.at == before {
                self.at += 1;
            }
        }
        self.at += 1;
    }
}

/// Source to tokens; comments are gone, literals are blank.
fn lex(source: &str) -> Vec<Token> {
    let mut lexer = Lexer {
        text: source.chars().collect(),
        at: 0,
        line: 1,
    };
    let mut tokens = Vec::new();
    while let Some(c) = lexer.peek(0) {
        let line = lexer.line;
        let kind = match (c, lexer.peek(1)) {
            ('/', Some('/')) => {
                lexer.skip_while(|c| c != '\n');
                continue;
            }
            ('/', Some('*')) => {
                lexer.block_comment();
                continue;
            }
            ('"', _) => {
                lexer.quoted('"');
                Kind::Other
            }
            ('\'', _) => {
                lexer.character_or_lifetime();
                Kind::Other
            }
            (':', Some(':')) => {
                lexer.next();
                lexer.next();
                Kind::PathSep
            }
            (c, _) if c == '_' || c.is_alphabetic() => lexer.word_or_prefixed_literal(),
            (c, _) if c.is_ascii_digit() => {
                lexer.skip_while(|c| c == '_' || c.is_alphanumeric());
                Kind::Other
            }
            (c, _) => {
                lexer.next();
                if c.is_whitespace() {
                    continue;
                }
                Kind::Punct(c)
            }
        };
        tokens.push(Token { kind, line });
    }
    tokens
}

struct Lexer {
    text: Vec<char>,
    at: usize,
    line: usize,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.text.get(self.at + ahead).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek(0)?;
        self.at += 1;
        self.line += usize::from(c == '\n');
        Some(c)
    }

    fn skip_while(&mut self, keep: impl Fn(char) -> bool) -> String {
        let mut skipped = String::new();
        while let Some(c) = self.peek(0).filter(|c| keep(*c)) {
            skipped.push(c);
            self.next();
        }
        skipped
    }

    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some('/'), Some('*')) => {
                    depth += 1;
                    self.next();
                }
                (Some('*'), Some('/')) => {
                    depth -= 1;
                    self.next();
                }
                (None, _) => return,
                _ => {}
            }
            self.next();
            if depth == 0 {
                return;
            }
        }
    }

    fn quoted(&mut self, quote: char) {
        self.next();
        while let Some(c) = self.next() {
            if c == '\\' {
                self.next();
            } else if c == quote {
                return;
            }
        }
    }

    fn character_or_lifetime(&mut self) {
        if self.peek(1) == Some('\\') || self.peek(2) == Some('\'') {
            self.quoted('\'');
        } else {
            self.next();
            self.skip_while(|c| c == '_' || c.is_alphanumeric());
        }
    }

    /// `name`, `r#name`, or the letter before `b"…"`, `c"…"`, `b'…'`, `r#"…"#`, `br"…"`.
    fn word_or_prefixed_literal(&mut self) -> Kind {
        let word = self.skip_while(|c| c == '_' || c.is_alphanumeric());
        match (word.as_str(), self.peek(0)) {
            ("b" | "c", Some('"')) => {
                self.quoted('"');
                Kind::Other
            }
            ("b", Some('\'')) => {
                self.quoted('\'');
                Kind::Other
            }
            ("r" | "br" | "cr", Some('"' | '#')) => {
                let hashes = self.skip_while(|c| c == '#').len();
                if self.peek(0) == Some('"') {
                    self.raw_string(hashes);
                    Kind::Other
                } else {
                    Kind::Word(self.skip_while(|c| c == '_' || c.is_alphanumeric()))
                }
            }
            _ => Kind::Word(word),
        }
    }

    fn raw_string(&mut self, hashes: usize) {
        self.next();
        while let Some(c) = self.next() {
            if c == '"' && (0..hashes).all(|n| self.peek(n) == Some('#')) {
                self.at += hashes;
                return;
            }
        }
    }
}

#[test]
fn literals_and_comments_hold_no_paths() {
    let source = r##"
        // crate::a
        /// crate::b
        /* crate::c /* crate::d */ crate::e */
        fn f<'a>(x: &'a str) -> char {
            let _ = ("crate::f \" crate::g", r#"crate::h " crate::i"#, b"crate::j");
            let _ = ('"', '\'', b'"');
            crate::found::here(x); '{'
        }
    "##;
    let found: Vec<_> = Scan::new(source, &[])
        .paths
        .into_iter()
        .filter(|path| path.target(None) != Target::Elsewhere)
        .map(|path| (path.segments.join("::"), path.line))
        .collect();
    assert_eq!(found, [("crate::found::here".to_owned(), 8)]);
}

#[test]
fn groups_renames_and_globs_are_expanded() {
    let source = "pub(crate) use crate::{a::{B, self}, c::*, d as e};";
    let found: Vec<_> = Scan::new(source, &[])
        .paths
        .into_iter()
        .filter(|path| path.segments.len() > 1)
        .map(|path| (path.segments.join("::"), path.opened))
        .collect();
    let expected = [
        ("crate::a::B", false),
        ("crate::a", true),
        ("crate::c", true),
        ("crate::d", true),
    ];
    assert_eq!(
        found,
        expected.map(|(path, opened)| (path.to_owned(), opened))
    );
}

#[test]
fn super_is_resolved_through_inline_modules() {
    let source = "
        fn f() { super::near::g(); self::super::near::g() }
        mod tests {
            use super::*;
            fn g() { super::super::up::h(); let x = { 1 }; super::S { x } }
        }
        fn h() { super::super::top::i(); super::super::super::above() }
    ";
    let module = ["net".to_owned(), "guard".to_owned()];
    let found: Vec<_> = Scan::new(source, &module)
        .paths
        .into_iter()
        .map(|path| path.target(None))
        .filter(|target| *target != Target::Elsewhere)
        .map(|target| match target {
            Target::Inside(path) => path.join("::"),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(
        found,
        [
            "net::near::g",
            "net::near::g",
            "net::guard",
            "net::up::h",
            "net::guard::S",
            "top::i",
            "AboveRoot"
        ]
    );
}
