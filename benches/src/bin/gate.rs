//! The gate that noise cannot move: instructions under callgrind, and system calls under strace, of fixed loads (`loads`),
//! compared with gate.toml. Two lengths of each load are run: what their difference costs is free of how it starts.

use mainspring_benches::crates::locked;
use std::{
    collections::BTreeMap,
    error::Error,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Output},
};

const HELP: &str = "\
Counts instructions and system calls of fixed loads, and compares them with
benches/gate.toml.

usage: gate check   fails where one is over its figure by more than 2 %
       gate write   takes today's counts as the figures

It needs valgrind and strace, and says what it skips without them. Instructions
are compared only where rustc, the crates below ours, libc, valgrind and the
processor are those of gate.toml.";

const LOADS: [&str; 14] = [
    "echo-1",
    "echo-64",
    "timed-64",
    "line-16x16",
    "line-16x256",
    "broadcast-1000",
    "timer-cancel",
    "timer-fire",
    "post-1000",
    "udp-1",
    "udp-64",
    "unix-1",
    "tls-1",
    "tls-64",
];

/// Loads whose names begin like this belong to a program of their own, in a package whose mainspring has the feature.
const OVER_TLS: &str = "tls-";

/// What pins their instructions besides.
const TLS_PIN: &str = "tls";

/// Above its figure by more than this share, a count fails; below it by more, the figure should be written anew.
const TOLERANCE: f64 = 0.02;

/// Where hardly anything is called, a page more or less for the heap is no finding.
const SLACK: f64 = 0.0001;

type Failure = Box<dyn Error + Send + Sync>;

/// By load: for each request, line, delivery, timer, job or datagram.
type Counts = BTreeMap<String, f64>;

/// The sections of gate.toml.
#[derive(Default)]
struct Figures {
    pinned: BTreeMap<String, String>,
    instructions: Counts,
    calls: Counts,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match &arguments[..] {
        [what] if what == "check" => check(),
        [what] if what == "write" => write(),
        [what] if what == "--help" || what == "-h" => {
            println!("{HELP}");
            Ok(true)
        }
        _ => {
            eprintln!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every figure is held.
fn check() -> Result<bool, Failure> {
    let file = file();
    let text = fs::read_to_string(&file).map_err(|why| format!("{}: {why}; `gate write` makes it", file.display()))?;
    let figures = Figures::read(&text)?;
    let loads = build()?;
    let pinned = pins()?;
    let (of_tls, of_all): (Vec<_>, Vec<_>) = pinned
        .iter()
        .filter(|&(what, here)| figures.pinned.get(what) != Some(here))
        .map(|(what, here)| (what, format!("{what} is {here}, not {}", figures.pinned.get(what).map_or("-", String::as_str))))
        .partition(|&(what, _)| what == TLS_PIN);
    let skip = |what, differs: &[(&String, String)]| {
        let differs: Vec<&str> = differs.iter().map(|(_, says)| says.as_str()).collect();
        println!("SKIP  {what}: {}; `gate write` takes today's counts as the figures", differs.join("; "));
    };
    let mut is_held = true;
    if !runs("valgrind", &["--version"]) {
        println!("SKIP  instructions: valgrind is not installed");
    } else if !of_all.is_empty() {
        skip("instructions", &of_all);
    } else {
        let counted: Vec<&str> = LOADS.into_iter().filter(|load| of_tls.is_empty() || !load.starts_with(OVER_TLS)).collect();
        let count = |load: &str| Ok((instructions(&loads, load)?, String::new()));
        is_held &= compare("instructions", &counted, &figures.instructions, count)?;
        if !of_tls.is_empty() {
            skip("instructions over TLS", &of_tls);
        }
    }
    if !runs("strace", &["-o", "/dev/null", "true"]) {
        println!("SKIP  system calls: strace is not installed, or may not trace here (ptrace(2))");
    } else {
        is_held &= compare("system calls", &LOADS, &figures.calls, |load| calls(&loads, load))?;
    }
    Ok(is_held)
}

fn compare(
    of_what: &str,
    loads: &[&str],
    figures: &Counts,
    count: impl Fn(&str) -> Result<(f64, String), Failure>,
) -> Result<bool, Failure> {
    let mut is_held = true;
    for &load in loads {
        let figure = *figures.get(load).ok_or_else(|| format!("gate.toml has no {of_what} of {load}; `gate write` adds them"))?;
        let (counted, by_name) = count(load)?;
        let verdict = if counted > figure * (1.0 + TOLERANCE) + SLACK { "FAIL" } else { "PASS" };
        is_held &= verdict == "PASS";
        let change = if counted == figure { 0.0 } else { 100.0 * (counted - figure) / figure };
        let note = if counted < figure * (1.0 - TOLERANCE) - SLACK { "  better: `gate write` keeps it" } else { "" };
        println!("{verdict}  {load:15} {counted:10.3} {of_what}, {change:+6.2} % of {figure:.3}{note}{by_name}");
    }
    Ok(is_held)
}

fn write() -> Result<bool, Failure> {
    let loads = build()?;
    let mut figures = Figures { pinned: pins()?, ..Figures::default() };
    for load in LOADS {
        let (calls, by_name) = calls(&loads, load)?;
        let instructions = instructions(&loads, load)?;
        println!("{load:15} {instructions:10.3} instructions, {calls:.3} system calls{by_name}");
        figures.instructions.insert(load.into(), instructions);
        figures.calls.insert(load.into(), calls);
    }
    fs::write(file(), figures.text())?;
    Ok(true)
}

// ------------------------------------------------------------------------------------------------ counting

/// For each request, in user space.
fn instructions(loads: &Path, load: &str) -> Result<f64, Failure> {
    let run = |times: &str| -> Result<(f64, f64), Failure> {
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*counted*"]);
        let output = ran(valgrind.arg(program(loads, load)).args([load, times]))?;
        let text = String::from_utf8_lossy(&output.stderr);
        let collected = text.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
        Ok((requests_and_own_calls(&output)?.0, collected.ok_or_else(|| format!("callgrind says no count: {text}"))?))
    };
    let ((fewer, before), (more, after)) = (run("1")?, run("3")?);
    Ok((after - before) / (more - fewer))
}

/// For each request, and by name. Those of the clients are taken off: they are read(2), write(2) and writev(2).
fn calls(loads: &Path, load: &str) -> Result<(f64, String), Failure> {
    let table = std::env::temp_dir().join(format!("mainspring-gate-{}", std::process::id()));
    let run = |times: &str| -> Result<(f64, f64, Counts), Failure> {
        let mut strace = Command::new("strace");
        strace.args(["-c", "-U", "calls,name", "-o"]).arg(&table);
        let output = ran(strace.arg(program(loads, load)).args([load, times]))?;
        let (requests, own_calls) = requests_and_own_calls(&output)?;
        Ok((requests, own_calls, by_name(&fs::read_to_string(&table)?)))
    };
    let (short, long) = (run("1"), run("3"));
    let _ = fs::remove_file(&table);
    let ((fewer, own_before, before), (more, own_after, mut calls)) = (short?, long?);
    for (name, count) in &mut calls {
        *count -= before.get(name).unwrap_or(&0.0);
    }
    let own = own_after - own_before;
    let all: f64 = calls.values().sum();
    let mut list = String::new();
    for (name, count) in calls.iter().filter(|&(name, _)| own == 0.0 || !["read", "write", "writev"].contains(&name.as_str())) {
        if (count / (more - fewer)).abs() >= 0.0005 {
            write!(list, " {name} {:.3}", count / (more - fewer))?;
        }
    }
    Ok(((all - own) / (more - fewer), if list.is_empty() { list } else { format!(" :{list}") }))
}

/// What `strace -c` says.
fn by_name(table: &str) -> Counts {
    let row = |line: &str| {
        let (count, name) = line.trim().split_once(char::is_whitespace)?;
        Some((name.trim().to_owned(), count.parse().ok()?)).filter(|(name, _): &(String, f64)| name != "total")
    };
    table.lines().filter_map(row).collect()
}

/// The last line that a load prints.
fn requests_and_own_calls(output: &Output) -> Result<(f64, f64), Failure> {
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers = text.lines().last().and_then(|line| line.split_once(' '));
    let (requests, own_calls) = numbers.ok_or("a load says no numbers")?;
    Ok((requests.parse()?, own_calls.parse()?))
}

/// At most a minute, and only if it succeeds.
fn ran(command: &mut Command) -> Result<Output, Failure> {
    let mut bounded = Command::new("timeout");
    let output = bounded.arg("60").arg(command.get_program()).args(command.get_args()).output()?;
    if output.status.success() {
        return Ok(output);
    }
    let what = bounded.get_args().skip(1).map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let why = if output.status.code() == Some(124) { "it took more than a minute" } else { said.trim() };
    Err(format!("`{what}` failed: {why}").into())
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

fn program(loads: &Path, load: &str) -> PathBuf {
    loads.join(if load.starts_with(OVER_TLS) { "tls_loads" } else { "loads" })
}

/// The loads, in the default release profile and nothing else: where they are.
fn build() -> Result<PathBuf, Failure> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let own = std::env::current_exe()?;
    let target = own.parent().and_then(Path::parent).ok_or("the gate is not in a target directory")?;
    for which in [&["--bin", "loads"][..], &["--package", "tls", "--bin", "tls_loads"]] {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--release", "--locked", "--target-dir"]).arg(target).args(which);
        let status = cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS").current_dir(folder).status()?;
        if !status.success() {
            return Err("the loads do not build".into());
        }
    }
    Ok(target.join("release"))
}

// ------------------------------------------------------------------------------------------------ gate.toml

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("gate.toml")
}

/// All that decides how many instructions the same source has.
fn pins() -> Result<BTreeMap<String, String>, Failure> {
    let first_line = |program: &str, argument: &str| -> String {
        let output = Command::new(program).arg(argument).output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        text.lines().next().unwrap_or("-").to_owned()
    };
    let lock = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock"))?;
    let versions =
        |names: &[&str]| names.iter().map(|name| format!("{name} {}", locked(&lock, name))).collect::<Vec<_>>().join(", ");
    let pins = [
        ("rustc", first_line("rustc", "-V")),
        ("crates", versions(&["libc", "log", "memchr", "mio", "slab", "socket2"])),
        (TLS_PIN, format!("{}, {}", versions(&["ring", "rustls"]), cipher())),
        ("libc", first_line("ldd", "--version")),
        ("valgrind", first_line("valgrind", "--version")),
        ("processor", processor()),
    ];
    Ok(pins.map(|(what, is)| (what.to_owned(), is)).into())
}

/// What memchr and libc choose their code by.
#[cfg(target_arch = "x86_64")]
fn processor() -> String {
    if is_x86_feature_detected!("avx2") { "x86_64 with avx2" } else { "x86_64" }.into()
}

#[cfg(not(target_arch = "x86_64"))]
fn processor() -> String {
    std::env::consts::ARCH.into()
}

/// What ring chooses its code by, as far as valgrind knows of it.
#[cfg(target_arch = "x86_64")]
fn cipher() -> &'static str {
    let has_all = is_x86_feature_detected!("aes") && is_x86_feature_detected!("pclmulqdq") && is_x86_feature_detected!("movbe");
    if has_all && is_x86_feature_detected!("avx") {
        "aes, pclmulqdq, movbe and avx"
    } else {
        "less than aes, pclmulqdq, movbe and avx"
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn cipher() -> &'static str {
    "its own"
}

impl Figures {
    fn read(text: &str) -> Result<Self, Failure> {
        let mut figures = Self::default();
        let mut section = "";
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if line.starts_with('[') {
                section = line;
                continue;
            }
            let broken = || format!("gate.toml, line {number}: not `name = value`");
            let (name, value) = line.split_once(" = ").ok_or_else(broken)?;
            let count = || value.parse().map_err(|_| broken());
            match section {
                "[pinned]" => drop(figures.pinned.insert(name.into(), value.trim_matches('"').into())),
                "[instructions]" => drop(figures.instructions.insert(name.into(), count()?)),
                "[calls]" => drop(figures.calls.insert(name.into(), count()?)),
                _ => return Err(format!("gate.toml, line {number}: a section of no meaning here").into()),
            }
        }
        Ok(figures)
    }

    fn text(&self) -> String {
        let mut text = "# Kept by `gate write`, held by `gate check`: docs/benchmarks.md.\n\n[pinned]\n".to_owned();
        for (what, is) in &self.pinned {
            text += &format!("{what} = \"{is}\"\n");
        }
        for (section, counts) in [("instructions", &self.instructions), ("calls", &self.calls)] {
            text += &format!("\n# For each request, line, delivery, timer, job or datagram.\n[{section}]\n");
            for load in LOADS {
                text += &format!("{load} = {:.6}\n", counts.get(load).unwrap_or(&0.0));
            }
        }
        text
    }
}
