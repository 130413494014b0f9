//! ssh and its like, played by a script.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::io::AsyncWriteExt as _;

use super::*;
use crate::{
    Environment,
    transport::{Connected, Kind, Options, connect},
    uri::Uri,
};

/// A directory in which a script plays ssh and the programs of the far host, which has no others.
struct Far(tempfile::TempDir);

/// What a shell and the script need of any host.
const BASIC: [&str; 3] = ["sh", "grep", "cat"];

impl Far {
    /// `programs` are those that the far host has.
    fn new(programs: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/transport/testdata/fake-ssh");
        for program in ["ssh"].iter().chain(programs) {
            // A link and not a copy: what is written while another test forks can't be executed.
            symlink(&script, dir.path().join(program)).unwrap();
        }
        for program in BASIC {
            let path = std::env::var_os("PATH").unwrap();
            let mut found = std::env::split_paths(&path).map(|folder| folder.join(program));
            let found = found.find(|file| file.exists()).unwrap();
            symlink(found, dir.path().join(program)).unwrap();
        }
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn with(self, name: &str, content: &str) -> Self {
        fs::write(self.path(name), content).unwrap();
        self
    }

    async fn connect(&self, rest: &str) -> Connected {
        self.connect_in(Environment::of_process(), rest).await
    }

    async fn connect_in(&self, environment: Environment, rest: &str) -> Connected {
        let command = self.path("ssh");
        let joint = if rest.contains('?') { '&' } else { '?' };
        let uri = format!(
            "qemu+ssh://far.example{rest}{joint}command={}",
            command.display()
        );
        let options = Options {
            timeout: Duration::from_secs(60),
            environment,
        };
        connect(&Uri::parse(&uri).unwrap(), &options, false)
            .await
            .unwrap()
    }

    fn arguments(&self, program: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(&format!("{program}.arguments")));
        text.unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

async fn echo(connected: &mut Connected) {
    connected.io.write_all(b"ping").await.unwrap();
    let mut answer = [0; 4];
    connected.io.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"ping");
}

async fn ended(connected: &mut Connected) -> Ended {
    let error = connected.io.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    error
        .into_inner()
        .unwrap()
        .downcast_ref::<Ended>()
        .unwrap()
        .clone()
}

#[tokio::test]
async fn the_helper_of_the_far_host_is_reached() {
    let far = Far::new(&["virt-ssh-helper", "nc"]);
    let mut connected = far.connect("/system?no_tty=1").await;
    assert_eq!(connected.kind, Kind::Ssh);
    assert!(
        connected.peer.ends_with("ssh to far.example"),
        "{}",
        connected.peer
    );
    echo(&mut connected).await;
    assert_eq!(far.arguments("virt-ssh-helper"), ["qemu:///system"]);
    let told = far.arguments("ssh");
    assert_eq!(
        told[..11],
        [
            "-T",
            "-e",
            "none",
            "-o",
            "BatchMode=yes",
            "-o",
            "ServerAliveInterval=10",
            "-o",
            "ServerAliveCountMax=3",
            "--",
            "far.example"
        ]
    );
    assert!(far.arguments("nc").is_empty());
    // The end of what is written is the end of the program's input; it then ends by itself.
    connected.io.shutdown().await.unwrap();
    assert_eq!(connected.io.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn nc_takes_the_helpers_place_where_there_is_none() {
    for (usage, expected) in [
        (
            "usage: nc [-46] [-q seconds] [-U]",
            vec!["-h", "-q", "0", "-U"],
        ),
        ("usage: nc [-46] [-U]", vec!["-h", "-U"]),
    ] {
        let far = Far::new(&["nc"]).with("nc.usage", usage);
        let mut environment = Environment::of_process();
        environment.run_dir = PathBuf::from("/run/a b'$(x)");
        // Nothing in the URI speaks for either of the two: the far host is looked at.
        echo(&mut far.connect_in(environment, "/system").await).await;
        let line = far.arguments("ssh").pop().unwrap();
        assert!(line.contains("command -v virt-ssh-helper"), "{line}");
        let told = far.arguments("nc");
        let (socket, told) = told.split_last().unwrap();
        assert_eq!(socket, "/run/a b'$(x)/libvirt/libvirt-sock");
        assert_eq!(told, expected);
    }
}

#[tokio::test]
async fn what_ssh_complains_of_is_told_when_it_fails() {
    let far = Far::new(&[])
        .with(
            "ssh.complaint",
            "\x1b[31mhost key\nVerification failed.\r\n",
        )
        .with("ssh.status", "255");
    let mut connected = far.connect("/system").await;
    let ended = ended(&mut connected).await;
    assert_eq!(ended.status.as_deref(), Some("exit status: 255"));
    let text = ended.to_string();
    assert!(
        text.contains("ssh to far.example ended before the daemon answered"),
        "{text}"
    );
    assert!(
        text.ends_with("said: [31mhost key; Verification failed."),
        "{text}"
    );
    // And again to whoever asks again.
    assert_eq!(self::ended(&mut connected).await, ended);
    let error = connected.io.write_all(&[0; 9]).await.unwrap_err();
    assert!(
        error
            .get_ref()
            .is_some_and(<dyn std::error::Error + Send + Sync>::is::<Ended>)
    );
}

#[tokio::test]
async fn reader_and_writer_both_learn_of_the_end() {
    let far = Far::new(&[]).with("ssh.status", "1");
    let (mut reader, mut writer) = tokio::io::split(far.connect("/system").await.io);
    let read = async { reader.read_u8().await.unwrap_err() };
    let write = async {
        loop {
            if let Err(error) = writer.write_all(&[0; 1024]).await {
                return error;
            }
        }
    };
    let (read, write) = tokio::join!(read, write);
    assert_eq!(read.to_string(), write.to_string());
    assert!(read.to_string().contains("did not say why"), "{read}");
}

#[tokio::test]
async fn only_the_last_of_a_long_complaint_is_kept() {
    let long = format!("{}the end", "banner ".repeat(20_000));
    let far = Far::new(&[])
        .with("ssh.complaint", &long)
        .with("ssh.status", "1");
    let ended = ended(&mut far.connect("/system").await).await;
    assert!(ended.complaint.len() <= MAX_COMPLAINT);
    assert!(ended.complaint.ends_with("banner the end"));
}

#[tokio::test]
async fn a_long_complaint_does_not_stop_a_program_that_works() {
    let far = Far::new(&["virt-ssh-helper"]).with("ssh.complaint", &"banner ".repeat(20_000));
    echo(&mut far.connect("/system").await).await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let uri = Uri::parse("qemu+ssh://h/system?command=/nonexistent/ssh").unwrap();
    let error = connect(&uri, &Options::default(), false).await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("can't start /nonexistent/ssh: "),
        "{error}"
    );
}

#[tokio::test]
async fn a_program_of_the_users_is_run_as_it_is() {
    let far = Far::new(&["mine"]);
    let uri = format!("qemu+ext:///system?command={}", far.path("mine").display());
    let uri = Uri::parse(&uri).unwrap();
    let mut connected = connect(&uri, &Options::default(), false).await.unwrap();
    assert_eq!(connected.kind, Kind::Command);
    assert!(!connected.protection.is_private());
    echo(&mut connected).await;
    assert!(far.arguments("mine").is_empty());
}

#[tokio::test]
async fn a_dropped_stream_leaves_no_process_behind() {
    let far = Far::new(&[]).with("ssh.stays", "");
    let mut connected = far.connect("/system").await;
    connected.io.read_exact(&mut [0; 5]).await.unwrap();
    let crate::transport::Io::Process(stream) = connected.io else {
        panic!("ssh is a process");
    };
    let process = format!("/proc/{}", stream.id().unwrap());
    assert!(fs::exists(&process).unwrap());
    drop(stream);
    // A zombie would still be listed.
    let gone = async {
        while fs::exists(&process).unwrap() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone)
        .await
        .unwrap();
}
