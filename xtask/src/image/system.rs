//! The system on a disk: a small Debian with systemd, udev, sshd, Python and the QEMU guest agent, as an ext4 image.
//!
//! mmdebstrap makes it from the archive, and in the suite, that this machine's own apt uses. It is nobody's in particular: what
//! belongs to one image (the agent, the kernel's modules) is put there by the initramfs, so that no change of it makes another
//! disk. Guests write to a snapshot.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use crate::{command, limits};

/// How the names of cached disks begin.
pub(super) const FILE_PREFIX: &str = "system-";

/// Beside what is essential in Debian.
const PACKAGES: &str = "systemd,systemd-sysv,udev,dbus,kmod,passwd,login,iproute2,tzdata,openssh-server,python3,qemu-guest-agent";

/// What the packages bring and nobody reads there.
const LEFT_OUT: [&str; 4] = [
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
];

/// The script that makes it a test guest's.
const SETUP: &str = include_str!("../../guest/system/setup");

/// Programs outside of the system, and the packages that have them.
const PROGRAMS: [(&str, &str); 2] = [("mmdebstrap", "mmdebstrap"), ("mke2fs", "e2fsprogs")];

/// Settings of this machine's apt without which it may not reach its archive.
const APT_SETTINGS: [&str; 4] = [
    "Acquire::http",
    "Acquire::https",
    "Acquire::Check-Valid-Until",
    "Acquire::Check-Date",
];

/// The disk: from the cache, or built, which takes minutes.
pub(super) fn cached_or_built(cache: &Path) -> Result<PathBuf> {
    let suite = suite()?;
    let mut hasher = DefaultHasher::new();
    (&suite, PACKAGES, LEFT_OUT, SETUP, limits::SYSTEM_DISK).hash(&mut hasher);
    let path = cache.join(format!("{FILE_PREFIX}{:016x}.ext4", hasher.finish()));
    if path.exists() {
        return Ok(path);
    }
    let missing = missing();
    if !missing.is_empty() {
        bail!(
            "the guest's system can't be built without {}: run `cargo xtask tools`",
            missing.join(" and ")
        );
    }
    if !rustix::process::geteuid().is_root() {
        bail!(
            "root alone can build the guest's system, once; run this, then try again:\n\n    \
             sudo cargo xtask image --system\n"
        );
    }
    eprintln!("xtask: building the guest's system from {suite}, which takes some minutes");
    let staging = tempfile::TempDir::new_in(cache)
        .with_context(|| format!("cannot create a folder in {}", cache.display()))?;
    let (root, disk) = (staging.path().join("root"), staging.path().join("disk"));
    let mut setup = Command::new("sh");
    setup.args(["-c", SETUP, "setup"]).arg(&root);
    let steps = [bootstrap(&suite, &root)?, setup, file_system(&root, &disk)];
    for mut step in steps {
        command::capture(&mut step).context("cannot build the guest's system")?;
    }
    fs::rename(&disk, &path).with_context(|| format!("cannot create {}", path.display()))?;
    Ok(path)
}

/// The packages that are not installed.
fn missing() -> Vec<&'static str> {
    let missing = PROGRAMS
        .iter()
        .filter(|(program, _)| command::find_program(program).is_none());
    missing.map(|(_, package)| *package).collect()
}

/// Unpacks and configures the packages in a new folder.
fn bootstrap(suite: &str, root: &Path) -> Result<Command> {
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap
        .args([
            "--quiet",
            "--mode=root",
            "--variant=minbase",
            "--format=directory",
        ])
        .arg(format!("--include={PACKAGES}"))
        // Nothing has to survive a loss of power in the midst of it.
        .arg("--dpkgopt=force-unsafe-io")
        .arg("--aptopt=Apt::Install-Recommends \"false\"");
    for path in LEFT_OUT {
        mmdebstrap.arg(format!("--dpkgopt=path-exclude={path}"));
    }
    for setting in apt_settings()? {
        mmdebstrap.arg(format!("--aptopt={setting}"));
    }
    mmdebstrap.arg(suite).arg(root).args(sources(suite)?);
    Ok(mmdebstrap)
}

/// Makes an image of the folder.
fn file_system(root: &Path, disk: &Path) -> Command {
    let mke2fs = command::find_program("mke2fs").unwrap_or_else(|| PathBuf::from("mke2fs"));
    let mut mke2fs = Command::new(mke2fs);
    mke2fs
        .args(["-q", "-F", "-t", "ext4", "-m", "0", "-L", "system", "-d"])
        .args([root, disk])
        .arg(limits::SYSTEM_DISK);
    mke2fs
}

/// The suite of this machine, such as `bookworm`.
fn suite() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let suite = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .ok_or_else(|| anyhow!("/etc/os-release names no suite: this needs Debian or Ubuntu"))?;
    Ok(suite.trim_matches('"').to_owned())
}

/// Lines for a sources.list: where this machine gets the packages of its suite, with updates.
fn sources(suite: &str) -> Result<Vec<String>> {
    let format = "$(ORIGIN) $(REPO_URI) $(RELEASE) $(COMPONENT)";
    let targets = command::capture_text(Command::new("apt-get").args([
        "indextargets",
        "--format",
        format,
        "Created-By: Packages",
    ]))?;
    let sources = sources_among(suite, &targets);
    if sources.is_empty() {
        bail!("apt has no lists of {suite}: run `apt-get update`");
    }
    Ok(sources)
}

fn sources_among(suite: &str, targets: &str) -> Vec<String> {
    let mut sources: Vec<String> = Vec::new();
    for target in targets.lines() {
        let [origin, uri, release, component] = target.split(' ').collect::<Vec<_>>()[..] else {
            continue;
        };
        let ours = release
            .strip_prefix(suite)
            .is_some_and(|rest| matches!(rest, "" | "-updates" | "-security"));
        // Others may name their suites as Debian does.
        if !ours || !matches!(origin, "Debian" | "Ubuntu") {
            continue;
        }
        let line = format!("deb {uri} {release} {component}");
        if !sources.contains(&line) {
            sources.push(line);
        }
    }
    sources
}

/// `NAME "VALUE";` for each of [`APT_SETTINGS`] that is set.
fn apt_settings() -> Result<Vec<String>> {
    let dump = command::capture_text(
        Command::new("apt-config")
            .arg("dump")
            .args(["--no-empty", "--format", "%F \"%v\";%n"])
            .args(APT_SETTINGS),
    )?;
    Ok(dump.lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_suite_and_its_updates_are_taken_each_once() {
        let targets = "\
            Debian http://a/debian/ bookworm main\n\
            Debian http://a/debian/ bookworm main\n\
            Debian http://a/debian/ bookworm-updates main\n\
            Debian http://a/debian/ bookworm-backports main\n\
            Other http://b/ bookworm stable\n\
            Debian http://a/debian/ trixie main\n";
        assert_eq!(
            sources_among("bookworm", targets),
            [
                "deb http://a/debian/ bookworm main",
                "deb http://a/debian/ bookworm-updates main"
            ]
        );
    }
}
