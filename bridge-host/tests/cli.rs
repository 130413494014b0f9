//! What the operator sees of mistakes: one clear sentence, and an exit status that is not 0.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::TcpListener,
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Longer than anything here may take.
const LIMIT: Duration = Duration::from_secs(20);

fn vbridge(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vbridge"));
    command.args(arguments).stdin(Stdio::null());
    for variable in [
        "VBRIDGE_ADDRESS",
        "VBRIDGE_CONFIG",
        "VBRIDGE_LISTEN",
        "VBRIDGE_LOG",
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "LISTEN_FDS",
        "VBRIDGE_TOKEN_FILE",
        "VBRIDGE_CA",
        "VBRIDGE_CALL_KEY_FILE",
    ] {
        command.env_remove(variable);
    }
    // What is tried again is for `client`, and so is its file.
    command.env("VBRIDGE_RETRIES", "0");
    command.env("VBRIDGE_CLIENT_CONFIG", "");
    command
}

/// Runs to the end, which comes by itself.
fn output(mut command: Command) -> Output {
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = Pid::from_child(&child);
    let (end, ended) = mpsc::channel();
    thread::spawn(move || end.send(child.wait_with_output()));
    match ended.recv_timeout(LIMIT) {
        Ok(output) => output.unwrap(),
        Err(_) => {
            let _ = kill_process(pid, Signal::KILL);
            panic!("{command:?} does not end");
        }
    }
}

/// The command fails with `status` and one sentence that has all the words.
#[track_caller]
fn assert_fails(command: Command, status: i32, words: &[&str]) {
    let output = output(command);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("vbridge: "), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "{stderr} does not say {word}");
    }
    for word in ["panicked", "backtrace", "Error {", "Os {"] {
        assert!(!stderr.contains(word), "{stderr}");
    }
}

/// Ends its process when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A bridge on a free port, whose guests have no channel yet.
struct Bridge {
    process: Running,
    stderr: BufReader<std::process::ChildStderr>,
    address: String,
    dir: TempDir,
}

impl Bridge {
    fn start(guests: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = vbridge(&["serve", "--listen", "127.0.0.1:0"]);
        for guest in guests {
            command.arg(format!(
                "--guest={guest}=unix:{}/{guest}.sock",
                dir.path().display()
            ));
        }
        let mut process = Running(command.stderr(Stdio::piped()).spawn().unwrap());
        let mut stderr = BufReader::new(process.0.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        let address = line
            .trim_end()
            .strip_prefix("vbridge: listening on ")
            .unwrap()
            .to_owned();
        Self {
            process,
            stderr,
            address,
            dir,
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = vbridge(arguments);
        command.args(["--bridge", &self.address]);
        command
    }

    /// Sends SIGTERM and returns the exit status and what else was on standard error.
    fn stop(mut self) -> (Option<i32>, String) {
        let pid = self.process.0.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).unwrap();
        (self.process.0.wait().unwrap().code(), rest)
    }
}

fn guest(name: &str, channel: &Path) -> String {
    format!("--guest={name}=unix:{}", channel.display())
}

#[test]
fn a_directory_or_a_file_as_channel_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert_fails(
        vbridge(&["serve", &guest("web", dir.path())]),
        1,
        &["\"web\"", "a directory"],
    );
    assert_fails(
        vbridge(&["serve", &guest("web", &file)]),
        1,
        &["\"web\"", "a regular file"],
    );
}

#[test]
fn a_bridge_without_guests_is_told_how_to_name_one() {
    assert_fails(vbridge(&["serve"]), 1, &["--guest NAME=unix:PATH"]);
}

#[test]
fn a_bad_or_repeated_name_is_refused() {
    assert_fails(
        vbridge(&["serve", "--guest", "a/b=unix:/x"]),
        2,
        &["a/b", "only letters"],
    );
    assert_fails(
        vbridge(&["serve", "--guest", "bridge=unix:/x"]),
        2,
        &["bridge's own"],
    );
    let twice = ["serve", "--guest", "web=unix:/x", "--guest", "web=unix:/y"];
    assert_fails(vbridge(&twice), 1, &["two guests are named \"web\""]);
    assert_fails(vbridge(&["ping", "-web"]), 2, &["-w"]);
    assert_fails(vbridge(&["ping", "a b"]), 2, &["a b"]);
}

#[test]
fn a_busy_port_is_named() {
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    let arguments = [
        "serve",
        "--guest",
        "web=unix:/nowhere/web.sock",
        "--listen",
        &address,
    ];
    assert_fails(
        vbridge(&arguments),
        1,
        &[&address, "somebody listens there"],
    );
}

#[test]
fn a_configuration_that_can_not_be_used_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let serve = |name: &str, text: Option<&str>| {
        let path = dir.path().join(name);
        if let Some(text) = text {
            fs::write(&path, text).unwrap();
        }
        vbridge(&[
            "serve",
            "--check-config",
            "--config",
            path.to_str().unwrap(),
        ])
    };
    assert_fails(serve("none.toml", None), 1, &["none.toml", "no such file"]);
    assert_fails(serve("", None), 1, &["a directory"]);
    assert_fails(
        serve("a.ini", Some("")),
        1,
        &["a.ini", ".toml, .yaml or .yml"],
    );
    assert_fails(
        serve("b.toml", Some("\nlisten = [\n")),
        1,
        &["b.toml, line"],
    );
    let unknown = "[[guest]]\nname = \"web\"\nchanel = \"unix:/x\"\n";
    assert_fails(
        serve("c.toml", Some(unknown)),
        1,
        &[
            "c.toml, line 3",
            "unknown key `chanel`: did you mean `channel`?",
        ],
    );
    let unknown = "guest:\n- name: web\n  chanel: unix:/x\n";
    assert_fails(
        serve("d.yaml", Some(unknown)),
        1,
        &[
            "d.yaml, line 3",
            "unknown key `chanel`: did you mean `channel`?",
        ],
    );
    let key = dir.path().join("key");
    fs::write(&key, "0123456789abcdef0123456789abcdef").unwrap();
    let guest = format!("[[guest]]\nname = \"web\"\nchannel = \"unix:/x\"\nkey_file = {key:?}\n");
    assert_fails(serve("e.toml", Some(&guest)), 1, &["\"web\"", "chmod 600"]);
}

#[test]
fn a_good_configuration_is_said_to_be_good() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vbridge.yaml");
    fs::write(
        &path,
        "guest:\n- name: web\n  channel: unix:/nowhere/web.sock\n",
    )
    .unwrap();
    let output = output(vbridge(&[
        "serve",
        "--check-config",
        "--config",
        path.to_str().unwrap(),
    ]));
    assert!(output.status.success(), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        stderr,
        "vbridge: the configuration is good; it has 1 guest\n"
    );
}

#[test]
fn a_bridge_that_is_not_there_is_named_with_the_way_to_start_one() {
    // A port that nobody listens on: taken and given back.
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    for command in ["ping", "info", "status", "metrics", "guests"] {
        let words = [&address, "vbridge serve --guest"];
        assert_fails(vbridge(&[command, "--bridge", &address]), 1, &words);
    }
    let dir = tempfile::tempdir().unwrap();
    let address = format!("unix:{}/bridge.sock", dir.path().display());
    assert_fails(
        vbridge(&["guests", "--bridge", &address]),
        1,
        &[&address, "no such socket"],
    );
    let mut command = vbridge(&["guests"]);
    command.env("VBRIDGE_ADDRESS", &address);
    assert_fails(command, 1, &[&address]);
}

#[test]
fn a_tunnel_that_makes_no_sense_is_explained() {
    assert_fails(vbridge(&["forward", "web"]), 2, &["FORWARD"]);
    assert_fails(
        vbridge(&["forward", "web", "8080"]),
        2,
        &["\"8080\"", "where to connect", "8080:80"],
    );
    assert_fails(
        vbridge(&["forward", "web", "--reverse", "udp:53:53"]),
        2,
        &["not on UDP"],
    );
    assert_fails(vbridge(&["connect", "web"]), 2, &["TARGET"]);
    assert_fails(
        vbridge(&["connect", "web", "ssh"]),
        2,
        &["\"ssh\" is not a port"],
    );
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    for command in [["connect", "web", "22"], ["forward", "web", "0:22"]] {
        let mut command = vbridge(&command);
        command.args(["--bridge", &address]);
        assert_fails(command, 1, &[&address, "vbridge serve --guest"]);
    }
}

#[test]
fn something_that_is_no_bridge_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("other.sock");
    let listener = UnixListener::bind(&path).unwrap();
    // Says something that is no HTTP/2 and goes, however often it is asked.
    thread::spawn(move || {
        use std::io::Write as _;
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(b"220 mail.example ESMTP\r\n");
        }
    });
    let address = format!("unix:{}", path.display());
    let command = vbridge(&["guests", "--timeout", "5s", "--bridge", &address]);
    assert_fails(command, 1, &[&address, "does a bridge listen there?"]);
}

#[test]
fn a_guest_that_is_not_there_is_explained() {
    let bridge = Bridge::start(&["web", "db"]);
    assert_fails(bridge.command(&["info", "mail"]), 1, &["mail", "web", "db"]);
    assert_fails(
        bridge.command(&["info", "web"]),
        1,
        &["\"web\"", "no socket"],
    );
    assert_fails(
        bridge.command(&["ping", "web", "--count", "1"]),
        1,
        &["\"web\"", "no socket"],
    );
    assert_fails(bridge.command(&["status"]), 1, &["2 guests", "db, web"]);
    let begin = Instant::now();
    assert_fails(
        bridge.command(&["status", "web", "--wait", "1500ms"]),
        1,
        &["no socket"],
    );
    assert!(
        begin.elapsed() >= Duration::from_millis(1400),
        "it did not wait"
    );
}

#[test]
fn the_guests_of_a_bridge_are_shown_to_people_and_to_programs() {
    let bridge = Bridge::start(&["web"]);
    let table = output(bridge.command(&["guests"]));
    assert!(table.status.success(), "{table:?}");
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(
        table.contains("web") && table.contains("unreachable"),
        "{table}"
    );
    let json = output(bridge.command(&["guests", "--output", "json"]));
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["guests"][0]["name"], "web");
    assert_eq!(json["guests"][0]["state"], "unreachable");
    let channel = format!("unix:{}/web.sock", bridge.dir.path().display());
    assert_eq!(json["guests"][0]["channel"], channel);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let bridge = Bridge::start(&["web"]);
    let mut command = bridge.command(&["guests"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut output = Running(child);
    let mut stderr = String::new();
    output
        .0
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .unwrap();
    assert_eq!(stderr, "");
    assert!(output.0.wait().unwrap().success());
}

#[test]
fn sigterm_ends_the_bridge_with_status_0_and_without_warnings() {
    let bridge = Bridge::start(&["web"]);
    let (status, log) = bridge.stop();
    assert_eq!(status, Some(0), "{log}");
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    assert!(!log.contains('\u{1b}'), "{log}");
}

#[test]
fn a_guest_with_an_address_of_its_own_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let own = format!("unix:{}/own.sock", dir.path().display());
    let guest = format!(
        "--guest=web=unix:{}/web.sock,listen={own}",
        dir.path().display()
    );
    let mut command = vbridge(&["serve", "--listen", "127.0.0.1:0", &guest]);
    let mut process = Running(command.stderr(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(process.0.stderr.take().unwrap()).lines();
    assert!(
        lines
            .next()
            .unwrap()
            .unwrap()
            .starts_with("vbridge: listening on 127.0.0.1:")
    );
    assert_eq!(
        lines.next().unwrap().unwrap(),
        format!("vbridge: guest web on {own}")
    );
    assert_fails(
        vbridge(&["info", "--bridge", &own]),
        1,
        &["\"web\"", "no socket"],
    );
}

#[test]
fn a_bridge_that_dies_ends_those_who_watch_with_a_sentence() {
    let mut bridge = Bridge::start(&["web"]);
    let mut command = bridge.command(&["guests", "--watch"]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut watcher = Running(child);
    let mut lines = BufReader::new(watcher.0.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("web"));
    bridge.process.0.kill().unwrap();
    let mut stderr = String::new();
    watcher
        .0
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .unwrap();
    assert_eq!(watcher.0.wait().unwrap().code(), Some(1));
    assert!(
        stderr.starts_with("vbridge: ") && stderr.contains("was closed"),
        "{stderr}"
    );
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

// === safety and service managers ===

/// A bridge whose configuration is this, with a guest that has no channel.
struct Configured {
    process: Running,
    stderr: BufReader<std::process::ChildStderr>,
    dir: TempDir,
}

impl Configured {
    fn start(text: &str, prepare: impl FnOnce(&mut Command, &Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vbridge.toml");
        fs::write(&path, text.replace("DIR", dir.path().to_str().unwrap())).unwrap();
        let mut command = vbridge(&["serve", "--config", path.to_str().unwrap()]);
        prepare(&mut command, dir.path());
        let mut process = Running(command.stderr(Stdio::piped()).spawn().unwrap());
        let stderr = BufReader::new(process.0.stderr.take().unwrap());
        Self {
            process,
            stderr,
            dir,
        }
    }

    /// Reads lines until one has these words.
    fn until(&mut self, words: &str) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.stderr.read_line(&mut line).unwrap(), 0, "no {words}");
            if line.contains(words) {
                return line;
            }
        }
    }

    fn address(&mut self) -> String {
        let line = self.until("listening on ");
        line.trim_end().rsplit(' ').next().unwrap().to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process.0), signal).unwrap();
    }
}

const RULED: &str = r#"
listen = ["127.0.0.1:0"]
audit = "DIR/audit.jsonl"
guest = [{ name = "web", channel = "unix:DIR/web.sock" }]

[[caller]]
name = "ops"
token_file = "DIR/token"

[[rule]]
allow = true
"#;

/// A file that its owner alone may read.
fn secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_token_opens_the_bridge_until_it_is_changed() {
    let write = |dir: &Path, token: &str| secret(&dir.join("token"), token);
    let mut bridge = Configured::start(RULED, |_, dir| write(dir, "the-first-token-of-ops"));
    let address = bridge.address();
    let token = bridge.dir.path().join("token");
    let guests = |token: Option<&Path>| {
        let mut command = vbridge(&["guests", "--bridge", &address]);
        if let Some(token) = token {
            command.arg("--token-file").arg(token);
        }
        command
    };
    assert_fails(guests(None), 1, &["ListGuests", "authorization"]);
    assert!(output(guests(Some(&token))).status.success());
    let old = bridge.dir.path().join("old");
    fs::copy(&token, &old).unwrap();
    write(bridge.dir.path(), "the-second-token-of-ops");
    bridge.until("bridge up");
    bridge.signal(Signal::HUP);
    bridge.until("the configuration was read again");
    assert!(output(guests(Some(&token))).status.success());
    assert_fails(guests(Some(&old)), 1, &["no token that this bridge knows"]);
    write(bridge.dir.path(), "short");
    bridge.signal(Signal::HUP);
    let line = bridge.until("everything stays as it was");
    assert!(line.contains("token") && line.contains("openssl"), "{line}");
    assert!(output(guests(Some(&old))).status.code() == Some(1));
    bridge.signal(Signal::TERM);
    assert!(bridge.process.0.wait().unwrap().success());
    let audit = fs::read_to_string(bridge.dir.path().join("audit.jsonl")).unwrap();
    assert_eq!(audit.lines().count(), 5, "{audit}");
    assert!(!audit.contains("token-of-ops"), "{audit}");
}

#[test]
fn what_other_machines_reach_is_refused_with_the_remedy() {
    let command = vbridge(&[
        "serve",
        "--guest=web=unix:/nowhere/web.sock",
        "--listen=0.0.0.0:0",
    ]);
    assert_fails(command, 1, &["0.0.0.0:0", "callers and rules", "127.0.0.1"]);
}

#[test]
fn a_service_manager_is_told_when_the_bridge_serves_reloads_lives_and_stops() {
    let mut told = None;
    let mut bridge = Configured::start(&RULED.replace("DIR/token", "DIR/t"), |command, dir| {
        secret(&dir.join("t"), "the-token-of-all-ops");
        let socket = std::os::unix::net::UnixDatagram::bind(dir.join("notify")).unwrap();
        told = Some(socket);
        command.env("NOTIFY_SOCKET", dir.join("notify"));
        command.env("WATCHDOG_USEC", "200000");
    });
    let (sender, messages) = mpsc::channel();
    let told: std::os::unix::net::UnixDatagram = told.unwrap();
    // A manager that does not read would have the bridge wait.
    thread::spawn(move || {
        let mut message = [0; 1024];
        while let Ok(length) = told.recv(&mut message) {
            let _ = sender.send(message[..length].escape_ascii().to_string());
        }
    });
    let until = |words: &str| while !messages.recv_timeout(LIMIT).unwrap().contains(words) {};
    until("READY=1");
    for _ in 0..3 {
        until("WATCHDOG=1");
    }
    bridge.until("bridge up");
    bridge.signal(Signal::HUP);
    until("RELOADING=1");
    until("READY=1");
    bridge.signal(Signal::TERM);
    until("STOPPING=1");
    assert!(bridge.process.0.wait().unwrap().success());
}

#[test]
fn sockets_that_are_handed_over_are_listened_on() {
    use std::os::fd::AsRawFd as _;
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    // Programs that other tests start meanwhile inherit it, too, and do nothing with it.
    rustix::io::fcntl_setfd(&tcp, rustix::io::FdFlags::empty()).unwrap();
    let text = "listen = [\"127.0.0.1:1\"]\nguest = [{ name = \"web\", channel = \"unix:DIR/w\" }]";
    let mut bridge = Configured::start(text, |command, _| {
        command.env("LISTEN_FDS", "1");
        command.env("LISTEN_FDS_FIRST_FD", tcp.as_raw_fd().to_string());
    });
    let address = bridge.address();
    assert_eq!(address, tcp.local_addr().unwrap().to_string());
    assert!(
        output(vbridge(&["guests", "--bridge", &address]))
            .status
            .success()
    );
}
