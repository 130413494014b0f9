//! `vbridge exec`, `cp`, `ls` and `stat` as people use them, on a real guest.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
    process::{ExitCode, Output},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, Command},
    sync::RwLock,
    time::timeout,
};
use vbridge_api::guest::v1::{FilesGetUploadRequest, files_client::FilesClient};
use vbridge_tests::{
    content,
    fixture::{Bridge, Guest, eventually},
    process::PATIENCE,
    suite::Suite,
};

const NAME: &str = "guest";

/// Far longer than any of these takes: a command that does not end must not keep all tests.
const LIMIT: Duration = Duration::from_secs(180);

/// A guest, a bridge, and a directory here.
struct Real {
    /// Written by who kills it.
    bridge: RwLock<Bridge>,
    guest: Guest,
    here: TempDir,
}

impl Real {
    async fn start() -> Result<Self> {
        let guest = Guest::boot(1).await?;
        let bridge = Bridge::start([guest.seat(NAME)]).await?;
        bridge.ready(NAME).await?;
        Ok(Self {
            bridge: RwLock::new(bridge),
            guest,
            here: tempfile::tempdir()?,
        })
    }

    /// The program with these words.
    async fn vbridge(&self, words: &[&str]) -> Result<Command> {
        self.bridge.read().await.command(words).await
    }

    /// Runs it to its end, with this input.
    async fn run(&self, words: &[&str], input: &[u8]) -> Result<Output> {
        self.bridge.read().await.run(words, input).await
    }

    /// Runs what has to succeed and say nothing.
    async fn good(&self, words: &[&str]) -> Result<String> {
        self.bridge.read().await.good(words).await
    }

    fn path(&self, name: &str) -> Result<String> {
        let path = self.here.path().join(name);
        Ok(path.to_str().context("a path in UTF-8")?.to_owned())
    }
}

fn signal(child: &Child, signal: Signal) -> Result<()> {
    let pid = child.id().context("it runs")?;
    let pid = Pid::from_raw(pid.cast_signed()).context("a process id")?;
    Ok(kill_process(pid, signal)?)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

async fn input_outputs_and_status(real: Arc<Real>) -> Result<()> {
    let words = ["exec", NAME, "--", "sh", "-c", "cat; echo no >&2; exit 7"];
    let input = content::bytes(7, 0, 300_000);
    let output = real.run(&words, &input).await?;
    ensure!(output.status.code() == Some(7), "{:?}", output.status);
    ensure!(output.stdout == input, "the input comes back as it was");
    ensure!(text(&output.stderr) == "no\n", "{}", text(&output.stderr));
    let words = [
        "exec",
        NAME,
        "-n",
        "-C",
        "/etc",
        "-e",
        "A=b c",
        "--line",
        "echo $A; pwd; cat",
    ];
    ensure!(real.good(&words).await? == "b c\n/etc\n");
    Ok(())
}

async fn statuses(real: Arc<Real>) -> Result<()> {
    for (words, status, said) in [
        (
            &["exec", NAME, "--", "no-such-program"][..],
            127,
            "no-such-program",
        ),
        (
            &["exec", NAME, "--", "/etc/os-release"],
            126,
            "/etc/os-release",
        ),
        (&["exec", "nobody", "--", "true"], 255, "nobody"),
        (
            &["exec", NAME, "--time-limit", "200ms", "--", "sleep", "600"],
            124,
            "time limit",
        ),
        (&["exec", NAME, "--line", "kill -9 $$"], 137, "KILL"),
    ] {
        let output = real.run(words, b"").await?;
        ensure!(
            output.status.code() == Some(status),
            "{words:?}: {output:?}"
        );
        let stderr = text(&output.stderr);
        ensure!(
            stderr.contains(said) && stderr.lines().count() == 1,
            "{words:?}: {stderr}"
        );
    }
    Ok(())
}

async fn a_signal(real: Arc<Real>) -> Result<()> {
    let line = "trap 'echo got it; exit 3' INT; echo ready; while :; do sleep 0.1; done";
    let mut child = real
        .vbridge(&["exec", NAME, "--line", line])
        .await?
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("it has an output")?).lines();
    ensure!(lines.next_line().await?.as_deref() == Some("ready"));
    signal(&child, Signal::INT)?;
    ensure!(lines.next_line().await?.as_deref() == Some("got it"));
    ensure!(child.wait().await?.code() == Some(3));
    Ok(())
}

/// Whoever goes takes the command with it.
async fn a_caller_that_goes(real: Arc<Real>) -> Result<()> {
    let line = "echo $$; exec sleep 12345";
    let mut child = real
        .vbridge(&["exec", NAME, "--line", line])
        .await?
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("it has an output")?).lines();
    let pid = lines.next_line().await?.context("its process id")?;
    child.kill().await?;
    eventually("the command is gone", PATIENCE, || async {
        let line = format!("test -d /proc/{pid} && echo there || echo gone");
        Ok(real.guest.exec(&line).await?.trim() == "gone")
    })
    .await
}

async fn a_killed_bridge(real: Arc<Real>) -> Result<()> {
    const LINES: usize = 5000;
    let mut bridge = real.bridge.write().await;
    let line = format!(
        "i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); done; sleep 1; exit 5"
    );
    let words = ["exec", NAME, "--keep-running", "--line", &line];
    let mut child = bridge.command(&words).await?.spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("it has an output")?).lines();
    ensure!(lines.next_line().await?.as_deref() == Some("line 0"));
    bridge.kill9().await?;
    // What has come before is passed on.
    while lines.next_line().await?.is_some() {}
    let mut stderr = String::new();
    let mut errors = child.stderr.take().context("it has an error output")?;
    errors.read_to_string(&mut stderr).await?;
    let status = child.wait().await?;
    bridge.start_again().await?;
    bridge.ready(NAME).await?;
    let id = stderr
        .split("--attach ")
        .nth(1)
        .and_then(|rest| rest.split('`').next());
    let id = id.with_context(|| format!("how to find it again: {stderr:?}, {status}"))?;
    let output = bridge
        .command(&["exec", NAME, "--attach", id])
        .await?
        .output()
        .await?;
    ensure!(output.status.code() == Some(5), "{output:?}");
    let expected: String = (0..LINES).map(|i| format!("line {i}\n")).collect();
    ensure!(text(&output.stdout) == expected, "every line comes once");
    Ok(())
}

async fn files(real: Arc<Real>) -> Result<()> {
    let (up, down) = (real.path("up")?, real.path("down")?);
    for (number, size) in [(1, 0), (2, 1), (3, 131_072), (4, 5_000_001)] {
        fs::write(&up, content::bytes(number, 0, size))?;
        let there = format!("{NAME}:/tmp/copied");
        real.good(&["cp", "-q", &up, &there]).await?;
        let digest = real.guest.exec("sha256sum /tmp/copied").await?;
        let own = Command::new("sha256sum").arg(&up).output().await?;
        ensure!(
            digest.split(' ').next() == text(&own.stdout).split(' ').next(),
            "{size}"
        );
        real.good(&["cp", "-q", &there, &down]).await?;
        ensure!(
            fs::read(&down)? == fs::read(&up)?,
            "{size} bytes come back as they were"
        );
    }
    ensure!(
        fs::read_dir(real.here.path())?.count() == 2,
        "nothing else is left here"
    );
    // Files of /proc have no size, and a content nevertheless.
    real.good(&["cp", "-q", &format!("{NAME}:/proc/version"), &down])
        .await?;
    ensure!(fs::read_to_string(&down)?.starts_with("Linux"));
    let output = real
        .run(&["cp", "-q", &format!("{NAME}:/no/such"), &down], b"")
        .await?;
    ensure!(output.status.code() == Some(1) && text(&output.stderr).contains("/no/such"));
    Ok(())
}

async fn trees(real: Arc<Real>) -> Result<()> {
    let tree = real.here.path().join("tree");
    fs::create_dir_all(tree.join("deep/er"))?;
    fs::write(tree.join("deep/er/file"), b"content")?;
    fs::write(tree.join("with a space and ü"), b"")?;
    fs::set_permissions(tree.join("deep/er/file"), fs::Permissions::from_mode(0o640))?;
    symlink("deep/er/file", tree.join("link"))?;
    let there = format!("{NAME}:/tmp/trees");
    let output = real
        .run(&["cp", "-q", &real.path("tree")?, &there], b"")
        .await?;
    ensure!(
        text(&output.stderr).contains("-r"),
        "a directory needs -r: {output:?}"
    );
    real.guest.exec("mkdir /tmp/trees").await?;
    real.good(&["cp", "-qrp", &real.path("tree")?, &there])
        .await?;
    ensure!(real.guest.exec("cat /tmp/trees/tree/link").await?.trim() == "content");
    real.good(&["cp", "-qrp", &format!("{there}/tree"), &real.path("back")?])
        .await?;
    let back = real.here.path().join("back");
    ensure!(fs::read_link(back.join("link"))? == Path::new("deep/er/file"));
    ensure!(fs::metadata(back.join("deep/er/file"))?.mode() & 0o777 == 0o640);
    ensure!(back.join("with a space and ü").is_file());
    fs::remove_dir_all(&tree)?;
    fs::remove_dir_all(&back)?;
    Ok(())
}

/// An upload that was broken off goes on where it was.
async fn a_broken_upload(real: Arc<Real>) -> Result<()> {
    let up = real.path("large")?;
    fs::write(&up, content::bytes(9, 0, 64 << 20))?;
    let there = format!("{NAME}:/tmp/large");
    let mut child = real.vbridge(&["cp", "-q", &up, &there]).await?.spawn()?;
    let partly = || async {
        let line = "find /tmp -name '.vbridge-upload-*' -size +1000k | wc -l";
        Ok(real.guest.exec(line).await?.trim() == "1")
    };
    eventually("a part of it is there", PATIENCE, partly).await?;
    child.kill().await?;
    let absent = real
        .guest
        .exec("test -e /tmp/large && echo there || echo absent")
        .await?;
    ensure!(absent.trim() == "absent", "half a file has not its name");
    real.good(&["cp", "-q", &up, &there]).await?;
    let digest = real
        .guest
        .exec("sha256sum /tmp/large; ls -A /tmp | grep -cE 'large|upload'")
        .await?;
    let own = Command::new("sha256sum").arg(&up).output().await?;
    ensure!(digest.split(' ').next() == text(&own.stdout).split(' ').next());
    ensure!(
        digest.trim().ends_with("\n1"),
        "nothing is left beside it: {digest}"
    );
    real.guest.exec("rm /tmp/large").await?;
    fs::remove_file(&up)?;
    // What is not there is not known either.
    let mut files = FilesClient::new(real.bridge.read().await.place(NAME).channel().await?);
    let request = FilesGetUploadRequest {
        path: "/tmp/large".into(),
        upload_id: "x".into(),
    };
    let status = files
        .get_upload(request)
        .await
        .err()
        .context("no such upload")?;
    ensure!(status.code() == tonic::Code::NotFound);
    Ok(())
}

async fn listings(real: Arc<Real>) -> Result<()> {
    real.guest
        .exec("mkdir -p /tmp/list; cd /tmp/list; echo four > b; ln -s b a; touch .hidden")
        .await?;
    let list = format!("{NAME}:/tmp/list");
    ensure!(real.good(&["ls", &list]).await? == "a\nb\n");
    let long = real.good(&["ls", "-la", &list]).await?;
    ensure!(
        long.contains("a -> b") && long.contains(".hidden") && long.contains("-rw-r--r--"),
        "{long}"
    );
    let json = real
        .good(&["stat", "--sha256", "--output", "json", &format!("{list}/b")])
        .await?;
    let json: serde_json::Value = serde_json::from_str(&json)?;
    ensure!(json["size"] == 5 && json["type"] == "file", "{json}");
    let digest = real.guest.exec("sha256sum /tmp/list/b").await?;
    ensure!(
        json["sha256"].as_str() == digest.split(' ').next(),
        "{json} {digest}"
    );
    Ok(())
}

async fn limited(test: impl Future<Output = Result<()>>) -> Result<()> {
    timeout(LIMIT, test).await.context("it takes for ever")?
}

fn main() -> ExitCode {
    let mut suite = Suite::new(Real::start).telling(|real: &Real| {
        let log = real.bridge.try_read().map(|bridge| bridge.log());
        format!(
            "{}{}",
            log.unwrap_or_default(),
            real.guest.vm().console_tail()
        )
    });
    suite.test(
        "a_commands_input_outputs_and_exit_status_are_ours",
        |real| limited(input_outputs_and_status(real)),
    );
    suite.test(
        "what_ended_a_command_is_told_as_shells_and_ssh_tell_it",
        |real| limited(statuses(real)),
    );
    suite.test("a_signal_reaches_the_command", |real| {
        limited(a_signal(real))
    });
    suite.test("a_command_ends_with_its_caller", |real| {
        limited(a_caller_that_goes(real))
    });
    suite.test(
        "a_command_that_keeps_running_loses_no_output_with_the_bridge",
        |real| limited(a_killed_bridge(real)),
    );
    suite.test("files_are_copied_both_ways_as_they_are", |real| {
        limited(files(real))
    });
    suite.test("trees_are_copied_both_ways_with_links_and_modes", |real| {
        limited(trees(real))
    });
    suite.test(
        "an_upload_that_was_broken_off_goes_on_where_it_was",
        |real| limited(a_broken_upload(real)),
    );
    suite.test("directories_and_files_are_shown", |real| {
        limited(listings(real))
    });
    suite.main()
}
