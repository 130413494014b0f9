//! `shell/exec`: a line for the guest's `/bin/sh -c`.
//!
//! It succeeds if the command ends with status 0. What the command has written is told in any case: the first bytes of it
//! (`truncated` if there were more), with U+FFFD for what is not UTF-8.

use std::time::Duration;

use serde_json::Value;
use vbridge_api::guest::v1::{
    Command, EnvironmentVariable, ExecRunRequest, ExecRunResponse, exec_client::ExecClient,
    exit_status::How,
};

use super::{
    answer::Answer,
    code::{Code, Failure},
    request::Fields,
    system::seconds,
};
use crate::{
    inside::Inside,
    limits::{JSON_KILL_GRACE, MAX_JSON_OUTPUT},
};

/// What shells add to a signal's number to make it a status.
const SIGNAL: i32 = 128;

/// The status of a command of which it is not known.
const UNKNOWN: i32 = -1;

pub(super) fn parse(fields: &mut Fields, timeout: Duration) -> Result<ExecRunRequest, Failure> {
    let environment = fields.texts("env")?.into_iter().map(|(name, value)| {
        let value = Some(value);
        EnvironmentVariable { name, value }
    });
    let command = Command {
        shell: fields.required("command")?,
        environment: environment.collect(),
        working_directory: fields.filled("working_dir")?.unwrap_or_default(),
        timeout: timeout.try_into().ok(),
        kill_grace: JSON_KILL_GRACE.try_into().ok(),
        ..Command::default()
    };
    Ok(ExecRunRequest {
        command: Some(command),
        max_output_bytes: Some(MAX_JSON_OUTPUT),
        ..ExecRunRequest::default()
    })
}

pub(super) async fn run(guest: &Inside, request: ExecRunRequest) -> Result<Answer, Failure> {
    let mut exec = ExecClient::with_origin(guest.clone(), Inside::origin());
    let answer = exec.run(request).await?;
    told(answer.get_ref())
}

/// What became of the command.
fn told(answer: &ExecRunResponse) -> Result<Answer, Failure> {
    let status = answer.status.unwrap_or_default();
    let (exit_code, end) = match status.how {
        Some(How::Code(code)) => (code, format!("the command ended with status {code}")),
        Some(How::Signal(signal)) => (
            SIGNAL.saturating_add(signal),
            format!("signal {signal} ended the command"),
        ),
        None => (UNKNOWN, "how the command ended is not known".to_owned()),
    };
    let stderr = String::from_utf8_lossy(&answer.stderr).into_owned();
    let millis = seconds(status.duration.as_ref()).as_millis();
    let data = [
        ("exit_code", exit_code.into()),
        ("stdout", String::from_utf8_lossy(&answer.stdout).into()),
        ("stderr", stderr.as_str().into()),
        (
            "duration_ms",
            u64::try_from(millis).unwrap_or(u64::MAX).into(),
        ),
        (
            "truncated",
            (answer.stdout_dropped_bytes > 0 || answer.stderr_dropped_bytes > 0).into(),
        ),
    ];
    let failure = match (status.timed_out, exit_code) {
        (true, _) => Failure::new(
            Code::CmdTimeout,
            "the command was killed because its time was over: allow more with \"timeout\"",
        ),
        (false, 0) => {
            let data = data.map(|(name, value): (_, Value)| (name.to_owned(), value));
            return Ok(Answer::success(Value::Object(data.into_iter().collect())));
        }
        // What it says itself says most.
        _ if !stderr.trim().is_empty() => Failure::new(Code::CmdExecFailed, stderr.trim()),
        _ => Failure::new(Code::CmdExecFailed, end),
    };
    Err(data
        .into_iter()
        .fold(failure, |failure, (name, value)| failure.with(name, value)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use vbridge_api::guest::v1::ExitStatus;

    use super::*;

    fn ended(how: Option<How>, stderr: &[u8], timed_out: bool) -> Result<Value, (Code, Value)> {
        let answer = ExecRunResponse {
            status: Some(ExitStatus {
                how,
                timed_out,
                ..ExitStatus::default()
            }),
            stderr: stderr.to_vec(),
            stdout: b"out\xff".to_vec(),
            ..ExecRunResponse::default()
        };
        match told(&answer) {
            Ok(Answer::Data(_, data)) => Ok(data),
            Ok(Answer::Document(_)) => unreachable!("a command is no document"),
            Err(failure) => Err((failure.code(), failure.into_data())),
        }
    }

    #[test]
    fn a_command_that_ends_well_is_a_success_whatever_it_writes() {
        let data = ended(Some(How::Code(0)), b"a warning", false).unwrap();
        assert_eq!(
            data,
            json!({"exit_code": 0, "stdout": "out\u{fffd}", "stderr": "a warning", "duration_ms": 0, "truncated": false})
        );
    }

    #[test]
    fn a_command_that_fails_is_1001_and_tells_why() {
        let said = b"bash: command not found: invalid_cmd\n";
        let (code, data) = ended(Some(How::Code(127)), said, false).unwrap_err();
        assert_eq!(code.number(), 1001);
        assert_eq!(data["error_type"], "CMD_EXEC_FAILED");
        assert_eq!(data["detail"], "bash: command not found: invalid_cmd");
        assert_eq!(data["exit_code"], 127);
        let (_, data) = ended(Some(How::Code(3)), b" \n", false).unwrap_err();
        assert_eq!(data["detail"], "the command ended with status 3");
        let (code, data) = ended(Some(How::Signal(9)), b"", false).unwrap_err();
        assert_eq!(
            (code, &data["exit_code"]),
            (Code::CmdExecFailed, &137.into())
        );
        let (code, data) = ended(None, b"", false).unwrap_err();
        assert_eq!(
            (code, &data["exit_code"]),
            (Code::CmdExecFailed, &(-1).into())
        );
    }

    #[test]
    fn a_timeout_goes_before_how_the_command_took_it() {
        for how in [How::Signal(15), How::Code(0)] {
            let (code, data) = ended(Some(how), b"partial", true).unwrap_err();
            assert_eq!((code, code.number()), (Code::CmdTimeout, 1002));
            assert_eq!(data["stderr"], "partial");
        }
    }
}
