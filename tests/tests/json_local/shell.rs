//! Commands.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, ensure};
use serde_json::json;
use vbridge_link::Key;
use vbridge_tests::{
    fixture::{LocalAgent, eventually, story},
    process::PATIENCE,
};

use crate::{World, client::Ask};

#[test]
fn a_line_is_run_by_the_shell_with_its_variables_in_its_directory() {
    story(async {
        let world = World::start().await?;
        let command = json!({
            "command": "echo \"$GREETING from $PWD\"; echo aside >&2",
            "timeout": 30,
            "working_dir": "/usr",
            "env": {"GREETING": "hello"},
        });
        let answer = Ask::post("shell/exec", &command)
            .send(world.address())
            .await?;
        let data = answer.data()?;
        ensure!(answer.body["message"] == "success");
        ensure!(
            data["exit_code"] == 0 && data["truncated"] == false,
            "{data}"
        );
        ensure!(data["stdout"] == "hello from /usr\n", "{data}");
        ensure!(data["stderr"] == "aside\n", "{data}");
        ensure!(data["duration_ms"].is_u64(), "{data}");
        let general = json!({
            "version": "1.0", "action": "shell.exec", "params": command, "timeout": 30,
        });
        let answer = Ask::post("shell/exec", &general)
            .send_http2(world.address())
            .await?;
        ensure!(
            answer.data()?["stdout"] == "hello from /usr\n",
            "{answer:?}"
        );
        Ok(())
    });
}

#[test]
fn a_command_that_fails_is_an_answer_with_its_exit_code_and_outputs() {
    story(async {
        let world = World::start().await?;
        let missing = json!({"command": "echo before; no-such-command-here"});
        let answer = Ask::post("shell/exec", &missing)
            .send(world.address())
            .await?;
        let data = answer.failed(200, 1001, "CMD_EXEC_FAILED")?;
        ensure!(answer.body["message"] == "Command execution failed");
        ensure!(
            data["exit_code"] == 127 && data["stdout"] == "before\n",
            "{data}"
        );
        let detail = data["detail"].as_str().unwrap_or_default();
        ensure!(detail.contains("no-such-command-here"), "{data}");
        for (command, exit_code) in [("exit 3", 3), ("kill -9 $$", 137)] {
            let asked = Ask::post("shell/exec", &json!({"command": command}));
            let answer = asked.send(world.address()).await?;
            let data = answer.failed(200, 1001, "CMD_EXEC_FAILED")?;
            ensure!(data["exit_code"] == exit_code, "{data}");
        }
        let nowhere = json!({"command": "true", "working_dir": "/no/such/folder"});
        let answer = Ask::post("shell/exec", &nowhere)
            .send(world.address())
            .await?;
        answer.failed(404, 3002, "FILE_NOT_FOUND")?;
        Ok(())
    });
}

/// A command that has told its process's number in a file, and then goes on for ever.
fn endless(pid: &Path) -> String {
    let pid = pid.display();
    format!("echo partial; echo $$ >{pid}.new; mv {pid}.new {pid}; exec sleep 1000")
}

async fn is_gone(pid: &Path) -> Result<()> {
    let pid = fs::read_to_string(pid)?;
    let process = format!("/proc/{}", pid.trim());
    eventually("the command has ended", PATIENCE, async || {
        Ok(!Path::new(&process).exists())
    })
    .await
}

#[test]
fn a_command_whose_time_is_over_is_killed_and_what_it_wrote_is_told() {
    story(async {
        let world = World::start().await?;
        let dir = tempfile::tempdir()?;
        let pid = dir.path().join("pid");
        let command = json!({"command": endless(&pid), "timeout": 1.5});
        let answer = Ask::post("shell/exec", &command)
            .send(world.address())
            .await?;
        let data = answer.failed(200, 1002, "CMD_TIMEOUT")?;
        ensure!(data["stdout"] == "partial\n", "{data}");
        ensure!(data["duration_ms"].as_u64() >= Some(1500), "{data}");
        is_gone(&pid).await
    });
}

#[test]
fn a_command_whose_caller_has_gone_is_killed() {
    story(async {
        let world = World::start().await?;
        let dir = tempfile::tempdir()?;
        let pid = dir.path().join("pid");
        let command = json!({"command": endless(&pid), "timeout": 300});
        let waiting = Ask::post("shell/exec", &command)
            .begin(world.address())
            .await?;
        eventually("the command runs", PATIENCE, async || Ok(pid.exists())).await?;
        drop(waiting);
        is_gone(&pid).await
    });
}

#[test]
fn outputs_are_bounded_and_what_is_no_text_is_replaced() {
    story(async {
        let world = World::start().await?;
        let large =
            json!({"command": "head -c 1048577 /dev/zero | tr '\\0' x; printf '\\377' >&2"});
        let answer = Ask::post("shell/exec", &large)
            .send(world.address())
            .await?;
        let data = answer.data()?;
        ensure!(data["truncated"] == true);
        let stdout = data["stdout"].as_str().unwrap_or_default();
        ensure!(stdout.len() == 1_048_576, "{}", stdout.len());
        ensure!(data["stderr"] == "\u{fffd}");
        Ok(())
    });
}

#[test]
fn a_guest_that_wants_each_request_signed_answers_it_once() {
    story(async {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("calls.key");
        fs::write(&file, "0123456789abcdef0123456789abcdef")?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        let key = Key::read(&file)?;
        let file = file.display().to_string();
        let agent = LocalAgent::shipped(&["--call-key-file", &file]).await?;
        let world = World::with(agent).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let signed = |ask: Ask, path: &str, nonce: &str| {
            ask.header("X-Auth-Token", &key.sign_call(now, nonce, path))
                .header("X-Timestamp", &now.to_string())
                .header("X-Nonce", nonce)
        };
        let exec = || Ask::post("shell/exec", &json!({"command": "echo hello"}));
        let refused = async |ask: Ask, reason: &str| {
            let answer = ask.send(world.address()).await?;
            let data = answer.failed(403, 4001, "PERMISSION_DENIED")?;
            ensure!(data["reason"] == reason, "{data}");
            ensure!(answer.header("www-authenticate").is_none(), "{answer:?}");
            anyhow::Ok(())
        };
        refused(exec(), "CALL_NOT_SIGNED").await?;
        let other = signed(exec(), "/api/v1/ping", "nonce-01");
        refused(other, "CALL_SIGNATURE_WRONG").await?;
        let right = signed(exec(), "/api/v1/shell/exec", "nonce-02");
        let answer = right.send(world.address()).await?;
        ensure!(answer.data()?["stdout"] == "hello\n", "{answer:?}");
        refused(right, "CALL_REPLAYED").await?;
        // Endpoints that lead to two methods: one signature is enough.
        let info = signed(Ask::get("system/info"), "/api/v1/system/info", "nonce-03");
        let answer = info.send_http2(world.address()).await?;
        ensure!(answer.data()?["memory_available"].is_u64(), "{answer:?}");
        let path = format!("file/info?path={file}");
        let info = signed(Ask::get(path), "/api/v1/file/info", "nonce-04");
        let answer = info.send(world.address()).await?;
        ensure!(answer.data()?["md5"].is_string(), "{answer:?}");
        Ok(())
    });
}
