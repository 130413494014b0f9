//! The program `vbridge-agent`, as an operator meets it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

fn agent() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vbridge-agent"));
    command.env_clear().stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = agent().args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// One sentence, the status, and nothing else.
fn fails(args: &[&str], status: i32, part: &str) {
    let (code, stdout, stderr) = run(args);
    assert_eq!(code, Some(status), "{args:?}: {stderr}");
    assert_eq!(stdout, "", "{args:?}");
    assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
    assert!(stderr.starts_with("vbridge-agent: "), "{args:?}: {stderr}");
    assert!(stderr.contains(part), "{args:?}: {stderr}");
}

#[test]
fn bad_input_is_one_sentence_and_a_status() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let file = path("file");
    fs::write(&file, "").unwrap();
    let config = path("agent.toml");
    fs::write(&config, "\nprot = \"/dev/x\"\n").unwrap();
    let key = path("key");
    fs::write(&key, "0123456789abcdef0123456789abcdef").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();

    fails(&["--port", "/nonexistent"], 1, "does not exist");
    fails(
        &["--port", dir.path().to_str().unwrap()],
        1,
        "is a directory",
    );
    fails(&["--port", &file, "--wait"], 1, "is a regular file");
    fails(&["--port", "/dev/null"], 1, "can't be polled");
    fails(&["--port", ""], 2, "must not be empty");
    fails(&["--listen", "/run/x"], 2, "unix:PATH");
    fails(
        &["--listen", &format!("unix:{file}")],
        1,
        "no socket is in the way",
    );
    fails(&["--listen", "unix:/nonexistent/x"], 1, "No such file");
    fails(&["--unknown"], 2, "--unknown");
    fails(&["extra"], 2, "extra");
    fails(
        &["--config", &config],
        1,
        "line 2: unknown key `prot`: did you mean `port`?",
    );
    fails(
        &["--config", &config, "--check-config"],
        1,
        "did you mean `port`",
    );
    fails(
        &["--config", "/nonexistent.toml"],
        1,
        "there is no such file",
    );
    fails(&["--key-file", &key], 1, "chmod 600");
    fails(&["--call-key-file", &key], 1, "chmod 600");
    fails(
        &["--key-file", "/nonexistent"],
        1,
        "can't use the key file /nonexistent: there is no such file",
    );
    fails(&["--log", "a=b=c"], 2, "no log filter");
}

#[test]
fn the_effective_configuration_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("agent.yaml");
    fs::write(&config, "log: debug\n").unwrap();
    let (code, stdout, stderr) = run(&[
        "--config",
        config.to_str().unwrap(),
        "--check-config",
        "--wait=false",
    ]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert_eq!(
        stdout,
        "channel = \"org.vbridge.agent.0\" # default\nwait = false # command line\nlog = \"debug\" # file\n"
    );
}

#[test]
fn the_example_configuration_is_valid() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/agent.toml");
    let (code, _, stderr) = run(&["--config", example.to_str().unwrap(), "--check-config"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    // So is what it explains, but for the two places that exclude each other and the keys and certificates that are not
    // there.
    let text: String = fs::read_to_string(example)
        .unwrap()
        .lines()
        .filter_map(|line| {
            line.strip_prefix('#')
                .filter(|rest| !rest.starts_with([' ', '#']))
                .or(Some(line))
        })
        .filter(|line| {
            let left_out = ["listen", "key_file", "call_key_file", "tls_"];
            !left_out.iter().any(|key| line.starts_with(key))
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("agent.toml");
    fs::write(&config, text).unwrap();
    let (code, stdout, stderr) = run(&["--config", config.to_str().unwrap(), "--check-config"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    assert!(
        !stdout.contains("default"),
        "every key is explained: {stdout}"
    );
}

/// The configuration of the first design's server in a guest, as it stands there.
const GUEST_CONFIG: &str = "\
# guest_config.yaml
device:
  path: /dev/virtio-ports/test.vserial.0
  buffer_size: 65536

server:
  max_request_size: 10MB
  request_timeout: 60

security:
  enable_auth: false
  allowed_commands: []  # 空表示使用默认白名单
  allowed_paths:
    - /tmp/
    - /var/log/
    - /home/

logging:
  level: INFO
  file: /var/log/virtio-rpc-guest.log
  max_size: 10MB
  backup_count: 5
";

#[test]
fn the_first_designs_configuration_is_understood_and_shown() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.yaml");
    fs::write(&config, GUEST_CONFIG).unwrap();
    let arguments = ["--config", config.to_str().unwrap(), "--check-config"];
    let (code, stdout, stderr) = run(&arguments);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let expected = "\
channel = \"org.vbridge.agent.0\" # default
port = \"/dev/virtio-ports/test.vserial.0\" # file
wait = false # default
log = \"info\" # file

[server] # file
max_request_size = 10485760
request_timeout = 60

[security] # file
allowed_commands = []
allowed_paths = [\"/tmp/\", \"/var/log/\", \"/home/\"]

[logging] # file
file = \"/var/log/virtio-rpc-guest.log\"
max_size = 10485760
backup_count = 5
";
    assert_eq!(stdout, expected);
    // What is shown is a configuration that says the same.
    let config = dir.path().join("config.toml");
    fs::write(&config, &stdout).unwrap();
    let again = run(&["--config", config.to_str().unwrap(), "--check-config"]);
    let same = stdout.replace("# default", "# file");
    assert_eq!(again, (Some(0), same, String::new()));
    // The profile of a flag goes before the lists of the file.
    let (_, stdout, _) = run(&[&arguments[..], &["--policy", "observe"]].concat());
    assert!(
        stdout.contains("policy = \"observe\" # command line"),
        "{stdout}"
    );
    assert!(!stdout.contains("[security]"), "{stdout}");
}

#[test]
fn the_first_designs_configuration_starts_and_has_its_log_file() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let log = at("virtio-rpc-guest.log");
    let text = GUEST_CONFIG.replace("/var/log/virtio-rpc-guest.log", log.to_str().unwrap());
    fs::write(at("config.yaml"), text).unwrap();
    // There is no such device here.
    let mut child = agent()
        .arg(format!("--listen=unix:{}", at("agent.sock").display()))
        .arg("--config")
        .arg(at("config.yaml"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while UnixStream::connect(at("agent.sock")).is_err() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "it does not listen"
        );
        std::thread::yield_now();
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut stderr = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut stderr).unwrap();
    assert_eq!(stderr, "");
    let text = fs::read_to_string(&log).unwrap();
    for words in ["device.buffer_size", "serving on unix:", "stopping"] {
        assert!(text.contains(words), "{text}");
    }
    let mode = fs::metadata(&log).unwrap().permissions().mode();
    assert_eq!(mode & 0o137, 0, "others can't read it, and nobody run it");
}

#[test]
fn it_stops_in_order_when_asked_and_ignores_a_hangup() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let mut child = agent()
        .arg("--listen")
        .arg(format!("unix:{}", socket.display()))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    // Signals are handled before the socket is there.
    while UnixStream::connect(&socket).is_err() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "it does not listen"
        );
        std::thread::yield_now();
    }
    let signal = |signal| {
        let pid = i32::try_from(child.id()).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal)
            .unwrap();
    };
    signal(rustix::process::Signal::HUP);
    assert!(
        UnixStream::connect(&socket).is_ok(),
        "a hangup changes nothing"
    );
    signal(rustix::process::Signal::TERM);
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(!socket.exists());
    let mut log = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut log).unwrap();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}
