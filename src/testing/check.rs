//! Many seeds, and the few faults that make one of them fail; and every way of cutting some bytes.

use super::{sim::Sim, transcript::Transcript};
use crate::{
    contract::Protocol,
    panics::{guard, text},
    world::sim::{Mercy, Question, question_of, question_text},
};
use std::{cell::RefCell, collections::BTreeSet, env, ffi::OsStr, fmt, ops::Range, panic, path::Path, rc::Rc, sync::Once};

/// The environment variable that names one seed, which is then run alone.
const SEED: &str = "MAINSPRING_SEED";

/// The one that names the only faults that may strike.
const FAULTS: &str = "MAINSPRING_FAULTS";

/// This many faults are shown, and carried by the command.
const FAULTS_SHOWN: usize = 20;

/// How many runs are spent on reducing the faults of a failing one.
const SHRINKING_RUNS: usize = 400;

/// What makes two runs with one seed differ.
const OUTSIDE: &str = "something depends on a clock, a thread, the order of a HashMap, or on what was run before";

/// How much of the trace is shown with a failure.
const TRACE_LINES: usize = 60;

/// Runs a test with every seed of a range. What it does with the [`Sim`] should depend on nothing else.
///
/// With `MAINSPRING_SEED=17` in the environment only that seed is run, with its whole trace. With `MAINSPRING_FAULTS=…` in
/// addition, as a failing check prints it, only these faults strike.
///
/// [The chapter](crate::manual::testing#a-bug-that-no-dialogue-finds) says how to read a failure. The first seed is run
/// twice and must give the same trace, and fail both times if it fails; otherwise nothing could be replayed.
///
/// # Panics
/// If there is no seed in the range, and if the test panics with a seed. First the run is repeated with fewer and fewer of
/// its faults; then the message says what panicked and where, the seed, which faults are left, the end of the trace, and the
/// command that runs just that again; or that the same seed did not fail again.
///
/// ```
/// # use mainspring::{testing::{check, Weather}, Context, Outcome, Protocol};
/// # use std::time::Duration;
/// # struct Echo;
/// # impl<S> Protocol<S> for Echo {
/// #     fn received(&mut self, ctx: &mut Context<'_, S>, _: &mut S, bytes: &[u8]) -> Outcome {
/// #         ctx.send(bytes);
/// #         Ok(())
/// #     }
/// # }
/// check(0..20, |sim| {
///     sim.set_weather(Weather::rough());
///     let server = sim.host("10.0.0.1", ());
///     sim.net(server).listen("10.0.0.1:7", || Echo).expect("a free port");
///     // … clients, assertions …
///     sim.run_for(Duration::from_secs(60));
/// });
/// ```
#[track_caller]
pub fn check(seeds: Range<u64>, test: impl Fn(&mut Sim)) {
    assert!(!seeds.is_empty(), "there is no seed in {seeds:?}, so nothing is tested");
    if let Some(seed) = from_environment(SEED, |text| text.parse().ok()) {
        let faults = from_environment(FAULTS, |text| {
            text.split(',').filter(|fault| !fault.is_empty()).map(question_of).collect::<Option<BTreeSet<_>>>()
        });
        let mercy = faults.map_or(Mercy::None, Mercy::AllBut);
        let run = attempt(seed, mercy, true, &test);
        println!("{}", run.trace);
        if let Some(why) = run.why {
            panic!("seed {seed}: {why}");
        }
        return;
    }
    assert_same_twice(seeds.start, &test);
    for seed in seeds {
        let first = attempt(seed, Mercy::None, false, &test);
        if first.why.is_some() {
            report(seed, first, &test);
        }
    }
}

/// A run that cannot be repeated cannot be replayed either: better to know it now.
#[track_caller]
fn assert_same_twice(seed: u64, test: &impl Fn(&mut Sim)) {
    let runs = [(); 2].map(|()| attempt(seed, Mercy::None, true, test));
    let lines = runs[0].trace.lines().zip(runs[1].trace.lines()).find(|(one, two)| one != two);
    if runs[0].trace != runs[1].trace {
        let (one, two) = lines.unwrap_or(("(the end)", "(more)"));
        panic!("seed {seed} gives two different traces: {OUTSIDE}; they differ here:\n    {one}\n    {two}{}", failures(&runs));
    }
    if runs[0].why.is_some() != runs[1].why.is_some() {
        panic!("seed {seed} fails only one time out of two, with the same trace: {OUTSIDE}{}", failures(&runs));
    }
}

/// Which of two runs failed.
fn failures(runs: &[Trial; 2]) -> String {
    let line = |(number, run): (&str, &Trial)| run.why.as_ref().map(|why| format!("\nthe {number} time it failed: {why}"));
    ["first", "second"].into_iter().zip(runs).filter_map(line).collect()
}

#[track_caller]
fn from_environment<T>(name: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    let text = env::var(name).ok()?;
    match read(&text) {
        None => panic!("{name}={text} is not what a failing check has printed"),
        found => found,
    }
}

/// One run of a test.
struct Trial {
    /// What it panicked with, and where.
    why: Option<String>,
    struck: Vec<(Question, String)>,
    trace: String,
}

thread_local! {
    /// A panic of this thread is expected: it is kept here instead of being printed.
    static TRIED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps the panics of attempts from being printed, perhaps four hundred times; all others are printed as usual.
fn quieten_attempts() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let printing = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let is_attempt = TRIED.with_borrow_mut(|tried| match tried {
                Some(place) => {
                    *place = info.location().map(|at| format!(" (at {at})")).unwrap_or_default();
                    true
                }
                None => false,
            });
            if !is_attempt {
                printing(info);
            }
        }));
    });
}

fn attempt(seed: u64, mercy: Mercy, with_trace: bool, test: &impl Fn(&mut Sim)) -> Trial {
    quieten_attempts();
    let mut sim = Sim::new(seed);
    sim.keep_trace(with_trace);
    let network = Rc::clone(sim.network());
    network.borrow_mut().mercy = mercy;
    let why = complaint_of(|| test(&mut sim));
    let is_replaced = !Rc::ptr_eq(&network, sim.network());
    let replaced =
        is_replaced.then(|| "the test has put another simulation in the place of the one that it was given".to_owned());
    let why_at_last = complaint_of(|| drop(sim)); // something of the program may be asserted when it is dropped
    let network = network.borrow();
    Trial { why: replaced.or(why).or(why_at_last), struck: network.struck.clone(), trace: network.trace.text() }
}

/// What it panics with, and where.
fn complaint_of(run: impl FnOnce()) -> Option<String> {
    TRIED.set(Some(String::new()));
    let outcome = guard(run);
    let place = TRIED.take().unwrap_or_default();
    outcome.err().map(|payload| text(&payload) + &place)
}

/// Leaves out smaller and smaller parts of the faults, as long as it still fails without them (delta debugging).
fn shrink(seed: u64, first: &Trial, test: &impl Fn(&mut Sim)) -> BTreeSet<Question> {
    let mut chosen: Vec<Question> = first.struck.iter().map(|(question, _)| *question).collect();
    let (mut part, mut runs) = (chosen.len(), 0);
    while part > 0 && runs < SHRINKING_RUNS {
        let mut at = 0;
        while at < chosen.len() && runs < SHRINKING_RUNS {
            let rest = chosen.iter().enumerate().filter(|(place, _)| !(at..at + part).contains(place));
            let tried: BTreeSet<Question> = rest.map(|(_, question)| *question).collect();
            let run = attempt(seed, Mercy::AllBut(tried.clone()), false, test);
            runs += 1;
            if run.why.is_some() {
                let struck: BTreeSet<Question> = run.struck.iter().map(|(question, _)| *question).collect();
                chosen.retain(|question| tried.contains(question) && struck.contains(question));
            } else {
                at += part;
            }
        }
        part /= 2;
    }
    chosen.into_iter().collect()
}

#[track_caller]
fn report(seed: u64, first: Trial, test: &impl Fn(&mut Sim)) -> ! {
    let chosen = shrink(seed, &first, test);
    let last = attempt(seed, Mercy::AllBut(chosen.clone()), true, test);
    let Some(why) = last.why else {
        let why = first.why.unwrap_or_default();
        panic!("seed {seed}: {why}\nit did not fail when it was run again, with the same faults: {OUTSIDE}");
    };
    let faults = match (chosen.len(), first.struck.len()) {
        (0, 0) => "no fault was needed".to_owned(),
        (1, 1) => "its one fault is enough".to_owned(),
        (1, all) => format!("1 of its {all} faults is enough"),
        (left, all) => format!("{left} of its {all} faults are enough"),
    };
    let lines: Vec<String> = last.struck.iter().take(FAULTS_SHOWN).map(|(_, line)| format!("    {line}\n")).collect();
    let trace: Vec<&str> = last.trace.lines().collect();
    let tail = trace[trace.len().saturating_sub(TRACE_LINES)..].join("\n");
    let replay = if chosen.len() <= FAULTS_SHOWN {
        format!(" {FAULTS}={}", chosen.iter().map(question_text).collect::<Vec<_>>().join(","))
    } else {
        String::new()
    };
    let name = std::thread::current().name().unwrap_or("the_test").to_owned();
    panic!(
        "seed {seed}: {why}\n{faults}{}\n{}the end of the trace:\n{tail}\nto run it again, with the features that your tests need:\n    \
         {SEED}={seed}{replay} cargo test{} {name} -- --exact --nocapture",
        if lines.is_empty() { "." } else { ":" },
        lines.concat(),
        env::current_exe().map(|program| options_of(&program)).unwrap_or_default(),
    );
}

/// The options that Cargo was given, as far as the test's own file tells: `target/release/deps/room-0123456789abcdef`
/// belongs to a release, and to `tests/room.rs`, if that exists. Cargo runs tests in the folder of their package.
fn options_of(program: &Path) -> String {
    let mut options = match program.parent().and_then(Path::parent).and_then(Path::file_name).and_then(OsStr::to_str) {
        None | Some("debug") => String::new(),
        Some("release") => " --release".to_owned(),
        Some(profile) => format!(" --profile {profile}"),
    };
    if let Some((name, _)) = program.file_stem().and_then(OsStr::to_str).and_then(|stem| stem.rsplit_once('-')) {
        let tests = Path::new("tests");
        if tests.join(format!("{name}.rs")).is_file() || tests.join(name).join("main.rs").is_file() {
            options += &format!(" --test {name}");
        }
    }
    options
}

/// Feeds a protocol the same bytes whole, one by one, and cut in two at every place, and compares what it sent, and how it
/// ended. What follows the end is not fed.
///
/// # Panics
/// If it sends anything else for some cutting, or ends differently; the message says for which.
#[track_caller]
pub fn every_cut<P, S>(bytes: impl AsRef<[u8]>, protocol: impl Fn() -> P)
where
    P: Protocol<S>,
    S: Default + 'static,
{
    every_cut_with(bytes, || (protocol(), S::default()));
}

/// Feeds a protocol the same bytes in every cutting, as [`every_cut`] does, with a state for each.
///
/// # Panics
/// The same as for [`every_cut`].
#[track_caller]
pub fn every_cut_with<P, S>(bytes: impl AsRef<[u8]>, make: impl Fn() -> (P, S))
where
    P: Protocol<S>,
    S: 'static,
{
    let bytes = bytes.as_ref();
    let whole = Played::of(&make, &[bytes]);
    for cut in 1..bytes.len() {
        let (a, b) = bytes.split_at(cut);
        whole.assert_equal(&Played::of(&make, &[a, b]), &format!("cut after {cut} bytes"), bytes);
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    whole.assert_equal(&Played::of(&make, &single), "byte by byte", bytes);
}

/// What some bytes led to.
#[derive(PartialEq)]
struct Played {
    sent: Vec<u8>,
    end: Option<String>,
}

impl Played {
    #[track_caller]
    fn of<P: Protocol<S>, S: 'static>(make: impl Fn() -> (P, S), pieces: &[&[u8]]) -> Self {
        let (protocol, state) = make();
        let mut t = Transcript::with_state(protocol, state);
        for piece in pieces {
            if t.deafness().is_none() {
                t.receives(piece);
            }
        }
        Self { sent: t.sent(), end: t.end().map(|reason| reason.to_string()) }
    }

    #[track_caller]
    fn assert_equal(&self, cut: &Self, how: &str, bytes: &[u8]) {
        assert!(
            self == cut,
            "{how} it answers differently than to \"{}\" at once:\n     cut: {cut}\nat once: {self}",
            bytes.escape_ascii()
        );
    }
}

impl fmt::Display for Played {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.end.as_deref().unwrap_or("it stays open");
        write!(f, "\"{}\", then {end}", self.sent.escape_ascii())
    }
}
