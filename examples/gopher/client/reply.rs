//! Turns an answer into what is shown or kept. Pure: bytes in, bytes out.

use crate::{
    gopher::{Ending, Item, Kind, Unstuffer, refusal},
    printable::printable,
};
use std::str;

/// How much is looked at to find out the kind, and to recognise an error item, which can come instead of anything.
const HEAD_MAX: usize = 1024;

/// A longer line is shown in parts, so that no server makes us keep more.
const LINE_MAX: usize = 64 << 10;

pub(crate) struct Reply {
    /// The server it comes from: items of the same server are shown by their selector alone.
    from: (String, u16),
    /// Its kind, if known.
    kind: Option<Kind>,
    /// Whether it is shown on a terminal, which a text must not control.
    is_on_terminal: bool,
    stage: Stage,
}

enum Stage {
    /// The kind is not known yet.
    Head(Vec<u8>),
    Lines(Lines),
    /// As it comes, up to the end of the connection.
    Raw,
    /// An error of the server.
    Refused(String),
}

struct Lines {
    unstuffer: Unstuffer,
    form: Form,
    /// A line without its end.
    held: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Menu,
    Screen,
    Plain,
}

/// How an answer ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// With the last line, or with the connection if nothing else ends it.
    Complete,
    /// Complete as far as we can tell: the last line is missing.
    WithoutLastLine,
    Early,
    Refused(String),
}

impl Reply {
    pub(crate) fn new(from: (String, u16), kind: Option<Kind>, is_on_terminal: bool) -> Self {
        Self { from, kind, is_on_terminal, stage: Stage::Head(Vec::new()) }
    }

    /// Takes the next bytes, however they are cut, and appends what is to be shown or kept.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        match &mut self.stage {
            Stage::Head(head) => {
                head.extend_from_slice(bytes);
                if let Some(length) = telling(head, self.kind) {
                    let rest = head.split_off(length);
                    self.decide(out);
                    self.push(&rest, out);
                }
            }
            Stage::Lines(lines) => lines.push(bytes, &self.from, out),
            Stage::Raw => out.extend_from_slice(bytes),
            Stage::Refused(_) => {}
        }
    }

    /// The server has ended.
    pub(crate) fn end(&mut self, out: &mut Vec<u8>) {
        if matches!(self.stage, Stage::Head(_)) {
            self.decide(out);
        }
        if let Stage::Lines(lines) = &mut self.stage {
            lines.show_held(&self.from, out);
        }
    }

    /// Whether what still follows does not belong to it.
    pub(crate) fn is_done(&self) -> bool {
        match &self.stage {
            Stage::Lines(lines) => lines.unstuffer.is_done(),
            Stage::Refused(_) => true,
            Stage::Head(_) | Stage::Raw => false,
        }
    }

    /// How it ended, once it has.
    pub(crate) fn verdict(&self) -> Verdict {
        match &self.stage {
            Stage::Head(_) => Verdict::Early,
            Stage::Raw => Verdict::Complete,
            Stage::Refused(why) => Verdict::Refused(why.clone()),
            Stage::Lines(lines) => match lines.unstuffer.ending() {
                Ending::Complete => Verdict::Complete,
                Ending::WithoutLastLine => Verdict::WithoutLastLine,
                Ending::Early => Verdict::Early,
            },
        }
    }

    /// Whether it is passed on as it is, and may be anything.
    pub(crate) fn is_raw(&self) -> bool {
        matches!(self.stage, Stage::Raw)
    }

    fn decide(&mut self, out: &mut Vec<u8>) {
        let Stage::Head(head) = std::mem::replace(&mut self.stage, Stage::Raw) else { return };
        if let Some(why) = refusal(&head) {
            self.stage = Stage::Refused(printable(&why));
            return;
        }
        let kind = self.kind.unwrap_or_else(|| look_at(&head));
        if kind.is_in_lines() {
            let form = match kind {
                Kind::Menu | Kind::Search => Form::Menu,
                _ if self.is_on_terminal => Form::Screen,
                _ => Form::Plain,
            };
            self.stage = Stage::Lines(Lines { unstuffer: Unstuffer::new(), form, held: Vec::new() });
        }
        self.push(&head, out);
    }
}

/// How much of the head tells the kind, the same however it is cut: the whole answer, or enough of it, or one byte that cannot
/// belong to an error item.
fn telling(head: &[u8], kind: Option<Kind>) -> Option<usize> {
    if kind.is_some() && head.first().is_some_and(|&first| first != b'3') {
        return Some(1);
    }
    let whole =
        if head.starts_with(b".\r\n") { Some(3) } else { head.windows(4).position(|four| four == b"\n.\r\n").map(|at| at + 4) };
    whole.filter(|&whole| whole <= HEAD_MAX).or((head.len() >= HEAD_MAX).then_some(HEAD_MAX))
}

/// A menu, if its first line is a menu's.
fn look_at(head: &[u8]) -> Kind {
    let first = head.split(|&byte| byte == b'\n').next().and_then(|line| str::from_utf8(line).ok());
    match first.and_then(|line| Item::parse(line.trim_end_matches('\r'))) {
        Some(_) => Kind::Menu,
        None => Kind::of_bytes(head),
    }
}

impl Lines {
    fn push(&mut self, bytes: &[u8], from: &(String, u16), out: &mut Vec<u8>) {
        if self.form == Form::Plain {
            return self.unstuffer.push(bytes, out);
        }
        self.unstuffer.push(bytes, &mut self.held);
        let Some(end) = self.held.iter().rposition(|&byte| byte == b'\n') else {
            if self.held.len() > LINE_MAX {
                self.show_held(from, out);
            }
            return;
        };
        let rest = self.held.split_off(end + 1);
        let lines = std::mem::replace(&mut self.held, rest);
        for line in lines[..end].split(|&byte| byte == b'\n') {
            self.show(line, from, out);
        }
    }

    fn show_held(&mut self, from: &(String, u16), out: &mut Vec<u8>) {
        let line = std::mem::take(&mut self.held);
        if !line.is_empty() {
            self.show(&line, from, out);
        }
    }

    fn show(&self, line: &[u8], from: &(String, u16), out: &mut Vec<u8>) {
        let line = String::from_utf8_lossy(line);
        let shown = match (self.form, Item::parse(&line)) {
            (Form::Menu, Some(item)) => show_item(&item, from),
            // Tabs do no harm to a terminal, and tables need them.
            _ => line.split('\t').map(printable).collect::<Vec<_>>().join("\t"),
        };
        out.extend_from_slice(shown.trim_end().as_bytes());
        out.push(b'\n');
    }
}

/// A menu's line as it is shown: kind, name, and address.
pub(crate) fn show_item(item: &Item, from: &(String, u16)) -> String {
    let label = match item.kind {
        Kind::Info => return printable(&format!("{:9}{}", "", item.shown)),
        Kind::Text => "text",
        Kind::Menu => "menu",
        Kind::Error => "error",
        Kind::Search => "search",
        Kind::Binary => "binary",
        Kind::Gif | Kind::Image => "image",
        Kind::Html => "html",
        Kind::Other(b'8') => "telnet",
        Kind::Other(_) => "other",
    };
    let place = match item.selector.strip_prefix("URL:") {
        Some(url) => url.to_owned(),
        None if (&item.host, item.port) == (&from.0, from.1) => item.selector.clone(),
        None if item.kind == Kind::Error => String::new(),
        None => format!("gopher://{}:{}/{}{}", item.host, item.port, item.kind.code(), item.selector),
    };
    printable(&format!("{label:<9}{:<40} {place}", item.shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made_of(kind: Option<Kind>, is_on_terminal: bool, pieces: &[&[u8]]) -> (String, Verdict) {
        let mut reply = Reply::new(("host".into(), 70), kind, is_on_terminal);
        let mut out = Vec::new();
        for piece in pieces {
            reply.push(piece, &mut out);
        }
        reply.end(&mut out);
        (String::from_utf8_lossy(&out).into_owned(), reply.verdict())
    }

    #[test]
    fn a_menu_is_shown_readably_with_places_elsewhere_in_full() {
        let menu = b"iWelcome\t\t-\t0\r\n0About\t/about\thost\t70\r\n1Else\twhere\tother\t7070\r\n\
                     hWeb\tURL:http://example.org/\thost\t70\r\n8Old\t\thost\t23\r\nnonsense\r\n3gone\t\t-\t0\r\n.\r\n";
        let (shown, verdict) = made_of(None, false, &[menu]);
        let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
        let wanted = [
            &["Welcome"][..],
            &["text", "About", "/about"],
            &["menu", "Else", "gopher://other:7070/1where"],
            &["html", "Web", "http://example.org/"],
            &["telnet", "Old", "gopher://host:23/8"],
            &["nonsense"],
            &["error", "gone"],
        ];
        assert_eq!(lines, wanted);
        assert_eq!(verdict, Verdict::Complete);
    }

    #[test]
    fn what_it_is_is_told_or_seen() {
        let looks_like_a_menu = b"1a\tb\tc\t7\r\n.\r\n";
        assert!(made_of(None, false, &[looks_like_a_menu]).0.starts_with("menu "));
        assert_eq!(made_of(Some(Kind::Text), false, &[looks_like_a_menu]).0, "1a\tb\tc\t7\n");
        assert_eq!(made_of(None, false, &[b"a\r\n..\r\n.\r\n"]), ("a\n.\n".into(), Verdict::Complete));
        assert_eq!(made_of(None, false, &[b"\0\r\n.\r\n"]), ("\0\r\n.\r\n".into(), Verdict::Complete));
        assert_eq!(made_of(Some(Kind::Html), false, &[b"..\r\n.\r\n"]), ("..\r\n.\r\n".into(), Verdict::Complete));
    }

    #[test]
    fn an_error_item_alone_is_the_servers_refusal_whatever_was_asked() {
        for kind in [None, Some(Kind::Menu), Some(Kind::Text), Some(Kind::Binary)] {
            let answer = b"3no such\x1bthing\t\t-\t0\r\n.\r\n";
            let refused = (String::new(), Verdict::Refused("no such thing".into()));
            assert_eq!(made_of(kind, false, &[answer]), refused);
            assert_eq!(made_of(kind, false, &answer.chunks(1).collect::<Vec<_>>()), refused);
        }
        assert_eq!(made_of(Some(Kind::Binary), false, &[b"3 is no error"]).1, Verdict::Complete);
    }

    #[test]
    fn an_answer_may_be_whole_or_end_early() {
        for kind in [Kind::Menu, Kind::Text] {
            assert_eq!(made_of(Some(kind), false, &[]).1, Verdict::Early);
            assert_eq!(made_of(Some(kind), false, &[b"half a line"]).1, Verdict::Early);
            assert_eq!(made_of(Some(kind), false, &[b"a line\r\n"]), ("a line\n".into(), Verdict::WithoutLastLine));
            assert_eq!(made_of(Some(kind), false, &[b".\r\n"]), (String::new(), Verdict::Complete));
        }
        assert_eq!(made_of(Some(Kind::Menu), false, &[b"half a line"]).0, "half a line\n", "what came is shown");
        assert_eq!(made_of(Some(Kind::Binary), false, &[]).1, Verdict::Complete, "an empty file");
    }

    #[test]
    fn any_cutting_of_an_answer_gives_the_same() {
        let late = [&[b'x'; HEAD_MAX + 10][..], b"\0\r\n"].concat();
        let answers = [&b"1a\tb\tc\t7\r\n0d\te\thost\t70\r\n.\r\n"[..], b"a\r\n..b\r\n\r\n.\r\n", b"a\0\r\n..b\r\n"];
        let trailed = [&b".\r\n\0z"[..], b"a\n.\r\n\0z", b"3no\t\terror.host\t1\r\n.\r\n\0z", &late];
        for answer in answers.into_iter().chain(trailed) {
            let whole = made_of(None, true, &[answer]);
            for cut in 0..answer.len() {
                let (a, b) = answer.split_at(cut);
                assert_eq!(made_of(None, true, &[a, b]), whole, "cut after {cut}");
            }
        }
    }

    #[test]
    fn a_text_does_nothing_to_a_terminal() {
        let text = "a\tb\x1b[2J\u{9b}31m\u{202e}fdp.exe\r\n.\r\n".as_bytes();
        assert_eq!(made_of(Some(Kind::Text), true, &[text]).0, "a\tb [2J 31m\u{fffd}fdp.exe\n");
        let menu = "9invoice\u{202e}fdp.exe\t/x\u{2066}y\thost\t70\r\n.\r\n".as_bytes();
        let shown = made_of(Some(Kind::Menu), false, &[menu]).0;
        assert!(shown.contains("invoice\u{fffd}fdp.exe") && shown.contains("/x\u{fffd}y"), "{shown:?}");
        let refusal = "3no\u{202e}thing\t\t-\t0\r\n.\r\n".as_bytes();
        assert_eq!(made_of(None, true, &[refusal]).1, Verdict::Refused("no\u{fffd}thing".into()));
        let endless = vec![b'x'; 3 * LINE_MAX];
        assert_eq!(
            made_of(Some(Kind::Text), true, &endless.chunks(1000).collect::<Vec<_>>()).0.replace('\n', "").len(),
            endless.len()
        );
    }
}
