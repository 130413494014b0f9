//! Units as systemd knows them.

use std::collections::{BTreeMap, HashMap};

use prost_types::Timestamp;
use tonic::Status;
use vbridge_api::guest::v1::Unit;
use zbus::{OwnedObjectPath, OwnedVariant, Variant};

use super::{
    Pattern, Systemd, UnitName,
    bus::{call, manage, read},
    cut,
};
use crate::{
    error::{self, Reason},
    limits::{MAX_LISTED_DESCRIPTION, MAX_UNITS},
};

/// What every unit has.
const UNIT: &str = "org.freedesktop.systemd1.Unit";

/// How an object's properties are read.
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// The state of a unit that is not loaded, or does not run.
const INACTIVE: &str = "inactive";

/// Kinds of units that have processes, and the interface that tells of them.
const WITH_PROCESSES: [(&str, &str); 6] = [
    ("service", "org.freedesktop.systemd1.Service"),
    ("socket", "org.freedesktop.systemd1.Socket"),
    ("mount", "org.freedesktop.systemd1.Mount"),
    ("swap", "org.freedesktop.systemd1.Swap"),
    ("slice", "org.freedesktop.systemd1.Slice"),
    ("scope", "org.freedesktop.systemd1.Scope"),
];

/// A unit in systemd's list: name, description, load state, active state, sub state, the unit that it follows, its object,
/// and its job's id, type and object.
type Listed = (
    String,
    String,
    String,
    String,
    String,
    String,
    OwnedObjectPath,
    u32,
    String,
    OwnedObjectPath,
);

/// The units that are asked for, by name, and whether there are more.
#[derive(Debug, Default)]
pub(crate) struct Units {
    pub(crate) units: Vec<Unit>,
    pub(crate) more: bool,
}

/// Properties of a unit by name.
struct Properties(HashMap<String, OwnedVariant>);

impl Systemd {
    /// Units that are loaded, and with `all` also those whose files exist.
    pub(crate) async fn list(
        &self,
        patterns: &[Pattern],
        states: &[String],
        all: bool,
    ) -> Result<Units, Status> {
        let connection = self.0.bus.connection().await?;
        let patterns: Vec<&str> = patterns.iter().map(Pattern::as_str).collect();
        let arguments = (states, &patterns);
        let listed: Vec<Listed> = manage(&connection, "ListUnitsByPatterns", &arguments).await?;
        let units = listed.into_iter().map(|unit| {
            let (name, description, load_state, active_state, sub_state, ..) = unit;
            let unit = Unit {
                name: name.clone(),
                description: cut(description, MAX_LISTED_DESCRIPTION),
                load_state,
                active_state,
                sub_state,
                ..Unit::default()
            };
            (name, unit)
        });
        let mut units: BTreeMap<String, Unit> = units.collect();
        if all {
            let none: [&str; 0] = [];
            let arguments = (&none[..], &patterns);
            let files: Vec<(String, String)> =
                manage(&connection, "ListUnitFilesByPatterns", &arguments).await?;
            let wants_inactive = states.is_empty() || states.iter().any(|it| it == INACTIVE);
            for (path, state) in files {
                let name = path.rsplit('/').next().unwrap_or_default();
                if let Some(unit) = units.get_mut(name) {
                    (unit.path, unit.file_state) = (path, state);
                } else if wants_inactive {
                    let unit = Unit {
                        name: name.to_owned(),
                        active_state: INACTIVE.to_owned(),
                        sub_state: "dead".to_owned(),
                        file_state: state,
                        path: path.clone(),
                        ..Unit::default()
                    };
                    units.insert(name.to_owned(), unit);
                }
            }
        }
        let more = units.len() > MAX_UNITS;
        let units = units.into_values().take(MAX_UNITS).collect();
        Ok(Units { units, more })
    }

    /// One unit. One that neither has a file nor ever ran is not found.
    pub(crate) async fn get(&self, name: &UnitName) -> Result<Unit, Status> {
        let unit = self.describe(name).await?;
        match unit.load_state == "not-found" && unit.active_state == INACTIVE {
            true => Err(error::failure(
                Reason::NotFound,
                format!("the guest has no unit {name}"),
            )),
            false => Ok(unit),
        }
    }

    /// A unit, even if it is only a name.
    pub(super) async fn describe(&self, name: &UnitName) -> Result<Unit, Status> {
        let connection = self.0.bus.connection().await?;
        let path: OwnedObjectPath = manage(&connection, "LoadUnit", &(name.as_str(),)).await?;
        let properties = async |interface: &str| {
            let answer = call(
                &connection,
                path.as_str(),
                PROPERTIES,
                "GetAll",
                &(interface,),
            )
            .await?;
            read(&answer).map(Properties)
        };
        let mut unit = properties(UNIT).await?.unit(name);
        let kind = name.kind();
        if let Some((_, interface)) = WITH_PROCESSES.iter().find(|(it, _)| *it == kind) {
            properties(interface).await?.fill(&mut unit);
        }
        Ok(unit)
    }
}

// === impl Properties ===

impl Properties {
    fn get<'a, T: TryFrom<&'a Variant<'a>>>(&'a self, name: &str) -> Option<T> {
        let value: &Variant<'_> = self.0.get(name)?;
        T::try_from(value).ok()
    }

    fn text(&self, name: &str) -> String {
        self.get::<String>(name).unwrap_or_default()
    }

    /// A number; the largest one stands for none.
    fn counted(&self, name: &str) -> Option<u64> {
        self.get(name).filter(|number| *number != u64::MAX)
    }

    /// What every unit has.
    fn unit(&self, name: &UnitName) -> Unit {
        let active_state = self.text("ActiveState");
        let moment = match active_state.as_str() {
            "active" | "reloading" | "refreshing" => "ActiveEnterTimestamp",
            "activating" => "InactiveExitTimestamp",
            "deactivating" => "ActiveExitTimestamp",
            _ => "InactiveEnterTimestamp",
        };
        let id = self.text("Id");
        Unit {
            // An alias leads to the unit that it is another name of.
            name: if id.is_empty() { name.to_string() } else { id },
            description: self.text("Description"),
            load_state: self.text("LoadState"),
            sub_state: self.text("SubState"),
            file_state: self.text("UnitFileState"),
            state_time: self.get(moment).and_then(time),
            path: self.text("FragmentPath"),
            active_state,
            ..Unit::default()
        }
    }

    /// What units with processes have. Which of these there are depends on the kind.
    fn fill(&self, unit: &mut Unit) {
        unit.main_pid = self.get("MainPID").unwrap_or_default();
        unit.memory_bytes = self.counted("MemoryCurrent");
        unit.tasks = self.counted("TasksCurrent");
        unit.cpu_nanoseconds = self.counted("CPUUsageNSec");
        unit.restarts = self.get("NRestarts").unwrap_or_default();
        unit.result = self.text("Result");
        unit.exit_code = self.get("ExecMainStatus").unwrap_or_default();
    }
}

/// Microseconds since 1970; 0 is never.
fn time(microseconds: u64) -> Option<Timestamp> {
    (microseconds != 0).then(|| Timestamp {
        // Below 2^64 / 10^6 and 10^9.
        seconds: i64::try_from(microseconds / 1_000_000).unwrap_or_default(),
        nanos: i32::try_from(microseconds % 1_000_000 * 1000).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(of: impl IntoIterator<Item = (&'static str, Variant<'static>)>) -> Properties {
        let owned = |(name, value): (&str, Variant<'static>)| {
            (name.to_owned(), OwnedVariant::try_from(value).unwrap())
        };
        Properties(of.into_iter().map(owned).collect())
    }

    #[test]
    fn what_is_not_counted_is_absent_and_what_is_of_another_type_ignored() {
        let mut unit = Unit::default();
        properties([
            ("MainPID", 7_u32.into()),
            ("MemoryCurrent", u64::MAX.into()),
            ("TasksCurrent", 3_u64.into()),
            ("NRestarts", "many".into()),
            ("ExecMainStatus", 9_i32.into()),
        ])
        .fill(&mut unit);
        let expected = Unit {
            main_pid: 7,
            tasks: Some(3),
            exit_code: 9,
            ..Unit::default()
        };
        assert_eq!(unit, expected);
    }

    #[test]
    fn the_time_is_that_of_the_state() {
        let name = UnitName::parse("a").unwrap();
        let of = |state: &'static str| {
            properties([
                ("ActiveState", state.into()),
                ("ActiveEnterTimestamp", 1_500_000_u64.into()),
                ("InactiveEnterTimestamp", 0_u64.into()),
            ])
            .unit(&name)
        };
        let active = of("active");
        let moment = Timestamp {
            seconds: 1,
            nanos: 500_000_000,
        };
        assert_eq!(active.state_time, Some(moment));
        assert_eq!(active.name, "a.service");
        assert_eq!(of("inactive").state_time, None);
    }
}
