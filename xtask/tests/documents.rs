//! What the documents say of tests is true: each that they name as proof is there.
//!
//! A test is named as `file::test`, the file without its ending and with as much of its path as it needs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use xtask::workspace;

/// The documents whose tables name tests.
const DOCUMENTS: [&str; 2] = ["docs/qga.md", "docs/seeds.md"];

/// Where tests are.
const FOLDERS: [&str; 9] = [
    "agent-guest/src",
    "agent-guest/tests",
    "bridge-host/src",
    "bridge-host/tests",
    "libvirt-rs",
    "proto",
    "tests/src",
    "tests/tests",
    "xtask/tests",
];

struct Source {
    /// Its path without `.rs`, `/mod` and `/main`.
    name: String,
    text: String,
}

#[test]
fn every_test_that_a_document_names_is_there() -> Result<()> {
    let sources = sources()?;
    let mut named = 0;
    let mut missing = Vec::new();
    for document in DOCUMENTS {
        let text = read(&workspace::root().join(document))?;
        for (file, test) in tests_named(&text) {
            named += 1;
            if !sources.iter().any(|source| source.has(file, test)) {
                missing.push(format!("{document}: {file}::{test}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(named > 30, "only {named} tests are named");
    Ok(())
}

impl Source {
    fn has(&self, file: &str, test: &str) -> bool {
        let here = self
            .name
            .strip_suffix(file)
            .is_some_and(|before| before.ends_with('/'));
        // The suites of real guests have their tests' names as texts.
        here && (self.text.contains(&format!("fn {test}("))
            || self.text.contains(&format!("\"{test}\"")))
    }
}

/// What stands between backquotes, and is a path, two colons and a name.
fn tests_named(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_/".contains(c);
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|span| span.split_once("::"))
        .filter(move |(file, test)| file.chars().all(is_word) && test.chars().all(is_word))
}

fn sources() -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    let mut folders: Vec<PathBuf> = FOLDERS.map(|folder| workspace::root().join(folder)).into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                sources.push(source(&path)?);
            }
        }
    }
    Ok(sources)
}

fn source(path: &Path) -> Result<Source> {
    let text = read(path)?;
    let name = path.with_extension("").display().to_string();
    let folder = name
        .strip_suffix("/mod")
        .or_else(|| name.strip_suffix("/main"));
    Ok(Source {
        name: folder.unwrap_or(&name).to_owned(),
        text,
    })
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))
}
