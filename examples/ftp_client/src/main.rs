//! An FTP client.

#[path = "../../common/mod.rs"]
mod common;
#[path = "../../common/roots.rs"]
mod roots;
#[path = "../../common/tls.rs"]
mod tls;

use common::{Failure, arguments_and_flags, complain, misused, own_up, path, status, stop_on_interrupt};
use ftp_client::{App, Control, Task};
use mainspring::{Connect, Reactor, Target, TlsClient};
use percent_encoding::percent_decode_str;
use std::{collections::VecDeque, env, fs, io, io::IsTerminal, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

const HELP: &str = "\
Lists, fetches and stores files by FTP.

usage: ftp_client [OPTION]... URL ls [PATH]
       ftp_client [OPTION]... URL get REMOTE [LOCAL]
       ftp_client [OPTION]... URL put LOCAL [REMOTE]
       ftp_client [OPTION]... URL cat REMOTE
       ftp_client [OPTION]... URL mirror REMOTE LOCAL
       ftp_client [OPTION]... URL mirror --upload LOCAL REMOTE
       ftp_client [OPTION]... URL mkdir|rm REMOTE
       ftp_client [OPTION]... URL mv REMOTE REMOTE

URL is ftp://[USER[:PASSWORD]@]HOST[:PORT][/FOLDER], or ftps:// for TLS from the
first byte on. Others see a PASSWORD there in the list of processes: better is
FTP_PASSWORD in the environment, or --password-file.

What is fetched has its name when it is whole, and is NAME.part until then. A
mirror moves what is missing, or differs in size or time, and deletes nothing.

  --tls                 AUTH TLS, or nothing: no password and no file in clear
  --ca FILE             whom to trust, in PEM; else whom the system trusts
  --active              the server comes to us for each transfer
  --continue            go on where an earlier try was cut: what is there of the
                        file is believed to be its beginning
  --password-file FILE  its first line
  --timeout SECS        for a connection, a reply, the next bytes; 30
  --quiet               no progress is shown";

fn main() -> ExitCode {
    status(run().unwrap_or_else(|why| own_up(&why)))
}

/// The exit status.
fn run() -> Result<u8, Failure> {
    let (options, flags) = (["ca", "password-file", "timeout"], ["tls", "active", "continue", "quiet", "upload"]);
    let Some(mut given) = arguments_and_flags(HELP, 4, &options, &flags)? else { return Ok(0) };
    let url = given.text()?.ok_or_else(|| misused("URL is missing"))?;
    let url = Url::parse(&url).ok_or_else(|| misused(format!("`{url}` is no URL of FTP: write ftp://HOST[:PORT][/FOLDER]")))?;
    let verb = given.text()?.ok_or_else(|| misused("what is to be done is missing: ls, get, put, mirror…"))?;
    let (one, two) = (given.word(), given.word());
    let remote = |word: Option<std::ffi::OsString>| {
        word.map(|word| word.into_string().map_err(|_| misused("the name of a remote file is UTF-8"))).transpose()
    };
    let local = |word: Option<std::ffi::OsString>| word.map(|word| path("LOCAL", word)).transpose();
    let missing = |what: &str| misused(format!("{verb}: {what} is missing"));
    let (no_remote, no_local) = (|| missing("REMOTE"), || missing("LOCAL"));
    let base = |name: &str| name.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
    let task = match verb.as_str() {
        "ls" => Task::List(remote(one)?.unwrap_or_default()),
        "cat" => Task::Show(remote(one)?.ok_or_else(no_remote)?),
        "get" => {
            let remote = remote(one)?.ok_or_else(no_remote)?;
            let local = local(two)?.unwrap_or_else(|| base(&remote).into());
            let local = if local.is_dir() { local.join(base(&remote)) } else { local };
            Task::Fetch { remote, local, may_be_folder: false }
        }
        "put" => {
            let local = local(one)?.ok_or_else(no_local)?;
            let name = local.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            Task::Store { remote: remote(two)?.unwrap_or(name), local, goes_on: given.has("continue") }
        }
        "mirror" if given.has("upload") => {
            Task::StoreAll { local: local(one)?.ok_or_else(no_local)?, remote: remote(two)?.ok_or_else(no_remote)? }
        }
        "mirror" => Task::FetchAll { remote: remote(one)?.ok_or_else(no_remote)?, local: local(two)?.ok_or_else(no_local)? },
        "mkdir" => Task::MakeFolder(remote(one)?.ok_or_else(no_remote)?),
        "rm" => Task::Remove(remote(one)?.ok_or_else(no_remote)?),
        "mv" => Task::Rename(remote(one)?.ok_or_else(no_remote)?, remote(two)?.ok_or_else(no_remote)?),
        other => return Err(misused(format!("`{other}` is nothing that can be done"))),
    };
    let password = match given.option("password-file") {
        Some(file) => {
            let text = fs::read_to_string(file).map_err(|error| format!("cannot read '{}': {error}", file.to_string_lossy()))?;
            Some(text.lines().next().unwrap_or_default().to_owned())
        }
        None => url.password.or_else(|| env::var("FTP_PASSWORD").ok()),
    };
    let ca = given.option("ca").map(|file| path("--ca", file.clone())).transpose()?;
    let tls = if url.is_implicit || given.has("tls") { Some(client(ca, &url.host)?) } else { None };
    let timeout = given.seconds("timeout")?.unwrap_or(Duration::from_secs(30));
    let mut options = Connect::new().timeout(timeout);
    if let Some(tls) = tls.clone().filter(|_| url.is_implicit) {
        options = options.tls(tls);
    }
    let mut app = App {
        user: url.user,
        password: password.unwrap_or_else(|| "anonymous@".into()),
        folder: url.folder,
        tls,
        is_implicit: url.is_implicit,
        is_active: given.has("active"),
        continues: given.has("continue"),
        shows_progress: !given.has("quiet") && io::stderr().is_terminal(),
        timeout,
        tasks: VecDeque::from([task]),
        failures: 0,
        broken: None,
        print: |line| common::print(line).map_err(|error| error.to_string()),
        complain: |line| complain(format_args!("error: {line}")),
    };
    let mut reactor = Reactor::new()?;
    stop_on_interrupt(&reactor)?;
    let target = Target::from((url.host.as_str(), url.port));
    reactor.net().connect_with(target, options, Control::default());
    reactor.run(&mut app)?;
    match app.broken {
        Some(why) => Err(format!("{}: {why}", url.host).into()),
        None => Ok(u8::from(app.failures > 0)), // each was told
    }
}

struct Url {
    is_implicit: bool,
    user: String,
    password: Option<String>,
    host: String,
    port: u16,
    folder: String,
}

impl Url {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let is_implicit = scheme.eq_ignore_ascii_case("ftps");
        let decoded = |text: &str| percent_decode_str(text).decode_utf8().ok().map(String::from);
        let (at, folder) = rest.split_once('/').unwrap_or((rest, ""));
        let (who, at) = at.rsplit_once('@').unwrap_or(("anonymous", at));
        let (user, password) = who.split_once(':').map_or((who, None), |(user, password)| (user, Some(password)));
        let (host, port) = match at.strip_prefix('[') {
            Some(at) => at.split_once(']').map(|(host, port)| (host, port.strip_prefix(':')))?,
            None => at.split_once(':').map_or((at, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Some(if is_implicit { 990 } else { 21 }), |port| port.parse().ok())?;
        let password = password.map(decoded).map_or(Some(None), |password| password.map(Some))?;
        let is_known = is_implicit || scheme.eq_ignore_ascii_case("ftp");
        let (user, host, folder) = (decoded(user)?, host.to_owned(), decoded(folder)?);
        (is_known && !host.is_empty() && port > 0).then_some(Self { is_implicit, user, password, host, port, folder })
    }
}

/// One for the whole program: data connections go on with what the control connection has agreed on.
fn client(ca: Option<PathBuf>, host: &str) -> Result<TlsClient, Failure> {
    let roots = match ca {
        Some(file) => tls::roots_of(&file)?,
        None => roots::roots_of_system("--ca")?,
    };
    let name = host.to_owned().try_into().map_err(|_| misused(format!("no certificate can be for `{host}`")))?;
    Ok(TlsClient::new(Arc::new(tls::client(roots, &[])?)).server_name(name))
}
