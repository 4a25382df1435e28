//! What Cargo.lock says.

/// The version of this crate; `-` if it is not there.
pub fn locked<'a>(lock: &'a str, name: &str) -> &'a str {
    let wanted = format!("name = \"{name}\"\nversion = \"");
    lock.split_once(&wanted).and_then(|(_, rest)| rest.split_once('"')).map_or("-", |(version, _)| version)
}
