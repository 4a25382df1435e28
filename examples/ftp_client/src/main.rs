//! An FTP client as a program. What it does is in the library.

#[path = "../../common/mod.rs"]
mod common;
#[path = "../../common/roots.rs"]
mod roots;
#[path = "../../common/tls.rs"]
mod tls;

use common::{Arguments, Failure, arguments_and_flags, complain, misused, own_up, path, status, stop_on_interrupt, unwritten};
use ftp_client::{App, Control, Task};
use mainspring::{Connect, Reactor, Target, TlsClient};
use percent_encoding::percent_decode_str;
use std::io::{IsTerminal, Write};
use std::{env, ffi::OsString, fs, io, iter, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

const HELP: &str = "\
Lists, fetches and stores files by FTP.

usage: ftp_client [OPTION]... URL ls [PATH]
       ftp_client [OPTION]... URL get REMOTE [LOCAL]
       ftp_client [OPTION]... URL put LOCAL [REMOTE]
       ftp_client [OPTION]... URL mirror REMOTE LOCAL
       ftp_client [OPTION]... URL mirror --upload LOCAL REMOTE
       ftp_client [OPTION]... URL cat|mkdir|rm REMOTE...
       ftp_client [OPTION]... URL mv REMOTE REMOTE

URL is ftp://[USER[:PASSWORD]@]HOST[:PORT][/FOLDER], or ftps:// for TLS from the
first byte on. Others can see a PASSWORD there in the list of processes, so use
FTP_PASSWORD in the environment or --password-file instead. Without USER the
login is anonymous, and neither of these is sent.

A file that is fetched is NAME.part until it is complete. A mirror transfers
files that are missing, or differ in size or time, and deletes nothing. If it
uploads to a server that keeps no times (no MFMT), it transfers files that
differ in size or are newer. `put FILE docs/` stores docs/FILE.

  --tls                 use AUTH TLS: no passwords or files are sent without it
  --ca FILE             the issuers of certificates to trust, in PEM; if not
                        given, those of the system
  --active              let the server connect to us for each transfer
  --continue            get, put, mirror: go on where an earlier try stopped, if
                        the file has not changed since, as far as times show
  --password-file FILE  the password is the first line of FILE
  --timeout SECS        how long to wait for a connection, a reply, the next
                        bytes; 30
  --quiet               do not show progress";

fn main() -> ExitCode {
    status(run().unwrap_or_else(|why| own_up(&why)))
}

/// Returns the exit status.
fn run() -> Result<u8, Failure> {
    let (options, flags) = (["ca", "password-file", "timeout"], ["tls", "active", "continue", "quiet", "upload"]);
    let Some(mut given) = arguments_and_flags(HELP, usize::MAX, &options, &flags)? else { return Ok(0) };
    let url = given.text()?.ok_or_else(|| misused("URL is missing"))?;
    let url = Url::parse(&url).ok_or_else(|| misused(format!("`{url}` is not an FTP URL: write ftp://HOST[:PORT][/FOLDER]")))?;
    let verb = given.text()?.ok_or_else(|| misused("the command is missing: ls, get, put, mirror…"))?;
    let tasks = tasks(&verb, given.has("upload"), &mut given)?;
    for (flag, verbs) in [("upload", &["mirror"][..]), ("continue", &["get", "put", "mirror"])] {
        if given.has(flag) && !verbs.contains(&verb.as_str()) {
            return Err(misused(format!("{verb}: --{flag} is for {}", verbs.join(", "))));
        }
    }
    let is_anonymous = ["anonymous", "ftp"].iter().any(|name| url.user.eq_ignore_ascii_case(name));
    let password = match given.option("password-file") {
        Some(_) if is_anonymous => return Err(misused("--password-file is for a USER in the URL")),
        Some(file) => {
            let text = fs::read_to_string(file).map_err(|error| format!("cannot read '{}': {error}", file.to_string_lossy()))?;
            Some(text.lines().next().unwrap_or_default().to_owned())
        }
        None if is_anonymous => url.password.or(Some("anonymous@".into())),
        None => url.password.or_else(|| env::var("FTP_PASSWORD").ok()),
    };
    let ca = given.option("ca").map(|file| path("--ca", file.clone())).transpose()?;
    let tls = if url.is_implicit || given.has("tls") { Some(client(ca, &url.host)?) } else { None };
    if tls.is_none() && given.option("ca").is_some() {
        return Err(misused("--ca is for TLS: add --tls, or use ftps://"));
    }
    let timeout = given.seconds("timeout")?.unwrap_or(Duration::from_secs(30));
    let mut options = Connect::new().timeout(timeout);
    if let Some(tls) = tls.clone().filter(|_| url.is_implicit) {
        options = options.tls(tls);
    }
    let mut app = App {
        user: url.user,
        password,
        folder: url.folder,
        tls,
        is_implicit: url.is_implicit,
        is_active: given.has("active"),
        continues: given.has("continue"),
        shows_progress: !given.has("quiet") && io::stderr().is_terminal(),
        timeout,
        tasks: tasks.into(),
        failures: 0,
        broken: None,
        unwritten: None,
        print: |line| writeln!(io::stdout(), "{line}"),
        complain: |line| complain(format_args!("error: {line}")),
    };
    let mut reactor = Reactor::new()?;
    stop_on_interrupt(&reactor)?;
    let target = Target::from((url.host.as_str(), url.port));
    reactor.net().connect_with(target, options, Control::default());
    reactor.run(&mut app)?;
    match (app.unwritten, app.broken) {
        (Some(error), _) => Err(unwritten(error)),
        (None, Some(why)) => Err(format!("{}: {why}", url.host).into()),
        (None, None) => Ok(u8::from(app.failures > 0)), // each was reported
    }
}

/// The tasks of a command line. All of it is checked before anything is done.
fn tasks(verb: &str, uploads: bool, given: &mut Arguments) -> Result<Vec<Task>, Failure> {
    let (one, two) = (given.word(), given.word());
    let mut more = iter::from_fn(|| given.word()).peekable();
    let most = match verb {
        "ls" => 1,
        "cat" | "mkdir" | "rm" => usize::MAX,
        "get" | "put" | "mirror" | "mv" => 2,
        other => return Err(misused(format!("`{other}` is not a command"))),
    };
    if let Some(word) = two.as_ref().filter(|_| most < 2).or(more.peek().filter(|_| most < 3)) {
        return Err(misused(format!("{verb}: `{}` is one word too many", word.to_string_lossy())));
    }
    let missing = |what: &str| misused(format!("{verb}: {what} is missing"));
    let remote = |word: Option<OsString>| {
        let word = word.filter(|word| !word.is_empty()).ok_or_else(|| missing("REMOTE"))?;
        word.into_string().map_err(|_| misused("the name of a remote file must be UTF-8"))
    };
    let local = |word: Option<OsString>| path("LOCAL", word.ok_or_else(|| missing("LOCAL"))?);
    let task = match verb {
        "ls" => Task::List(if one.is_some() { remote(one)? } else { String::new() }),
        "get" => {
            let remote = remote(one)?;
            let name = remote.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
            let local = local(two.or_else(|| Some(name.clone().into())))?;
            let local = if local.is_dir() { local.join(name) } else { local };
            Task::Fetch { remote, local, is_unknown: false }
        }
        "put" => {
            let local = local(one)?;
            let mut there = if two.is_some() { remote(two)? } else { String::new() };
            if there.is_empty() || there.ends_with('/') {
                there += local.file_name().and_then(|name| name.to_str()).ok_or_else(|| missing("REMOTE"))?;
            }
            Task::Store { remote: there, local, is_unknown: false }
        }
        "mirror" if uploads => Task::StoreAll { local: local(one)?, remote: remote(two)? },
        "mirror" => Task::FetchAll { remote: remote(one)?, local: local(two)? },
        "mv" => Task::Rename(remote(one)?, remote(two)?),
        _ => {
            let task = match verb {
                "cat" => Task::Show,
                "mkdir" => Task::MakeFolder,
                _ => Task::Remove,
            };
            let names = iter::once(one).chain(two.into_iter().chain(more).map(Some));
            return names.map(|name| remote(name).map(task)).collect();
        }
    };
    Ok(vec![task])
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

/// One for the whole program, so that data connections can resume the TLS session of the control connection.
fn client(ca: Option<PathBuf>, host: &str) -> Result<TlsClient, Failure> {
    let roots = match ca {
        Some(file) => tls::roots_of(&file)?,
        None => roots::roots_of_system("--ca")?,
    };
    let name = host.to_owned().try_into().map_err(|_| misused(format!("there are no certificates for `{host}`")))?;
    Ok(TlsClient::new(Arc::new(tls::client(roots, &[])?)).server_name(name))
}
