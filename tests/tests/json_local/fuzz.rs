//! The API's own document, and what schemathesis makes of it: requests that keep to it and requests that do not, and whether the
//! answers are those that it promises.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::process::Command;
use vbridge_tests::{
    fixture::story,
    outside::{run_within, tool},
};
use xtask::tools;

use crate::{World, client::Ask};

/// Requests for each endpoint in which anything may stand; beside them are those that go to each bound, which are always the same.
const EXAMPLES: &str = "10";

/// For all of them: a minute, and far more on a machine that is busy with other things.
const LIMIT: Duration = Duration::from_secs(900);

/// Lines of which the policy allows two: nothing else is ever run.
const LINES: [&str; 3] = ["true", "false", "exit 3"];

/// The guest is this machine: nothing is run but these lines, and no file is touched outside of the folder.
fn policy(folder: &Path) -> String {
    format!(
        r#"
profile = "observe"

[[rule]]
name = "json"
allow = ["vbridge.guest.v1.Exec/Run", "vbridge.guest.v1.Files/Read", "vbridge.guest.v1.Files/Write", "vbridge.guest.v1.Files/Checksum"]

[[rule]]
name = "no-units"
deny = ["vbridge.guest.v1.Services/*"]

[[command]]
name = "lines"
shell = true
allow = [["/bin/sh", "-c", "true"], ["/bin/sh", "-c", "exit 3"]]

[[path]]
name = "folder"
root = {folder:?}
access = "write"

[[path]]
name = "all-else"
root = "/"
access = "none"
"#
    )
}

/// The document with examples that lead somewhere: lines that are allowed, and paths in the folder. Left out is what it can't tell
/// exactly: the shortest time that it allows is over before a guest can answer, and only the guest knows who may own a file.
fn narrowed(mut document: Value, folder: &Path) -> Result<Value> {
    let schemas = &mut document["components"]["schemas"];
    for name in ["Line", "Path", "Timeout"] {
        ensure!(schemas[name].is_object(), "the document has no {name}");
    }
    schemas["Line"] = json!({"type": "string", "enum": LINES});
    let pattern = format!("^{}/[a-z]+$", folder.to_str().context("no text")?);
    schemas["Path"] = json!({"type": "string", "pattern": pattern});
    without_the_rest(&mut document);
    let paths = document["paths"].as_object_mut().context("no paths")?;
    for operation in paths.values_mut().filter_map(Value::as_object_mut) {
        for method in operation.values_mut() {
            // Nothing may fail inside. A guest that a busy machine keeps from answering may be told as such (503, 504).
            method["responses"]
                .as_object_mut()
                .context("no responses")?
                .remove("500");
        }
    }
    Ok(document)
}

fn without_the_rest(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for name in ["timeout", "owner", "group"] {
                // A description of an answer stays.
                if members
                    .get(name)
                    .is_some_and(|schema| schema.get("$ref").is_some())
                {
                    members.remove(name);
                }
            }
            members.values_mut().for_each(without_the_rest);
        }
        Value::Array(values) => {
            values.retain(|value| value["name"] != "timeout");
            values.iter_mut().for_each(without_the_rest);
        }
        _ => {}
    }
}

#[test]
fn the_document_is_served_and_needs_no_guest() {
    story(async {
        let mut world = World::start().await?;
        world.agent.kill9().await?;
        let answer = Ask::get("openapi.json").send(world.address()).await?;
        ensure!(answer.status == 200 && answer.body["openapi"] == "3.1.0");
        ensure!(
            answer.body["paths"]
                .as_object()
                .is_some_and(|paths| paths.len() == 9)
        );
        Ok(())
    });
}

#[test]
fn what_schemathesis_makes_up_is_answered_as_the_document_says() {
    story(async {
        // Without a dot, which would be any character in the pattern for paths.
        let dir = tempfile::Builder::new().prefix("vb").tempdir()?;
        let folder = dir.path().join("files");
        fs::create_dir(&folder)?;
        fs::write(folder.join("a"), "hello")?;
        let rules = dir.path().join("policy.toml");
        fs::write(&rules, policy(&folder))?;
        let world = World::under(&rules).await?;
        let answer = Ask::get("openapi.json").send(world.address()).await?;
        let document = dir.path().join("openapi.json");
        fs::write(&document, narrowed(answer.body, &folder)?.to_string())?;
        let mut schemathesis = Command::new(tool(tools::schemathesis())?);
        schemathesis
            .args(["run", "--url", &format!("http://{}", world.address())])
            .args(["--phases", "examples,coverage,fuzzing", "--checks", "all"])
            .args(["--exclude-checks", "not_a_server_error"])
            .args(["--max-examples", EXAMPLES, "--generation-deterministic"])
            .args(["--continue-on-failure", "--no-color", "--warnings", "off"])
            .args(["--workers", "1", "--request-timeout", "60"])
            // They are about how long it takes to make requests up.
            .args(["--suppress-health-check", "all"])
            .arg(&document)
            .current_dir(&dir);
        let outcome = run_within(LIMIT, schemathesis, "").await?;
        let told = outcome.success()?;
        ensure!(told.contains("Tested: 9"), "{told}");
        let metrics = world.metrics().await?;
        for method in [
            "System/Ping",
            "Exec/Run",
            "Files/Write",
            "Files/Read",
            "Files/Stat",
        ] {
            let name = format!("method=\"vbridge.guest.v1.{method}\",code=\"OK\"");
            ensure!(metrics.contains(&name), "{method} has never succeeded");
        }
        Ok(())
    });
}
