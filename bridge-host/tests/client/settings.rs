//! The file, limits of time, and the key that calls are signed with.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tonic::Status;
use vbridge_link::Key;

use crate::{run, server::Server, settings_file, vbridge};

/// The design's `host_config.yaml`, but for the path.
const DESIGN: &str = "\
# host_config.yaml
connection:
  socket_path: SOCKET
  connect_timeout: 5
  read_timeout: 30
  write_timeout: 30

retry:
  max_retries: 3
  retry_interval: 1
  backoff_factor: 2

logging:
  level: INFO
  file: /var/log/virtio-rpc-host.log
  max_size: 10MB
  backup_count: 5
";

#[test]
fn the_designs_file_is_taken_as_it_stands_with_the_bridges_socket() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("bridge.sock");
    let server = Server::on(&socket, [Status::unavailable("gone")]);
    let path = dir.path().join("host_config.yaml");
    fs::write(&path, DESIGN.replace("SOCKET", socket.to_str().unwrap())).unwrap();
    let begun = Instant::now();
    let mut command = vbridge(&["guests"], dir.path());
    command.env("VBRIDGE_CLIENT_CONFIG", &path);
    let ended = run(command);
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert_eq!(server.calls().len(), 2);
    assert!(begun.elapsed() >= Duration::from_secs(1), "{ended:?}");
    let lines = ended.lines();
    assert!(
        lines[0].contains("file, max_size, backup_count under logging has no effect"),
        "{lines:?}"
    );
    assert_eq!(lines[1..], ["vbridge: gone; trying again in 1s (1 of 3)"]);
}

#[test]
fn a_users_file_is_found_and_options_and_environment_go_before_it() {
    let server = Server::start([]);
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join(".config/vbridge");
    fs::create_dir_all(&folder).unwrap();
    let text = format!("bridge = \"{}\"\nretries = 0\n", server.address);
    fs::write(folder.join("client.toml"), text).unwrap();
    server.fail([Status::unavailable("gone")]);
    let ended = run(vbridge(&["guests"], home.path()));
    assert_eq!(
        (ended.status, server.calls().len()),
        (Some(1), 1),
        "{ended:?}"
    );

    let mut command = vbridge(&["guests"], home.path());
    command.env("VBRIDGE_ADDRESS", "127.0.0.1:1");
    let ended = run(command);
    assert_eq!(
        (ended.status, server.calls().len()),
        (Some(1), 0),
        "{ended:?}"
    );
    assert!(ended.stderr.contains("127.0.0.1:1"), "{ended:?}");
    let words = [
        "guests",
        "--client-config",
        "",
        "--retries",
        "0",
        "--bridge",
        "127.0.0.1:2",
    ];
    assert!(
        run(vbridge(&words, home.path()))
            .stderr
            .contains("127.0.0.1:2")
    );
}

#[test]
fn what_is_wrong_in_the_file_is_named_with_its_line() {
    for (from, to, line, words) in [
        (
            "read_timeout",
            "red_timeout",
            5,
            "did you mean `read_timeout`?",
        ),
        ("max_retries: 3", "max_retries: many", 9, "from 0 to 100"),
        (
            "SOCKET",
            "/var/lib/libvirt/qemu/channel/target/domain-26-UCypher-newtest1/test.vserial.0",
            3,
            "the bridge holds it; write the bridge's own socket here",
        ),
    ] {
        let text = DESIGN
            .replace(from, to)
            .replace("SOCKET", "/run/bridge.sock");
        let (dir, path) = settings_file("host_config.yaml", &text);
        let path = path.to_str().unwrap();
        let ended = run(vbridge(&["guests", "--client-config", path], dir.path()));
        let place = format!("vbridge: {path}, line {line}: ");
        assert!(
            ended.stderr.starts_with(&place) && ended.stderr.contains(words),
            "{ended:?}"
        );
        assert_eq!(
            (ended.status, ended.lines().len()),
            (Some(1), 1),
            "{ended:?}"
        );
    }
}

#[test]
fn nobody_waits_longer_for_a_connection_than_may_be() {
    // It accepts, by the kernel's hand, and never shakes hands.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("https://{}", silent.local_addr().unwrap());
    let ca = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (dir, path) = settings_file("ca.pem", &ca.cert.pem());
    let begun = Instant::now();
    let ca = ["--ca", path.to_str().unwrap(), "--bridge", &address];
    let limits = ["--connect-timeout", "300ms", "--retries", "0"];
    let words = [&["guests"], &ca[..], &limits[..]].concat();
    let ended = run(vbridge(&words, dir.path()));
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_millis(300) && took < Duration::from_secs(5),
        "{took:?}"
    );
    assert_eq!(
        (ended.status, ended.lines().len()),
        (Some(1), 1),
        "{ended:?}"
    );
    let words = [&*address, "no connection within 300ms", "--connect-timeout"];
    assert!(
        words.iter().all(|words| ended.stderr.contains(words)),
        "{ended:?}"
    );
}

#[test]
fn each_attempt_of_a_call_is_signed_anew() {
    const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";
    let server = Server::start([Status::unavailable("gone")]);
    let (dir, path) = settings_file("calls.key", std::str::from_utf8(KEY).unwrap());
    let words = ["info", "web", "--bridge", &server.address];
    let command = || {
        let mut command = vbridge(&words, dir.path());
        command.env("VBRIDGE_CALL_KEY_FILE", &path);
        command
    };
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let ended = run(command());
    assert!(
        ended.stderr.contains("can't use the key for calls"),
        "{ended:?}"
    );
    assert!(
        ended.stderr.contains("chmod 600") && ended.status == Some(1),
        "{ended:?}"
    );

    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let ended = run(command());
    assert_eq!(ended.status, Some(0), "{ended:?}");
    let calls = server.calls();
    assert_eq!(calls.len(), 2);
    let key = Key::from_bytes(KEY).unwrap();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    for call in &calls {
        let timestamp: u64 = call.text("x-timestamp").parse().unwrap();
        let (nonce, signature) = (call.text("x-nonce"), call.text("x-auth-token"));
        assert!(now.abs_diff(timestamp) < 60, "{timestamp}");
        assert_eq!(nonce.len(), 32);
        let path = "/vbridge.guest.v1.System/GetInfo";
        assert_eq!(call.path, path);
        assert!(key.is_call_signed(timestamp, nonce, path, signature));
    }
    assert_ne!(calls[0].text("x-nonce"), calls[1].text("x-nonce"));

    // Without a key nothing of it is sent.
    run(vbridge(&words, dir.path()));
    assert_eq!(server.calls()[0].text("x-auth-token"), "");
}
