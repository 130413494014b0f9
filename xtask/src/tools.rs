//! What a fresh machine needs: QEMU and busybox for the guest, grpcurl, and Python and Node clients.
//!
//! Debian's packages are installed if we are root; else the line to run is printed. Everything else goes
//! below `target/tools` (Node's packages beside the Node clients), with pinned versions, and is
//! installed once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{command, image, qemu, workspace};

const GRPCURL_MODULE: &str = "github.com/fullstorydev/grpcurl/cmd/grpcurl";
const GRPCURL_VERSION: &str = "v1.9.4";

/// The Python client's packages; pip adds what they depend on.
const PYTHON_PACKAGES: [&str; 4] = [
    "grpcio==1.85.1",
    "grpcio-tools==1.85.1",
    "grpcio-reflection==1.85.1",
    "protobuf==7.36.2",
];

/// The folder of the Node clients, with their `package.json` and `package-lock.json`.
const NODE_CLIENTS: &str = "tests/clients/node";

/// Which tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// What a guest needs.
    Guest,
    /// Also the clients that the end-to-end tests run.
    All,
}

/// A package of Debian's, and how to see that it is not needed.
struct Package {
    name: &'static str,
    scope: Scope,
    present: fn() -> bool,
}

const PACKAGES: [Package; 6] = [
    Package {
        name: "qemu-system-x86",
        scope: Scope::Guest,
        present: qemu_is_installed,
    },
    Package {
        name: "busybox-static",
        scope: Scope::Guest,
        present: || image::find_busybox().is_ok(),
    },
    Package {
        name: "golang-go",
        scope: Scope::All,
        present: || has("go"),
    },
    Package {
        name: "python3-venv",
        scope: Scope::All,
        present: python_makes_environments,
    },
    Package {
        name: "nodejs",
        scope: Scope::All,
        present: || has("node"),
    },
    Package {
        name: "npm",
        scope: Scope::All,
        present: || has("npm"),
    },
];

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

/// The folder of the Node clients; `node` finds the gRPC packages from there.
pub fn node_clients() -> PathBuf {
    workspace::root().join(NODE_CLIENTS)
}

fn ensure_packages(scope: Scope) -> Result<()> {
    let missing: Vec<&str> = PACKAGES
        .iter()
        .filter(|package| scope == Scope::All || package.scope == Scope::Guest)
        .filter(|package| !(package.present)())
        .map(|package| package.name)
        .collect();
    // The guest's kernel is downloaded as well, and that needs apt's lists.
    let lists = !image::kernel_is_cached() && !apt_has_lists();
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
            .map(|step| format!("sudo {}", step.join(" ")))
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
            command::capture(
                Command::new(python()).args(["-c", "import grpc_tools, grpc_reflection"]),
            )
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
