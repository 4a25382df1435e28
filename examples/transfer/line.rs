//! The lines that the two ends exchange: each one flat JSON object (RFC 8259) of texts and whole numbers.
//!
//! ```text
//! sender                                                       receiver
//! {"name":"a.txt","size":12,"sha256":"64 digits"}   →
//!                                                   ←  {"state":"ready","offset":5}    it has these bytes already
//! the bytes from there on                           →
//!                                                   ←  {"state":"done"}                it has everything, and checked it
//!                                               or  ←  {"state":"refused","why":"…"}
//! ```
//!
//! Then the next file, or the end. A sender whose line is not a header is refused and disconnected. An end that reads a file,
//! or waits for its disk, says `{"state":"busy"}` again and again, so silence means that it is gone.

use crate::printable::printable;
use std::{collections::BTreeMap, fmt::Write, time::Duration};

/// Longer lines are refused.
pub(crate) const LINE_MAX: usize = 4096;

/// How often an end says that it is busy, and how often the sender reports what it waits for.
pub(crate) const TICK: Duration = Duration::from_secs(1);

/// The name, the size and the checksum of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) name: String,
    pub(crate) size: u64,
    /// 64 hexadecimal digits, in lower case.
    pub(crate) sha256: String,
}

impl Header {
    pub(crate) fn line(&self) -> String {
        format!("{{\"name\":{},\"size\":{},\"sha256\":{}}}\n", quoted(&self.name), self.size, quoted(&self.sha256))
    }

    /// The name is not checked.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, String> {
        let mut object = object(line)?;
        let (name, size, sha256) = (text(&mut object, "name")?, number(&mut object, "size")?, text(&mut object, "sha256")?);
        if sha256.len() != 64 || !sha256.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
            return Err("`sha256` must be 64 hexadecimal digits, small ones".into());
        }
        Ok(Self { name, size, sha256 })
    }
}

/// The receiver's answers. The sender says `Busy` too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Busy,
    Ready { offset: u64 },
    Done,
    Refused { why: String },
}

impl Answer {
    pub(crate) fn line(&self) -> String {
        match self {
            Self::Busy => "{\"state\":\"busy\"}\n".into(),
            Self::Ready { offset } => format!("{{\"state\":\"ready\",\"offset\":{offset}}}\n"),
            Self::Done => "{\"state\":\"done\"}\n".into(),
            Self::Refused { why } => format!("{{\"state\":\"refused\",\"why\":{}}}\n", quoted(why)),
        }
    }

    pub(crate) fn parse(line: &[u8]) -> Result<Self, String> {
        let mut object = object(line)?;
        match text(&mut object, "state")?.as_str() {
            "busy" => Ok(Self::Busy),
            "ready" => Ok(Self::Ready { offset: number(&mut object, "offset")? }),
            "done" => Ok(Self::Done),
            "refused" => Ok(Self::Refused { why: text(&mut object, "why")? }),
            other => Err(format!("`state` is {other:?}")),
        }
    }
}

/// File systems allow 255 bytes; the receiver adds something to the name.
const NAME_MAX: usize = 200;

/// A name must be one part of a path that leads nowhere else, is not hidden, and cannot control a terminal. (On Windows the
/// names of devices, such as `nul`, would still lead elsewhere; here they are names like any other.)
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(format!("a name has 1 to {NAME_MAX} bytes"));
    }
    if name.starts_with('.') {
        return Err("a name must not begin with a dot".into());
    }
    if printable(name) != name {
        return Err("a name must not have invisible characters, or some that change how it is read".into());
    }
    if name.ends_with(['.', ' ']) || name.contains(|c| r#"/\:*?"<>|"#.contains(c)) {
        return Err("a name is one part of a path, with none of / \\ : * ? \" < > | and no dot or space at its end".into());
    }
    Ok(())
}

// ---------------------------------------------------------------------------------------------------------------- JSON

enum Value {
    Text(String),
    Number(u64),
}

fn text(object: &mut BTreeMap<String, Value>, name: &str) -> Result<String, String> {
    match object.remove(name) {
        Some(Value::Text(text)) => Ok(text),
        _ => Err(format!("`{name}` is missing, or no text")),
    }
}

fn number(object: &mut BTreeMap<String, Value>, name: &str) -> Result<u64, String> {
    match object.remove(name) {
        Some(Value::Number(number)) => Ok(number),
        _ => Err(format!("`{name}` is missing, or no whole number")),
    }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => _ = write!(quoted, "\\u{:04x}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

fn object(line: &[u8]) -> Result<BTreeMap<String, Value>, String> {
    let line = std::str::from_utf8(line).map_err(|_| "the line is not UTF-8")?;
    Reader { rest: line }.object().ok_or_else(|| "the line is not a JSON object of texts and whole numbers".into())
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn object(&mut self) -> Option<BTreeMap<String, Value>> {
        let mut object = BTreeMap::new();
        self.sign('{')?;
        if self.sign('}').is_none() {
            loop {
                let name = self.text()?;
                self.sign(':')?;
                let value = if self.rest.trim_start().starts_with('"') { Value::Text(self.text()?) } else { self.number()? };
                if object.insert(name, value).is_some() {
                    return None; // a key that comes twice
                }
                if self.sign(',').is_none() {
                    break;
                }
            }
            self.sign('}')?;
        }
        self.rest.trim().is_empty().then_some(object)
    }

    fn sign(&mut self, sign: char) -> Option<()> {
        self.rest = self.rest.trim_start().strip_prefix(sign)?;
        Some(())
    }

    fn number(&mut self) -> Option<Value> {
        let rest = self.rest.trim_start();
        let (digits, more) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
        self.rest = more;
        let is_canonical = digits == "0" || !digits.starts_with('0');
        digits.parse().ok().filter(|_| is_canonical).map(Value::Number)
    }

    fn text(&mut self) -> Option<String> {
        self.sign('"')?;
        let mut text = String::new();
        loop {
            match self.next()? {
                '"' => return Some(text),
                '\\' => text.push(self.escape()?),
                c if u32::from(c) < 0x20 => return None,
                c => text.push(c),
            }
        }
    }

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let next = chars.next()?;
        self.rest = chars.as_str();
        Some(next)
    }

    fn escape(&mut self) -> Option<char> {
        Some(match self.next()? {
            c @ ('"' | '\\' | '/') => c,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let first = self.hex()?;
                if !(0xd800..0xdc00).contains(&first) {
                    return char::from_u32(first);
                }
                // The first half of a character beyond 16 bits.
                self.rest = self.rest.strip_prefix("\\u")?;
                let second = self.hex().filter(|second| (0xdc00..0xe000).contains(second))?;
                return char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00));
            }
            _ => return None,
        })
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.rest.get(..4).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        self.rest = &self.rest[4..];
        u32::from_str_radix(digits, 16).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str) -> Header {
        Header { name: name.into(), size: u64::MAX, sha256: "0123456789abcdef".repeat(4) }
    }

    #[test]
    fn what_is_written_is_read() {
        for name in ["a.txt", "ünïcödé 😀", "it's"] {
            assert_eq!(Header::parse(header(name).line().trim_end().as_bytes()), Ok(header(name)));
        }
        for answer in [Answer::Busy, Answer::Ready { offset: 0 }, Answer::Done, Answer::Refused { why: "\"\\\n\t\u{7f}é".into() }]
        {
            assert_eq!(Answer::parse(answer.line().trim_end().as_bytes()), Ok(answer));
        }
    }

    #[test]
    fn what_others_write_is_read_too() {
        let line = format!(
            " {{ \"sha256\" : \"{}\" , \"comment\":\"x\", \"size\":0,\t\"name\":\"\\ud83d\\ude00\\u00e9\\/ \"}} ",
            "0".repeat(64)
        );
        assert_eq!(Header::parse(line.as_bytes()).map(|header| header.name), Ok("😀é/ ".into()));
        let line = line.replace("\\/ ", "");
        assert_eq!(Header::parse(line.as_bytes()).map(|header| header.name), Ok("😀é".into()));
    }

    #[test]
    fn what_is_no_header_is_refused_with_a_reason() {
        let good = header("a").line();
        for bad in
            ["", "{", "{}", "[]", "null", "{\"name\":\"a\"}", "{\"a\":1,\"a\":1}", "{\"a\":1,}", "{\"a\":01}", "{\"a\":-1}"]
        {
            assert!(Header::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        for (from, to) in [
            ("\"a\"", "\"\\ud800\""),
            ("\"a\"", "\"\\udc00\""),
            ("\"a\"", "\"\\u+123\""),
            ("\"a\"", "\"\u{1}\""),
            ("\"a\"", "7"),
            ("18446744073709551615", "18446744073709551616"),
            ("18446744073709551615", "1.5"),
            ("18446744073709551615", "\"5\""),
            ("abcdef", "ABCDEF"),
            ("f\"", "\""),
            ("}", "}}"),
        ] {
            let bad = good.trim_end().replace(from, to);
            assert!(Header::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Header::parse(b"\xff").is_err());
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let long = "x".repeat(201);
        for name in [
            "",
            ".",
            "..",
            ".hidden",
            "a/b",
            "/etc/passwd",
            "..\\up",
            "c:x",
            "nul\0",
            "new\nline",
            "bell\u{7}",
            "invoice\u{202e}fdp.exe",
            "soft\u{ad}hyphen",
            "\u{3164}",
            "\u{2800}",
            "two\u{2028}lines",
            "\u{85}",
            "dot.",
            "space ",
            "a*",
            "a?",
            "\"a\"",
            "<a>",
            "a|b",
            &long,
        ] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        for name in ["a", "a.b.c", "with space", "-rf", "ünï", "❤\u{fe0f}", &long[1..]] {
            assert!(check_name(name).is_ok(), "{name:?}");
        }
    }
}
