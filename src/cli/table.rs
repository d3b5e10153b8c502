//! Tables: rows of cells under headings, laid out for a screen.
//!
//! Where a row is wider than the screen, keys lose their middle and other texts are wrapped in their column.
//! Columns that find no place even so stand on a second line of each row, so nothing is left out and ids stay
//! whole. In a pipe each row is one line with whole keys.

use textwrap::core::display_width;

use super::screen::{Line, Mood, PIPE, Screen, wrap};
use crate::domain::text::visible;

/// Columns that are narrower are never cut: times, states, numbers.
const SHORT: usize = 20;
/// What a wider column keeps at least.
const LEAST: usize = 22;
/// Spaces between columns.
const GAP: usize = 2;
/// Spaces before the further lines of a row.
const INDENT: usize = 4;

/// One value of a row.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    /// In one line.
    pub(super) text: String,
    /// Its meaning.
    pub(super) mood: Option<Mood>,
}

/// How a column gives way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It does not: people copy ids.
    Whole,
    /// It loses its middle.
    Key,
    /// It is wrapped.
    Text,
}

/// A column, with the width that it takes and the one that it gets.
struct Column {
    place: usize,
    kind: Kind,
    natural: usize,
    width: usize,
}

/// The lines of a table. `columns` are the names of the fields, which decide how a column gives way, and their
/// headings.
pub(super) fn table(columns: &[(&str, String)], rows: &[Vec<Cell>], screen: &Screen) -> Vec<Line> {
    let rows: Vec<Vec<Cell>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| Cell { text: visible(&cell.text), ..*cell }).collect())
        .collect();
    let columns_of = columns.iter().enumerate().map(|(place, (name, heading))| {
        let cells = rows.iter().map(|row| display_width(&row[place].text));
        let natural = cells.chain([display_width(heading)]).max().unwrap_or(0);
        let kind = match *name {
            "id" => Kind::Whole,
            name if name.ends_with("Id") || natural <= SHORT => Kind::Whole,
            name if name == "key" || name.ends_with("Key") => Kind::Key,
            _ => Kind::Text,
        };
        let least =
            if kind == Kind::Whole { natural } else { natural.min(LEAST.max(display_width(heading))) };
        Column { place, kind, natural, width: least }
    });
    let Some(width) = screen.width else { return in_a_pipe(columns, &rows, columns_of.collect(), screen) };
    let mut stacks: Vec<Vec<Column>> = Vec::new();
    let mut used = 0;
    for column in columns_of {
        let fits = used + GAP + column.width <= width;
        if let Some(stack) = stacks.last_mut().filter(|_| fits) {
            used += GAP + column.width;
            stack.push(column);
        } else {
            used = column.width + indent(stacks.len());
            stacks.push(vec![column]);
        }
    }
    for (index, stack) in stacks.iter_mut().enumerate() {
        widen(stack, width.saturating_sub(indent(index)));
    }
    let mut lines = Vec::new();
    let headings: Vec<Cell> =
        columns.iter().map(|(_, heading)| Cell { text: heading.clone(), mood: None }).collect();
    for row in std::iter::once(&headings).chain(&rows) {
        for (index, stack) in stacks.iter().enumerate() {
            lay(row, stack, indent(index), screen, &mut lines);
        }
    }
    lines
}

fn indent(stack: usize) -> usize {
    if stack == 0 { 0 } else { INDENT }
}

/// Shares the columns that are left among those that want more, the most modest first.
fn widen(stack: &mut [Column], width: usize) {
    let mut left = width.saturating_sub(stack.iter().map(|column| column.width + GAP).sum::<usize>() - GAP);
    let mut wanting: Vec<&mut Column> = stack.iter_mut().filter(|it| it.natural > it.width).collect();
    wanting.sort_by_key(|column| column.natural - column.width);
    let mut many = wanting.len();
    for column in wanting {
        let more = (column.natural - column.width).min(left / many);
        column.width += more;
        left -= more;
        many -= 1;
    }
}

/// Adds the lines of one row for the columns of one stack.
fn lay(row: &[Cell], stack: &[Column], indent: usize, screen: &Screen, lines: &mut Vec<Line>) {
    let cells: Vec<Vec<String>> = stack
        .iter()
        .map(|column| {
            let text = &row[column.place].text;
            match column.kind {
                Kind::Whole => vec![text.clone()],
                Kind::Key => vec![screen.shorten(text, column.width).into_owned()],
                Kind::Text => wrap(text, column.width),
            }
        })
        .collect();
    let height = cells.iter().map(Vec::len).max().unwrap_or(0);
    for at in 0..height {
        let mut line = Line::default();
        let mut edge = indent;
        for (column, cell) in stack.iter().zip(&cells) {
            line.pad(edge);
            if let Some(text) = cell.get(at) {
                line.push(row[column.place].mood, text);
            }
            edge += column.width + GAP;
        }
        lines.push(line);
    }
}

/// One line for each row. Only long texts that are no keys are cut; they share a measure.
fn in_a_pipe(
    columns: &[(&str, String)],
    rows: &[Vec<Cell>],
    mut stack: Vec<Column>,
    screen: &Screen,
) -> Vec<Line> {
    let long = |it: &Column| it.kind == Kind::Text && it.natural > PIPE / 5;
    let share = PIPE / stack.iter().filter(|it| long(it)).count().max(1);
    for column in &mut stack {
        column.width = if long(column) { column.natural.min(share) } else { column.natural };
        column.kind = Kind::Whole;
    }
    let mut lines = Vec::new();
    let headings: Vec<Cell> =
        columns.iter().map(|(_, heading)| Cell { text: heading.clone(), mood: None }).collect();
    for row in std::iter::once(&headings).chain(rows) {
        let cut = |(cell, column): (&Cell, &Column)| Cell {
            text: screen.cut(&cell.text, column.width).into_owned(),
            mood: cell.mood,
        };
        let row: Vec<Cell> = row.iter().zip(&stack).map(cut).collect();
        lay(&row, &stack, 0, screen, &mut lines);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0198c5a0-0000-7000-8000-000000000001";
    const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

    fn lines(columns: &[&str], row: &[&str], width: Option<usize>) -> Vec<String> {
        let screen = Screen { width, ..Screen::default() };
        let columns: Vec<(&str, String)> = columns.iter().map(|it| (*it, it.to_uppercase())).collect();
        let row = row.iter().map(|it| Cell { text: (*it).to_owned(), mood: None }).collect();
        table(&columns, &[row], &screen).iter().map(|line| line.render(&screen)).collect()
    }

    #[test]
    fn a_row_that_is_too_wide_shortens_keys_first_then_stacks_columns() {
        let (columns, row) = (["id", "state", "newKey"], [ID, "approved", KEY]);
        assert_eq!(lines(&columns, &row, Some(140))[1].matches(KEY).count(), 1);
        assert_eq!(lines(&columns, &row, None)[1], format!("{ID}  approved  {KEY}"));
        assert_eq!(
            lines(&columns, &row, Some(80)),
            [
                "ID                                    STATE     NEWKEY",
                "0198c5a0-0000-7000-8000-000000000001  approved  arn:aws:kms:eu-w\u{2026}ef-1234567890ab",
            ]
        );
        assert_eq!(
            lines(&columns, &row, Some(60)),
            [
                "ID                                    STATE",
                "    NEWKEY",
                "0198c5a0-0000-7000-8000-000000000001  approved",
                "    arn:aws:kms:eu-west-1:111122\u{2026}12ab-34cd-56ef-1234567890ab",
            ]
        );
    }

    #[test]
    fn no_line_is_wider_than_the_screen_and_an_id_is_always_whole() {
        let long = "many words in a row ".repeat(40);
        let row = [ID, &long, KEY, &"\u{9375}".repeat(90), &long, "2026-01-02T03:04:05Z"];
        let columns = ["id", "detail", "newKey", "name", "lastReply", "at"];
        for width in 40..200 {
            let lines = lines(&columns, &row, Some(width));
            assert!(lines.iter().all(|line| display_width(line) <= width), "{width}: {lines:#?}");
            assert!(lines.iter().any(|line| line.contains(ID)));
        }
        let pipe = lines(&columns, &row, None);
        assert_eq!(pipe.len(), 2);
        assert!(pipe[1].contains(KEY) && display_width(&pipe[1]) < 2 * PIPE, "{pipe:?}");
    }
}
