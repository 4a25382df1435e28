//! Makes text from others safe for a terminal or a name: replaces what cannot be seen, and what would change the rest. Letters
//! of different alphabets that look the same are not told apart, nor the two ways to write a letter with its accent.

/// The result cannot control a terminal, end a field or a line, reverse it, or hide in it. Control characters, ends of lines
/// and blanks become spaces, other invisible characters U+FFFD. Characters that join or vary their neighbours stay: emoji, and
/// the scripts of some languages, need them.
pub(crate) fn printable(text: &str) -> String {
    let shown = |c: char| match c {
        '\u{2028}' | '\u{2029}' | '\u{2800}' => ' ',
        '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}' => c,
        c if c.is_control() => ' ',
        c if is_unseen(c) => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(shown).collect()
}

/// Whether a character shows nothing of its own: the Default_Ignorable_Code_Point of Unicode (its DerivedCoreProperties), the
/// other controls of format and ends of lines, what is blank and yet no space, what is no character, and what is one in private
/// only: nobody can say what it shows elsewhere.
pub(crate) fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(u32::from(c), 0xfdd0..=0xfdef)
        || u32::from(c) & 0xfffe == 0xfffe
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{70f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' // Mongolian
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' // without width, directions
            | '\u{2800}' // the Braille pattern without dots
            | '\u{3164}' | '\u{ffa0}' // Hangul fillers
            | '\u{fe00}'..='\u{fe0f}' // variation selectors
            | '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..='\u{10ffff}' // private use
            | '\u{feff}' | '\u{fff0}'..='\u{fffc}'
            | '\u{13430}'..='\u{1343f}' | '\u{16fe4}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d159}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}' // tags, and more variation selectors
        )
}

/// Whether a character is shown on top of the one before it, whatever that is: the marks that belong to no alphabet (Unicode's
/// script `Inherited`), and the few of Cyrillic that enclose a letter. Marks of one alphabet are shown by themselves unless
/// they follow a letter of it.
#[allow(dead_code)] // not all who show text have names
pub(crate) fn is_mark(c: char) -> bool {
    matches!(c,
        '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{64b}'..='\u{655}' | '\u{670}' | '\u{951}'..='\u{954}'
        | '\u{1ab0}'..='\u{1aff}' | '\u{1cd0}'..='\u{1cd2}' | '\u{1cd4}'..='\u{1ce0}' | '\u{1ce2}'..='\u{1ce8}' | '\u{1ced}'
        | '\u{1cf4}' | '\u{1cf8}' | '\u{1cf9}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}' | '\u{302a}'..='\u{302d}'
        | '\u{3099}' | '\u{309a}' | '\u{fe20}'..='\u{fe2f}' | '\u{101fd}' | '\u{102e0}' | '\u{1133b}'
        | '\u{1cf00}'..='\u{1cf46}' | '\u{1d165}'..='\u{1d169}' | '\u{1d16d}'..='\u{1d172}' | '\u{1d17b}'..='\u{1d182}'
        | '\u{1d185}'..='\u{1d18b}' | '\u{1d1aa}'..='\u{1d1ad}'
    )
}

/// The longest name, in characters.
#[allow(dead_code)] // not all who show text have names
pub(crate) const NAME_MAX: usize = 32;

/// Whether readers can tell a name from all others, and from what a room itself says.
#[allow(dead_code)]
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.chars().count() > NAME_MAX {
        Err(format!("A name has 1 to {NAME_MAX} characters."))
    } else if name.contains(is_doubtful) || name.starts_with(is_mark) || name.trim() != name {
        Err("A name must be UTF-8, without invisible characters.".into())
    } else if name.starts_with('/') || name.contains(['<', '>', '*']) {
        Err("A name must have none of < > * in it, and no / in front.".into())
    } else {
        Ok(())
    }
}

/// Characters that could make two names look alike, or a name look empty. (So could a mark at the beginning, which is shown on
/// the character before it.)
#[allow(dead_code)]
fn is_doubtful(c: char) -> bool {
    c == char::REPLACEMENT_CHARACTER || is_unseen(c) || (c.is_whitespace() && c != ' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_is_seen_and_does_nothing() {
        let cases = [
            ("a\tb\r\nc\u{1b}[2J\u{9b}31m\u{7f}", "a b  c [2J 31m "),
            ("one\u{2028}two\u{2029}three\u{85}four", "one two three four"),
            ("invoice\u{202e}fdp.exe", "invoice\u{fffd}fdp.exe"),
            ("\u{2066}a\u{2069} b\u{200f} c\u{61c}", "\u{fffd}a\u{fffd} b\u{fffd} c\u{fffd}"),
            ("a\u{ad}b\u{34f}c\u{180e}d\u{feff}e\u{fff9}f\u{e0041}g", "a\u{fffd}b\u{fffd}c\u{fffd}d\u{fffd}e\u{fffd}f\u{fffd}g"),
            ("\u{3164}\u{2800}\u{ffff}", "\u{fffd} \u{fffd}"),
            (
                "größe, 日本\u{3000}語, \u{1f468}\u{200d}\u{1f467}, ❤\u{fe0f}",
                "größe, 日本\u{3000}語, \u{1f468}\u{200d}\u{1f467}, ❤\u{fe0f}",
            ),
        ];
        for (said, shown) in cases {
            assert_eq!(printable(said), shown, "{said:?}");
        }
    }

    #[test]
    fn marks_of_every_alphabet_are_known_and_letters_are_none() {
        assert!(
            "\u{300}\u{307}\u{36f}\u{489}\u{64b}\u{1ab0}\u{1dff}\u{20dd}\u{20e3}\u{3099}\u{fe20}\u{1d167}".chars().all(is_mark)
        );
        assert!(!" aé<ß日\u{5d0}\u{915}\u{fffd}❤\u{1f468}".contains(is_mark));
    }

    #[test]
    fn all_that_shows_nothing_is_known_and_nothing_that_shows() {
        for c in "\u{0}\u{ad}\u{34f}\u{61c}\u{115f}\u{180e}\u{200b}\u{200d}\u{202e}\u{2065}\u{2800}\u{3164}\u{fe0f}\u{fff9}\u{e0001}\u{e01ef}\u{e000}\u{f8ff}\u{f0000}\u{10fffd}".chars() {
            assert!(is_unseen(c), "{c:?}");
        }
        for c in " aé\u{a0}ßб日\u{301}\u{fffd}❤\u{1f468}".chars() {
            assert!(!is_unseen(c), "{c:?}");
        }
    }
}
