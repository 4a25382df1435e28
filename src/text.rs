//! Text that others have written, on its way into one of your lines.

use std::fmt::{self, Write};

/// Shows it as one line with nothing harmful in it: what would begin another line, speak to a terminal, or make the rest
/// read in another order is escaped. A peer chooses its own path, and an error may quote it: neither must forge a log
/// record. A backslash stays as it is, so this is for reading, and cannot be reversed.
pub(crate) struct OneLine<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut shown = 0;
        for (at, odd) in text.char_indices().filter(|&(_, c)| is_odd(c)) {
            self.0.write_str(&text[shown..at])?;
            write!(self.0, "{}", odd.escape_default())?;
            shown = at + odd.len_utf8();
        }
        self.0.write_str(&text[shown..])
    }
}

/// Control characters (C0, DEL, C1), the two separators that end a line or paragraph, and what turns the direction of the
/// text around it (Unicode Standard Annex 9).
pub(crate) fn is_odd(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_text_is_shown_as_it_is() {
        for text in ["", "/run/x", "it's \\ \"here\"", "Grüße", "日本語", "שלום", "👩\u{200d}🚀", "%s {}"] {
            assert_eq!(OneLine(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_letter_is_escaped_wherever_it_stands() {
        let shown = |text: &str| OneLine(text).to_string();
        assert_eq!(shown("a\r\nb\0\t"), r"a\r\nb\u{0}\t");
        assert_eq!(shown("\x1b[2J\x07\x7f"), r"\u{1b}[2J\u{7}\u{7f}");
        assert_eq!(shown("\u{9b}31m\u{85}"), r"\u{9b}31m\u{85}");
        assert_eq!(shown("\u{2028}ü\u{202e}x\u{2066}"), r"\u{2028}ü\u{202e}x\u{2066}");
        assert_eq!(OneLine(OneLine("\n")).to_string(), r"\n", "once is enough");
        assert_eq!(OneLine(format_args!("{}-{}", "\n", 1)).to_string(), r"\n-1");
    }
}
