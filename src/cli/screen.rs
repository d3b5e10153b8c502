//! Where text goes: the width of the screen, whether it takes colour, and which signs it can show.
//!
//! A line is a row of spans, each with the meaning that colours it; hidden characters are escapes before
//! anything is measured. A pipe has no width, so keys and rows stay whole there for scripts. Nothing is
//! written here.

use std::borrow::Cow;
use std::io;

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use clap::builder::styling::{AnsiColor, Style};
use terminal_size::{Height, Width};
use textwrap::core::display_width;
use textwrap::{Options, WordSeparator, WordSplitter};

use crate::domain::text::visible;

/// The narrowest screen that is laid out for; a narrower one breaks lines itself.
const NARROWEST: usize = 40;
/// Text of a pipe is broken after this many columns, so that logs and mails keep its lines. Keys are shorter.
pub(super) const PIPE: usize = 500;

/// When output is coloured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// In a pipe too.
    Always,
    /// Never.
    Never,
}

impl From<Color> for clap::ColorChoice {
    fn from(color: Color) -> Self {
        match color {
            Color::Auto => Self::Auto,
            Color::Always => Self::Always,
            Color::Never => Self::Never,
        }
    }
}

/// The abilities of one output.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Screen {
    /// Columns; `None` for a pipe.
    pub(super) width: Option<usize>,
    /// Rows; `None` for a pipe.
    pub(super) height: Option<usize>,
    /// Whether it takes colour.
    pub(super) colour: bool,
    /// Whether only ASCII is shown.
    pub(super) ascii: bool,
    /// Whether it is a terminal that cannot move its cursor.
    pub(super) dumb: bool,
}

impl Screen {
    /// The screen behind a stream of this process.
    pub(super) fn of(stream: &impl RawStream, color: Color) -> Self {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (width, height) = if stream.is_terminal() {
            let number = |name| var(name)?.parse().ok();
            let size = terminal_size::terminal_size().filter(|(Width(width), _)| *width > 0);
            let size = size.map(|(Width(width), Height(height))| (width.into(), height.into()));
            let (width, height) =
                size.unwrap_or_else(|| (number("COLUMNS").unwrap_or(80), number("LINES").unwrap_or(24)));
            (Some(width), Some(height))
        } else {
            (None, None)
        };
        let takes = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => AutoStream::choice(stream) != ColorChoice::Never,
        };
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(var);
        let dumb = var("TERM").is_some_and(|term| term == "dumb");
        let ascii = dumb || is_ascii(locale.as_deref());
        // Lines that the screen breaks by itself cannot be written over.
        let dumb = dumb || width.is_some_and(|width| width < NARROWEST);
        Self { width: width.map(|it| it.max(NARROWEST)), height, colour: takes, ascii, dumb }
    }

    /// The screen of standard output.
    pub(super) fn stdout(color: Color) -> Self {
        Self::of(&io::stdout(), color)
    }

    /// The width at which text is broken.
    pub(super) fn prose(&self) -> usize {
        self.width.unwrap_or(PIPE)
    }

    /// The sign for what was left out.
    fn ellipsis(&self) -> &'static str {
        if self.ascii { "..." } else { "\u{2026}" }
    }

    /// The text in at most `width` columns, without its middle: the ends of a key are what people recognise.
    pub(super) fn shorten<'a>(&self, text: &'a str, width: usize) -> Cow<'a, str> {
        if display_width(text) <= width {
            return text.into();
        }
        let left = width.saturating_sub(display_width(self.ellipsis()));
        let head = prefix(text.chars(), left.div_ceil(2));
        let tail: Vec<char> = prefix(text.chars().rev(), left / 2).chars().rev().collect();
        format!("{head}{}{}", self.ellipsis(), tail.into_iter().collect::<String>()).into()
    }

    /// The beginning of the text, in at most `width` columns.
    pub(super) fn cut<'a>(&self, text: &'a str, width: usize) -> Cow<'a, str> {
        if display_width(text) <= width {
            return text.into();
        }
        let left = width.saturating_sub(display_width(self.ellipsis()));
        format!("{}{}", prefix(text.chars(), left), self.ellipsis()).into()
    }
}

/// The first characters that fit.
fn prefix(chars: impl Iterator<Item = char>, width: usize) -> String {
    let mut buffer = [0; 4];
    let mut used = 0;
    chars
        .take_while(|c| {
            used += display_width(c.encode_utf8(&mut buffer));
            used <= width
        })
        .collect()
}

/// Whether a locale is without UTF-8.
fn is_ascii(locale: Option<&str>) -> bool {
    let locale = locale.unwrap_or_default().to_ascii_lowercase();
    !(locale.contains("utf-8") || locale.contains("utf8"))
}

/// Breaks a text into lines of at most `width` columns. Only a word that is wider is broken: hyphens of keys and
/// ids are no place to break.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let options = Options::new(width.max(1))
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation)
        .break_words(true);
    textwrap::wrap(text, options).into_iter().map(Cow::into_owned).collect()
}

/// What a coloured text means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// As it should be.
    Good,
    /// A person or an event is waited for.
    Waiting,
    /// It needs a person, or went wrong.
    Bad,
}

impl Mood {
    fn style(self) -> Style {
        match self {
            Mood::Good => AnsiColor::Green,
            Mood::Waiting => AnsiColor::Yellow,
            Mood::Bad => AnsiColor::Red,
        }
        .on_default()
    }

    /// The meaning of a word in a column of a table, or in a field of an object.
    pub(super) fn of(field: &str, value: &str) -> Option<Self> {
        match (field, value) {
            (
                "state" | "status" | "result" | "fromState" | "toState",
                "ok" | "completed" | "accepted" | "pass" | "sent",
            )
            | ("valid", "true") => Some(Mood::Good),
            (
                "state" | "status" | "result" | "fromState" | "toState",
                "needs_operator" | "rolled_back" | "failed" | "overdue" | "drifted" | "invalid"
                | "unreachable" | "fail",
            )
            | ("valid", "false") => Some(Mood::Bad),
            (
                "state" | "status" | "result" | "fromState" | "toState",
                "due_soon" | "rotating" | "unmanaged_version" | "unknown" | "awaiting_approval" | "approved"
                | "applying" | "verifying" | "deploying" | "rolling_back" | "waiting" | "warn",
            )
            | ("suspended", "true") => Some(Mood::Waiting),
            ("left", value) if value.ends_with("overdue") => Some(Mood::Bad),
            _ => None,
        }
    }
}

/// A line: spans in a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line(Vec<(Option<Mood>, String)>);

impl Line {
    /// A plain line.
    pub(super) fn plain(text: &str) -> Self {
        Self::default().with(None, text)
    }

    /// The line with a text after it, whose hidden characters become escapes.
    pub(super) fn with(mut self, mood: Option<Mood>, text: &str) -> Self {
        self.push(mood, text);
        self
    }

    /// Adds a text, whose hidden characters become escapes.
    pub(super) fn push(&mut self, mood: Option<Mood>, text: &str) {
        if !text.is_empty() {
            self.0.push((mood, visible(text)));
        }
    }

    /// Columns.
    pub(super) fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| display_width(text)).sum()
    }

    /// Adds spaces up to `width` columns.
    pub(super) fn pad(&mut self, width: usize) {
        self.push(None, &" ".repeat(width.saturating_sub(self.width())));
    }

    /// Everything of the other line after this one.
    pub(super) fn then(mut self, other: Line) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The whole line with one meaning.
    pub(super) fn in_mood(self, mood: Mood) -> Self {
        Self(self.0.into_iter().map(|(_, text)| (Some(mood), text)).collect())
    }

    /// The line in lines of at most `width` columns; those after the first begin at `edge`.
    pub(super) fn split(self, width: usize, edge: usize) -> (Line, Vec<Line>) {
        let mut lines = vec![Line::default()];
        for (mood, text) in self.0 {
            let used = lines.last().map_or(0, Line::width);
            if used + display_width(text.trim_end()) <= width {
                lines.last_mut().into_iter().for_each(|line| line.push(mood, &text));
                continue;
            }
            // A text that the rest of this line cannot hold is laid out below the edge.
            let mut pieces = wrap(&text, width.saturating_sub(edge).max(8)).into_iter();
            if used <= edge {
                let first = pieces.next().unwrap_or_default();
                lines.last_mut().into_iter().for_each(|line| line.push(mood, &first));
            }
            for piece in pieces {
                let mut line = Line::default();
                line.pad(edge);
                lines.push(line.with(mood, &piece));
            }
        }
        let rest = lines.split_off(1);
        (lines.swap_remove(0), rest)
    }

    /// The line with a word at its beginning in the colour of what that means.
    pub(super) fn headed(mut self, words: &[(&str, Mood)]) -> Self {
        let first = self.0.first().map(|(_, text)| text.clone()).unwrap_or_default();
        if let Some((word, mood)) = words.iter().find(|(word, _)| first.starts_with(word)) {
            self.0.splice(0..1, [(Some(*mood), (*word).to_owned()), (None, first[word.len()..].to_owned())]);
        }
        self
    }

    /// The text for a screen, without spaces at its end.
    pub(super) fn render(&self, screen: &Screen) -> String {
        let mut out = String::new();
        for (mood, text) in &self.0 {
            match mood.filter(|_| screen.colour).map(Mood::style) {
                Some(style) => out.extend([style.render().to_string().as_str(), text, "\u{1b}[0m"]),
                None => out.push_str(text),
            }
        }
        out.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

    #[test]
    fn a_key_loses_its_middle_and_nothing_more() {
        let screen = Screen::default();
        assert_eq!(screen.shorten(KEY, 25), "arn:aws:kms:\u{2026}1234567890ab");
        assert_eq!(screen.shorten(KEY, KEY.len()), KEY);
        let ascii = Screen { ascii: true, ..screen };
        assert_eq!(ascii.shorten(KEY, 25), "arn:aws:kms...234567890ab");
        for width in 4..80 {
            for screen in [screen, ascii] {
                assert!(display_width(&screen.shorten(KEY, width)) <= width);
                // Characters of two columns.
                assert!(display_width(&screen.shorten(&"\u{9375}".repeat(60), width)) <= width);
                assert!(display_width(&screen.cut(&"\u{9375}".repeat(60), width)) <= width);
            }
        }
    }

    #[test]
    fn text_breaks_at_spaces_and_a_key_only_where_it_is_wider() {
        let id = "0198c5a0-0000-7000-8000-000000000001";
        assert_eq!(wrap(&format!("keywheel approve {id}"), 40), ["keywheel approve", id]);
        assert_eq!(wrap(KEY, 40).concat(), KEY);
        assert_eq!(wrap("", 40), [""]);
    }

    #[test]
    fn only_a_locale_of_utf_8_shows_more_than_ascii() {
        assert!(!is_ascii(Some("de_CH.UTF-8")) && !is_ascii(Some("C.utf8")));
        assert!(is_ascii(Some("C")) && is_ascii(None));
    }

    #[test]
    fn colour_surrounds_a_text_that_shows_its_hidden_characters() {
        let line = Line::plain("a ").with(Some(Mood::Bad), "\u{1b}[1m!").with(None, "  ");
        assert_eq!(line.render(&Screen::default()), "a \\u{1b}[1m!");
        let colour = Screen { colour: true, ..Screen::default() };
        assert_eq!(line.render(&colour), "a \u{1b}[31m\\u{1b}[1m!\u{1b}[0m");
    }
}
