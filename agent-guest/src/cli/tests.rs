//! The settings as a whole.

use super::*;

fn run(args: &[&str], environment: &[(&str, &str)]) -> Result<Command, CliError> {
    command_with(
        ["vbridge-agent"].iter().chain(args).map(OsString::from),
        environment
            .iter()
            .map(|(name, value)| (name.into(), value.into())),
        Path::new("/nonexistent/agent.toml"),
    )
}

fn settings(args: &[&str], environment: &[(&str, &str)]) -> Settings {
    match run(args, environment).unwrap() {
        Command::Run(settings) => *settings,
        Command::Print(text) => panic!("{text}"),
    }
}

fn file(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.toml");
    std::fs::write(&path, text).unwrap();
    (dir, path.to_str().unwrap().to_owned())
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let (_dir, path) = file("channel = \"file\"\nlog = \"warn\"\nport = \"/dev/file\"\n");
    let file_only = settings(&["--config", &path], &[]);
    assert_eq!(file_only.channel, "file");
    assert_eq!(file_only.port, Some("/dev/file".into()));
    let environment = [
        ("VBRIDGE_AGENT_CHANNEL", "environment"),
        ("VBRIDGE_AGENT_CONFIG", &path),
    ];
    assert_eq!(settings(&[], &environment).channel, "environment");
    assert_eq!(
        settings(&["--channel", "flag"], &environment).channel,
        "flag"
    );
}

#[test]
fn a_place_replaces_the_place_below_it() {
    let (_dir, path) = file("port = \"/dev/file\"\n");
    let settings = settings(
        &["--config", &path, "--listen", "unix:/run/agent.sock"],
        &[],
    );
    assert_eq!(
        (settings.port, settings.listen),
        (None, Some("/run/agent.sock".into()))
    );
    let error = run(&["--port", "/dev/a", "--listen", "unix:/b"], &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "command line names a port and a socket to listen on: choose one"
    );
}

#[test]
fn wait_is_a_flag_with_an_optional_value() {
    assert_eq!(settings(&[], &[]).wait, None);
    assert_eq!(settings(&["--wait"], &[]).wait, Some(true));
    assert_eq!(settings(&["--wait=false"], &[]).wait, Some(false));
    assert_eq!(
        settings(&["--wait"], &[("VBRIDGE_AGENT_WAIT", "no")]).wait,
        Some(true)
    );
    assert_eq!(
        settings(&[], &[("VBRIDGE_AGENT_WAIT", "no")]).wait,
        Some(false)
    );
}

#[test]
fn the_effective_configuration_is_printed_with_its_origins() {
    let (_dir, path) = file("log = \"warn\"\n");
    let Command::Print(text) = run(
        &[
            "--check-config",
            "--config",
            &path,
            "--port",
            "/dev/vport0p1",
        ],
        &[("VBRIDGE_AGENT_CHANNEL", "org.example.0")],
    )
    .unwrap() else {
        panic!("it runs");
    };
    assert_eq!(
        text,
        "channel = \"org.example.0\" # environment\nport = \"/dev/vport0p1\" # command line\n\
         wait = false # default\nlog = \"warn\" # file\n"
    );
    // It is a configuration file itself.
    let (_dir, path) = file(&text);
    assert_eq!(
        settings(&["--config", &path], &[]).port,
        Some("/dev/vport0p1".into())
    );
}

#[test]
fn upstreams_are_printed_as_the_file_has_them() {
    let upstream = "\n[[upstream]] # file\nname = \"a\"\nservices = [\"org.a.*\"]\naddress = \"127.0.0.1:5\"\n";
    let (_dir, path) = file(upstream);
    let arguments = ["--check-config", "--config", &path];
    let Command::Print(text) = run(&arguments, &[]).unwrap() else {
        panic!("it runs");
    };
    assert!(text.ends_with(upstream), "{text}");
    let (_dir, path) = file(&text);
    assert_eq!(settings(&["--config", &path], &[]).upstreams.len(), 1);
}

#[test]
fn wrong_values_name_where_they_come_from() {
    let text = |args: &[&str], environment: &[(&str, &str)]| {
        run(args, environment).unwrap_err().to_string()
    };
    assert_eq!(
        text(&["--listen", "/run/x"], &[]),
        "--listen: \"/run/x\" is not of the form unix:PATH"
    );
    assert_eq!(
        text(&["--log", "loud=very"], &[]).split(": ").next(),
        Some("--log")
    );
    assert_eq!(
        text(&[], &[("VBRIDGE_AGENT_WAIT", "maybe")]),
        "VBRIDGE_AGENT_WAIT: \"maybe\" is neither true nor false"
    );
    assert_eq!(
        text(&["--chanel", "x"], &[]),
        "unexpected argument '--chanel' found (try --help)"
    );
    assert!(run(&["--chanel", "x"], &[]).unwrap_err().is_usage());
}

#[test]
fn an_unknown_variable_is_no_reason_not_to_run() {
    let settings = settings(&[], &[("VBRIDGE_AGENT_CHANEL", "x"), ("OTHER", "y")]);
    assert_eq!(settings.warnings.len(), 1);
    assert!(
        settings.warnings[0].contains("did you mean `channel`"),
        "{:?}",
        settings.warnings
    );
}

#[test]
fn help_and_version_are_no_errors() {
    for flag in ["--help", "--version"] {
        assert!(
            matches!(run(&[flag], &[]), Ok(Command::Print(text)) if text.contains("vbridge-agent"))
        );
    }
}
