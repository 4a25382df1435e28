//! docs/from-asyncore.md has every name of the ancestors: Python says which they are, where `python3` still has all three (up
//! to 3.11).

use std::{
    collections::{BTreeMap, BTreeSet},
    process::{Command, Stdio},
};

const CHAPTER: &str = include_str!("../docs/from-asyncore.md");

type Names = BTreeSet<String>;

/// What stands in the left columns of a section: of the tables that say what has become of a name, and of those that say why
/// nothing has.
#[derive(Default)]
struct Section {
    here: Names,
    left_out: Names,
}

/// By the section's title.
fn sections() -> BTreeMap<&'static str, Section> {
    let mut all = BTreeMap::<_, Section>::new();
    let (mut title, mut is_left_out) = ("", false);
    for line in CHAPTER.lines() {
        if let Some(next) = line.strip_prefix("## ") {
            title = next;
        }
        let Some(cell) = line.strip_prefix("| ").and_then(|row| row.split(" | ").next()) else { continue };
        match cell {
            "left out" => is_left_out = true,
            name if name == title => is_left_out = false,
            _ => {
                let section = all.entry(title).or_default();
                if is_left_out { &mut section.left_out } else { &mut section.here }.extend(names_in(cell));
            }
        }
    }
    all
}

/// The identifiers in code, also those of what a call is given.
fn names_in(cell: &str) -> impl Iterator<Item = String> {
    let code = cell.split('`').skip(1).step_by(2);
    code.flat_map(|code| code.split(|c: char| !c.is_alphanumeric() && c != '_'))
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
}

/// Every name, by its module; nothing where there is no Python that has them.
fn names_of_python() -> Option<BTreeMap<String, Names>> {
    let output = Command::new("python3")
        .args(["-W", "ignore", "-c", include_str!("ancestors.py")])
        .stdin(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let mut all = BTreeMap::<String, Names>::new();
    for line in String::from_utf8(output.stdout).expect("names").lines() {
        let (module, name) = line.split_once(' ').expect("a module and a name");
        all.entry(module.to_owned()).or_default().insert(name.to_owned());
    }
    Some(all)
}

#[test]
fn every_name_of_the_ancestors_has_become_something_or_is_left_out_for_a_reason() {
    let has_asyncore = Command::new("python3").args(["-W", "ignore", "-c", "import asyncore"]).stderr(Stdio::null()).status();
    if !has_asyncore.is_ok_and(|status| status.success()) {
        println!("skipped: there is no `python3` that has asyncore, which left Python's library with 3.12");
        return;
    }
    let (sections, python) = (sections(), names_of_python().expect("tests/ancestors.py runs"));
    assert_eq!(python.keys().collect::<Vec<_>>(), ["asynchat", "asyncore", "socketserver"]);
    for (module, names) in python {
        assert!(names.len() > 25, "{module} has only {names:?}");
        let section = &sections[module.as_str()];
        let missing: Vec<_> =
            names.iter().filter(|&name| !section.here.contains(name) && !section.left_out.contains(name)).collect();
        assert!(missing.is_empty(), "{module}: the chapter does not say what has become of {missing:?}");
        let invented: Vec<_> = section.left_out.difference(&names).collect();
        // `allow_reuse_port` came with 3.11, `buffer_size` and the like are as old as the module.
        assert!(invented.is_empty(), "{module}: {invented:?} is left out, and was never there");
        println!("{module}: {} names", names.len());
    }
}

/// For the Pythons that have none of it, too.
#[test]
fn a_name_stands_in_one_table() {
    let sections = sections();
    for module in ["asynchat", "asyncore", "socketserver"] {
        let section = &sections[module];
        assert!(section.here.len() > 20 && section.left_out.len() > 5, "{module}'s tables were not found");
        let both: Vec<_> = section.here.intersection(&section.left_out).collect();
        assert!(both.is_empty(), "{module}: {both:?} is left out, and has become something");
    }
}
