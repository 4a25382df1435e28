//! What was left out, and why, where somebody sees it: libtest swallows what a passing test prints, and a test that did
//! nothing looks like one that passed.

use std::{fmt, io::Write, path::Path};

/// Says why this test, or a part of it, is left out: on standard error, past libtest, and as a line of the file that
/// `MAINSPRING_SKIPS` names. .ci/run counts these lines, and fails on one that it does not expect.
pub(crate) fn skip(why: impl fmt::Display) {
    let program = std::env::current_exe().ok().and_then(|path| Some(path.file_stem()?.to_string_lossy().into_owned()));
    let program = program.as_deref().map_or("?", |stem| stem.rsplit_once('-').map_or(stem, |(name, _)| name)).to_owned();
    let thread = std::thread::current();
    let line = format!("{program} {}: {why}\n", thread.name().unwrap_or("?"));
    let _ = std::io::stderr().write_all(format!("skipped: {line}").as_bytes());
    if let Some(path) = std::env::var_os("MAINSPRING_SKIPS") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(Path::new(&path));
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("the file that MAINSPRING_SKIPS names is writable");
    }
}

/// How many descriptors this process may have open at a time.
pub(crate) fn descriptors_max() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    line.and_then(|line| line.split_whitespace().nth(3)).and_then(|soft| soft.parse().ok()).unwrap_or(usize::MAX)
}

/// Whether this many may be; skips if not. The other tests of the program have theirs at the same time.
pub(crate) fn has_room_for(descriptors: usize) -> bool {
    let most = descriptors_max();
    if most < descriptors {
        skip(format_args!("{descriptors} descriptors are needed, and the limit is {most} (ulimit -n)"));
    }
    most >= descriptors
}
