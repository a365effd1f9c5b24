//! Colours for people: on a terminal, unless `NO_COLOR` says otherwise. It owns the escape codes.

use std::ffi::OsStr;
use std::io::{self, IsTerminal};

/// Whether text is coloured, decided once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Style {
    colour: bool,
}

impl Style {
    /// What stdout can show: colours on a terminal that is not `dumb`, without a `NO_COLOR` that is
    /// set to something (no-color.org).
    #[must_use]
    pub fn for_stdout() -> Self {
        let (no_color, term) = (std::env::var_os("NO_COLOR"), std::env::var_os("TERM"));
        Self::new(
            io::stdout().is_terminal(),
            no_color.as_deref(),
            term.as_deref(),
        )
    }

    /// No colours.
    #[must_use]
    pub const fn plain() -> Self {
        Self { colour: false }
    }

    fn new(terminal: bool, no_color: Option<&OsStr>, term: Option<&OsStr>) -> Self {
        let forbidden = no_color.is_some_and(|value| !value.is_empty());
        let dumb = term.is_some_and(|term| term == "dumb");
        Self {
            colour: terminal && !forbidden && !dumb,
        }
    }

    /// What went well.
    #[must_use]
    pub fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// What wants attention.
    #[must_use]
    pub fn warn(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// What went wrong.
    #[must_use]
    pub fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    /// A heading.
    #[must_use]
    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// What matters less.
    #[must_use]
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// Pad before this: the codes count as width in a format.
    fn paint(self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Text that came from elsewhere, without what would steer a terminal, begin a line, or show it in
/// another order than it is in.
#[must_use]
pub fn printable(text: &str) -> String {
    let reorders = |c| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.replace(|c: char| c.is_control() || reorders(c), "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_terminal_without_no_color_gets_colours() {
        let style = |terminal, no_color: Option<&str>, term: Option<&str>| {
            Style::new(terminal, no_color.map(OsStr::new), term.map(OsStr::new))
        };
        assert_eq!(
            style(true, None, Some("xterm")).bad("NO"),
            "\u{1b}[31mNO\u{1b}[0m"
        );
        assert_eq!(style(true, Some(""), None), style(true, None, None));
        for plain in [
            style(false, None, Some("xterm")),
            style(true, Some("1"), Some("xterm")),
            style(true, None, Some("dumb")),
        ] {
            assert_eq!(plain, Style::plain());
            assert_eq!(plain.bad("NO"), "NO");
        }
    }

    #[test]
    fn text_from_elsewhere_does_not_steer_the_terminal() {
        assert_eq!(printable("CN=a\u{1b}[2J\nb"), "CN=a\u{fffd}[2J\u{fffd}b");
        assert_eq!(printable("1\u{202e}23\u{2069}"), "1\u{fffd}23\u{fffd}");
    }
}
