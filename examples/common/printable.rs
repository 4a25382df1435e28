//! Text of others, on its way to a terminal.

/// What cannot do anything to a terminal, nor end a field or a line.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
