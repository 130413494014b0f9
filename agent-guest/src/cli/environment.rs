//! The environment's variables.

use std::{ffi::OsString, path::PathBuf};

use vbridge_settings::unknown_key;

use super::{CliError, KEYS, Layer};

/// What they begin with.
const PREFIX: &str = "VBRIDGE_AGENT_";

/// What they say.
#[derive(Default)]
pub(super) struct Environment {
    pub(super) layer: Layer,
    /// The configuration file.
    pub(super) config: Option<PathBuf>,
    /// What is odd, but no reason not to run.
    pub(super) warnings: Vec<String>,
}

/// Looks at all of them, and leaves others alone.
pub(super) fn read(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Environment, CliError> {
    let mut environment = Environment::default();
    for (name, value) in variables {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
            continue;
        };
        let key = name[PREFIX.len()..].to_ascii_lowercase();
        if key == "config" {
            environment.config = Some(value.into());
            continue;
        }
        // The variable may be another program's: no reason not to run.
        if !KEYS.contains(&key.as_str()) {
            environment.warnings.push(format!(
                "{name} in the environment is ignored: {}",
                unknown_key(&key, &KEYS)
            ));
            continue;
        }
        let set = match value.to_str() {
            Some(value) => environment.layer.set(&key, value),
            None => Err("is not UTF-8 text".to_owned()),
        };
        set.map_err(|message| CliError::Value {
            origin: name.to_owned(),
            message,
        })?;
    }
    Ok(environment)
}
