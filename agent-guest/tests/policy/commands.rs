//! Commands by allow-list, and the ways around one.

use std::{fs, os::unix::fs::PermissionsExt as _};

use agent_guest::{Access, CommandRule, PathRule, Profile, Rule};
use vbridge_api::guest::v1::{
    EnvironmentVariable, ExecStart, ExecStartRequest, GetInfoRequest, Terminal,
    exec_start_request::Message, exit_status::How, system_client::SystemClient,
};

use super::*;

/// Observing, and these commands; `root` may be read.
async fn scene(change: impl FnOnce(CommandRule) -> CommandRule) -> Scene {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("root")).unwrap();
    fs::write(dir.path().join("root/file"), "content").unwrap();
    fs::write(dir.path().join("other"), "other").unwrap();
    let root = dir.path().join("root");
    let lines = [
        &["env"][..],
        &["pwd"],
        &["echo", "*"],
        &["cat", "{path}..."],
        &["id", "-u"],
    ];
    let lines = lines.iter().map(|line| line.iter().copied());
    let rule = change(CommandRule::allow("some", lines).unwrap());
    let rules = Rules::new(Profile::Observe)
        .rule(Rule::allow("exec", ["vbridge.guest.v1.Exec/*"]))
        .command(rule)
        .path(PathRule::new("root", root.to_str().unwrap(), Access::Read).unwrap())
        .path(PathRule::new("rest", "/", Access::None).unwrap());
    Scene::at(dir, rules).await
}

/// What a command says that is let run.
fn said(result: Result<ExecRunResponse, Status>) -> String {
    let answer = result.unwrap();
    let how = answer.status.and_then(|status| status.how);
    assert_eq!(how, Some(How::Code(0)));
    String::from_utf8(answer.stdout).unwrap()
}

fn with(mut command: Command, change: impl FnOnce(&mut Command)) -> Command {
    change(&mut command);
    command
}

fn variable(name: &str, value: &str) -> EnvironmentVariable {
    EnvironmentVariable {
        name: name.to_owned(),
        value: Some(value.to_owned()),
    }
}

#[tokio::test]
async fn only_what_is_on_the_list_is_run_and_just_so() {
    let scene = scene(|rule| rule).await;
    assert_eq!(
        said(scene.run(argv(&["echo", "a; reboot"])).await),
        "a; reboot\n"
    );
    let file = scene.path("root/file");
    assert_eq!(said(scene.run(argv(&["cat", &file])).await), "content");
    for line in [
        &["ls"][..],
        &["echo"],
        &["echo", "a", "b"],
        &["echo", "-e"],
        &["id", "-u", "root"],
        &["id"],
        &["cat", &scene.path("other")],
        &["cat", &file, &scene.path("other")],
        &["cat", &scene.path("root/../other")],
        &["cat", "-n"],
        &["cat", "root/file"],
    ] {
        refused(scene.run(argv(line)).await, "profile observe");
    }
    std::os::unix::fs::symlink(scene.place("other"), scene.place("root/link")).unwrap();
    let link = scene.path("root/link");
    refused(scene.run(argv(&["cat", &link])).await, "profile observe");
    let shell = Command {
        shell: "echo x".to_owned(),
        ..Command::default()
    };
    refused(scene.run(shell).await, "profile observe");
}

#[tokio::test]
async fn no_environment_or_place_makes_another_program_of_it() {
    let scene = scene(|rule| rule).await;
    // An impostor that is called as an allowed program is.
    let evil = scene.path("root/echo");
    fs::write(&evil, "#!/bin/sh\necho evil\n").unwrap();
    fs::set_permissions(&evil, fs::Permissions::from_mode(0o755)).unwrap();
    let echo = || argv(&["echo", "good"]);
    let root = scene.path("root");
    for name in [
        "PATH",
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "LD_AUDIT",
        "BASH_ENV",
        "ENV",
        "HOME",
        "X",
    ] {
        let command = with(echo(), |it| it.environment = vec![variable(name, &root)]);
        refused(scene.run(command).await, "some");
        let removed = EnvironmentVariable {
            name: name.to_owned(),
            value: None,
        };
        refused(
            scene
                .run(with(echo(), |it| it.environment = vec![removed]))
                .await,
            "some",
        );
    }
    refused(
        scene
            .run(with(echo(), |it| it.working_directory.clone_from(&root)))
            .await,
        "some",
    );
    for name in ["./echo", "root/echo", "../root/echo"] {
        let result = scene.run(argv(&[name, "good"])).await;
        refused(result, "profile observe");
    }
    refused(scene.run(argv(&[&evil, "good"])).await, "profile observe");
    refused(
        scene
            .run(with(echo(), |it| it.user = "root".to_owned()))
            .await,
        "some",
    );
    refused(
        scene
            .run(with(echo(), |it| it.group = "0".to_owned()))
            .await,
        "some",
    );
    let clear = with(echo(), |it| it.clear_environment = true);
    refused(scene.run(clear).await, "some");
    assert_eq!(said(scene.run(echo()).await), "good\n");
}

#[tokio::test]
async fn what_a_rule_grants_is_granted() {
    let scene = scene(|rule| {
        let rule = rule.working_directory(true).clear_environment(true);
        rule.environment(["X_*", "PATH"]).unwrap()
    })
    .await;
    let environment = vec![variable("X_Y", "1"), variable("PATH", &scene.path("root"))];
    let command = with(argv(&["env"]), |it| {
        it.environment = environment;
        it.clear_environment = true;
    });
    assert!(said(scene.run(command).await).contains("X_Y=1\n"));
    // A path of the caller's does not say where programs are.
    let evil = scene.path("root/pwd");
    fs::write(&evil, "#!/bin/sh\necho evil\n").unwrap();
    fs::set_permissions(&evil, fs::Permissions::from_mode(0o755)).unwrap();
    let command = with(argv(&["pwd"]), |it| {
        it.working_directory = scene.path("root");
        it.environment = vec![variable("PATH", &scene.path("root"))];
    });
    let root = scene.place("root").canonicalize().unwrap();
    assert_eq!(
        said(scene.run(command).await).trim(),
        root.to_str().unwrap()
    );
    let outside = with(argv(&["pwd"]), |it| it.working_directory = scene.path(""));
    refused(scene.run(outside).await, "rest");
    let file = with(argv(&["pwd"]), |it| {
        it.working_directory = scene.path("root/file")
    });
    let status = scene.run(file).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    let preload = with(argv(&["env"]), |it| {
        it.environment = vec![variable("LD_PRELOAD", "x")]
    });
    refused(scene.run(preload).await, "some");
}

#[tokio::test]
async fn a_terminal_has_to_be_granted() {
    let scene = scene(|rule| rule).await;
    let start = ExecStart {
        command: Some(argv(&["pwd"])),
        terminal: Some(Terminal::default()),
        ..ExecStart::default()
    };
    let first = ExecStartRequest {
        message: Some(Message::Start(start)),
    };
    let mut exec = ExecClient::new(scene.channel.clone());
    let started = within(exec.start(tokio_stream::iter([first]))).await;
    refused(started.map(drop), "some");
}

#[tokio::test]
async fn restricted_runs_what_looks_and_nothing_that_changes_or_tells_secrets() {
    let scene = Scene::new(Rules::new(Profile::Restricted)).await;
    for line in [
        &["ls", "-la", "/etc"][..],
        &["df", "-h"],
        &["cat", "/etc/hostname"],
        &["grep", "-i", "root", "/etc/group"],
    ] {
        let answer = scene.run(argv(line)).await.unwrap();
        assert!(answer.status.unwrap().how.is_some(), "{line:?}");
    }
    // As many as one second has.
    for line in [
        &["cat", "/etc/passwd"][..],
        &["cat", "/etc/shadow"],
        &["grep", "-r", "root", "/etc"],
        &["ls", "/root"],
        &["sh", "-c", "id"],
    ] {
        refused(scene.run(argv(line)).await, "profile restricted");
    }
}

#[tokio::test]
async fn info_says_of_a_method_that_nothing_is_left_of_it() {
    let rules = Rules::new(Profile::Observe).rule(Rule::allow("all", ["*"]));
    let scene = Scene::new(rules).await;
    let mut system = SystemClient::new(scene.channel.clone());
    let info = within(system.get_info(GetInfoRequest {}))
        .await
        .unwrap()
        .into_inner();
    let reason = |name: &str| {
        let mut methods = info.methods.iter();
        let method = methods.find(|method| method.name.ends_with(name)).unwrap();
        (method.enabled, method.reason.clone())
    };
    let (enabled, why) = reason("Exec/Run");
    assert!(!enabled && why.contains("no command"), "{why}");
    assert!(reason("Tunnel/Connect").1.contains("no address"));
    assert!(reason("Files/Write").1.contains("no path"));
    assert!(reason("Files/Read").0);
}

#[tokio::test]
async fn with_lists_a_text_of_words_is_the_command_that_they_are_and_no_shell_runs() {
    let list = |list: &[&str]| list.iter().map(|&it| it.to_owned()).collect::<Vec<_>>();
    let text = |text: &str| Command {
        shell: text.to_owned(),
        ..Command::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().canonicalize().unwrap();
    let folder = folder.to_str().unwrap();
    let rules = Rules::of_lists(&list(&["ls", "printf"]), Some(&list(&[folder]))).unwrap();
    let scene = Scene::at(dir, rules).await;
    fs::write(scene.place("file"), "").unwrap();
    let listed = scene.run(text(&format!("ls -1 {folder}"))).await;
    assert_eq!(said(listed), "file\n");
    let printed = scene.run(text("printf '%s;' \"a b\" 'c|d'")).await;
    assert_eq!(said(printed), "a b;c|d;");
    for refused_text in [
        "cat /etc/hostname",
        "ls /etc",
        "ls; reboot",
        "printf $HOME",
        "printf x > /tmp/x",
    ] {
        let result = scene.run(text(refused_text)).await;
        refused(result, "allowed_commands");
    }
}
