//! The list in `docs/libvirt-answers.md`, held against what all calls have come to.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use super::report::{COUNTS, Counts, ROW, VALUE, VERSIONS};

/// The list, from the folder of this crate.
const DOCUMENT: &str = "../docs/libvirt-answers.md";

/// Writes the list anew when it is set.
pub(super) const WRITE: &str = "VBRIDGE_WRITE_DOCS";

/// Procedures whose answer on QEMU depends on more than the versions, and on what: another machine may have a value where
/// this one has an error. The test driver makes its host up.
pub(super) const OF_THE_HOST: [(&str, &str); 9] = [
    (
        "connect_get_sysinfo",
        "the firmware's tables (DMI), which a virtual machine may lack",
    ),
    ("node_get_sev_info", "a processor that has SEV"),
    (
        "connect_compare_cpu",
        "a processor that libvirt has a model for",
    ),
    (
        "connect_compare_hypervisor_cpu",
        "KVM, which then says what the processor can do",
    ),
    (
        "connect_baseline_hypervisor_cpu",
        "KVM, which then says what the processor can do",
    ),
    ("interface_lookup_by_name", NETCF),
    ("interface_lookup_by_mac_string", NETCF),
    ("interface_get_xml_desc", NETCF),
    ("interface_is_active", NETCF),
];

const NETCF: &str =
    "a libvirt that was built with netcf, which knows only interfaces that are configured";

/// A list, taken apart.
#[derive(Debug, Default)]
struct Document<'a> {
    versions: &'a str,
    counts: &'a str,
    rows: BTreeMap<&'a str, Row<'a>>,
    /// What is the same on every machine.
    rest: Vec<&'a str>,
}

/// What a procedure has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row<'a> {
    number: &'a str,
    test: &'a str,
    qemu: &'a str,
    handle: &'a str,
}

/// Writes the list if [`WRITE`] is set, and otherwise holds the one that is there against it.
///
/// # Errors
/// It can't be read or written, or is not as it should be.
pub(super) fn check(document: &str) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
    if std::env::var_os(WRITE).is_some() {
        return fs::write(&path, document)
            .with_context(|| format!("can't write {}", path.display()));
    }
    let written =
        fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
    compare(&written, document).with_context(|| {
        format!(
            "{} is not up to date: set {WRITE}=1 to write it anew",
            shown(&path)
        )
    })
}

/// Whether the list that is there says what the one that was made does. Other versions have other procedures and other
/// answers; then only what is around the table can be compared.
fn compare(written: &str, made: &str) -> Result<()> {
    let [written, made] = [written, made].map(Document::new);
    written.is_sound()?;
    made.is_sound()?;
    let pairs = written.rest.iter().zip(&made.rest);
    for (old, new) in pairs {
        ensure!(old == new, "it says {old:?}, and not {new:?}");
    }
    ensure!(
        written.rest.len() == made.rest.len(),
        "it has {} lines around the table, and not {}",
        written.rest.len(),
        made.rest.len()
    );
    if written.versions != made.versions {
        return Ok(());
    }
    let [old, new] = [&written, &made].map(|of| of.rows.keys().collect::<BTreeSet<_>>());
    let missing: Vec<_> = new.difference(&old).collect();
    let superfluous: Vec<_> = old.difference(&new).collect();
    ensure!(
        missing.is_empty() && superfluous.is_empty(),
        "it lacks {missing:?} and has {superfluous:?} for nothing"
    );
    for (name, new) in &made.rows {
        let old = written.rows[name];
        let mut expected = *new;
        if OF_THE_HOST
            .iter()
            .any(|(of_the_host, _)| of_the_host == name)
        {
            expected.qemu = old.qemu;
        }
        ensure!(
            old == expected,
            "{name}: it says {old:?}, and it is {new:?}"
        );
    }
    Ok(())
}

// === impl Document ===

impl<'a> Document<'a> {
    fn new(text: &'a str) -> Self {
        let mut this = Self::default();
        for line in text.lines() {
            if let Some((name, row)) = Row::parse(line) {
                this.rows.insert(name, row);
            } else if line.starts_with(VERSIONS) {
                this.versions = line;
            } else if line.starts_with(COUNTS) {
                this.counts = line;
            } else {
                this.rest.push(line);
            }
        }
        this
    }

    /// That its numbers are those of its rows.
    fn is_sound(&self) -> Result<()> {
        let counted = counts(self.rows.values()).to_string();
        ensure!(
            self.counts == counted,
            "it says {:?}, and its rows {counted:?}",
            self.counts
        );
        Ok(())
    }
}

/// How many rows have come to what.
fn counts<'a>(rows: impl Iterator<Item = &'a Row<'a>>) -> Counts {
    let mut counts = Counts::default();
    for row in rows {
        let has_value = [row.test, row.qemu].map(|outcome| outcome == VALUE);
        counts.calls += 1;
        for (values, has_value) in counts.values.iter_mut().zip(has_value) {
            *values += usize::from(has_value);
        }
        counts.on_either += usize::from(has_value.contains(&true));
        counts.handles += usize::from(!row.handle.is_empty());
    }
    counts
}

// === impl Row ===

impl<'a> Row<'a> {
    /// A row and its procedure, if the line is one of that table.
    fn parse(line: &'a str) -> Option<(&'a str, Self)> {
        let (name, cells) = line.strip_prefix(ROW)?.split_once("` |")?;
        let cells: Vec<&str> = cells.split('|').map(str::trim).collect();
        let [number, test, qemu, handle, ""] = cells[..] else {
            return None;
        };
        number.parse::<i32>().ok()?;
        let row = Self {
            number,
            test,
            qemu,
            handle,
        };
        Some((name, row))
    }
}

fn shown(path: &Path) -> String {
    let name = path.file_name().map(PathBuf::from);
    Path::new("docs")
        .join(name.unwrap_or_default())
        .display()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list whose rows are these.
    fn list(versions: &str, rows: &[&str]) -> String {
        let parsed: Vec<_> = rows.iter().filter_map(|row| Row::parse(row)).collect();
        assert_eq!(parsed.len(), rows.len());
        let counts = counts(parsed.iter().map(|(_, row)| row));
        let rows = rows.join("\n");
        format!(
            "# Head\n{VERSIONS}{versions}.\n{counts}\n{rows}\n\n| `a` | `place` | grows | why |\n"
        )
    }

    const A: &str = "| `a` | 1 | value | error 3 of 10 | yes |";
    const B: &str = "| `b` | 2 | error 3 of 20 | value |  |";
    const HOST: &str = "| `connect_get_sysinfo` | 203 | value | error 67 of 10 | yes |";

    #[track_caller]
    fn differs(written: &str, made: &str, said: &str) {
        let error = compare(written, made).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }

    #[test]
    fn the_same_list_is_up_to_date() {
        let list = list("1", &[A, B, HOST]);
        compare(&list, &list).unwrap();
    }

    #[test]
    fn a_list_with_other_procedures_is_not_up_to_date() {
        let made = list("1", &[A, B]);
        differs(&list("1", &[A]), &made, "lacks [\"b\"]");
        differs(&list("1", &[A, B, HOST]), &made, "for nothing");
    }

    #[test]
    fn a_list_with_other_answers_is_not_up_to_date() {
        let made = list("1", &[A, B]);
        for other in [
            A.replace("error 3 of 10", "error 4 of 10"),
            A.replace("error 3 of 10", "value"),
            A.replace("value", "error 1 of 0"),
            A.replace("| 1 |", "| 7 |"),
            A.replace("yes", ""),
        ] {
            differs(&list("1", &[&other, B]), &made, "a: it says");
        }
    }

    #[test]
    fn what_the_host_decides_may_be_another_on_qemu_alone() {
        let made = list("1", &[A, HOST]);
        let elsewhere = HOST.replace("error 67 of 10", "value");
        compare(&list("1", &[A, &elsewhere]), &made).unwrap();
        let on_test = HOST.replace("203 | value", "203 | error 1 of 0");
        differs(&list("1", &[A, &on_test]), &made, "connect_get_sysinfo");
    }

    #[test]
    fn other_versions_have_other_procedures_and_answers() {
        let written = list("1", &[A, B]);
        compare(&written, &list("2", &[HOST])).unwrap();
    }

    #[test]
    fn what_is_around_the_table_is_the_same_for_all_versions() {
        let made = list("2", &[A]);
        let written = list("1", &[A]);
        differs(&written.replace("Head", "Hat"), &made, "Hat");
        differs(&written.replace("grows", "wanders"), &made, "wanders");
        differs(&format!("{written}more\n"), &made, "lines around");
    }

    #[test]
    fn numbers_that_are_not_those_of_the_rows_are_noticed() {
        let made = list("2", &[A, B]);
        let written = list("1", &[A, B]);
        differs(&written.replace("Of 2 ", "Of 3 "), &made, "its rows");
    }
}
