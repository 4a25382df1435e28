//! Draws the screen from the state, all of it each time; ratatui sends only the differences to the terminal. So whatever
//! arrives while you type, your line stays where it is.

use crate::app::{App, Input, Stage};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Position, Rect},
    style::{Style, Stylize},
    text::Line,
    widgets::{Block, Borders, Paragraph},
};
use unicode_width::UnicodeWidthChar;

const MEMBERS_WIDTH: u16 = 20;
const PROMPT: &str = "> ";

pub(crate) fn draw(frame: &mut Frame<'_>, app: &App) {
    let rows = [Constraint::Min(0), Constraint::Length(1), Constraint::Length(1)];
    let [above, status, input] = Layout::vertical(rows).areas(frame.area());
    let members_width = if above.width >= 3 * MEMBERS_WIDTH { MEMBERS_WIDTH } else { 0 };
    let [history, members] = Layout::horizontal([Constraint::Min(0), Constraint::Length(members_width)]).areas(above);
    draw_history(frame, history, app);
    draw_members(frame, members, app);
    frame.render_widget(Line::styled(status_of(app), Style::new().reversed()), status);
    frame.buffer_mut().set_style(status, Style::new().reversed());
    draw_input(frame, input, &app.input);
}

/// The last rows that fit.
fn draw_history(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let wanted = usize::from(area.height) + app.back;
    let mut rows: Vec<&str> = Vec::new(); // the last row first
    for line in app.history.iter().rev() {
        rows.extend(wrapped(line, area.width.into()).into_iter().rev());
        if rows.len() >= wanted {
            break;
        }
    }
    let back = app.back.min(rows.len().saturating_sub(area.height.into()));
    let rows = rows.into_iter().skip(back).take(area.height.into());
    let rows: Vec<_> = rows.map(Line::raw).collect::<Vec<_>>().into_iter().rev().collect();
    frame.render_widget(Paragraph::new(rows), area);
}

fn draw_members(frame: &mut Frame<'_>, area: Rect, app: &App) {
    if area.is_empty() {
        return;
    }
    let names: Vec<_> = app.members.iter().take(area.height.into()).map(|name| Line::raw(&**name)).collect();
    frame.render_widget(Paragraph::new(names).block(Block::new().borders(Borders::LEFT)), area);
}

fn status_of(app: &App) -> String {
    let App { name, members, .. } = app;
    let mut status = match &app.stage {
        Stage::Away(why) => format!(" {why}"),
        Stage::Connected | Stage::Introduced => " entering".into(),
        Stage::Nameless => " another name, please".into(),
        Stage::In => format!(" {name}, {} here", members.len()),
    };
    if app.back > 0 {
        status += "; what was said before (Page Down goes on)";
    }
    status
}

/// The part of the line that fits, with the cursor in it.
fn draw_input(frame: &mut Frame<'_>, area: Rect, input: &Input) {
    let room = usize::from(area.width).saturating_sub(PROMPT.len() + 1); // one for the cursor after the last character
    let mut begin = 0;
    while width(&input.text[begin..input.at]) > room {
        begin += input.text[begin..].chars().next().map_or(1, char::len_utf8);
    }
    let shown = Line::default().spans([PROMPT, &input.text[begin..]]);
    frame.render_widget(shown, area);
    let column = (PROMPT.len() + width(&input.text[begin..input.at])).min(usize::from(area.width.saturating_sub(1)));
    frame.set_cursor_position(Position::new(area.x + column as u16, area.y));
}

fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// A line in pieces that fit, cut at spaces where possible. An empty line is one row.
fn wrapped(line: &str, columns: usize) -> Vec<&str> {
    let mut rows = Vec::new();
    let mut rest = line;
    loop {
        let (mut used, mut end, mut space) = (0, rest.len(), None);
        for (at, c) in rest.char_indices() {
            used += c.width().unwrap_or(0);
            if used > columns && at > 0 {
                end = at;
                break;
            }
            if c == ' ' {
                space = Some(at + 1);
            }
        }
        if end < rest.len() {
            end = space.unwrap_or(end);
        }
        rows.push(&rest[..end]);
        rest = &rest[end..];
        if rest.is_empty() {
            return rows;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::{Terminal, backend::TestBackend};

    fn app() -> App {
        let mut app = App::new("127.0.0.1:1", "me".into());
        app.stage = Stage::In;
        app.members = ["me".to_owned(), "you".to_owned()].into();
        app
    }

    fn rows(terminal: &mut Terminal<TestBackend>, app: &App) -> Vec<String> {
        terminal.draw(|frame| draw(frame, app)).expect("no terminal fails");
        let buffer = terminal.backend().buffer();
        let row = |y| (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..buffer.area.height).map(|y| row(y).trim_end().to_owned()).collect()
    }

    fn cursor(terminal: &mut Terminal<TestBackend>) -> (u16, u16) {
        terminal.get_cursor_position().expect("no terminal fails").into()
    }

    #[test]
    fn what_is_said_stands_above_and_what_is_typed_below() {
        let mut terminal = Terminal::new(TestBackend::new(60, 5)).expect("no terminal fails");
        let mut app = app();
        app.history.push_back("<you> hello".into());
        (app.input.text, app.input.at) = ("typ".into(), 3);
        let shown = rows(&mut terminal, &app);
        assert_eq!(shown[0], format!("{:<40}│me", "<you> hello"));
        assert_eq!(shown[1], format!("{:<40}│you", ""));
        assert_eq!(shown[3..], [" me, 2 here", "> typ"]);
        assert_eq!(cursor(&mut terminal), (5, 4));
        for number in 0..100 {
            app.history.push_back(format!("<you> {number}"));
            let shown = rows(&mut terminal, &app);
            assert_eq!(shown[4], "> typ", "it is not torn");
            assert_eq!(cursor(&mut terminal), (5, 4));
        }
        assert!(rows(&mut terminal, &app)[2].starts_with("<you> 99 "));
        app.back = 50;
        assert!(rows(&mut terminal, &app)[2].starts_with("<you> 49 "));
    }

    #[test]
    fn another_size_shows_the_same() {
        let mut terminal = Terminal::new(TestBackend::new(60, 5)).expect("no terminal fails");
        let mut app = app();
        app.history.push_back("<you> one two three four".into());
        rows(&mut terminal, &app);
        terminal.backend_mut().resize(12, 6);
        assert_eq!(rows(&mut terminal, &app), ["<you> one", "two three", "four", "", " me, 2 here", ">"]);
        for (columns, lines) in [(1, 1), (2, 2), (200, 50), (3, 1), (1, 9)] {
            terminal.backend_mut().resize(columns, lines);
            rows(&mut terminal, &app);
        }
    }

    #[test]
    fn a_long_line_is_shown_where_the_cursor_is() {
        let mut terminal = Terminal::new(TestBackend::new(10, 3)).expect("no terminal fails");
        let mut app = app();
        (app.input.text, app.input.at) = ("0123456789abc".into(), 13);
        assert_eq!(rows(&mut terminal, &app)[2], "> 6789abc");
        assert_eq!(cursor(&mut terminal), (9, 2));
        app.input.at = 0;
        assert_eq!(rows(&mut terminal, &app)[2], "> 01234567");
        // Twice as wide; the backend has an empty cell behind each.
        (app.input.text, app.input.at) = ("日本語日本語".into(), 18);
        let mut terminal = Terminal::new(TestBackend::new(10, 3)).expect("no terminal fails");
        assert_eq!(rows(&mut terminal, &app)[2], "> 日 本 語");
        assert_eq!(cursor(&mut terminal), (8, 2));
    }

    #[test]
    fn lines_are_cut_at_spaces_where_there_are_some() {
        assert_eq!(wrapped("one two three", 8), ["one two ", "three"]);
        assert_eq!(wrapped("onetwothree", 4), ["onet", "woth", "ree"]);
        assert_eq!(wrapped("", 4), [""]);
        assert_eq!(wrapped("日本", 1), ["日", "本"]);
        assert_eq!(wrapped("日本", 0), ["日", "本"]);
    }
}
