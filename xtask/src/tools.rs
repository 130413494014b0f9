//! What a fresh machine needs: QEMU and busybox for the guest, mmdebstrap for the guest with systemd, grpcurl, Python and Node clients, and libvirt.
//!
//! Debian's packages are installed if we are root; else the line to run is printed. Everything else goes
//! below `target/tools` (Node's packages beside the Node clients), with pinned versions, and is
//! installed once.
//!
//! Of libvirt the daemon's program and its drivers are installed, not `libvirt-daemon-system`, which would set
//! up system services: the tests run daemons of their own. Of OpenSSH's server and of QEMU's guest agent only
//! the programs are unpacked, for the same reason.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{command, image, qemu, workspace};

const GRPCURL_MODULE: &str = "github.com/fullstorydev/grpcurl/cmd/grpcurl";
const GRPCURL_VERSION: &str = "v1.9.4";

/// The packages of the Python client and of the server in `agent-guest/examples`, and what tries the JSON API; pip adds what
/// they depend on.
const PYTHON_PACKAGES: [&str; 6] = [
    "grpcio==1.85.1",
    "grpcio-health-checking==1.85.1",
    "grpcio-tools==1.85.1",
    "grpcio-reflection==1.85.1",
    "protobuf==7.36.2",
    "schemathesis==4.32.5",
];

/// The Python for which Debian packages modules such as libvirt's; another one may stand before it in `PATH`.
const SYSTEM_PYTHON: &str = "/usr/bin/python3";

/// The Debian package of which [`sshd`] is unpacked.
const SSH_SERVER: &str = "openssh-server";

/// The Debian package of which [`guest_agent`] is unpacked.
const GUEST_AGENT: &str = "qemu-guest-agent";

/// The folder of the Node clients, with their `package.json` and `package-lock.json`.
const NODE_CLIENTS: &str = "tests/clients/node";

/// Which tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// What a guest needs.
    Guest,
    /// What fuzzing needs.
    Fuzz,
    /// Also the clients that the end-to-end tests run.
    All,
}

/// A package of Debian's, and how to see that it is not needed.
struct Package {
    /// What apt takes: a name, or a pattern (apt-patterns(7)), which may match nothing.
    name: &'static str,
    scope: Scope,
    present: fn() -> bool,
}

const PACKAGES: [Package; 31] = [
    guest("qemu-system-x86", qemu_is_installed),
    guest("busybox-static", || image::find_busybox().is_ok()),
    all("mmdebstrap", || has("mmdebstrap")),
    all("e2fsprogs", || has("mke2fs")),
    all("golang-go", || has("go")),
    all("python3-venv", python_makes_environments),
    all("nodejs", || has("node")),
    all("npm", || has("npm")),
    all("libvirt-daemon", || has("libvirtd")),
    all("libvirt-daemon-driver-qemu", || has_libvirt_driver("qemu")),
    // Debian 12 and Ubuntu 24.04 have these drivers within libvirt-daemon, later releases have a package for each:
    // where apt knows none, the pattern matches nothing.
    all("?exact-name(libvirt-daemon-driver-interface)", || {
        has_libvirt_driver("interface")
    }),
    all("?exact-name(libvirt-daemon-driver-network)", || {
        has_libvirt_driver("network")
    }),
    all("?exact-name(libvirt-daemon-driver-nodedev)", || {
        has_libvirt_driver("nodedev")
    }),
    all("?exact-name(libvirt-daemon-driver-nwfilter)", || {
        has_libvirt_driver("nwfilter")
    }),
    all("?exact-name(libvirt-daemon-driver-secret)", || {
        has_libvirt_driver("secret")
    }),
    all("?exact-name(libvirt-daemon-driver-storage)", || {
        has_libvirt_driver("storage")
    }),
    all("libvirt-clients", || has("virsh")),
    all("python3-libvirt", || system_python_has("libvirt")),
    // libvirt's networks and filters; the package has ebtables as well.
    all("dnsmasq-base", || has("dnsmasq")),
    all("iptables", || has("iptables") && has("ebtables")),
    all("iproute2", || has("ip")),
    all("qemu-utils", || has("qemu-img")),
    all("libsasl2-modules", || has_library("sasl2/libscram.so")),
    all("sasl2-bin", || has("saslpasswd2")),
    all("openssh-client", || has("ssh") && has("ssh-keygen")),
    // libvirt's way on from an ssh server; other netcats know no Unix sockets.
    all("netcat-openbsd", || has("nc.openbsd")),
    // What sshd needs beyond the client's libraries.
    all("libwrap0", || has_library("libwrap.so.0")),
    // What the QEMU guest agent needs beyond QEMU's libraries.
    all("libudev1", || has_library("libudev.so.1")),
    all("liburing2", || has_library("liburing.so.2")),
    all("libnuma1", || has_library("libnuma.so.1")),
    // libFuzzer is C++.
    Package {
        name: "g++",
        scope: Scope::Fuzz,
        present: || has("c++"),
    },
];

const fn guest(name: &'static str, present: fn() -> bool) -> Package {
    Package {
        name,
        scope: Scope::Guest,
        present,
    }
}

const fn all(name: &'static str, present: fn() -> bool) -> Package {
    Package {
        name,
        scope: Scope::All,
        present,
    }
}

/// Whether guests can be run at all.
pub fn qemu_is_installed() -> bool {
    has(qemu::PROGRAM)
}

/// Installs what is missing.
///
/// # Errors
/// A Debian package is missing and we are not root: the error holds the line to run. Or an installation
/// failed.
pub fn ensure(scope: Scope) -> Result<()> {
    ensure_packages(scope)?;
    if scope == Scope::All {
        ensure_grpcurl()?;
        ensure_python()?;
        ensure_node()?;
        ensure_sshd()?;
        guest_agent()?;
    }
    Ok(())
}

/// grpcurl, once [`ensure`] has installed it.
pub fn grpcurl() -> PathBuf {
    tools_dir().join("bin/grpcurl")
}

/// The Python that has the gRPC packages, once [`ensure`] has installed them.
pub fn python() -> PathBuf {
    tools_dir().join("python/bin/python3")
}

/// schemathesis, once [`ensure`] has installed it.
pub fn schemathesis() -> PathBuf {
    tools_dir().join("python/bin/schemathesis")
}

/// The Python that has libvirt's own bindings, once [`ensure`] has installed them.
pub fn system_python() -> PathBuf {
    PathBuf::from(SYSTEM_PYTHON)
}

/// OpenSSH's server, once [`ensure`] has unpacked it. It is a program alone: no configuration, key or service.
pub fn sshd() -> PathBuf {
    tools_dir().join("openssh/usr/sbin/sshd")
}

/// The QEMU guest agent: a program for the guest, to compare with.
#[derive(Debug)]
pub struct GuestAgent {
    /// The program.
    pub program: PathBuf,
    /// The libraries that it needs, by their paths, which are the same in the guest.
    pub libraries: Vec<PathBuf>,
}

/// The QEMU guest agent, unpacked if need be.
///
/// # Errors
/// It can't be downloaded, or lacks a library here.
pub fn guest_agent() -> Result<GuestAgent> {
    let program = tools_dir().join("qemu-guest-agent/usr/sbin/qemu-ga");
    unpack(GUEST_AGENT, "qemu-guest-agent", || Ok(()))?;
    let libraries = libraries(&program)?;
    Ok(GuestAgent { program, libraries })
}

/// The folder of the Node clients; `node` finds the gRPC packages from there.
pub fn node_clients() -> PathBuf {
    workspace::root().join(NODE_CLIENTS)
}

fn ensure_packages(scope: Scope) -> Result<()> {
    let missing: Vec<&str> = PACKAGES
        .iter()
        .filter(|package| scope == Scope::All || package.scope == scope)
        .filter(|package| !(package.present)())
        .map(|package| package.name)
        .collect();
    // The guest's kernel is downloaded as well, and that needs apt's lists.
    let lists = scope != Scope::Fuzz && !image::kernel_is_cached() && !apt_has_lists();
    if missing.is_empty() && !lists {
        return Ok(());
    }
    if !has("apt-get") {
        bail!(
            "this needs Debian or Ubuntu with apt, or these packages installed: {}",
            missing.join(" ")
        );
    }
    let mut steps: Vec<Vec<&str>> = Vec::new();
    if lists || !apt_has_lists() {
        steps.push(vec!["apt-get", "update"]);
    }
    if !missing.is_empty() {
        let mut install = vec!["apt-get", "install", "--yes", "--no-install-recommends"];
        install.extend(&missing);
        steps.push(install);
    }
    if !rustix::process::geteuid().is_root() {
        let lines: Vec<String> = steps
            .iter()
            .map(|step| {
                let words: Vec<String> = step.iter().map(|word| quoted(word)).collect();
                format!("sudo {}", words.join(" "))
            })
            .collect();
        bail!(
            "packages are missing; run this, then try again:\n\n    {}\n",
            lines.join(" && ")
        );
    }
    for step in steps {
        say(&step.join(" "));
        command::run(
            Command::new(step[0])
                .args(&step[1..])
                .env("DEBIAN_FRONTEND", "noninteractive"),
        )?;
    }
    Ok(())
}

fn ensure_grpcurl() -> Result<()> {
    let directory = tools_dir().join("bin");
    once(&directory.join(".grpcurl"), GRPCURL_VERSION, || {
        let module = format!("{GRPCURL_MODULE}@{GRPCURL_VERSION}");
        say(&format!("go install {module}"));
        command::run(
            Command::new("go")
                .args(["install", &module])
                .env("GOBIN", &directory),
        )?;
        // A `go install` does not tell grpcurl its version; that it runs is what we want to know.
        command::capture(Command::new(grpcurl()).arg("-version")).map(drop)
    })
}

fn ensure_python() -> Result<()> {
    let environment = tools_dir().join("python");
    once(
        &environment.join(".packages"),
        &PYTHON_PACKAGES.join(" "),
        || {
            say(&format!("pip install {}", PYTHON_PACKAGES.join(" ")));
            command::run(
                Command::new("python3")
                    .args(["-m", "venv", "--clear"])
                    .arg(&environment),
            )?;
            command::run(
                Command::new(python())
                    .args([
                        "-m",
                        "pip",
                        "install",
                        "--quiet",
                        "--disable-pip-version-check",
                    ])
                    .args(PYTHON_PACKAGES),
            )?;
            command::capture(Command::new(python()).args([
                "-c",
                "import grpc_tools, grpc_health, grpc_reflection, schemathesis",
            ]))
            .map(drop)
        },
    )
}

fn ensure_node() -> Result<()> {
    let clients = node_clients();
    let lock = clients.join("package-lock.json");
    let Ok(wanted) = fs::read_to_string(&lock) else {
        bail!(
            "{} is not there: it pins the Node client's packages",
            lock.display()
        );
    };
    once(
        &clients.join("node_modules/.installed-lock.json"),
        &wanted,
        || {
            say("npm ci");
            let quiet = ["--no-audit", "--no-fund", "--loglevel=error"];
            command::run(
                Command::new("npm")
                    .arg("ci")
                    .args(quiet)
                    .current_dir(&clients),
            )?;
            let load = "require('@grpc/grpc-js'); require('@grpc/proto-loader')";
            command::capture(
                Command::new("node")
                    .args(["-e", load])
                    .current_dir(&clients),
            )
            .map(drop)
        },
    )
}

fn ensure_sshd() -> Result<()> {
    unpack(SSH_SERVER, "openssh", || {
        // It has no option that only shows its version, but it prints one with its usage, unless a library is missing.
        let usage = Command::new(sshd()).arg("-?").output()?;
        let said = String::from_utf8_lossy(&usage.stderr);
        if !said.contains("OpenSSH") {
            bail!("{} does not run: {}", sshd().display(), said.trim());
        }
        Ok(())
    })
}

/// Unpacks a Debian package into a folder of its own, once: it is not installed, and nothing of it is set up.
fn unpack(package: &str, folder: &str, check: impl FnOnce() -> Result<()>) -> Result<()> {
    let target = tools_dir().join(folder);
    // Whatever apt offers serves; the mark only tells that it is unpacked.
    once(&tools_dir().join(format!(".{folder}")), package, || {
        say(&format!("apt-get download {package}"));
        let staging = tempfile::TempDir::new_in(tools_dir())?;
        let mut fetch = Command::new("apt-get");
        fetch
            .args(["download", "--quiet", package])
            .current_dir(staging.path());
        if rustix::process::geteuid().is_root() {
            // Else apt warns that its own user can't write here.
            fetch.args(["-o", "APT::Sandbox::User=root"]);
        }
        command::capture(&mut fetch)?;
        let archive = fs::read_dir(staging.path())?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .with_context(|| format!("`apt-get download {package}` left no package"))?;
        let tree = staging.path().join("tree");
        command::capture(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&tree))?;
        if target.exists() {
            fs::remove_dir_all(&target)?;
        }
        fs::rename(&tree, &target)?;
        check()
    })
}

/// The shared libraries of a program, and what loads them, as the loader of this machine finds them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = command::capture_text(Command::new("ldd").arg(program))?;
    let mut found = Vec::new();
    // `NAME => PATH (ADDRESS)`; the loader itself is `PATH (ADDRESS)`, and what the kernel brings has no path.
    for line in listed.lines() {
        if line.contains("not found") {
            bail!("{} needs a library: {}", program.display(), line.trim());
        }
        let path = line.split("=>").last().unwrap_or(line).trim();
        if let Some(path) = path.split(' ').next().filter(|path| path.starts_with('/')) {
            found.push(PathBuf::from(path));
        }
    }
    Ok(found)
}

/// Runs an installation unless a mark says that this very version was installed; then leaves the mark.
/// Safe for processes that run at the same time: the second waits, and finds the mark.
fn once(mark: &Path, version: &str, install: impl FnOnce() -> Result<()>) -> Result<()> {
    let tools = tools_dir();
    fs::create_dir_all(&tools).with_context(|| format!("cannot create {}", tools.display()))?;
    let _lock = workspace::lock(&tools.join("lock"))?;
    if fs::read_to_string(mark).is_ok_and(|installed| installed == version) {
        return Ok(());
    }
    install()?;
    fs::write(mark, version).with_context(|| format!("cannot write {}", mark.display()))
}

fn tools_dir() -> PathBuf {
    workspace::target_dir().join("tools")
}

fn has(program: &str) -> bool {
    command::find_program(program).is_some()
}

/// Whether libvirtd can load a driver.
fn has_libvirt_driver(name: &str) -> bool {
    has_library(&format!(
        "libvirt/connection-driver/libvirt_driver_{name}.so"
    ))
}

/// Whether a library or a plug-in is where Debian keeps those of any architecture.
fn has_library(path: &str) -> bool {
    let architectures = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    architectures
        .map(|entry| entry.path().join(path))
        .any(|file| file.exists())
}

fn system_python_has(module: &str) -> bool {
    let import = format!("import {module}");
    command::capture(Command::new(SYSTEM_PYTHON).args(["-c", &import])).is_ok()
}

/// A word as a shell takes it: apt's patterns have brackets.
fn quoted(word: &str) -> String {
    if word.contains(['(', '?']) {
        format!("'{word}'")
    } else {
        word.to_owned()
    }
}

/// Debian's python3 without python3-venv has `venv`, but lacks what it needs to install pip.
fn python_makes_environments() -> bool {
    command::capture(Command::new("python3").args(["-c", "import ensurepip, venv"])).is_ok()
}

/// Whether `apt-get update` was ever run: a fresh container has no lists.
fn apt_has_lists() -> bool {
    fs::read_dir("/var/lib/apt/lists").is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
    })
}

fn say(what: &str) {
    eprintln!("xtask: {what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_quoted_for_the_shell_and_a_name_is_not() {
        assert_eq!(quoted("libvirt-daemon"), "libvirt-daemon");
        assert_eq!(quoted("?exact-name(x)"), "'?exact-name(x)'");
    }

    #[test]
    fn no_package_is_listed_twice() {
        let mut names: Vec<&str> = PACKAGES.iter().map(|package| package.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), PACKAGES.len());
    }
}
