//! What it costs to depend on each, and the micro-benchmarks: programs of their own, whose tables are taken over.

use crate::peers::Build;
use mainspring_benches::{load::Failure, machine, process::succeed};
use std::{collections::BTreeSet, fs, time::Instant};

/// Of the smallest echo server.
pub(crate) struct Cost {
    pub(crate) name: &'static str,
    pub(crate) crates: usize,
    pub(crate) build_secs: f64,
    /// CPU time of the compiler.
    pub(crate) cpu_secs: f64,
    pub(crate) bytes: u64,
}

/// Clean builds in cargo's release profile, stripped, with two jobs; the quicker of two.
pub(crate) fn table(build: &Build) -> Result<Vec<Cost>, Failure> {
    let target = build.target.join("cost");
    let mut costs = Vec::new();
    for name in ["mainspring", "tokio", "calloop"] {
        let package = format!("echo-{name}");
        let tree = build.cargo("tree").args(["-p", &package, "-e", "normal", "--prefix", "none", "--format", "{p}"]).output()?;
        if !tree.status.success() {
            return Err(format!("cargo tree failed: {}", String::from_utf8_lossy(&tree.stderr).trim()).into());
        }
        let tree = String::from_utf8_lossy(&tree.stdout).into_owned();
        let crates: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(" (").next()).collect();
        let (mut build_secs, mut cpu_secs, mut bytes) = (f64::MAX, f64::MAX, 0);
        for _ in 0..2 {
            let _ = fs::remove_dir_all(&target);
            let mut cargo = build.cargo("build");
            cargo.args(["--quiet", "--locked", "--release", "-j2", "-p", &package, "--config", "profile.release.strip=true"]);
            let (began, cpu) = (Instant::now(), machine::cpu_of_children()?);
            succeed(cargo.env("CARGO_TARGET_DIR", &target))?;
            build_secs = began.elapsed().as_secs_f64().min(build_secs);
            cpu_secs = (machine::cpu_of_children()? - cpu).min(cpu_secs);
            bytes = fs::metadata(target.join("release").join(&package))?.len();
        }
        println!("cost of {name}: {} crates, {build_secs:.1} s, {cpu_secs:.1} s of CPU, {bytes} bytes", crates.len() - 1);
        costs.push(Cost { name, crates: crates.len() - 1, build_secs, cpu_secs, bytes });
    }
    let _ = fs::remove_dir_all(&target);
    Ok(costs)
}

/// What `micro` prints.
pub(crate) fn micro(build: &Build) -> Result<String, Failure> {
    let mut cargo = build.cargo("run");
    cargo.args(["--quiet", "--locked", "--release", "-p", "micro", "--bin", "micro"]);
    // It looks into the crate, which takes this flag; everything is built anew for it, so that has a place of its own.
    let output = cargo.env("RUSTFLAGS", "--cfg bench").env("CARGO_TARGET_DIR", build.target.join("micro")).output()?;
    if !output.status.success() {
        return Err(format!("the micro-benchmarks failed: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
    }
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{table}");
    Ok(table)
}
