//! Commands that are run to their end.

use sha2::{Digest as _, Sha256};
use tonic::Code;
use vbridge_api::guest::v1::{Command, EnvironmentVariable, ExecRunRequest, exit_status::How};

use crate::{
    common::within,
    support::{Scene, argv, is_refused, shell},
};

#[tokio::test]
async fn a_command_tells_how_it_has_ended() {
    let scene = Scene::new().await;
    for (line, how) in [
        ("true", How::Code(0)),
        ("false", How::Code(1)),
        ("exit 255", How::Code(255)),
        ("kill -9 $$", How::Signal(9)),
        ("kill -TERM $$", How::Signal(15)),
    ] {
        let status = scene.shell(line).await.status.unwrap();
        assert_eq!(status.how, Some(how), "{line}");
        assert!(!status.timed_out && !status.core_dumped);
        assert!(status.duration.is_some() && status.max_resident_bytes > 0);
    }
}

#[tokio::test]
async fn what_a_command_costs_is_told() {
    let scene = Scene::new().await;
    let line = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done";
    let status = scene.shell(line).await.status.unwrap();
    let time = |time: Option<prost_types::Duration>| {
        let time = time.unwrap();
        f64::from(time.nanos) / 1e9 + f64::from(i32::try_from(time.seconds).unwrap())
    };
    let used = time(status.user_time) + time(status.system_time);
    assert!(used > 0.0 && used < time(status.duration) * 4.0, "{used}");
}

#[tokio::test]
async fn the_outputs_are_apart_or_one_in_their_order() {
    let scene = Scene::new().await;
    let line = "echo one; echo two >&2; echo three";
    let apart = scene.shell(line).await;
    assert_eq!(apart.stdout, b"one\nthree\n");
    assert_eq!(apart.stderr, b"two\n");
    let request = ExecRunRequest {
        command: Some(shell(line)),
        merge_stderr: true,
        ..ExecRunRequest::default()
    };
    let merged = scene.run(request).await.unwrap();
    assert_eq!(merged.stdout, b"one\ntwo\nthree\n");
    assert!(merged.stderr.is_empty());
}

#[tokio::test]
async fn output_beyond_the_bound_is_counted_and_thrown_away() {
    let scene = Scene::new().await;
    for (most, line, out, err) in [
        (Some(5), "printf 1234567; printf 123 >&2", (5, 2), (3, 0)),
        (Some(0), "printf 1; printf 22 >&2", (0, 1), (0, 2)),
        (
            None,
            "head -c 3000000 /dev/zero",
            (1_048_576, 1_951_424),
            (0, 0),
        ),
    ] {
        let request = ExecRunRequest {
            command: Some(shell(line)),
            max_output_bytes: most,
            ..ExecRunRequest::default()
        };
        let answer = scene.run(request).await.unwrap();
        let stdout = (answer.stdout.len(), answer.stdout_dropped_bytes);
        let stderr = (answer.stderr.len(), answer.stderr_dropped_bytes);
        assert_eq!((stdout, stderr), (out, err), "{line}");
        assert_eq!(answer.status.unwrap().how, Some(How::Code(0)), "{line}");
    }
}

#[tokio::test]
async fn a_mebibyte_through_a_command_comes_back_the_same() {
    let scene = Scene::new().await;
    let stdin: Vec<u8> = (0..=250).cycle().take(1024 * 1024).collect();
    let digest = Sha256::digest(&stdin);
    let request = ExecRunRequest {
        command: Some(argv(["cat"])),
        stdin,
        ..ExecRunRequest::default()
    };
    let answer = scene.run(request).await.unwrap();
    assert_eq!(Sha256::digest(&answer.stdout), digest);
    assert_eq!(answer.stdout_dropped_bytes, 0);
}

#[tokio::test]
async fn a_command_without_input_sees_its_end() {
    let scene = Scene::new().await;
    let request = ExecRunRequest {
        command: Some(argv(["cat"])),
        ..ExecRunRequest::default()
    };
    let answer = scene.run(request).await.unwrap();
    assert_eq!(answer.status.unwrap().how, Some(How::Code(0)));
}

#[tokio::test]
async fn a_command_that_does_not_read_its_input_ends_all_the_same() {
    let scene = Scene::new().await;
    let request = ExecRunRequest {
        command: Some(argv(["true"])),
        stdin: vec![0; 1024 * 1024],
        ..ExecRunRequest::default()
    };
    let answer = scene.run(request).await.unwrap();
    assert_eq!(answer.status.unwrap().how, Some(How::Code(0)));
}

#[tokio::test]
async fn twenty_commands_run_at_once() {
    let scene = Scene::new().await;
    let runs = (0..20).map(|n| {
        let line = format!("echo {n}; sleep 0.1; echo done {n} >&2");
        let scene = &scene;
        async move { (n, scene.shell(&line).await) }
    });
    for (n, answer) in futures_util::future::join_all(runs).await {
        assert_eq!(answer.stdout, format!("{n}\n").into_bytes());
        assert_eq!(answer.stderr, format!("done {n}\n").into_bytes());
    }
    assert!(scene.list().await.is_empty(), "their answers have told all");
}

#[tokio::test]
async fn no_shell_looks_at_arguments() {
    let scene = Scene::new().await;
    let odd = "$(id); `id` && 'x' \"y\" * -n \n ü";
    let request = ExecRunRequest {
        command: Some(argv(["printf", "%s|", odd, "", "--"])),
        ..ExecRunRequest::default()
    };
    let answer = scene.run(request).await.unwrap();
    assert_eq!(
        String::from_utf8(answer.stdout).unwrap(),
        format!("{odd}||--|")
    );
}

#[tokio::test]
async fn variables_are_set_taken_away_or_all_there_are() {
    let scene = Scene::new().await;
    let variable = |name: &str, value: Option<&str>| EnvironmentVariable {
        name: name.to_owned(),
        value: value.map(str::to_owned),
    };
    let of = |command: Command| {
        let scene = &scene;
        async move {
            let request = ExecRunRequest {
                command: Some(command),
                ..ExecRunRequest::default()
            };
            let answer = scene.run(request).await.unwrap();
            String::from_utf8(answer.stdout).unwrap()
        }
    };
    let inherited = of(Command {
        environment: vec![
            variable("NEW", Some("a b=c")),
            variable("CARGO_PKG_NAME", None),
        ],
        ..argv(["env"])
    })
    .await;
    assert!(inherited.lines().any(|line| line == "NEW=a b=c"));
    assert!(inherited.contains("CARGO_MANIFEST_DIR="), "the agent's own");
    assert!(!inherited.contains("CARGO_PKG_NAME="));
    let clear = of(Command {
        environment: vec![variable("ONLY", Some(""))],
        clear_environment: true,
        ..argv(["env"])
    })
    .await;
    let mut lines: Vec<_> = clear.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines[0], "ONLY=");
    assert!(lines[1].starts_with("PATH=/usr/local/sbin:"), "{lines:?}");
    assert_eq!(lines.len(), 2);
}

#[tokio::test]
async fn a_command_runs_where_it_is_told_to() {
    let scene = Scene::new().await;
    let dir = tempfile::tempdir().unwrap();
    let of = |directory: &str| {
        let request = ExecRunRequest {
            command: Some(Command {
                working_directory: directory.to_owned(),
                ..argv(["pwd", "-P"])
            }),
            ..ExecRunRequest::default()
        };
        scene.run(request)
    };
    let real = dir.path().canonicalize().unwrap();
    let answer = of(dir.path().to_str().unwrap()).await.unwrap();
    assert_eq!(answer.stdout, format!("{}\n", real.display()).into_bytes());
    assert_eq!(of("").await.unwrap().stdout, b"/\n");
    let status = is_refused(of("/no/such").await, Code::NotFound, "FILE_NOT_FOUND");
    assert!(status.message().contains("working directory"), "{status}");
    let status = of("/etc/passwd").await;
    is_refused(status, Code::FailedPrecondition, "WRONG_FILE_TYPE");
}

#[tokio::test]
async fn a_program_that_is_not_there_or_no_program_is_told_as_such() {
    let scene = Scene::new().await;
    let dir = tempfile::tempdir().unwrap();
    // Another process writes them: as long as a file is open for writing here, a process that is started beside has it
    // open, too, and then nobody can run it.
    let file = async |name: &str, text: &str, mode: &str| {
        let path = dir.path().join(name).to_str().unwrap().to_owned();
        let line = format!("printf '{text}' > {path} && chmod {mode} {path}");
        let written = scene.shell(&line).await.status.unwrap();
        assert_eq!(written.how, Some(How::Code(0)));
        path
    };
    let of = |program: &str| {
        let request = ExecRunRequest {
            command: Some(argv([program])),
            ..ExecRunRequest::default()
        };
        scene.run(request)
    };
    for program in ["no-such-program", "/no/such/program"] {
        let status = is_refused(of(program).await, Code::NotFound, "CMD_NOT_FOUND");
        assert!(status.message().contains(program), "{status}");
    }
    let failed = (Code::FailedPrecondition, "CMD_EXEC_FAILED");
    let text = file("text", "", "644").await;
    let status = is_refused(of(&text).await, failed.0, failed.1);
    assert!(status.message().contains("Permission denied"), "{status}");
    let orphan = file("orphan", "#!/no/such/interpreter\\n", "755").await;
    let status = is_refused(of(&orphan).await, failed.0, failed.1);
    assert!(status.message().contains("what it is run by"), "{status}");
    let garbage = file("garbage", "\\177ELF\\001", "755").await;
    is_refused(of(&garbage).await, failed.0, failed.1);
    is_refused(of("/tmp").await, failed.0, failed.1);
}

#[tokio::test]
async fn a_user_is_named_by_name_or_number() {
    let scene = Scene::new().await;
    // Whoever runs the tests: root may be anybody, another only itself.
    let own = scene.shell("id -u").await.stdout;
    let own = String::from_utf8(own).unwrap().trim().to_owned();
    let of = |user: &str, group: &str| {
        let line = "echo $(id -u) $(id -g) $(id -G) $HOME $USER $LOGNAME; pwd";
        let request = ExecRunRequest {
            command: Some(Command {
                user: user.to_owned(),
                group: group.to_owned(),
                ..shell(line)
            }),
            ..ExecRunRequest::default()
        };
        let scene = &scene;
        async move {
            let answer = scene.run(request).await?;
            Ok::<_, tonic::Status>(String::from_utf8(answer.stdout).unwrap())
        }
    };
    is_refused(of("no-such-user", "").await, Code::NotFound, "NOT_FOUND");
    if own != "0" {
        assert!(of(&own, "").await.unwrap().starts_with(&own));
        is_refused(
            of("root", "").await,
            Code::PermissionDenied,
            "PERMISSION_DENIED",
        );
        return;
    }
    let line = "echo $(id -u daemon) $(id -g daemon) $(id -G daemon)";
    let ids = String::from_utf8(scene.shell(line).await.stdout).unwrap();
    let daemon = of("daemon", "").await.unwrap();
    assert!(daemon.starts_with(ids.trim()), "{daemon} {ids}");
    assert!(daemon.contains(" daemon daemon\n"), "{daemon}");
    let (uid, _) = ids.split_once(' ').unwrap();
    assert_eq!(of(uid, "").await.unwrap(), daemon);
    let nobody = of("54321", "12345").await.unwrap();
    assert!(nobody.starts_with("54321 12345 12345 "), "{nobody}");
}

#[tokio::test]
async fn a_request_beyond_every_bound_is_an_invalid_argument() {
    let scene = Scene::new().await;
    for stdin in [1024 * 1024 + 1, 4 * 1024 * 1024] {
        let request = ExecRunRequest {
            command: Some(argv(["true"])),
            stdin: vec![0; stdin],
            ..ExecRunRequest::default()
        };
        let status = scene.run(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{stdin}");
    }
    let status = within(scene.exec.clone().run(ExecRunRequest::default())).await;
    is_refused(status, Code::InvalidArgument, "INVALID_FIELD");
}
