//! The reference pages and the manual: each method says itself what it does, chapters and pages lead to each other, and the
//! compiler says what to write.

#[path = "common/skips.rs"]
#[allow(dead_code)]
mod skips;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of src/") {
        let path = entry.expect("readable").path();
        match path.is_dir() {
            true => all.extend(files(&path)),
            false if path.extension().is_some_and(|extension| extension == "rs") => all.push(path),
            false => {}
        }
    }
    all.sort();
    all
}

/// A public item, something of a public trait, or an `impl`, and what is said of it.
struct Item {
    file: String,
    /// The type or trait on whose page it stands.
    page: String,
    /// `pub fn send(&mut self, …`
    declared: String,
    doc: String,
}

/// All of src/ but tests, and the door of the fuzzers.
fn items() -> Vec<Item> {
    let src = root().join("src");
    let mut all = Vec::new();
    for path in files(&src) {
        let file = path.strip_prefix(&src).expect("below src/").display().to_string();
        if file == "inside.rs" {
            continue;
        }
        let (mut doc, mut page, mut is_in_trait) = (String::new(), String::new(), false);
        let mut is_in_attribute = false;
        for line in read(&path).lines().take_while(|line| *line != "#[cfg(test)]") {
            let code = line.trim_start();
            match code.strip_prefix("///") {
                Some(text) => doc = doc + text.strip_prefix(' ').unwrap_or(text) + "\n",
                None if is_in_attribute || code.starts_with("#[") => is_in_attribute = !code.ends_with(']'),
                None => {
                    is_in_trait = (is_in_trait || line.starts_with("pub trait ")) && line != "}";
                    page = page_of(line).unwrap_or(page);
                    if code.starts_with("pub ") || line.starts_with("impl") || (is_in_trait && code.starts_with("fn ")) {
                        let (file, page) = (file.clone(), page.clone());
                        all.push(Item { file, page, declared: code.into(), doc: std::mem::take(&mut doc) });
                    }
                    doc.clear();
                }
            }
        }
    }
    all
}

/// What `pub struct Name<…>`, `pub trait Name: …` or `impl<S> Name<…> {` begins.
fn page_of(line: &str) -> Option<String> {
    let kinds = ["pub struct ", "pub enum ", "pub trait ", "impl "];
    let rest = match line.strip_prefix("impl<") {
        Some(rest) => rest.split_once("> ")?.1,
        None => kinds.iter().find_map(|kind| line.strip_prefix(kind))?,
    };
    Some(rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()?.to_owned())
}

impl Item {
    fn is_method(&self) -> bool {
        let words = self.declared.split_whitespace().skip_while(|word| ["pub", "const", "async"].contains(word));
        words.take(1).eq(["fn"])
    }
}

/// Up to the first full stop of the first paragraph.
fn first_sentence(doc: &str) -> String {
    let paragraph: Vec<&str> = doc.lines().take_while(|line| !line.trim().is_empty()).collect();
    let paragraph = paragraph.join(" ");
    paragraph.split_inclusive(". ").next().unwrap_or_default().trim().to_owned()
}

/// The text between links, and what is left of it.
fn without_links(text: &str) -> String {
    let (mut left, mut depth) = (String::new(), 0);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '[' => depth += 1,
            ']' => {
                depth -= 1;
                if chars.next_if_eq(&'(').is_some() {
                    chars.by_ref().find(|&c| c == ')');
                }
            }
            c if depth == 0 => left.push(c),
            _ => {}
        }
    }
    left
}

/// It says where it is said, or begins with that.
fn is_pointer(doc: &str) -> bool {
    let sentence = first_sentence(doc);
    let begins = ["[`", "See ", "As ", "Same as", "The same", "Like "].iter().any(|begin| sentence.starts_with(begin));
    begins || !without_links(&sentence).chars().any(char::is_alphanumeric)
}

#[test]
fn the_first_sentence_of_each_public_method_says_what_it_does() {
    for pointer in
        ["[`Link::send`].", "[`Link::close`]; [this](x) too.\n", "As [`Self::x`].", "The same with options.", "See there.", ""]
    {
        assert!(is_pointer(pointer), "{pointer}");
    }
    assert!(!is_pointer("Queues bytes for the peer. As [`Link::send`].") && !is_pointer("The [deadline](x) of each."));

    let items = items();
    let methods: Vec<&Item> = items.iter().filter(|item| item.is_method()).collect();
    assert!(methods.len() > 300, "only {} public methods were found", methods.len());
    let pointers = methods.iter().filter(|item| is_pointer(&item.doc));
    let pointers: Vec<_> =
        pointers.map(|item| format!("{}: {}: {}", item.file, item.declared, first_sentence(&item.doc))).collect();
    assert!(pointers.is_empty(), "{pointers:#?}");
}

/// A chapter of the manual.
struct Chapter {
    /// As it is called: `work elsewhere`.
    label: String,
    /// `blocking_work`
    module: String,
    /// `blocking-work.md`
    file: String,
    text: String,
}

/// What the labels in the chapters lead to in the reference, as src/manual.rs has it.
fn links_of_the_reference() -> Vec<(String, String)> {
    definitions(&read("src/manual.rs"))
}

/// Lines of `[label]: target`.
fn definitions(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().filter_map(|line| line.strip_prefix('[')?.split_once("]: "));
    lines.map(|(label, target)| (label.to_owned(), target.to_owned())).collect()
}

/// In the order of the `mod` lines.
fn chapters() -> Vec<Chapter> {
    let (manual, labels) = (read("src/manual.rs"), links_of_the_reference());
    let (mut all, mut file) = (Vec::new(), "");
    for line in manual.lines() {
        if let Some(path) = line.strip_prefix("#[doc = include_str!(\"../docs/") {
            file = path.strip_suffix("\")]").expect("one path");
        } else if let Some(module) = line.strip_prefix("pub mod ").and_then(|line| line.strip_suffix(" {}")) {
            let target = format!("crate::manual::{module}");
            let (label, _) = labels.iter().find(|(_, to)| *to == target).unwrap_or_else(|| panic!("{module} has no label"));
            let text = read(Path::new("docs").join(file));
            all.push(Chapter { label: label.clone(), module: module.into(), file: file.into(), text });
        }
    }
    assert!(all.len() >= 15, "only {} chapters were found", all.len());
    all
}

/// All that is said in src/, without the manual's own front.
fn docs_of_the_reference() -> String {
    let all = files(&root().join("src")).into_iter().filter(|path| !path.ends_with("manual.rs"));
    let docs = all.map(|path| {
        let text = read(path);
        let lines = text.lines().map(str::trim_start).filter(|line| line.starts_with("///") || line.starts_with("//!"));
        lines.fold(String::new(), |docs, line| docs + line + "\n")
    });
    docs.collect()
}

/// Every `before` with the name that follows: letters, `_`.
fn names_after<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(before).skip(1).map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default())
}

#[test]
fn each_chapter_is_linked_from_the_reference_and_links_back_and_to_another() {
    let docs = docs_of_the_reference();
    let linked: BTreeSet<&str> = names_after(&docs, "manual::").collect();
    for Chapter { label, module, file, text } in chapters() {
        assert!(linked.contains(module.as_str()), "nothing in src/ links to crate::manual::{module}");
        let (into_reference, others): (Vec<_>, Vec<_>) =
            definitions(&text).into_iter().partition(|(_, target)| target.starts_with("../src/"));
        assert!(!into_reference.is_empty(), "docs/{file} links to nothing of the reference");
        assert!(others.iter().any(|(other, _)| *other != label), "docs/{file} links to no other chapter");
    }
}

#[test]
fn what_a_user_writes_or_is_given_links_to_its_chapter() {
    let names = "Protocol Context Net Link Reactor Terminator Framer Producer Listen Connect RequestHandler Dispatcher Datagram Bind Adopted \
                 AdoptedListener Detached Lane Remote Config Reason Limit Reconnect Key Timer Hold Stats Target Transcript Scene Sim Weather check";
    let items = items();
    for name in names.split_whitespace() {
        let is_it = |item: &&Item| {
            let mut words = item.declared.split(|c: char| !c.is_alphanumeric() && c != '_');
            words.next() == Some("pub") && words.nth(1) == Some(name)
        };
        let item = items.iter().find(is_it).unwrap_or_else(|| panic!("`{name}` was not found"));
        assert!(item.doc.contains("(crate::manual::"), "the page of `{name}` links to no chapter");
    }
}

/// In docs.rs by src/manual.rs, in a repository by the end of the chapter itself.
#[test]
fn links_of_a_chapter_lead_to_the_same_in_the_reference_and_in_a_repository() {
    let chapters = chapters();
    let reference = links_of_the_reference();
    let mut used = BTreeSet::new();
    for Chapter { file, text, .. } in &chapters {
        let definitions = definitions(text);
        for (label, target) in &definitions {
            let uses = text.matches(&format!("[{label}]")).count() - 1;
            assert!(uses > 0, "docs/{file} does not use [{label}]");
            let (_, to) =
                reference.iter().find(|(other, _)| other == label).unwrap_or_else(|| panic!("src/manual.rs: no [{label}]"));
            let leads_to_a_chapter = chapters.iter().any(|chapter| {
                chapter.label == *label && chapter.file == *target && *to == format!("crate::manual::{}", chapter.module)
            });
            let name = to.split("::").find(|part| !["crate", "testing"].contains(part)).expect("a path");
            let declares = |kind: &str| {
                let path = target.strip_prefix("../").filter(|_| target.starts_with("../src/"));
                path.is_some_and(|path| read(path).contains(&format!("pub {kind} {name}")))
            };
            let leads_to_an_item = ["struct", "enum", "trait", "fn"].into_iter().any(declares);
            assert!(leads_to_a_chapter || leads_to_an_item, "docs/{file}: [{label}]: {target}, and in the reference {to}");
            used.insert(label.clone());
        }
        for (label, _) in &reference {
            let is_used = text.contains(&format!("[{label}]"));
            let is_defined = definitions.iter().any(|(other, _)| other == label);
            assert!(!is_used || is_defined, "docs/{file} uses [{label}], and does not say at its end where that leads");
        }
    }
    let unused: Vec<_> = reference.iter().filter(|(label, _)| !used.contains(label)).collect();
    let unused: Vec<_> = unused.iter().filter(|(_, to)| !to.starts_with("crate::manual::")).collect();
    assert!(unused.is_empty(), "no chapter uses {unused:?}");
}

/// As rustdoc and others name headings.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
    text.chars().filter(|c| c.is_alphanumeric() || *c == '-' || *c == '_').collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    text.lines().filter(|line| line.starts_with('#')).map(anchor).collect()
}

/// Every `before` with what follows up to the end of the link.
fn targets_after<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(before).skip(1).map(|rest| rest.split(')').next().unwrap_or_default())
}

#[test]
fn sections_that_are_linked_are_there() {
    let docs = docs_of_the_reference();
    let chapters = chapters();
    let mut checked = 0;
    for target in targets_after(&docs, "manual::") {
        let Some((module, section)) = target.split_once('#') else { continue };
        let chapter = chapters.iter().find(|chapter| chapter.module == module);
        let has = chapter.is_some_and(|chapter| anchors(&chapter.text).contains(section));
        assert!(has, "there is no crate::manual::{target}");
        checked += 1;
    }
    assert!(checked > 20, "only {checked} links to sections were found");
    for (from, text) in chapters.iter().map(|chapter| (chapter.file.as_str(), chapter.text.as_str())) {
        for section in targets_after(text, "](#") {
            assert!(anchors(text).contains(section), "docs/{from} has no section #{section}");
        }
    }
    // Of pages whose groups have headings: `(#flow)`, `(crate::Context#flow)`, `(Reactor#in-several-threads)`.
    let items = items();
    let has = |page: &str, section: &str| items.iter().any(|item| item.page == page && anchors(&item.doc).contains(section));
    let front = read("src/lib.rs").lines().filter(|line| line.starts_with("//!")).collect::<String>();
    let of_items = items.iter().map(|item| (item.page.as_str(), item.doc.as_str()));
    let mut checked = 0;
    for (own, doc) in of_items.chain([("", front.as_str())]) {
        let others = |target: &&str| !target.contains("manual::") && !target.contains("://");
        for (page, section) in targets_after(doc, "](").filter(others).filter_map(|target| target.split_once('#')) {
            let page = page.rsplit("::").next().filter(|page| !page.is_empty()).unwrap_or(own);
            assert!(has(page, section), "the page of `{page}` has no section #{section}");
            checked += 1;
        }
    }
    assert!(checked > 15, "only {checked} links to groups were found");
}

/// Every page that is read in a repository.
fn pages() -> Vec<PathBuf> {
    fn below(folder: &Path, all: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("readable").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            match path.is_dir() {
                true if !name.starts_with('.') && !["target", "src"].contains(&name) => below(&path, all),
                false if name.ends_with(".md") => all.push(path),
                _ => {}
            }
        }
    }
    let mut all = Vec::new();
    below(root(), &mut all);
    all
}

/// Without its programs and what else is quoted.
fn prose(text: &str) -> String {
    let mut is_code = false;
    let lines = text.lines().filter(|line| {
        is_code ^= line.trim_start().starts_with("```");
        !is_code
    });
    let lines = lines.map(|line| line.split('`').step_by(2).collect::<Vec<_>>().join("`"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Other sites are not asked: that needs a network, and what is there changes.
#[test]
fn links_lead_to_files_and_sections_that_are_there() {
    let mut checked = 0;
    for page in pages() {
        let text = read(&page);
        let (prose, folder) = (prose(&text), page.parent().expect("a folder"));
        let labelled = prose.lines().filter(|line| line.starts_with('[')).filter_map(|line| line.split_once("]: "));
        for target in targets_after(&prose, "](").chain(labelled.map(|(_, target)| target.trim())) {
            if target.contains("://") || target.contains("::") || target.starts_with("mailto:") {
                continue;
            }
            let (file, section) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { page.clone() } else { folder.join(file) };
            assert!(file.exists(), "{}: nothing is at {target}", page.display());
            let is_there = section.is_empty() || anchors(&read(&file)).contains(section);
            assert!(is_there, "{}: no section is called as in {target}", page.display());
            checked += 1;
        }
    }
    assert!(checked > 400, "only {checked} links were found");
}

/// `| [title](target) | text |`, in order; the target may be missing where it is the title.
fn rows(table: &str) -> Vec<(String, String, String)> {
    let rows = table.lines().filter_map(|line| {
        let (link, text) = line.strip_prefix("| [")?.strip_suffix(" |")?.split_once(" | ")?;
        let (title, target) = link.split_once("](").unwrap_or((link, link));
        Some((title.trim_end_matches(']').to_owned(), target.trim_end_matches([')', ']']).to_owned(), text.to_owned()))
    });
    rows.collect()
}

#[test]
fn the_front_of_the_manual_is_the_same_in_a_repository() {
    let chapters = chapters();
    let front = read("src/manual.rs").lines().filter_map(|line| line.strip_prefix("//! ")).collect::<Vec<_>>().join("\n");
    let front = rows(&front);
    let in_repository: Vec<_> = rows(&read("docs/README.md"))
        .into_iter()
        .filter_map(|(title, target, text)| {
            let chapter = chapters.iter().find(|chapter| target == chapter.file)?;
            Some((title, chapter.module.clone(), text))
        })
        .collect();
    assert_eq!(front, in_repository);
    assert_eq!(
        front.iter().map(|row| &row.1).collect::<Vec<_>>(),
        chapters.iter().map(|chapter| &chapter.module).collect::<Vec<_>>()
    );
}

// ------------------------------------------------------------------------------------------------- what the compiler says

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
const WRONG: [(&str, &str, &[&str]); 7] = [
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
        "datagram",
        "struct Wrong; fn main(net: &mut Net<'_, u8>) { net.bind(\"127.0.0.1:0\", Wrong); }",
        &["`Wrong` is not a datagram for the state `u8`", "write `impl Datagram<u8> for Wrong`"],
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
    // The page of `Reactor` quotes it.
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
