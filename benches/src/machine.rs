//! What Linux tells about the machine and its processes.

use crate::load::Failure;
use nix::{
    sys::{
        resource::{UsageWho, getrusage},
        time::TimeVal,
    },
    time::{ClockId, clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};
use rustix::{
    process::{Resource, getrlimit, setrlimit},
    thread::{CpuSet, sched_setaffinity},
};
use std::{fs, os::unix::fs::MetadataExt, time::Duration};

/// This thread, and the processes that it starts from here on, run there.
pub fn pin(cpu: usize) -> Result<(), Failure> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|why| format!("cannot be pinned to CPU {cpu}: {why}").into())
}

/// As many descriptors as we may have.
pub fn allow_descriptors() -> Result<(), Failure> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// CPU time of a process so far, in seconds.
pub fn cpu_of(pid: u32) -> Result<f64, Failure> {
    let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(pid)?)).map_err(|_| "the server has died")?;
    Ok(Duration::from(clock_gettime(clock)?).as_secs_f64())
}

/// The same of this one.
pub fn own_cpu() -> f64 {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(0.0, |time| Duration::from(time).as_secs_f64())
}

/// The same of all processes that it has started and waited for.
pub fn cpu_of_children() -> Result<f64, Failure> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let secs = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(secs(usage.user_time()) + secs(usage.system_time()))
}

/// How many it has open.
pub fn descriptors_of(pid: u32) -> Result<u64, Failure> {
    let folder = format!("/proc/{pid}/fd");
    // Linux tells the number as the size since 6.2.
    match fs::metadata(&folder).map_err(|_| "the server has died")?.size() {
        0 => Ok(fs::read_dir(folder)?.count() as u64),
        size => Ok(size),
    }
}

/// Memory that it has written and shares with nobody.
pub fn dirty_bytes_of(pid: u32) -> Result<f64, Failure> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).map_err(|_| "the server has died")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).ok_or("no Private_Dirty in smaps_rollup")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0)
}

/// CPU time for which all processors were busy so far, or that was stolen from them by others of the same host; in seconds.
pub fn busy() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks: Vec<f64> = stat.lines().next().unwrap_or_default().split_whitespace().flat_map(str::parse).collect();
    // user nice system idle iowait irq softirq steal (proc(5)), in hundredths.
    [0, 1, 2, 5, 6, 7].iter().filter_map(|&index| ticks.get(index)).sum::<f64>() / 100.0
}

/// Those that this process may use.
pub fn processors() -> Result<Vec<usize>, Failure> {
    let set = rustix::thread::sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
}

/// In a few words: processors, memory, kernel.
pub fn described() -> String {
    let read = |file| fs::read_to_string(file).unwrap_or_default();
    let value = |text: &str, name: &str| -> String {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or("-", |(_, value)| value.trim()).to_owned()
    };
    let cpu = value(&read("/proc/cpuinfo"), "model name");
    let count = read("/proc/cpuinfo").lines().filter(|line| line.starts_with("processor")).count();
    let memory = value(&read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0.0) / f64::from(1 << 20);
    let kernel = read("/proc/sys/kernel/osrelease");
    let version = kernel.trim().split('-').next().unwrap_or_default(); // what follows names a build
    format!("{count} × {cpu}, {memory:.0} GiB, Linux {version}")
}
