//! Which calls are made again, how often, and what is said of it.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
    time::Instant,
};

use rustix::process::{Pid, Signal, kill_process};
use tonic::{Code, Status};

use crate::{Ended, LIMIT, of_bridge, run, server::Server, settings_file, vbridge};

/// The table's retries, without its waits.
const FAST: &str = "retry: {retry_interval: 0.01}\n";

fn gone() -> Status {
    Status::unavailable("it is gone")
}

fn unreachable() -> Status {
    of_bridge(Code::Unavailable, "GUEST_UNREACHABLE")
}

/// Runs a command at the bridge that is played.
fn at(server: &Server, words: &[&str]) -> Ended {
    let (dir, path) = settings_file("client.yaml", FAST);
    let (own, command) = match words.iter().position(|word| *word == "--") {
        Some(at) => words.split_at(at),
        None => (words, &[][..]),
    };
    let config = ["--client-config", path.to_str().unwrap()];
    let all = [own, &["--bridge", &server.address], &config, command].concat();
    run(vbridge(&all, dir.path()))
}

#[test]
fn what_changes_nothing_is_asked_again_until_it_is_answered() {
    let server = Server::start([]);
    for (words, path) in [
        (&["info", "web"][..], "System/GetInfo"),
        (&["status", "web"], "System/GetStatus"),
        (&["ping", "web", "-c", "1"], "System/Ping"),
        (&["metrics", "web"], "Metrics/Get"),
        (&["stat", "web:/etc/hosts"], "Files/Stat"),
        (&["stat", "--sha256", "web:/etc/hosts"], "Files/Stat"),
        (&["ls", "web:/etc/hosts"], "Files/Stat"),
        (&["service", "web"], "Services/List"),
        (&["service", "web", "nginx"], "Services/Get"),
        (&["logs", "web"], "Services/Logs"),
        (&["exec", "web", "--list"], "Exec/List"),
        (&["freeze", "web", "--status"], "Storage/FreezeStatus"),
        (&["guests"], "Bridge/ListGuests"),
        (&["domain", "info", "web"], "Domains/GetDomain"),
        (&["domain", "xml", "web"], "Domains/GetDomainXml"),
    ] {
        server.fail([gone(), gone()]);
        let ended = at(&server, words);
        let calls = server.calls();
        assert_eq!(calls.len(), 3, "{words:?}: {ended:?}");
        assert!(
            calls.iter().all(|call| call.path.ends_with(path)),
            "{words:?}"
        );
        assert_eq!(ended.status, Some(0), "{words:?}: {ended:?}");
        let lines = ended.lines();
        assert_eq!(
            lines[..2],
            [
                "vbridge: it is gone; trying again in 10ms (1 of 3)",
                "vbridge: it is gone; trying again in 20ms (2 of 3)",
            ],
            "{words:?}"
        );
        assert_eq!(lines.len(), 2, "{words:?}: {lines:?}");
    }
}

#[test]
fn it_is_given_up_after_the_last_retry_with_the_last_failure() {
    let server = Server::start((1..9).map(|n| Status::unavailable(format!("gone {n}"))));
    let ended = at(&server, &["info", "web", "--retries", "2"]);
    assert_eq!(server.calls().len(), 3);
    assert_eq!(ended.status, Some(1));
    assert_eq!(
        ended.lines(),
        [
            "vbridge: gone 1; trying again in 10ms (1 of 2)",
            "vbridge: gone 2; trying again in 20ms (2 of 2)",
            "vbridge: gone 3",
        ]
    );
    let ended = at(&server, &["info", "web", "--retries", "0"]);
    assert_eq!((server.calls().len(), ended.lines().len()), (1, 1));
}

#[test]
fn what_would_fail_again_is_asked_once() {
    let server = Server::start([]);
    for code in [
        Code::InvalidArgument,
        Code::NotFound,
        Code::PermissionDenied,
        Code::Unauthenticated,
        Code::Unimplemented,
        Code::FailedPrecondition,
    ] {
        server.fail([Status::new(code, "no"), gone()]);
        let ended = at(&server, &["info", "web"]);
        assert_eq!(server.calls().len(), 1, "{code}: {ended:?}");
        assert_eq!(
            (ended.status, ended.lines().len()),
            (Some(1), 1),
            "{ended:?}"
        );
    }
}

/// What does something, and the status of a failure.
const ORDERS: [(&[&str], &str, i32); 7] = [
    (&["exec", "web", "--", "true"], "Exec/Start", 255),
    (
        &["service", "web", "nginx", "restart"],
        "Services/Control",
        1,
    ),
    (&["shutdown", "web"], "Power/Shutdown", 1),
    (&["freeze", "web"], "Storage/Freeze", 1),
    (&["thaw", "web"], "Storage/Thaw", 1),
    (&["domain", "start", "web"], "Domains/StartDomain", 1),
    (&["domain", "destroy", "web"], "Domains/DestroyDomain", 1),
];

#[test]
fn what_does_something_is_never_sent_twice_if_it_may_have_arrived() {
    let server = Server::start([]);
    for (words, path, status) in ORDERS {
        for failure in [
            gone(),
            of_bridge(Code::Unavailable, "SESSION_ENDED"),
            of_bridge(Code::Unavailable, "GUEST_SILENT"),
            of_bridge(Code::Unavailable, "GUEST_PAUSED"),
            Status::deadline_exceeded("late"),
            Status::internal("oh"),
        ] {
            server.fail([failure]);
            let ended = at(&server, words);
            let calls = server.calls();
            assert_eq!(calls.len(), 1, "{words:?}: {ended:?}");
            assert!(
                calls[0].path.ends_with(path),
                "{words:?}: {}",
                calls[0].path
            );
            assert_eq!(ended.status, Some(status), "{words:?}: {ended:?}");
            assert_eq!(ended.lines().len(), 1, "{words:?}: {ended:?}");
        }
    }
}

#[test]
fn what_has_surely_not_reached_a_guest_is_sent_again_whatever_it_does() {
    let server = Server::start([]);
    for (words, path, _) in ORDERS {
        server.fail([
            unreachable(),
            of_bridge(Code::ResourceExhausted, "TOO_MANY_CALLS"),
        ]);
        let ended = at(&server, words);
        let calls = server.calls();
        assert_eq!(calls.len(), 3, "{words:?}: {ended:?}");
        assert!(
            calls.iter().all(|call| call.path.ends_with(path)),
            "{words:?}"
        );
        assert_eq!(ended.status, Some(0), "{words:?}: {ended:?}");
        assert!(
            ended.lines()[1].ends_with("trying again in 20ms (2 of 3)"),
            "{ended:?}"
        );
    }
}

#[test]
fn ctrl_c_ends_the_wait_for_another_attempt_to_run_a_command() {
    let server = Server::start([unreachable()]);
    let (dir, path) = settings_file("client.yaml", "retry: {retry_interval: 60}\n");
    let config = ["--client-config", path.to_str().unwrap()];
    let words = [
        &["exec", "web", "--bridge", &server.address],
        &config[..],
        &["--", "true"],
    ];
    let mut command = vbridge(&words.concat(), dir.path());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    stderr.read_line(&mut said).unwrap();
    assert!(said.ends_with("trying again in 1m (1 of 3)\n"), "{said}");
    let begun = Instant::now();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(begun.elapsed() < LIMIT);
    assert_eq!(server.calls().len(), 1);
}

#[test]
fn an_upload_is_not_begun_twice_but_what_is_asked_before_it_is() {
    let (dir, file) = settings_file("x", "content");
    let server = Server::start([gone()]);
    let from = file.to_str().unwrap();
    let ended = at(&server, &["cp", from, "web:/tmp/x", "--quiet"]);
    assert_eq!(ended.status, Some(0), "{ended:?}");
    let calls = server.calls();
    let paths: Vec<&str> = calls
        .iter()
        .map(|call| call.path.rsplit('/').next().unwrap())
        .collect();
    let before = paths.len() - 1;
    assert_eq!(paths[before], "Write", "{paths:?}");
    assert_eq!(paths[0], paths[1], "{paths:?}");
    // What is asked before it is answered at once now, and the upload itself fails.
    server.fail_after(before - 1, [gone()]);
    let ended = at(&server, &["cp", from, "web:/tmp/x", "--quiet"]);
    let calls = server.calls();
    let writes = calls.iter().filter(|call| call.path.ends_with("/Write"));
    assert_eq!((calls.len(), writes.count()), (before, 1), "{ended:?}");
    assert_eq!(
        (ended.status, ended.lines().len()),
        (Some(1), 1),
        "{ended:?}"
    );
    drop(dir);
}

#[test]
fn programs_are_told_nothing_but_the_result() {
    let server = Server::start([gone(), gone()]);
    let ended = at(&server, &["guests", "--output", "json"]);
    assert_eq!(server.calls().len(), 3);
    assert_eq!((ended.status, ended.stderr.as_str()), (Some(0), ""));
    let answer: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(answer, serde_json::json!({ "guests": [] }));
}

#[test]
fn a_guest_that_the_bridge_has_waited_for_is_not_waited_for_again() {
    let server = Server::start([unreachable()]);
    let ended = at(&server, &["info", "web", "--wait", "1s"]);
    assert_eq!(
        (server.calls().len(), ended.status),
        (1, Some(1)),
        "{ended:?}"
    );
    server.fail([of_bridge(Code::Unavailable, "SESSION_ENDED")]);
    let ended = at(&server, &["info", "web", "--wait", "1s"]);
    assert_eq!(ended.status, Some(0), "{ended:?}");
    let calls = server.calls();
    let waits: Vec<&str> = calls
        .iter()
        .map(|call| call.text("x-vbridge-wait"))
        .collect();
    assert_eq!(waits, ["1s", "1s"]);
}

#[test]
fn only_the_first_ping_is_sent_again_for_a_lost_one_is_a_result() {
    let server = Server::start([gone()]);
    let ping = ["ping", "web", "-c", "2", "-i", "10ms"];
    let ended = at(&server, &ping);
    assert_eq!(server.calls().len(), 3, "{ended:?}");
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("2 sent, 2 answered"), "{ended:?}");
    server.fail_after(1, [gone()]);
    let ended = at(&server, &ping);
    assert_eq!(server.calls().len(), 2, "{ended:?}");
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("2 sent, 1 answered"), "{ended:?}");
}

#[test]
fn a_bridge_that_comes_a_little_later_is_waited_for() {
    let (dir, path) = settings_file("client.yaml", "retry: {retry_interval: 0.1}\n");
    let socket = dir.path().join("bridge.sock");
    let address = format!("unix:{}", socket.display());
    let words = [
        "guests",
        "--client-config",
        path.to_str().unwrap(),
        "--bridge",
        &address,
    ];
    let command = vbridge(&words, dir.path());
    let ended = std::thread::spawn(move || run(command));
    std::thread::sleep(std::time::Duration::from_millis(200));
    let server = Server::on(&socket, []);
    let ended = ended.join().unwrap();
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert_eq!(server.calls().len(), 1);
    let first = ended.lines()[0];
    let words = [
        &*address,
        "there is no such socket",
        "trying again in 100ms (1 of 3)",
    ];
    assert!(words.iter().all(|words| first.contains(words)), "{first}");
}
