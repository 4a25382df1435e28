//! Tables. All ratios are taken within a round and a cell, to the mean of the reference's two runs there, and then the
//! median of the rounds is taken.

use crate::{
    Options, Results,
    cost::Cost,
    peers::{Build, OURS, Peer, REFERENCE},
    plot,
};
use mainspring_benches::{
    cells::Cell,
    crates::locked,
    load::{Failure, Figures},
    machine,
};
use std::{fs, process::Command};

/// What is above it is written by hand, what is below it by us.
const MARK: &str = "<!-- What follows is written by `compare`. -->";

pub(crate) struct Report<'a> {
    pub(crate) options: &'a Options,
    pub(crate) results: &'a Results,
    pub(crate) build: &'a Build,
    pub(crate) micro: Option<String>,
    pub(crate) cost: Option<Vec<Cost>>,
}

impl Report<'_> {
    pub(crate) fn show(&self, writes: bool) -> Result<(), Failure> {
        let text = self.text();
        if !writes {
            println!("\n{text}");
            return Ok(());
        }
        let docs = self.build.folder.parent().map(|root| root.join("docs")).filter(|docs| docs.is_dir());
        let docs = docs.ok_or("there is no folder docs beside benches")?;
        let page = docs.join("benchmarks.md");
        let before = fs::read_to_string(&page).unwrap_or_default();
        let by_hand = before.split(MARK).next().unwrap_or_default();
        fs::write(&page, format!("{by_hand}{MARK}\n\n{text}"))?;
        plot::draw(&docs.join("benchmarks.svg"), self.options.rounds, |cell, peer| self.range(cell, peer))?;
        println!("wrote {} and benchmarks.svg beside it", page.display());
        Ok(())
    }

    fn text(&self) -> String {
        let mut text = format!("{}\n\n", self.circumstances());
        text += "## Throughput, as a ratio to the raw epoll loop\n\n";
        text += &self.table(|cell, peer| self.ratio(cell, peer, Figures::rate).map(|ratio| format!("{ratio:.2}")));
        text += &self.multiples();
        text += "\n## Server CPU time per request, as a ratio to the raw epoll loop\n\n";
        text += "User and kernel together: the steadiest of the timed figures. Less is better.\n\n";
        text += &self.table(|cell, peer| self.ratio(cell, peer, Figures::cpu_per_request).map(|ratio| format!("{ratio:.2}")));
        text += "\n## Absolute figures\n\nMedians of the rounds. Requests, lines or connections a second; GB/s.\n\n";
        text += &self.table(|cell, peer| self.median_of(cell, peer, |figures| figures.rate() * cell.scale).map(human));
        text += "\nServer CPU time per request in ns (`sink-1`, `source-1`: per 64 KiB):\n\n";
        text += &self.table(|cell, peer| self.median_of(cell, peer, Figures::cpu_per_request).map(|ns| format!("{ns:.0}")));
        text += "\nLatency in µs, half of the requests and 99 of 100 within, in a closed loop:\n\n";
        text += &self.table(|cell, peer| {
            let p50 = self.median_of(cell, peer, |figures| figures.latency.map_or(f64::NAN, |latency| latency.p50))?;
            let p99 = self.median_of(cell, peer, |figures| figures.latency.map_or(f64::NAN, |latency| latency.p99))?;
            (!p50.is_nan()).then(|| format!("{p50:.0} / {p99:.0}"))
        });
        text += &self.idle();
        text += &self.spread();
        text += &self.costs();
        if let Some(micro) = &self.micro {
            text += &format!("\n## The parts by themselves\n\n{micro}");
        }
        text
    }

    fn circumstances(&self) -> String {
        let lock = fs::read_to_string(self.build.folder.join("Cargo.lock")).unwrap_or_default();
        let version = |program: &str, argument: &str| {
            let output = Command::new(program).arg(argument).output();
            output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
        };
        let crates = ["mainspring", "mio", "tokio", "tokio-util", "calloop", "rustix"];
        let mut versions: Vec<String> = crates.iter().map(|name| format!("{name} {}", locked(&lock, name))).collect();
        versions.push(version("rustc", "-V"));
        versions.extend(self.build.python.as_ref().map(|python| version(python, "-V")));
        format!(
            "Measured on {} by `cargo run --release --manifest-path benches/Cargo.toml --bin compare{}`: each cell {} times for {} s, \
             interleaved, {:.0} min. Machine: {}; server and load generator each on a processor of its own. \
             Profile: {}. Versions: {}.",
            version("date", "-I"),
            std::env::args().skip(1).fold(" --".to_owned(), |all, word| all + " " + &word).trim_end_matches(" --"),
            self.options.rounds,
            self.options.secs,
            (self.results.took.as_secs_f64() / 60.0).ceil(),
            machine::described(),
            match self.options.profile.as_str() {
                "peak" => "release with fat LTO and one codegen unit, for all",
                _ => "release, for all",
            },
            versions.join(", "),
        )
    }

    /// A row for each peer, a column for each cell.
    fn table(&self, value: impl Fn(&Cell, Peer) -> Option<String>) -> String {
        let mut text = String::from("| |");
        for cell in &self.options.cells {
            text += &format!(" {} |", cell.name);
        }
        text += &format!("\n|---|{}\n", "--:|".repeat(self.options.cells.len()));
        for &peer in &self.build.peers {
            text += &format!("| {} |", if peer.name == OURS { "**mainspring**" } else { peer.name });
            for cell in &self.options.cells {
                text += &format!(" {} |", value(cell, peer).unwrap_or_else(|| "–".into()));
            }
            text += "\n";
        }
        text
    }

    /// Of one peer in one cell, by round.
    fn of(&self, cell: &str, peer: &str, round: usize, figure: impl Fn(&Figures) -> f64) -> Vec<f64> {
        let samples = self.results.samples.iter();
        let wanted = samples.filter(|sample| sample.cell == cell && sample.peer == peer && sample.round == round);
        wanted.map(|sample| figure(&sample.figures)).collect()
    }

    fn ratio(&self, cell: &Cell, peer: Peer, figure: impl Fn(&Figures) -> f64 + Copy) -> Option<f64> {
        median(self.ratios(cell.name, peer.name, figure))
    }

    /// By round.
    fn ratios(&self, cell: &str, peer: &str, figure: impl Fn(&Figures) -> f64 + Copy) -> Vec<f64> {
        let in_round = |round| {
            let reference = mean(&self.of(cell, REFERENCE, round, figure))?;
            Some(mean(&self.of(cell, peer, round, figure))? / reference)
        };
        (0..self.options.rounds).filter_map(in_round).collect()
    }

    fn median_of(&self, cell: &Cell, peer: Peer, figure: impl Fn(&Figures) -> f64 + Copy) -> Option<f64> {
        median((0..self.options.rounds).flat_map(|round| self.of(cell.name, peer.name, round, figure)).collect())
    }

    /// Beside the same calls through the same crate, by the best and the worst of the rounds.
    fn beside_mio(&self) -> String {
        let Some(cell) = self.options.cells.iter().find(|cell| cell.mode == "udp") else { return String::new() };
        let in_round = |round| {
            let of = |name| mean(&self.of(cell.name, name, round, Figures::rate));
            Some(of(OURS)? / of("mio")?)
        };
        let ratios: Vec<f64> = (0..self.options.rounds).filter_map(in_round).collect();
        let (least, most) = ratios.iter().fold((f64::MAX, 0.0_f64), |(least, most), &ratio| (least.min(ratio), most.max(ratio)));
        median(ratios).map_or(String::new(), |ratio| {
            format!("\nIn `{}` mainspring does {ratio:.2} × the loop on mio, {least:.2} to {most:.2} by round.\n", cell.name)
        })
    }

    /// Where ratios to the limit are too small to be read.
    fn multiples(&self) -> String {
        let mut text = self.beside_mio();
        for cell in self.options.cells.iter().filter(|cell| cell.mode == "line") {
            let of = |name| {
                let peer = self.build.peers.iter().find(|peer| peer.name == name)?;
                self.ratio(cell, *peer, Figures::rate)
            };
            let Some(ours) = of(OURS) else { continue };
            let times = ["tokio", "asyncore"].into_iter().filter_map(|name| Some(format!("{:.1} × {name}", ours / of(name)?)));
            let times: Vec<String> = times.collect();
            if !times.is_empty() {
                text += &format!("\nIn `{}` mainspring does {}.\n", cell.name, times.join(", and "));
            }
        }
        text
    }

    fn idle(&self) -> String {
        let Some(cell) = self.options.cells.iter().find(|cell| cell.name == "idle") else { return String::new() };
        let mut text = format!(
            "\n## Memory of an idle connection, in bytes\n\nPrivate dirty memory of the server with {} of them; kernel memory is \
             the same for all. The ratio is that of the rate amid them to `echo-64` of the same server.\n\n\
             | | accepted, never used | after 64 bytes there and back | rate amid them |\n|---|--:|--:|--:|\n",
            self.options.idle
        );
        let echo = self.options.cells.iter().find(|cell| cell.name == "echo-64");
        for &peer in &self.build.peers {
            let memory = |used: bool| {
                self.median_of(cell, peer, |figures| {
                    figures.memory.map_or(f64::NAN, |memory| if used { memory.used } else { memory.fresh })
                })
            };
            let (Some(fresh), Some(used), Some(rate)) = (memory(false), memory(true), self.median_of(cell, peer, Figures::rate))
            else {
                continue;
            };
            let of_echo = echo.and_then(|echo| self.median_of(echo, peer, Figures::rate));
            let ratio = of_echo.map_or("–".into(), |of_echo| format!("{:.2}", rate / of_echo));
            let of_fewer =
                if peer.idle_max < self.options.idle { format!(" ({} of them)", peer.idle_max) } else { String::new() };
            text += &format!("| {}{of_fewer} | {fresh:.0} | {used:.0} | {ratio} |\n", peer.name);
        }
        text
    }

    fn spread(&self) -> String {
        let mut text =
            "\n## How good these figures are\n\nThe reference against itself: its two runs in a round, the larger by the \
                        smaller, in throughput and in CPU time per request. A ratio above is a median of rounds, and so steadier \
                        than one round; but what differs by less than the median here is not shown to differ.\n\n\
                        | | throughput, median | worst | CPU time, median | worst |\n|---|--:|--:|--:|--:|\n"
                .to_owned();
        for cell in &self.options.cells {
            let spread = |figure: fn(&Figures) -> f64| {
                let in_round = |round| match self.of(cell.name, REFERENCE, round, figure)[..] {
                    [first, last] => Some(f64::max(first / last, last / first)),
                    _ => None,
                };
                let all: Vec<f64> = (0..self.options.rounds).filter_map(in_round).collect();
                let worst = all.iter().copied().fold(f64::NAN, f64::max);
                format!("{:.2} | {worst:.2}", median(all).unwrap_or(f64::NAN))
            };
            text += &format!("| {} | {} | {} |\n", cell.name, spread(Figures::rate), spread(Figures::cpu_per_request));
        }
        let foreign: Vec<f64> = self.results.samples.iter().map(|sample| sample.foreign).collect();
        let most = foreign.iter().copied().fold(0.0, f64::max);
        text += &format!(
            "\nOther processes took {:.2} of a processor in the median run and {most:.2} in the worst; {} runs were repeated because \
             of them.\n",
            median(foreign).unwrap_or(0.0),
            self.results.repeated
        );
        for error in &self.results.errors {
            text += &format!("\nFailed: {error}.\n");
        }
        text
    }

    fn costs(&self) -> String {
        let Some(costs) = &self.cost else { return String::new() };
        let mut text = "\n## What it costs to depend on each\n\nOf the smallest echo server (benches/cost), in cargo's release \
                        profile: crates in its tree, a clean build with two jobs, size when stripped. tokio with its features rt \
                        and net. Ratios are of the compiler's CPU time.\n\n\
                        | | crates | build | CPU time | of tokio's | of calloop's | KiB |\n|---|--:|--:|--:|--:|--:|--:|\n"
            .to_owned();
        let secs_of = |name| costs.iter().find(|cost| cost.name == name).map_or(f64::NAN, |cost| cost.cpu_secs);
        for cost in costs {
            text += &format!(
                "| {} | {} | {:.1} s | {:.1} s | {:.2} | {:.2} | {} |\n",
                cost.name,
                cost.crates,
                cost.build_secs,
                cost.cpu_secs,
                cost.cpu_secs / secs_of("tokio"),
                cost.cpu_secs / secs_of("calloop"),
                cost.bytes / 1024
            );
        }
        text
    }

    /// For the picture, which says the same of all.
    fn range(&self, cell: &str, peer: &str) -> Option<plot::Ratio> {
        if cell == "idle" && self.build.peers.iter().any(|other| other.name == peer && other.idle_max < self.options.idle) {
            return None;
        }
        let mut ratios = self.ratios(cell, peer, Figures::rate);
        ratios.sort_by(f64::total_cmp);
        Some(plot::Ratio { least: *ratios.first()?, most: *ratios.last()?, median: median(ratios)? })
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 0 => Some((values[middle - 1] + values[middle]) / 2.0),
        _ => Some(values[middle]),
    }
}

fn human(value: f64) -> String {
    match value {
        1e6.. => format!("{:.2} M", value / 1e6),
        1e3.. => format!("{:.1} k", value / 1e3),
        _ => format!("{value:.2}"),
    }
}
