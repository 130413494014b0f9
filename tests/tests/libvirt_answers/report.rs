//! What all calls have come to: the list in `docs/libvirt-answers.md`, and every difference.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write as _},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use super::{Call, compare::Difference, moving::MOVING};
use vbridge_tests::libvirt::reference::Answer;

/// The list, from the folder of this crate.
const DOCUMENT: &str = "../docs/libvirt-answers.md";

/// Writes the list anew when it is set.
pub(super) const WRITE: &str = "VBRIDGE_WRITE_DOCS";

/// A line of the list's table begins with this, and a procedure.
const ROW: &str = "| `";

/// The line with the versions, whose numbers are only comparable with those of the same versions, begins with this.
const VERSIONS: &str = "Asked: ";

/// The line with the numbers begins with this.
const COUNTS: &str = "Of ";

/// A driver of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Driver {
    /// `test:///default`
    Test,
    /// `qemu:///system`
    Qemu,
}

/// A way to make a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Layer {
    /// The generated methods.
    Raw,
    /// The methods of `Connect`, `Domain` and the other handles.
    Handles,
    /// The generated methods, all at once on one connection.
    Overlapping,
}

/// All answers, and what is wrong with them.
#[derive(Debug, Default)]
pub(super) struct Report {
    lines: BTreeMap<&'static str, Line>,
    differences: Vec<String>,
}

/// What a call has come to.
#[derive(Debug)]
struct Line {
    number: i32,
    answers: BTreeMap<Driver, Answer>,
    handles: bool,
}

/// How many calls have come to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    /// All calls.
    pub(super) calls: usize,
    /// Those that answered with a value, by driver: test, QEMU.
    pub(super) values: [usize; 2],
    /// Those that answered with a value on at least one.
    pub(super) on_either: usize,
    /// Those that were also made through handles.
    pub(super) handles: usize,
}

// === impl Report ===

impl Report {
    /// Takes down an answer of ours, and where it is not the reference's.
    ///
    /// # Errors
    /// The protocol has no such procedure.
    pub(super) fn note(
        &mut self,
        driver: Driver,
        layer: Layer,
        call: &Call,
        ours: Answer,
        differences: &[Difference],
    ) -> Result<()> {
        let heading = format!("{} ({driver:?}, {layer:?})", call.name);
        let told = differences
            .iter()
            .map(|found| format!("{heading}: {found}"));
        self.differences.extend(told);
        let number = call.procedure()?.number;
        let line = self.lines.entry(call.name).or_insert_with(|| Line {
            number,
            answers: BTreeMap::new(),
            handles: false,
        });
        match layer {
            Layer::Raw => drop(line.answers.insert(driver, ours)),
            Layer::Handles => line.handles = true,
            Layer::Overlapping => {}
        }
        Ok(())
    }

    /// Every difference, a line each.
    pub(super) fn differences(&self) -> &[String] {
        &self.differences
    }

    /// How many calls have come to what.
    pub(super) fn counts(&self) -> Counts {
        let has_value = |line: &Line, driver: Driver| {
            matches!(line.answers.get(&driver), Some(Answer::Value(_)))
        };
        let count =
            |which: &dyn Fn(&Line) -> bool| self.lines.values().filter(|line| which(line)).count();
        let drivers = [Driver::Test, Driver::Qemu];
        Counts {
            calls: self.lines.len(),
            values: drivers.map(|driver| count(&|line| has_value(line, driver))),
            on_either: count(&|line| drivers.iter().any(|driver| has_value(line, *driver))),
            handles: count(&|line| line.handles),
        }
    }

    /// The whole list, for these versions of libvirt and QEMU.
    pub(super) fn document(&self, versions: &str) -> String {
        let mut text = format!("{HEAD}\n{VERSIONS}{versions}.\n\n{}\n\n", self.counts());
        text += "| procedure | number | test driver | QEMU driver | through a handle |\n|---|---|---|---|---|\n";
        for (name, line) in &self.lines {
            let [test, qemu] =
                [Driver::Test, Driver::Qemu].map(|driver| outcome(line.answers.get(&driver)));
            let handle = if line.handles { "yes" } else { "" };
            // A String takes everything.
            let _ = writeln!(
                text,
                "{ROW}{name}` | {} | {test} | {qemu} | {handle} |",
                line.number
            );
        }
        text += MOVING_HEAD;
        for moving in MOVING {
            let _ = writeln!(
                text,
                "| `{}` | `{}` | {} | {} |",
                moving.call,
                if moving.place.is_empty() {
                    "(all)"
                } else {
                    moving.place
                },
                moving.how,
                moving.why
            );
        }
        text
    }

    /// Every answer in full, for a person who looks into one.
    pub(super) fn transcript(&self) -> String {
        let mut text = String::new();
        for (name, line) in &self.lines {
            for (driver, answer) in &line.answers {
                let answer = match answer {
                    Answer::Value(value) => format!("{value:#}"),
                    Answer::Error(error) => error.to_string(),
                };
                let _ = writeln!(text, "{name} ({}, {driver:?}): {answer}", line.number);
            }
        }
        text
    }
}

/// Writes the list if [`WRITE`] is set, and otherwise holds the one that is there against it: the procedures always, the
/// numbers if it was written for the same versions.
///
/// # Errors
/// It can't be read or written, or is not as it should be.
pub(super) fn check_document(document: &str) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
    if std::env::var_os(WRITE).is_some() {
        return fs::write(&path, document)
            .with_context(|| format!("can't write {}", path.display()));
    }
    let written =
        fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
    compare_documents(&written, document).with_context(|| {
        format!(
            "{} is not up to date: set {WRITE}=1 to write it anew",
            shown(&path)
        )
    })
}

fn compare_documents(written: &str, made: &str) -> Result<()> {
    let [old, new] = [written, made].map(procedures);
    let missing: Vec<_> = new.difference(&old).collect();
    let superfluous: Vec<_> = old.difference(&new).collect();
    ensure!(
        missing.is_empty() && superfluous.is_empty(),
        "it lacks {missing:?} and has {superfluous:?} for nothing"
    );
    let line = |text: &str, start: &str| {
        let line = text.lines().find(|line| line.starts_with(start));
        line.unwrap_or_default().to_owned()
    };
    if line(written, VERSIONS) == line(made, VERSIONS) {
        let [old, new] = [written, made].map(|text| line(text, COUNTS));
        ensure!(old == new, "it says {old:?}, and it is {new:?}");
    }
    Ok(())
}

/// The procedures of a list and their numbers.
fn procedures(document: &str) -> BTreeSet<(&str, &str)> {
    let rows = document.lines().filter_map(|line| line.strip_prefix(ROW));
    let cells = rows.filter_map(|row| {
        let mut cells = row.split(" | ");
        Some((cells.next()?, cells.next()?))
    });
    cells
        .filter(|(_, number)| number.parse::<i32>().is_ok())
        .collect()
}

fn outcome(answer: Option<&Answer>) -> String {
    match answer {
        None => "not asked".to_owned(),
        Some(Answer::Value(_)) => "value".to_owned(),
        Some(Answer::Error(error)) => format!("error {} of {}", error.code, error.domain),
    }
}

fn shown(path: &Path) -> String {
    let name = path.file_name().map(PathBuf::from);
    Path::new("docs")
        .join(name.unwrap_or_default())
        .display()
        .to_string()
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            calls,
            values: [test, qemu],
            on_either,
            handles,
        } = self;
        write!(
            f,
            "{COUNTS}{calls} procedures {on_either} answered with a value on at least one driver: {test} on the test \
             driver, {qemu} on QEMU. {handles} were also made through a handle."
        )
    }
}

/// What the list begins with.
const HEAD: &str = "\
# The same answers as libvirt's C library

Every procedure that only reads and that the reference knows (`tests/clients/libvirt/reference.py`, which is libvirt's C
library through its Python binding) is called by the Rust client's raw layer, on a private daemon's test driver and on its
QEMU driver, where there is one object of each kind. Each answer is held against the C library's on the same daemon: value
with value, error with error (code and domain). So is the answer of a handle's method where one makes the call as it is.
Then all are called at once on one connection, and compared again.

This list is written by the test: `VBRIDGE_WRITE_DOCS=1 cargo test -p vbridge-tests --test libvirt_answers`. *Value* and
*error* are what both clients were answered; an error is given with its code (`virErrorNumber`) and domain
(`virErrorDomain`).
";

const MOVING_HEAD: &str = "
## Values that move by themselves

The C library is asked before and after. All values must be equal, but for these: what *grows* must lie between the two;
what *wanders* must not be less than half of the lower or more than twice the higher; what is *alike* must be of the same
kind and length.

| procedure | place in the answer | how | why |
|---|---|---|---|
";

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str =
        "Asked: 1.\n\nOf 2 procedures\n\n| `a` | 1 | value | value | |\n| `b` | 2 | value | | |\n";

    #[test]
    fn a_list_with_other_details_is_up_to_date() {
        compare_documents(LIST, &LIST.replace("value", "error 3 of 10")).unwrap();
    }

    #[test]
    fn a_list_that_lacks_a_procedure_is_not_up_to_date() {
        let error = compare_documents(&LIST.replace("`b` | 2", "`b` | 3"), LIST).unwrap_err();
        assert!(error.to_string().contains("lacks"), "{error}");
    }

    #[test]
    fn other_numbers_count_for_the_same_versions_only() {
        let other = LIST.replace("Of 2", "Of 3");
        assert!(compare_documents(&other, LIST).is_err());
        compare_documents(&other.replace("Asked: 1", "Asked: 2"), LIST).unwrap();
    }
}
