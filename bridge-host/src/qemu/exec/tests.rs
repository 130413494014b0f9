use std::sync::Mutex;

use serde_json::Value;
use tonic::Code;
use vbridge_api::guest::v1::{Command, EnvironmentVariable, exec_client::ExecClient};

use super::*;
use crate::qemu::script::{Script, no};

/// An agent whose command runs for some questions and has then this outcome.
fn guest(questions: usize, outcome: Value) -> Arc<Script> {
    let left = Mutex::new(questions);
    Script::new(move |command, _| {
        let mut left = left.lock().unwrap();
        match command {
            "guest-exec" => Ok(json!({ "pid": 77 })),
            "guest-exec-status" if *left > 0 => {
                *left -= 1;
                Ok(json!({ "exited": false }))
            }
            "guest-exec-status" => Ok(outcome.clone()),
            _ => Err(no(command, "no")),
        }
    })
}

fn command(change: impl FnOnce(&mut Command)) -> ExecRunRequest {
    let mut command = Command {
        argv: vec!["ls".to_owned(), "-l".to_owned()],
        ..Command::default()
    };
    change(&mut command);
    ExecRunRequest {
        command: Some(command),
        ..ExecRunRequest::default()
    }
}

async fn run_on(script: &Arc<Script>, request: ExecRunRequest) -> Told {
    ExecClient::new(script.serve()).run(request).await
}

#[tokio::test(start_paused = true)]
async fn a_command_is_asked_about_until_it_has_ended() {
    let outcome = json!({ "exited": true, "exitcode": 7, "out-data": "aGk=", "err-data": "bm8=" });
    let script = guest(5, outcome);
    let mut request = command(|_| {});
    request.stdin = b"in".to_vec();
    let answer = run_on(&script, request).await.unwrap().into_inner();
    let status = answer.status.unwrap();
    assert_eq!((status.how, status.timed_out), (Some(How::Code(7)), false));
    assert!(status.duration.is_some());
    assert_eq!(
        (&answer.stdout[..], &answer.stderr[..]),
        (&b"hi"[..], &b"no"[..])
    );
    assert_eq!(script.commands().len(), 7);
    let sent = json!({ "path": "ls", "arg": ["-l"], "capture-output": true, "input-data": "aW4=" });
    assert_eq!(script.last("guest-exec"), sent);
}

#[tokio::test(start_paused = true)]
async fn a_line_goes_to_the_shell_and_variables_in_the_place_of_others() {
    let script = guest(0, json!({ "exited": true, "signal": 9 }));
    let variable = |name: &str, value: Option<&str>| EnvironmentVariable {
        name: name.to_owned(),
        value: value.map(str::to_owned),
    };
    let mut request = command(|command| {
        command.argv.clear();
        command.shell = "exit 1".to_owned();
        command.clear_environment = true;
        command.environment = vec![variable("A", Some("b")), variable("C", None)];
    });
    request.merge_stderr = true;
    let answer = run_on(&script, request).await.unwrap().into_inner();
    assert_eq!(answer.status.unwrap().how, Some(How::Signal(9)));
    let sent = script.last("guest-exec");
    assert_eq!(sent["path"], "/bin/sh");
    assert_eq!(sent["arg"], json!(["-c", "exit 1"]));
    assert_eq!(sent["capture-output"], "merged");
    assert_eq!(sent["env"][0], "A=b");
    assert!(sent["env"][1].as_str().unwrap().starts_with("PATH="));
    assert_eq!(sent["env"].as_array().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_more_than_wanted_is_dropped_and_counted() {
    let data = STANDARD.encode([7; 10]);
    let outcome = json!({ "exited": true, "exitcode": 0, "out-data": data, "err-data": "", "err-truncated": true });
    let mut request = command(|_| {});
    request.max_output_bytes = Some(4);
    let answer = run_on(&guest(0, outcome), request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!((answer.stdout.len(), answer.stdout_dropped_bytes), (4, 6));
    assert_eq!(
        answer.stderr_dropped_bytes, 1,
        "how many is not known, and not none"
    );
}

#[tokio::test(start_paused = true)]
async fn a_command_whose_time_is_over_runs_on_and_that_is_said() {
    let script = guest(40, json!({ "exited": true, "exitcode": 0 }));
    let seconds = 3;
    let timeout = prost_types::Duration { seconds, nanos: 0 };
    let request = command(|command| command.timeout = Some(timeout));
    let begun = Instant::now();
    let answer = run_on(&script, request).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(4));
    let note = answer.metadata().get(NOTE).unwrap().to_str().unwrap();
    assert!(note.contains("runs on as process 77"), "{note}");
    let status = answer.into_inner().status.unwrap();
    assert_eq!((status.how, status.timed_out), (None, true));
    // It is asked about until the agent can forget it, and then no more.
    sleep(Duration::from_secs(3000)).await;
    let asked = script.commands().len();
    assert_eq!(asked, 42);
    sleep(Duration::from_secs(3000)).await;
    assert_eq!(script.commands().len(), asked);
}

#[tokio::test(start_paused = true)]
async fn a_command_whose_caller_has_gone_is_collected_all_the_same() {
    let script = guest(3, json!({ "exited": true, "exitcode": 0 }));
    let services = script.serve();
    let mut client = ExecClient::new(services);
    let gone = tokio::time::timeout(Duration::from_millis(5), client.run(command(|_| {})));
    assert!(gone.await.is_err());
    sleep(Duration::from_secs(300)).await;
    assert_eq!(script.commands().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_away_for_a_moment_is_asked_again_and_then_the_process_is_named() {
    for (failures, code) in [(2, Code::Ok), (99, Code::Unavailable)] {
        let left = Mutex::new(failures);
        let script = Script::new(move |command, _| {
            let mut left = left.lock().unwrap();
            match command {
                "guest-exec" => Ok(json!({ "pid": 77 })),
                _ if *left > 0 => {
                    *left -= 1;
                    Err(Failure::Away {
                        reason: error::Reason::GuestSilent,
                        why: "silence".to_owned(),
                    })
                }
                _ => Ok(json!({ "exited": true, "exitcode": 0 })),
            }
        });
        match run_on(&script, command(|_| {})).await {
            Ok(_) => assert_eq!(code, Code::Ok),
            Err(status) => {
                assert_eq!(status.code(), code);
                assert!(status.message().contains("process 77"), "{status}");
                assert!(!status.details().is_empty());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_program_that_can_not_be_started_is_told_apart_from_one_that_is_not_there() {
    for (said, code) in [
        (
            "Guest agent command failed, error was 'Failed to execute child process “x” (No such file or directory)'",
            Code::NotFound,
        ),
        (
            "Failed to execute child process “x” (Permission denied)",
            Code::FailedPrecondition,
        ),
        (
            "Command guest-exec has been disabled: the command is not allowed",
            Code::Unimplemented,
        ),
    ] {
        let script = Script::new(move |command, _| Err(no(command, said)));
        let status = run_on(&script, command(|_| {})).await.unwrap_err();
        assert_eq!(status.code(), code, "{said}");
    }
}

#[tokio::test]
async fn what_the_agent_can_not_do_is_refused_with_its_field() {
    let script = Script::fixed([]);
    type Change = fn(&mut Command);
    let wishes: [(&str, Change); 5] = [
        ("command.user", |command| command.user = "web".to_owned()),
        ("command.group", |command| command.group = "web".to_owned()),
        ("command.label", |command| command.label = "x".to_owned()),
        ("command.working_directory", |command| {
            command.working_directory = "/tmp".to_owned();
        }),
        ("command.environment", |command| {
            command.environment.push(EnvironmentVariable {
                name: "A".to_owned(),
                value: None,
            });
        }),
    ];
    for (field, change) in wishes {
        let status = run_on(&script, command(change)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
        assert!(
            status.message().starts_with(&format!("{field}: ")),
            "{status}"
        );
    }
    assert!(script.commands().is_empty());
}

#[tokio::test]
async fn what_no_agent_does_is_invalid() {
    let script = Script::fixed([]);
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let mut requests = vec![
        ("command: ", ExecRunRequest::default()),
        ("command: ", command(|command| command.argv.clear())),
        (
            "command: ",
            command(|command| command.shell = "x".to_owned()),
        ),
        (
            "command.argv[0]",
            command(|command| command.argv[0].clear()),
        ),
        (
            "command.argv[1]",
            command(|command| command.argv[1].push('\0')),
        ),
        (
            "command.argv[1]",
            command(|command| command.argv[1] = "x".repeat(MAX_LONG)),
        ),
        (
            "command.argv",
            command(|command| command.argv = vec!["x".to_owned(); 4097]),
        ),
        (
            "command.argv",
            command(|command| command.argv = vec!["x".repeat(100_000); 11]),
        ),
        (
            "command.timeout",
            command(|command| command.timeout = seconds(0)),
        ),
        (
            "command.timeout",
            command(|command| command.timeout = seconds(-1)),
        ),
        (
            "command.timeout",
            command(|command| command.timeout = seconds(i64::MAX)),
        ),
        (
            "command.kill_grace",
            command(|command| command.kill_grace = seconds(61)),
        ),
        (
            "command.environment[0].name",
            command(|command| {
                command.clear_environment = true;
                command.environment.push(EnvironmentVariable::default());
            }),
        ),
    ];
    let mut long = command(|_| {});
    long.stdin = vec![0; 1024 * 1024 + 1];
    requests.push(("stdin", long));
    let mut much = command(|_| {});
    much.max_output_bytes = Some(u64::MAX);
    requests.push(("max_output_bytes", much));
    for (field, request) in requests {
        let status = run_on(&script, request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{field}");
        assert!(status.message().starts_with(field), "{status}");
    }
    assert!(script.commands().is_empty());
}

/// One more than an argument may have.
const MAX_LONG: usize = 128 * 1024;

#[tokio::test(start_paused = true)]
async fn an_outcome_that_makes_no_sense_is_one_clear_error() {
    for outcome in [
        json!({}),
        json!({ "exited": "yes" }),
        json!({ "exited": true, "exitcode": i64::MAX }),
        json!({ "exited": true, "exitcode": 1e300 }),
        json!({ "exited": true, "signal": i64::MIN }),
        json!({ "exited": true, "exitcode": 0, "out-data": "§§§" }),
        json!({ "exited": true, "exitcode": 0, "err-data": 5 }),
    ] {
        let status = run_on(&guest(1, outcome), command(|_| {}))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::Internal, "{status}");
    }
    let windows = json!({ "exited": true, "exitcode": 0xc000_0005_u32 });
    let answer = run_on(&guest(0, windows), command(|_| {})).await.unwrap();
    let how = answer.into_inner().status.unwrap().how;
    assert_eq!(how, Some(How::Code(0xc000_0005_u32.cast_signed())));
}

#[tokio::test(start_paused = true)]
async fn there_are_only_so_many_at_once() {
    let script = guest(usize::MAX, Value::Null);
    let services = script.serve();
    for _ in 0..crate::limits::MAX_AGENT_RUNS {
        let mut client = ExecClient::new(services.clone());
        tokio::spawn(async move { client.run(command(|_| {})).await });
    }
    sleep(Duration::from_secs(1)).await;
    let mut client = ExecClient::new(services);
    let status = client.run(command(|_| {})).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
}
