//! Servers as processes.

use crate::{load::Failure, machine};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

pub fn succeed(command: &mut Command) -> Result<(), Failure> {
    let status = command.status().map_err(|why| format!("cannot run {:?}: {why}", command.get_program()))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} failed: {status}").into()) }
}

/// A server as a process of its own; it ends with this value.
pub struct Server {
    child: Child,
    pub port: u16,
    complaints: PathBuf,
}

impl Server {
    /// Running, pinned, and listening.
    pub fn start(mut command: Command, complaints: PathBuf, its_cpu: usize, our_cpu: usize) -> Result<Self, Failure> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&complaints)?);
        machine::pin(its_cpu)?;
        let child = command.spawn();
        machine::pin(our_cpu)?;
        let child = child.map_err(|why| format!("{:?} does not start: {why}", command.get_program()))?;
        let mut server = Self { child, port: 0, complaints };
        let output = server.child.stdout.take().expect("it is piped");
        let (sender, first_line) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(output).read_line(&mut line);
            let _ = sender.send(line);
        });
        let line = first_line.recv_timeout(Duration::from_secs(15)).unwrap_or_default();
        match line.trim().rsplit_once(':').and_then(|(_, port)| port.parse().ok()) {
            Some(port) => server.port = port,
            None => return Err(server.explained("it does not say where it listens".into())),
        }
        Ok(server)
    }

    /// Asks it to end, and waits; what it said on standard error.
    pub fn end(mut self) -> Result<String, Failure> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).ok_or("a process of number 0")?;
        kill_process(pid, Signal::TERM)?;
        self.child.wait()?;
        Ok(fs::read_to_string(&self.complaints)?)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What went wrong, and whether the server is to blame.
    pub fn explained(&mut self, why: Failure) -> Failure {
        // One that has just died is told so a moment later.
        thread::sleep(Duration::from_millis(100));
        let Ok(Some(status)) = self.child.try_wait() else { return why };
        let said = fs::read_to_string(&self.complaints).unwrap_or_default();
        let last = said.lines().last().map(|line| format!(": {line}")).unwrap_or_default();
        format!("the server has died ({status}{last}); {why}").into()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
