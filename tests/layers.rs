//! The order of the layers: a module of src/ uses only modules that stand below it in src/lib.rs.

use std::{fs, path::Path};

/// The modules in the order in which lib.rs declares them.
fn layers(root: &Path) -> Vec<String> {
    let lib = fs::read_to_string(root.join("lib.rs")).expect("src/lib.rs");
    let declared = lib.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
    declared.map(str::to_owned).collect()
}

/// Every `crate::module` in code, and the modules of `use crate::{…}`.
fn uses(source: &str) -> Vec<String> {
    let code: Vec<&str> = source.lines().take_while(|line| !line.contains("mod tests")).collect();
    let code =
        code.iter().filter(|line| !line.trim_start().starts_with("//")).fold(String::new(), |code, line| code + line + "\n");
    let mut found = Vec::new();
    for after in code.split("crate::").skip(1) {
        if let Some(list) = after.strip_prefix('{') {
            found.extend(top_level(list));
        } else {
            found.push(after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    found
}

/// The first names of `a::B, c::{D, e::F}}…`.
fn top_level(list: &str) -> Vec<String> {
    let (mut depth, mut names, mut name) = (0, Vec::new(), String::new());
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(std::mem::take(&mut name)),
            _ if depth == 0 => name.push(c),
            _ => {}
        }
    }
    names.push(name);
    names.iter().filter_map(|name| Some(name.trim().split("::").next()?.to_owned())).filter(|name| !name.is_empty()).collect()
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder of src/");
    let mut all = Vec::new();
    for entry in entries {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            all.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push(path);
        }
    }
    all
}

#[test]
fn imports_go_downwards_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let layers = layers(&root);
    assert!(layers.len() > 15, "lib.rs declares its modules as `mod name;`");
    let place = |module: &str| layers.iter().position(|layer| layer == module);
    let (mut checked, mut upwards) = (0, Vec::new());
    for file in files(&root) {
        let inside = file.strip_prefix(&root).expect("below src/");
        let first = inside.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
        let Some(own) = place(first.trim_end_matches(".rs")) else { continue };
        for used in uses(&fs::read_to_string(&file).expect("readable")) {
            // What is no module is re-exported by lib.rs from one; that would hide its place.
            match place(&used) {
                Some(other) if other >= own => checked += 1,
                _ => upwards.push(format!("{} uses crate::{used}", inside.display())),
            }
        }
    }
    assert!(checked > 60, "only {checked} uses were found");
    assert!(upwards.is_empty(), "{upwards:#?}");
}
