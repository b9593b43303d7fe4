//! Documents that name code say what is there.
#![expect(clippy::unwrap_used, reason = "a test: what cannot be read fails it")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// How many requirements each letter has.
const REQUIREMENTS: [(char, u32); 4] = [('A', 30), ('B', 20), ('C', 11), ('D', 10)];
/// How many kinds of bad input there are.
const BAD_INPUTS: u32 = 42;

#[test]
fn coverage_names_what_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = std::fs::read_to_string(root.join("docs/coverage.md")).unwrap();
    let mut sources = Vec::new();
    rust_files(&root, &mut sources);
    let functions: BTreeSet<String> = sources.iter().flat_map(|file| functions_of(file)).collect();
    let mut rows = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        rows.push(line.trim_start_matches("| ").split(' ').next().unwrap_or_default().to_owned());
        for name in line.split('`').skip(1).step_by(2) {
            if name.contains("::") {
                assert!(functions.contains(name), "no test {name}");
            } else if name.ends_with(".rs") {
                assert!(root.join(name).is_file(), "no file {name}");
            }
        }
    }
    let numbered =
        REQUIREMENTS.iter().flat_map(|&(letter, last)| (1..=last).map(move |n| format!("{letter}{n}")));
    let expected: Vec<String> = numbered.chain((1..=BAD_INPUTS).map(|number| number.to_string())).collect();
    rows.retain(|row| row.ends_with(|last: char| last.is_ascii_digit()));
    assert_eq!(rows, expected, "each number once, in order");
}

/// Every `.rs` file of the project; build folders have other names in them and are left out.
fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// `file::name` of each function; of `tests.rs`, `main.rs` and `mod.rs` the folder counts.
fn functions_of(file: &Path) -> Vec<String> {
    let is_folders = ["tests", "main", "mod"].contains(&file.file_stem().unwrap().to_str().unwrap());
    let owner = if is_folders { file.parent().and_then(Path::file_name) } else { file.file_stem() };
    let owner = owner.unwrap().to_string_lossy().into_owned();
    let text = std::fs::read_to_string(file).unwrap();
    let names = text.lines().filter_map(|line| {
        let line = line.trim_start().trim_start_matches("pub(super) ").trim_start_matches("async ");
        line.strip_prefix("fn ")?.split(|c: char| !c.is_alphanumeric() && c != '_').next()
    });
    names.map(|name| format!("{owner}::{name}")).collect()
}
