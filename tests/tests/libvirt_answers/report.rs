//! What all calls have come to: a list, and every difference.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use anyhow::Result;

use super::{Call, compare::Difference, document::OF_THE_HOST, moving::MOVING};
use vbridge_tests::libvirt::reference::Answer;

/// A line of the list's table begins with this, and a procedure.
pub(super) const ROW: &str = "| `";

/// The line with the versions, whose rows are only comparable with those of the same versions, begins with this.
pub(super) const VERSIONS: &str = "Asked: ";

/// The line with the numbers begins with this.
pub(super) const COUNTS: &str = "Of ";

/// The outcome of a call that was answered with a value.
pub(super) const VALUE: &str = "value";

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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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
        text += HOST_HEAD;
        for (name, depends) in OF_THE_HOST {
            let _ = writeln!(text, "{ROW}{name}` | {depends} |");
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

fn outcome(answer: Option<&Answer>) -> String {
    match answer {
        None => "not asked".to_owned(),
        Some(Answer::Value(_)) => VALUE.to_owned(),
        Some(Answer::Error(error)) => format!("error {} of {}", error.code, error.domain),
    }
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

This list is written by the test: `VBRIDGE_WRITE_DOCS=1 cargo test -p vbridge-tests --test libvirt_answers`. Without that
variable the test holds the list against what it finds, row by row, if libvirt, QEMU and the binding are of the same
versions. *Value* and *error* are what both clients were answered; an error is given with its code (`virErrorNumber`) and
domain (`virErrorDomain`).
";

const HOST_HEAD: &str = "
## Answers that depend on the host

On QEMU these have a value on one machine and an error on another with the same versions. Both clients have the same all
the same.

| procedure | what it depends on |
|---|---|
";

const MOVING_HEAD: &str = "
## Values that move by themselves

The C library is asked before and after. All values must be equal, but for these: what *grows* must lie between the two;
what *wanders* must not be less than half of the lower or more than twice the higher; what is *alike* must be of the same
kind and length.

| procedure | place in the answer | how | why |
|---|---|---|---|
";
