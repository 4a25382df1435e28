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

/// Those below a folder whose names end so, without what cargo and git have made.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of ours") {
        let path = entry.expect("readable").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match path.is_dir() {
            true if !name.starts_with('.') && name != "target" => all.extend(files(&path, extension)),
            false if path.extension().is_some_and(|other| other == extension) => all.push(path),
            _ => {}
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
    for path in files(&src, "rs") {
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
    let all = files(&root().join("src"), "rs").into_iter().filter(|path| !path.ends_with("manual.rs"));
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
        let is_file = |target: &&str| !target.contains("://") && !target.starts_with('#');
        let file_link = targets_after(&prose(text), "](").find(is_file).map(str::to_owned);
        assert_eq!(file_link, None, "docs/{file}: a link to a file leads nowhere in the reference; give it a label");
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
    without_blocks(text).into_iter().filter(|line| line.starts_with('#')).map(anchor).collect()
}

/// Its lines, but those of programs and of what else is quoted.
fn without_blocks(text: &str) -> Vec<&str> {
    let mut is_code = false;
    let lines = text.lines().filter(|line| {
        is_code ^= line.trim_start().starts_with("```");
        !is_code
    });
    lines.collect()
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

/// Without what is quoted within lines, too.
fn prose(text: &str) -> String {
    let lines = without_blocks(text).into_iter().map(|line| line.split('`').step_by(2).collect::<Vec<_>>().join("`"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Other sites are not asked: that needs a network, and what is there changes.
#[test]
fn links_lead_to_files_and_sections_that_are_there() {
    let mut checked = 0;
    for page in files(root(), "md") {
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

/// Those of a reactor are a name alone.
#[test]
fn the_table_of_limits_has_each_bound_of_a_reactor_and_its_default() {
    let no_bounds = ["new", "wait_for_lingering", "resolver", "panics", "watchdog", "spin", "sendfile"];
    let (source, page) = (read("src/config.rs"), read("docs/limits.md"));
    let methods: BTreeSet<&str> = names_after(&source, "\n    pub fn ").collect();
    assert!(methods.is_superset(&no_bounds.into()), "{methods:?}");
    let bounds: BTreeSet<&str> = methods.difference(&no_bounds.into()).copied().collect();
    let rows: Vec<Vec<&str>> = page.lines().map(|line| line.split(" | ").collect()).collect();
    let rows: Vec<(&str, &str, &str)> =
        rows.iter().filter_map(|row| Some((row[0].strip_prefix("| `")?, row[1], row[2]))).collect();
    let of_reactor = rows.iter().map(|(name, ..)| name.split('`').next().unwrap_or_default()).filter(|name| !name.contains("::"));
    assert_eq!(of_reactor.collect::<BTreeSet<_>>(), bounds);

    let defaults = format!("{:?}", mainspring::Config::new());
    for (name, default, unit) in rows.iter().filter(|(name, ..)| !name.contains("::")) {
        let value = match (default.replace(',', ""), *unit) {
            (secs, "seconds") => secs + "s",
            (millis, "milliseconds") => millis + "ms",
            (word, _) if word == "off" => "None".into(),
            (number, _) => number,
        };
        let field = name.trim_end_matches('`').rsplit(' ').next().unwrap_or_default(); // `output_limits` low
        let is_there = [",", " }"].iter().any(|end| defaults.contains(&format!(" {field}: {value}{end}")));
        let is_left_out = cfg!(not(feature = "tls")) && field.contains("handshake");
        assert!(is_there || is_left_out, "docs/limits.md: the default of {name} is not {default}: {defaults}");
    }
}

// --------------------------------------------------------------------------------------------------------- the tutorial

/// A page of docs/tutorial/.
struct Page {
    /// `2-limits.md`
    file: String,
    text: String,
}

impl Page {
    /// Each block of code, what it is called, and where it begins; of a whole file also its name, `src/main.rs`.
    fn blocks(&self) -> Vec<Block<'_>> {
        let (mut all, mut rest, mut summary) = (Vec::new(), self.text.as_str(), None);
        while let Some((line, after)) = rest.split_once('\n') {
            rest = after;
            if let Some(title) = line.strip_prefix("<details><summary>") {
                let name = title.split_once(": ").and_then(|(_, name)| name.split([',', '<']).next());
                summary = Some(name.expect("a summary says of which file"));
            } else if let Some(language) = line.strip_prefix("```") {
                let (code, after) = rest.split_once("```\n").expect("a block ends");
                all.push(Block { language, code, whole: summary.take() });
                rest = after;
            }
        }
        all
    }
}

struct Block<'a> {
    language: &'a str,
    code: &'a str,
    whole: Option<&'a str>,
}

/// In order; the front is the first.
fn tutorial() -> Vec<Page> {
    let folder = root().join("docs/tutorial");
    let mut files: Vec<String> = fs::read_dir(&folder)
        .expect("docs/tutorial/ is there")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("a name of ours"))
        .collect();
    files.sort_by_key(|file| (file != "README.md", file.clone()));
    files.into_iter().map(|file| Page { text: read(folder.join(&file)), file }).collect()
}

#[test]
fn what_a_page_of_the_tutorial_shows_is_in_its_whole_program() {
    let mut pieces = 0;
    for page in tutorial().iter().skip(1) {
        let blocks = page.blocks();
        let whole: Vec<&str> = blocks.iter().filter(|block| block.whole.is_some()).map(|block| block.code).collect();
        assert!(!whole.is_empty(), "docs/tutorial/{} has no whole program", page.file);
        for block in blocks.iter().filter(|block| block.whole.is_none()) {
            let is_known = ["rs", "text", "toml"].contains(&block.language);
            assert!(is_known, "docs/tutorial/{} has a block of `{}`", page.file, block.language);
            if block.language == "rs" {
                let is_there = whole.iter().any(|whole| whole.contains(block.code));
                assert!(is_there, "docs/tutorial/{}: this is in no whole program of the page:\n{}", page.file, block.code);
                pieces += 1;
            }
        }
    }
    assert!(pieces > 40, "only {pieces} pieces were found");
}

#[test]
fn links_of_the_tutorial_lead_to_the_same_in_the_reference_and_in_a_repository() {
    let (pages, reference, manual) = (tutorial(), links_of_the_reference(), read("src/manual.rs"));
    let module = |file: &str| match file {
        "README.md" => "crate::manual::tutorial".to_owned(),
        file => {
            let (_, name) = file.split_once('-').expect("its number comes first");
            format!("crate::manual::tutorial::{}", name.trim_end_matches(".md").replace('-', "_"))
        }
    };
    for Page { file, text } in &pages {
        assert!(manual.contains(&format!("include_str!(\"../docs/tutorial/{file}\")")), "src/manual.rs has no {file}");
        let own = module(file);
        let name = own.rsplit("::").next().expect("a path");
        assert!(manual.contains(&format!("pub mod {name} {{")), "src/manual.rs has no module {name}");
        let definitions = definitions(text);
        for (label, target) in &definitions {
            assert!(text.matches(&format!("[{label}]")).count() > 1, "docs/tutorial/{file} does not use [{label}]");
            let (_, to) =
                reference.iter().find(|(other, _)| other == label).unwrap_or_else(|| panic!("src/manual.rs: no [{label}]"));
            let is_same = match (target.strip_prefix("../../src/"), target.strip_prefix("../")) {
                (Some(path), _) => {
                    let (source, name) = (read(Path::new("src").join(path)), to.rsplit("::").next().expect("a path"));
                    ["struct", "enum", "trait", "fn"].iter().any(|kind| source.contains(&format!("pub {kind} {name}")))
                }
                (None, Some(chapter)) => {
                    chapters().iter().any(|other| other.file == chapter && *to == format!("crate::manual::{}", other.module))
                }
                (None, None) => pages.iter().any(|page| page.file == *target) && *to == module(target),
            };
            assert!(is_same, "docs/tutorial/{file}: [{label}]: {target}, and in the reference {to}");
        }
        for (label, _) in &reference {
            let is_defined = definitions.iter().any(|(other, _)| other == label);
            assert!(
                !text.contains(&format!("[{label}]")) || is_defined,
                "docs/tutorial/{file} does not say where [{label}] leads"
            );
        }
    }
    // From each step to the one before or behind, and from the front to all.
    for (number, page) in pages.iter().enumerate().skip(1) {
        let link = format!("[step {number}]");
        assert!(pages[0].text.contains(&link), "the front does not lead to step {number}");
        let before = &pages[number - 1];
        assert!(before.text.contains(&link), "docs/tutorial/{} does not lead on to {}", before.file, page.file);
    }
}

/// As `cargo test` does it in the package that the pages make, which is what scripts/tutorial.sh does: what they show of the output is its
/// subject, and here it is that nothing has gone stale.
#[cfg(feature = "sim")]
#[test]
fn the_tests_of_the_tutorial_pass_and_the_planted_mistake_is_found() {
    let features =
        if cfg!(all(unix, feature = "signals")) { "use mainspring::{signal, testing};" } else { "use mainspring::testing;" };
    let library = match library_with(features) {
        Ok(library) => library,
        Err(said) => return skips::skip(format_args!("rustc cannot be asked: {}", said.lines().next().unwrap_or("?"))),
    };
    let mut tested = 0;
    for page in tutorial().iter().skip(1) {
        // A name that comes again is a later version; the mistake of step 6 is the first one there.
        let mut versions: Vec<Vec<(&str, &str)>> = vec![Vec::new()];
        for block in page.blocks() {
            let Some(name) = block.whole else { continue };
            if versions.last().is_some_and(|files| files.iter().any(|(other, _)| *other == name)) {
                versions.push(Vec::new());
            }
            versions.last_mut().expect("there is one").push((name, block.code));
        }
        let all = versions.len();
        for (version, files) in versions.into_iter().enumerate() {
            let Some((main, code)) = files.iter().find(|(_, code)| code.contains("#[cfg(test)]")) else { continue };
            let needs_signals = code.contains("mainspring::signal::");
            if code.contains("mainspring::rustls::") || needs_signals && !cfg!(all(unix, feature = "signals")) {
                continue; // a doctest compiles it, with the features
            }
            let name = format!("tutorial-{}-{version}", page.file.trim_end_matches(".md"));
            let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name);
            for (name, code) in &files {
                let path = folder.join(name);
                fs::create_dir_all(path.parent().expect("it is in the folder")).expect("a folder for it");
                fs::write(path, code).expect("a file");
            }
            let program = folder.join("tests");
            let output = rustc(&library)
                .arg("--test")
                .arg("-o")
                .arg(&program)
                .arg(folder.join(main))
                .output()
                .expect("it was asked before");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.is_empty(), "docs/tutorial/{}, {main}:\n{said}", page.file);
            let output = Command::new(program).current_dir(&folder).env_remove("RUST_BACKTRACE").output().expect("it runs");
            let said = String::from_utf8_lossy(&output.stdout);
            if version + 1 < all {
                let is_found = said.contains("seed 0: all have gone, and the room says: anna") && said.contains("; 1 failed;");
                assert!(is_found, "docs/tutorial/{}: its mistake is not found as it says:\n{said}", page.file);
            } else {
                assert!(output.status.success(), "docs/tutorial/{}:\n{said}", page.file);
            }
            tested += 1;
        }
    }
    assert!(tested >= 7, "only {tested} were tested");
}

// ------------------------------------------------------------------------------------------------- what the compiler says

/// The library that these tests were built with, or one that was built later.
fn library() -> Result<PathBuf, String> {
    let deps = std::env::current_exe().map_err(|error| error.to_string())?;
    let deps = deps.parent().ok_or("this program is in no folder")?;
    let mut built = libraries(deps)?;
    built.pop().ok_or_else(|| format!("no libmainspring-*.rlib in {}", deps.display()))
}

/// The newest that has what a program uses: there may be others, of other features.
#[cfg(feature = "sim")]
fn library_with(uses: &str) -> Result<PathBuf, String> {
    let newest = library()?;
    let probe = Path::new(env!("CARGO_TARGET_TMPDIR")).join("probe.rs");
    fs::write(&probe, format!("#![allow(unused)]\n{uses}\n")).map_err(|error| error.to_string())?;
    let mut said = String::new();
    for library in libraries(newest.parent().expect("it is in a folder"))?.into_iter().rev() {
        let output = rustc(&library)
            .args(["--crate-type=lib", "--emit=metadata", "-o"])
            .arg(probe.with_extension("rmeta"))
            .arg(&probe)
            .output();
        let output = output.map_err(|error| format!("rustc: {error}"))?;
        if output.status.success() {
            return Ok(library);
        }
        said = String::from_utf8_lossy(&output.stderr).into_owned();
    }
    Err(said)
}

/// The newest is the last.
fn libraries(deps: &Path) -> Result<Vec<PathBuf>, String> {
    let built = fs::read_dir(deps).map_err(|error| error.to_string())?.filter_map(|entry| Some(entry.ok()?.path()));
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.starts_with("libmainspring-") && name.ends_with(".rlib")
    };
    let mut built: Vec<PathBuf> = built.filter(is_ours).collect();
    built.sort_by_key(|path| path.metadata().and_then(|file| file.modified()).ok());
    Ok(built)
}

/// rustc, with that library.
fn rustc(library: &Path) -> Command {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()));
    rustc.args(["--edition=2024", "--color=never", "-L"]);
    rustc.arg(format!("dependency={}", library.parent().expect("it is in a folder").display()));
    rustc.arg("--extern").arg(format!("mainspring={}", library.display()));
    rustc
}

/// What rustc says of such a library against this crate; nothing if it has nothing to say.
fn compile(name: &str, source: &str) -> Result<String, String> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(path.with_extension("rs"), format!("#![allow(unused)]\nuse mainspring::*;\n{source}\n"))
        .map_err(|error| error.to_string())?;
    let output = rustc(&library()?)
        .args(["--crate-type=lib", "--emit=metadata", "-o"])
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
