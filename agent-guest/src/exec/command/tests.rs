//! Tests of [`super`].

use tonic::Code;

use super::*;

fn with(change: impl FnOnce(&mut api::Command)) -> Result<Command, Status> {
    let mut command = api::Command {
        argv: vec!["true".to_owned()],
        ..api::Command::default()
    };
    change(&mut command);
    start(ExecStart {
        command: Some(command),
        ..ExecStart::default()
    })
}

fn duration(seconds: i64, nanos: i32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos })
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Status>, field: &str) {
    let status = result.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let (named, _) = status.message().split_once(": ").unwrap();
    assert_eq!(named, field);
}

#[test]
fn what_is_left_out_has_the_documented_defaults() {
    let command = with(|_| ()).unwrap();
    assert_eq!(command.timeout, None);
    assert_eq!(command.kill_grace, Duration::from_secs(2));
    assert_eq!(command.streams.kept_bytes, 1024 * 1024);
    assert_eq!(command.streams.full, Full::Hold);
    assert!(command.streams.stdin && !command.keep_running);
    let request = ExecRunRequest {
        command: Some(api::Command {
            shell: "exit 3".to_owned(),
            ..api::Command::default()
        }),
        ..ExecRunRequest::default()
    };
    let (command, _) = run(request).unwrap();
    assert_eq!(command.argv, ["/bin/sh", "-c", "exit 3"]);
    assert_eq!(command.timeout, Some(Duration::from_secs(30)));
    assert!(!command.streams.stdin, "there is no input");
    let terminal = terminal(api::Terminal::default()).unwrap();
    assert_eq!(terminal.term, "xterm-256color");
    assert_eq!((terminal.size.columns, terminal.size.rows), (80, 24));
}

#[test]
fn one_of_argv_and_shell_is_needed() {
    refused(with(|it| it.argv.clear()), "command.argv");
    refused(with(|it| it.shell = "true".to_owned()), "command.argv");
    refused(start(ExecStart::default()), "command");
}

#[test]
fn arguments_are_bounded_each_in_number_and_together() {
    let of = |argv: Vec<String>| with(|it| it.argv = argv);
    assert!(of(vec!["a".to_owned(); 4096]).is_ok());
    refused(of(vec!["a".to_owned(); 4097]), "command.argv");
    assert!(of(vec!["a".repeat(128 * 1024 - 1)]).is_ok());
    refused(of(vec!["a".repeat(128 * 1024)]), "command.argv[0]");
    assert!(of(vec!["a".repeat(64 * 1024); 16]).is_ok());
    refused(of(vec!["a".repeat(64 * 1024); 17]), "command.argv");
    refused(of(vec![String::new()]), "command.argv[0]");
    refused(
        of(vec!["a".to_owned(), "b\0c".to_owned()]),
        "command.argv[1]",
    );
    refused(
        with(|it| {
            it.argv.clear();
            it.shell = "a\0".to_owned();
        }),
        "command.shell",
    );
}

#[test]
fn variables_are_bounded_and_have_names() {
    let of = |name: &str, value: Option<&str>, count| {
        let variable = EnvironmentVariable {
            name: name.to_owned(),
            value: value.map(str::to_owned),
        };
        with(|it| it.environment = vec![variable; count])
    };
    assert!(of("A", Some(""), 256).is_ok());
    refused(of("A", None, 257), "command.environment");
    for name in ["", "A=B", "A\0"] {
        refused(of(name, None, 1), "command.environment[0].name");
    }
    refused(of("A", Some("\0"), 1), "command.environment[0].value");
    refused(of(&"A".repeat(257), None, 1), "command.environment[0].name");
    let long = "x".repeat(100 * 1024);
    assert!(of("A", Some(&long), 10).is_ok());
    refused(of("A", Some(&long), 11), "command.environment");
    refused(
        of("A", Some(&"x".repeat(128 * 1024)), 1),
        "command.environment[0].value",
    );
}

#[test]
fn names_labels_and_directories_are_checked() {
    assert!(with(|it| it.label = "l".repeat(256)).is_ok());
    refused(with(|it| it.label = "l".repeat(257)), "command.label");
    refused(with(|it| it.user = "a\0".to_owned()), "command.user");
    refused(with(|it| it.group = "g".repeat(257)), "command.group");
    for directory in ["tmp", "./", "/a\0"] {
        let result = with(|it| it.working_directory = directory.to_owned());
        refused(result, "command.working_directory");
    }
}

#[test]
fn times_have_bounds() {
    let timeout = |seconds, nanos| with(|it| it.timeout = duration(seconds, nanos));
    assert!(timeout(0, 1).is_ok());
    assert!(timeout(7 * 24 * 3600, 0).is_ok());
    for (seconds, nanos) in [(0, 0), (-1, 0), (7 * 24 * 3600, 1), (0, 1_000_000_000)] {
        refused(timeout(seconds, nanos), "command.timeout");
    }
    let grace = |seconds, nanos| with(|it| it.kill_grace = duration(seconds, nanos));
    assert_eq!(grace(0, 0).unwrap().kill_grace, Duration::ZERO);
    assert!(grace(60, 0).is_ok());
    refused(grace(60, 1), "command.kill_grace");
    refused(grace(-1, 0), "command.kill_grace");
}

#[test]
fn buffers_inputs_and_terminals_have_bounds() {
    let buffer = |bytes| {
        start(ExecStart {
            command: Some(api::Command {
                argv: vec!["true".to_owned()],
                ..api::Command::default()
            }),
            output_buffer_bytes: Some(bytes),
            ..ExecStart::default()
        })
    };
    assert_eq!(buffer(4096).unwrap().streams.kept_bytes, 4096);
    assert!(buffer(16 * 1024 * 1024).is_ok());
    for bytes in [0, 4095, 16 * 1024 * 1024 + 1, u64::MAX] {
        refused(buffer(bytes), "output_buffer_bytes");
    }
    let run = |stdin, max_output_bytes| {
        run(ExecRunRequest {
            command: Some(api::Command {
                argv: vec!["true".to_owned()],
                ..api::Command::default()
            }),
            stdin: vec![0; stdin],
            max_output_bytes,
            merge_stderr: false,
        })
    };
    assert!(run(1024 * 1024, Some(1024 * 1024)).is_ok());
    assert_eq!(run(0, Some(0)).unwrap().0.streams.kept_bytes, 0);
    refused(run(1024 * 1024 + 1, None), "stdin");
    refused(run(0, Some(1024 * 1024 + 1)), "max_output_bytes");
    for (columns, rows) in [(0, 1), (1, 0), (65_536, 1), (1, 65_536)] {
        refused(size("size", &TerminalSize { columns, rows }), "size");
    }
    let largest = TerminalSize {
        columns: 65_535,
        rows: 65_535,
    };
    assert!(size("size", &largest).is_ok());
    assert!((1..=31).all(|number| signal("signal", number).is_ok()));
    for number in [0, -1, 32, 64, 65, i32::MAX] {
        refused(signal("signal", number), "signal");
    }
}
