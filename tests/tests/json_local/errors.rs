//! What is refused, and what fails: every code that a whole guest can be brought to.

use std::{fs, path::Path};

use anyhow::ensure;
use rustix::process::Signal;
use serde_json::json;
use vbridge_tests::{
    fixture::{eventually, story},
    process::PATIENCE,
};

use crate::{World, client::Ask};

#[test]
fn a_request_that_does_not_fit_is_told_what_would() {
    story(async {
        let world = World::start().await?;
        let at = world.address();
        let answer = Ask::get("nothing").send(at).await?;
        answer.failed(404, 3001, "ENDPOINT_NOT_FOUND")?;
        for method in ["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"] {
            let answer = Ask::new(method, "ping").send(at).await?;
            answer.failed(405, 3001, "ENDPOINT_NOT_FOUND")?;
            ensure!(answer.header("allow") == Some("GET"), "{answer:?}");
        }
        let answer = Ask::get("shell/exec").send(at).await?;
        ensure!(answer.header("allow") == Some("POST"), "{answer:?}");
        for kind in ["text/plain", "application/x-www-form-urlencoded"] {
            let form = Ask::post("shell/exec", &json!({"command": "true"}));
            let answer = form.header("Content-Type", kind).send(at).await?;
            answer.failed(415, 2001, "INVALID_PARAMS")?;
        }
        let post = |path: &str, body: &str| Ask::post(path, &json!({})).body(body);
        let broken = post("shell/exec", "{\"command\": ").send(at).await?;
        broken.failed(400, 2002, "JSON_PARSE_ERROR")?;
        let missing = post("shell/exec", "{}").send(at).await?;
        let data = missing.failed(400, 2003, "MISSING_REQUIRED")?;
        ensure!(data["detail"].as_str() == Some("command: must be there"));
        for (path, body) in [
            ("shell/exec", r#"{"command": 1}"#),
            ("shell/exec", r#"{"command": "true", "timeout": 301}"#),
            ("shell/exec", r#"{"command": "true", "working_dir": "tmp"}"#),
            ("shell/exec", r#"{"command": "true", "env": {"A=B": "c"}}"#),
            ("file/upload", r#"{"path": "/tmp/../etc/x", "content": ""}"#),
            ("file/upload", r#"{"path": "x", "content": ""}"#),
            (
                "file/upload",
                r#"{"path": "/tmp/x", "content": "no base64"}"#,
            ),
            (
                "file/upload",
                r#"{"path": "/tmp/x", "content": "", "mode": "999"}"#,
            ),
            ("service/control", r#"{"name": "x", "action": "explode"}"#),
        ] {
            let answer = post(path, body).send(at).await?;
            answer.failed(400, 2001, "INVALID_PARAMS")?;
        }
        Ok(())
    });
}

#[test]
fn a_body_that_is_too_large_is_refused_before_it_is_read() {
    story(async {
        let world = World::start().await?;
        // The answer does not wait for bytes that never come.
        let asked = Ask::post("file/upload", &json!({})).body("");
        let asked = asked.header("Content-Length", "10485761");
        let answer = asked.send(world.address()).await?;
        answer.failed(413, 2001, "INVALID_PARAMS")?;
        Ok(())
    });
}

#[test]
fn a_page_of_another_site_can_do_nothing() {
    story(async {
        let world = World::start().await?;
        let dir = tempfile::tempdir()?;
        let done = dir.path().join("done");
        let command = format!("touch {}", done.display());
        let touch = Ask::post("shell/exec", &json!({"command": command}));
        let evil = "http://evil.example";
        let own = format!("http://{}", world.address());
        let rebound = format!("local.evil.example:{}", world.address().port());
        for asked in [
            touch.clone().header("Sec-Fetch-Site", "cross-site"),
            touch.clone().header("Sec-Fetch-Site", "same-site"),
            touch.clone().header("Origin", evil),
            touch.clone().header("Origin", "null"),
            touch
                .clone()
                .header("Origin", &own)
                .header("Host", &rebound),
            touch.clone().header("Host", &rebound),
            touch
                .clone()
                .header("Host", "evil.example")
                .header("x-vbridge-guest", "local"),
            Ask::get("system/info").header("Origin", evil),
            Ask::get("ping").header("Host", &rebound),
            Ask::new("OPTIONS", "shell/exec")
                .header("Origin", evil)
                .header("Access-Control-Request-Method", "POST")
                .header("Access-Control-Request-Headers", "content-type"),
        ] {
            let answer = asked.send(world.address()).await?;
            answer.failed(403, 4001, "PERMISSION_DENIED")?;
        }
        ensure!(!done.exists(), "it was run");
        let own = touch
            .header("Origin", &own)
            .header("Sec-Fetch-Site", "same-origin");
        own.send(world.address()).await?.data()?;
        ensure!(done.exists(), "it was not run");
        Ok(())
    });
}

#[test]
fn what_the_guests_policy_refuses_is_4001_with_its_rule() {
    story(async {
        let dir = tempfile::tempdir()?;
        let policy = dir.path().join("policy.toml");
        let readable = dir.path().join("readable");
        fs::create_dir(&readable)?;
        fs::write(readable.join("file"), "hello")?;
        let rules = format!(
            "profile = \"observe\"\n\n[[path]]\nname = \"some\"\nroot = {readable:?}\naccess = \"read\"\n"
        );
        fs::write(&policy, rules)?;
        let world = World::under(&policy).await?;
        let command = Ask::post("shell/exec", &json!({"command": "true"}));
        let answer = command.send(world.address()).await?;
        let data = answer.failed(403, 4001, "PERMISSION_DENIED")?;
        ensure!(data["reason"] == "POLICY_DENIED", "{data}");
        // What is there may be told, and not what is in it.
        let path = readable.join("file");
        let found = Ask::get(format!("file/info?path={}", path.display()));
        let answer = found.send(world.address()).await?;
        let data = answer.data()?;
        ensure!(data["exists"] == true && data["md5"].is_null(), "{data}");
        Ok(())
    });
}

#[test]
fn a_guest_that_has_gone_that_goes_or_that_hangs_is_told_apart() {
    story(async {
        let mut world = World::start().await?;
        let dir = tempfile::tempdir()?;
        let begun = dir.path().join("begun");
        let command = format!("touch {}; exec sleep 20", begun.display());
        let at = world.address();

        let frozen = world.agent.process();
        frozen.signal(Signal::STOP)?;
        let answer = Ask::get("ping?timeout=20").send(at).await?;
        answer.failed(504, 6002, "READ_TIMEOUT")?;
        world.agent.process().signal(Signal::CONT)?;
        world.bridge.ready("local").await?;

        let running = tokio::spawn(async move {
            let asked = Ask::post("shell/exec", &json!({"command": command, "timeout": 60}));
            asked.send(at).await
        });
        let has_begun = async || Ok(Path::new(&begun).exists());
        eventually("the command runs", PATIENCE, has_begun).await?;
        world.agent.kill9().await?;
        running.await??.failed(503, 6001, "CONNECTION_LOST")?;

        let answer = Ask::get("ping").send(at).await?;
        answer.failed(503, 5002, "SERVICE_UNAVAILABLE")?;
        ensure!(answer.header("retry-after").is_some(), "{answer:?}");
        let answer = Ask::get("ping").header("x-vbridge-guest", "mail");
        let answer = answer.send(at).await?;
        let data = answer.failed(404, 3001, "ENDPOINT_NOT_FOUND")?;
        ensure!(data["reason"] == "GUEST_NOT_FOUND", "{data}");

        // As every call does, one may wait for its guest.
        let patient = Ask::get("ping").header("x-vbridge-wait", "20s");
        let (answer, again) = tokio::join!(patient.send(at), world.agent.start_again());
        again?;
        answer?.data()?;
        Ok(())
    });
}

#[test]
fn a_guest_that_takes_too_long_is_6002() {
    story(async {
        let world = World::start().await?;
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("large");
        // A hole: there is much to read, and nothing on the disk.
        fs::File::create(&path)?.set_len(64 * 1024 * 1024)?;
        let asked = format!("file/info?timeout=0.001&path={}", path.display());
        let answer = Ask::get(asked).send(world.address()).await?;
        answer.failed(504, 6002, "READ_TIMEOUT")?;
        Ok(())
    });
}

#[test]
fn a_guest_without_systemd_says_so() {
    story(async {
        if Path::new("/run/systemd/system").exists() {
            // This machine's units are not for a test to play with: `system_guest` has a systemd of its own.
            return Ok(());
        }
        let world = World::start().await?;
        let status = json!({"name": "cron", "action": "status"});
        let answer = Ask::post("service/control", &status)
            .send(world.address())
            .await?;
        let data = answer.failed(503, 5002, "SERVICE_UNAVAILABLE")?;
        ensure!(data["reason"] == "UNSUPPORTED", "{data}");
        Ok(())
    });
}
