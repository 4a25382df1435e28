//! The compiler says what to write where a trait of ours is missing.

#[path = "common/skips.rs"]
#[allow(dead_code)]
mod skips;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What rustc says of such a library against this crate; nothing if it has nothing to say.
fn compile(name: &str, source: &str) -> Result<String, String> {
    let deps = std::env::current_exe().map_err(|error| error.to_string())?;
    let deps = deps.parent().ok_or("this program is in no folder")?;
    let built = fs::read_dir(deps).map_err(|error| error.to_string())?.filter_map(|entry| Some(entry.ok()?.path()));
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.starts_with("libmainspring-") && name.ends_with(".rlib")
    };
    let newest = built.filter(is_ours).max_by_key(|path| path.metadata().and_then(|file| file.modified()).ok());
    let newest = newest.ok_or_else(|| format!("no libmainspring-*.rlib in {}", deps.display()))?;
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(path.with_extension("rs"), format!("#![allow(unused)]\nuse mainspring::*;\n{source}\n"))
        .map_err(|error| error.to_string())?;
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()))
        .args(["--edition=2024", "--crate-type=lib", "--emit=metadata", "--color=never", "-L"])
        .arg(format!("dependency={}", deps.display()))
        .arg("--extern")
        .arg(format!("mainspring={}", newest.display()))
        .arg("-o")
        .arg(path.with_extension("rmeta"))
        .arg(path.with_extension("rs"))
        .output();
    let output = output.map_err(|error| format!("rustc: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

const RIGHT: &str = "struct Right; impl<S> Protocol<S> for Right {}
fn main(net: &mut Net<'_, u8>) { net.connect(\"127.0.0.1:1\", Right); }";

/// What is wrong, and what the compiler is to say of it, besides much else.
const WRONG: [(&str, &str, &[&str]); 6] = [
    (
        "protocol",
        "struct Wrong; fn main(net: &mut Net<'_, u8>) { net.listen(\"127.0.0.1:0\", || Wrong); }",
        &["`Wrong` is not a protocol for the state `u8`", "write `impl Protocol<u8> for Wrong`"],
    ),
    (
        "handler",
        "struct Wrong; fn main(net: &mut Net<'_, u8>) { net.serve(\"127.0.0.1:0\", Listen::new(), || Wrong); }",
        &["`Wrong` is not a request handler for the state `u8`", "write `impl RequestHandler<u8> for Wrong`"],
    ),
    (
        "dispatcher",
        "struct Wrong; fn main(net: &mut Net<'_, u8>) { net.watch(Wrong); }",
        &["`Wrong` is not a dispatcher for the state `u8`", "write `impl Dispatcher<u8> for Wrong`"],
    ),
    (
        "producer",
        "struct Wrong; fn main(ctx: &mut Context<'_>) { ctx.produce(Wrong); }",
        &["`Wrong` is not a producer", "|out: &mut Vec<u8>| -> io::Result<Produced> { … }"],
    ),
    (
        "framer",
        "struct Wrong; fn main() { Terminator::custom(Wrong, 100); }",
        &["`Wrong` is not a framer", "write `impl Framer for Wrong`"],
    ),
    (
        "moved",
        "fn main(mut reactor: Reactor) { std::thread::spawn(move || reactor.run(&mut ())); }",
        &["cannot be sent between threads safely"],
    ),
];

#[test]
fn the_compiler_says_what_to_write() {
    match compile("right", RIGHT) {
        Ok(said) if said.is_empty() => {}
        Ok(said) | Err(said) => {
            return skips::skip(format_args!("rustc cannot be asked: {}", said.lines().next().unwrap_or("?")));
        }
    }
    for (name, source, wanted) in WRONG {
        let said = compile(name, source).expect("it was asked before");
        for part in wanted {
            assert!(said.contains(part), "of {name} it says nothing of {part:?}:\n{said}");
        }
    }
}
