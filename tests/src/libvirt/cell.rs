//! A place in which a libvirtd believes itself alone: namespaces with the folders that libvirt has compiled in.
//!
//! ```text
//!  host                                   cell: mount, network and process namespace
//!  ────                                   ──────────────────────────────────────────
//!  /tmp/vblv….…/etc   ═════ bind ═════►   /etc/libvirt
//!                /lib ═════ bind ═════►   /var/lib/libvirt
//!                /cache ═══ bind ═════►   /var/cache/libvirt
//!                /log ═════ bind ═════►   /var/log/libvirt
//!                /run ═════ bind ═════►   /run              (no D-Bus, no udev, no system's libvirt)
//!  holder ── pipe ──► init (process 1) ──► libvirtd, QEMU, dnsmasq, …
//! ```
//!
//! A libvirtd that runs as root takes qemu.conf, its drivers' state and its caches from compiled-in paths, and its
//! networks from the one set of bridges and firewall rules that a machine has; `--config` moves none of these. A
//! session daemon (`XDG_…`) would move the files, but has no networks, node devices or filters. So we give each daemon
//! a mount and a network namespace. A path that the host lacks appears by an overlay: nothing is created outside of
//! the cell's own folder. Sockets and files are reached from the host through that folder.
//!
//! The process namespace makes the end certain: when its first process goes, the kernel kills whatever the daemon has
//! started, and mounts, bridges and firewall rules go with the last process. That first process waits for the end of
//! a pipe that only we hold, so all of this happens as well when the test program is killed.
//!
//! Making namespaces needs root. A user namespace does not serve: libvirt sets the supplementary groups of its
//! children, which the kernel forbids in one that an ordinary user has made.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use super::limits::{SOCKET_PATH, TEAR_DOWN};

/// Folders of the cell, and where libvirt looks for them.
const FOLDERS: [(&str, &str); 5] = [
    ("etc", "/etc/libvirt"),
    ("lib", "/var/lib/libvirt"),
    ("cache", "/var/cache/libvirt"),
    ("log", "/var/log/libvirt"),
    ("run", "/run"),
];

/// What the longest name of a socket below the folder needs.
const LONGEST_SOCKET: &str = "run/libvirt/libvirt-admin-sock";

/// Holds the namespaces, and removes the folder when the last process has gone, in order or not.
const HOLDER: &str = r#"
unshare --mount --net --pid --fork --kill-child --mount-proc sh -c "$2" init "$1"
rm -rf -- "$1"
"#;

/// The first process. libvirt's own paths come last in `/run`, which hides what is below it.
const INIT: &str = r#"
set -eu
base=$1
show() {
    if ! [ -d "$2" ]; then
        parent=${2%/*}
        mkdir -p "$base/empty/${2##*/}"
        mount -t overlay overlay -o "ro,lowerdir=$base/empty:$parent" "$parent"
    fi
    mount --bind "$base/$1" "$2"
}
show etc /etc/libvirt
show lib /var/lib/libvirt
show cache /var/cache/libvirt
show log /var/log/libvirt

# Debian's libvirt wants this user to exist even where qemu.conf names another.
mkdir "$base/users"
cp /etc/passwd /etc/group "$base/users/"
grep -q ^libvirt-qemu: /etc/passwd || {
    echo "libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin" >>"$base/users/passwd"
    echo "libvirt-qemu:x:64055:" >>"$base/users/group"
}
mount --bind "$base/users/passwd" /etc/passwd
mount --bind "$base/users/group" /etc/group

mount -t sysfs sysfs /sys
ip link set lo up
mount --bind "$base/run" /run
# libvirt locks the devices behind consoles and channels below /var/lock.
mkdir -p /run/libvirt /run/lock
echo ready
# Meanwhile the shell collects orphans: libvirt would take a zombie for a QEMU that does not end.
cat <&3 >/dev/null &
wait $!
"#;

/// Which network a process in the cell has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Network {
    /// The cell's own: a loopback device and what libvirt adds.
    Own,
    /// The host's.
    Hosts,
}

/// Namespaces and their folder.
#[derive(Debug)]
pub(super) struct Cell {
    /// `None` once it is torn down.
    holder: Option<Child>,
    entrance: Entrance,
    folder: PathBuf,
}

/// How programs come into a cell, as long as it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entrance {
    /// The first process, by its id on the host.
    init: u32,
}

// === impl Cell ===

impl Cell {
    /// Makes one. Blocks for some ten milliseconds.
    pub(super) fn open() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!(
                "a private libvirtd needs namespaces of its own, and these need root: run the libvirt tests as root"
            );
        }
        let folder = tempfile::Builder::new()
            .prefix("vblv")
            .tempdir()
            .context("can't create a folder for a private libvirtd")?;
        check_path_length(folder.path())?;
        for (name, _) in FOLDERS {
            fs::create_dir(folder.path().join(name))?;
        }
        let mut holder = Command::new("sh")
            .args(["-c", &format!("exec 3<&0 </dev/null\n{HOLDER}"), "holder"])
            .arg(folder.path())
            .arg(INIT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C on the terminal is for us.
            .process_group(0)
            .spawn()
            .context("can't start sh, which holds a libvirtd's namespaces")?;
        // From here on the holder removes it.
        let folder = TempDir::keep(folder);
        let ready = first_line(&mut holder)? == "ready";
        let init = child_of(holder.id()).and_then(child_of);
        let mut this = Self {
            holder: Some(holder),
            entrance: Entrance {
                init: init.unwrap_or_default(),
            },
            folder,
        };
        if !ready || init.is_none() {
            let said = this.said();
            bail!("can't make namespaces for a private libvirtd: {said}");
        }
        Ok(this)
    }

    /// The folder, as the host sees it.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A path in the cell as the host sees it. What the cell does not hide is the same for both.
    pub(super) fn outside(&self, inside: &Path) -> PathBuf {
        for (name, mounted) in FOLDERS {
            if let Ok(rest) = inside.strip_prefix(mounted) {
                return self.folder.join(name).join(rest);
            }
        }
        // Debian links one to the other.
        match inside.strip_prefix("/var/run") {
            Ok(rest) => self.folder.join("run").join(rest),
            Err(_) => inside.to_owned(),
        }
    }

    /// A path of the host below the folder as a process in the cell sees it.
    pub(super) fn inside(&self, outside: &Path) -> PathBuf {
        let Ok(relative) = outside.strip_prefix(&self.folder) else {
            return outside.to_owned();
        };
        for (name, mounted) in FOLDERS {
            if let Ok(rest) = relative.strip_prefix(name) {
                return Path::new(mounted).join(rest);
            }
        }
        outside.to_owned()
    }

    /// The way in, for who goes there later.
    pub(super) fn entrance(&self) -> Entrance {
        self.entrance
    }

    /// As [`Entrance::command`].
    pub(super) fn command(&self, network: Network, program: &str) -> tokio::process::Command {
        self.entrance.command(network, program)
    }

    /// Kills whatever is in it, and waits until processes, mounts and folder have gone.
    pub(super) fn close(mut self) -> Result<()> {
        self.tear_down()
    }

    fn tear_down(&mut self) -> Result<()> {
        let Some(mut holder) = self.holder.take() else {
            return Ok(());
        };
        // The end of the pipe is the sign.
        drop(holder.stdin.take());
        let started = Instant::now();
        while holder.try_wait()?.is_none() {
            if started.elapsed() > TEAR_DOWN {
                let _ = holder.kill();
                let _ = holder.wait();
                bail!(
                    "the namespaces of the libvirtd in {} have not ended within {TEAR_DOWN:?}",
                    self.folder.display()
                );
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Ends it, and returns what the shells have complained of.
    fn said(&mut self) -> String {
        let Some(holder) = &mut self.holder else {
            return String::new();
        };
        drop(holder.stdin.take());
        let mut said = String::new();
        if let Some(mut stderr) = holder.stderr.take() {
            let _ = stderr.read_to_string(&mut said);
        }
        said.trim().to_owned()
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        if let Err(error) = self.tear_down() {
            eprintln!("{error:#}");
        }
    }
}

// === impl Entrance ===

impl Entrance {
    /// A command that runs a program in the cell. It is killed with the cell, not with whoever starts it.
    pub(super) fn command(
        &self,
        network: Network,
        program: impl AsRef<OsStr>,
    ) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--mount", "--pid"]);
        if network == Network::Own {
            command.arg("--net");
        }
        command.arg("--").arg(program).process_group(0);
        command
    }
}

impl Entrance {
    /// The words in front of a program that make it see the cell's files, and no more of the cell: it is killed with
    /// whoever starts it.
    pub(super) fn way(&self) -> [String; 4] {
        let init = self.init.to_string();
        ["nsenter".into(), "--target".into(), init, "--mount".into()]
    }
}

/// The process's child, if it has exactly one.
pub(super) fn child_of(pid: u32) -> Option<u32> {
    let mut children = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|child| parent_of(*child) == Some(pid));
    let child = children.next()?;
    children.next().is_none().then_some(child)
}

/// Field 4 of proc_pid_stat(5), which stands behind the name in brackets and the state.
fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(1)?.parse().ok()
}

/// What the process writes to its standard output first; nothing if it ends before.
fn first_line(process: &mut Child) -> Result<String> {
    let stdout = process.stdout.take().context("it has no output")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

fn check_path_length(folder: &Path) -> Result<()> {
    let longest = folder.join(LONGEST_SOCKET);
    let length = longest.as_os_str().len();
    if length > SOCKET_PATH {
        bail!(
            "{} has {length} bytes, a Unix socket's path at most {SOCKET_PATH}: set TMPDIR to a shorter path",
            longest.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(folder: &str) -> Cell {
        Cell {
            holder: None,
            entrance: Entrance { init: 0 },
            folder: PathBuf::from(folder),
        }
    }

    #[test]
    fn a_path_in_the_cell_is_found_on_the_host_and_back() {
        let cell = cell("/tmp/x");
        for (inside, outside) in [
            ("/var/lib/libvirt/images/a", "/tmp/x/lib/images/a"),
            (
                "/run/libvirt/libvirt-sock",
                "/tmp/x/run/libvirt/libvirt-sock",
            ),
            ("/usr/bin/qemu-img", "/usr/bin/qemu-img"),
        ] {
            assert_eq!(cell.outside(Path::new(inside)), Path::new(outside));
            assert_eq!(cell.inside(Path::new(outside)), Path::new(inside));
        }
        let old = Path::new("/var/run/libvirt/libvirt-sock");
        assert_eq!(
            cell.outside(old),
            Path::new("/tmp/x/run/libvirt/libvirt-sock")
        );
    }

    #[test]
    fn a_folder_that_is_too_long_for_sockets_is_refused_with_advice() {
        let error = check_path_length(Path::new(&"/x".repeat(60))).unwrap_err();
        assert!(error.to_string().contains("TMPDIR"), "{error}");
    }

    #[test]
    fn a_process_knows_its_parent() {
        let parent = std::os::unix::process::parent_id();
        assert_eq!(parent_of(std::process::id()), Some(parent));
    }
}
