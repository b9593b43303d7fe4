//! The simulations' own test: our code is broken, in one way after the other, and each must be found.
//!
//! Nothing of it is in the code itself. Its sources are copied, each edit is put in there, behind a name that an
//! environment variable gives, and the copy's `cargo sim` is built once, in a folder of its own. Then it runs, once for
//! each name, until a seed fails that does not fail where nothing is broken.

mod edits;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use edits::{EDITS, Edit, SWITCH, SWITCH_FILE, VARIABLE};

/// What became of one way to break the code.
#[derive(Debug, Serialize)]
pub(crate) struct Mutation {
    name: &'static str,
    /// What is broken.
    what: &'static str,
    /// The first seed that finds it; none of those that were run, where it is null.
    seed: Option<u64>,
    world: Option<String>,
    /// What that seed says.
    failure: Option<String>,
}

/// As many seeds are run between two looks.
const CHUNK: u64 = 35;

/// Breaks the code in every way that we know, and runs up to `seeds` seeds against each.
pub(crate) fn run(seeds: u64, mut tell: impl FnMut(&Mutation)) -> Result<Vec<Mutation>> {
    let program = build()?;
    let mut mutations = Vec::new();
    for edit in EDITS {
        let mutation = find(&program, edit, seeds)?;
        tell(&mutation);
        mutations.push(mutation);
    }
    Ok(mutations)
}

impl Mutation {
    pub(crate) fn is_found(&self) -> bool {
        self.seed.is_some()
    }

    /// As a row of a table.
    pub(crate) fn row(&self) -> String {
        let seed = self.seed.map_or_else(|| "not found".into(), |seed| seed.to_string());
        let (world, failure) = (self.world.as_deref(), self.failure.as_deref());
        let failure = failure.unwrap_or_default().lines().nth(1).unwrap_or_default();
        format!("| {} | {} | {seed} | {} | {failure} |", self.name, self.what, world.unwrap_or_default())
    }
}

/// The head of the table of [`Mutation::row`]s.
pub(crate) const HEAD: &str =
    "| name | what is broken | first seed that finds it | world | what it says |\n|---|---|---|---|---|";

/// The first seed that fails with `edit`, and not without.
fn find(program: &Path, edit: &Edit, seeds: u64) -> Result<Mutation> {
    let Edit { name, what, .. } = *edit;
    let mut from = 0;
    while from < seeds {
        let count = CHUNK.min(seeds - from);
        for failure in failures(program, Some(name), from, count)? {
            let seed = failure["seed"].as_u64().context("a seed")?;
            if failures(program, None, seed, 1)?.is_empty() {
                let text = |key: &str| failure[key].as_str().map(str::to_owned);
                let (world, failure) = (text("world"), text("what"));
                return Ok(Mutation { name, what, seed: Some(seed), world, failure });
            }
        }
        from += count;
    }
    Ok(Mutation { name, what, seed: None, world: None, failure: None })
}

/// Runs seeds with one thing broken, or nothing; gives what failed, in the order of the seeds.
fn failures(program: &Path, name: Option<&str>, from: u64, count: u64) -> Result<Vec<serde_json::Value>> {
    let mut command = Command::new(program);
    command.args(["--json", "--from", &from.to_string(), "--seeds", &count.to_string()]);
    command.env_remove(VARIABLE).stderr(Stdio::inherit());
    if let Some(name) = name {
        command.env(VARIABLE, name);
    }
    let output = command.output().context("run the simulations of the copy")?;
    let mut outcome: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("read what the simulations of the copy say")?;
    match outcome["failures"].take() {
        serde_json::Value::Array(failures) => Ok(failures),
        _ => bail!("the simulations of the copy say nothing of failures"),
    }
}

/// Copies the sources, puts all edits in, and builds the copy's simulations; gives the program.
fn build() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(2).context("the build folder")?.join("mutations");
    let copy = target.join("sources");
    for entry in ["Cargo.toml", "Cargo.lock"] {
        put(&copy.join(entry), &fs::read(root.join(entry))?)?;
    }
    for folder in ["agent", "location-server", "protocol", "relay", "shell", "tests"] {
        copy_sources(&root.join(folder), &copy.join(folder), &root)?;
    }
    eprintln!("building the simulations with everything broken that can be (a few minutes at first) …");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--locked", "--package", "lighter-sim", "--target-dir"])
        .arg(target.join("target"))
        .current_dir(&copy)
        .status()
        .context("run cargo")?;
    ensure!(built.success(), "the broken sources do not build");
    Ok(target.join("target/debug/lighter-sim"))
}

fn copy_sources(from: &Path, to: &Path, root: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let (path, name) = { entry.map(|entry| (entry.path(), entry.file_name()))? };
        if path.is_dir() {
            if name != "target" {
                copy_sources(&path, &to.join(name), root)?;
            }
            continue;
        }
        let mut contents = fs::read(&path)?;
        let place = path.strip_prefix(root)?;
        let mut edits = EDITS.iter().filter(|edit| place == Path::new(edit.file)).peekable();
        if edits.peek().is_some() || place == Path::new(SWITCH_FILE) {
            let mut text = String::from_utf8(contents)?;
            for edit in edits {
                text = edit.apply(&text)?;
            }
            if place == Path::new(SWITCH_FILE) {
                text.push_str(SWITCH);
            }
            contents = text.into_bytes();
        }
        put(&to.join(name), &contents)?;
    }
    Ok(())
}

/// Writes a file if it is not so already: what did not change is not built again.
fn put(path: &Path, contents: &[u8]) -> io::Result<()> {
    if fs::read(path).is_ok_and(|there| there == contents) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_edit_finds_its_place_once() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for edit in EDITS {
            let text = fs::read_to_string(root.join(edit.file)).unwrap();
            assert!(edit.apply(&text).unwrap().contains(edit.name), "{}", edit.name);
        }
        assert!(root.join(SWITCH_FILE).is_file());
    }
}
