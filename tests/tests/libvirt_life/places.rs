//! Where a daemon is found if the URI names no socket: among the system's and the user's, libvirtd's and a driver's own.
//!
//! A private libvirtd stands for all of them: its socket is linked to the place where the client has to look, and sockets at
//! which nobody listens are at the others.

use std::{
    fs,
    os::unix::{fs::symlink, net::UnixListener},
    path::PathBuf,
};

use anyhow::{Context as _, Result, ensure};
use libvirt::{Builder, Connect, Environment};
use tempfile::TempDir;
use vbridge_tests::{
    fixture::story,
    libvirt::{daemon::Libvirtd, limits::CLIENT},
};

/// Where daemons have their sockets, below a host's folder.
const PLACES: [&str; 6] = [
    LIBVIRTD,
    LIBVIRTD_RO,
    VIRTQEMUD,
    VIRTQEMUD_RO,
    USERS_LIBVIRTD,
    USERS_VIRTQEMUD,
];
const LIBVIRTD: &str = "run/libvirt/libvirt-sock";
const LIBVIRTD_RO: &str = "run/libvirt/libvirt-sock-ro";
const VIRTQEMUD: &str = "run/libvirt/virtqemud-sock";
const VIRTQEMUD_RO: &str = "run/libvirt/virtqemud-sock-ro";
const USERS_LIBVIRTD: &str = "user/libvirt/libvirt-sock";
const USERS_VIRTQEMUD: &str = "user/libvirt/virtqemud-sock";

const ROOT: u32 = 0;
const USER: u32 = 1000;

/// Folders of a host that has sockets, and nothing else of libvirt's.
struct Host {
    folder: TempDir,
}

// === impl Host ===

impl Host {
    fn new(daemon: &Libvirtd) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("h")
            .tempdir_in(daemon.folder())?;
        for place in ["run/libvirt", "user/libvirt", "etc"] {
            fs::create_dir_all(folder.path().join(place))?;
        }
        Ok(Self { folder })
    }

    fn path(&self, place: &str) -> PathBuf {
        self.folder.path().join(place)
    }

    /// Puts the daemon's socket there.
    fn listen(&self, place: &str, daemon: &Libvirtd) -> Result<()> {
        let socket = match place.ends_with("-ro") {
            true => daemon.read_only_socket_path(),
            false => daemon.socket_path(),
        };
        Ok(symlink(socket, self.path(place))?)
    }

    /// Puts a socket there whose daemon has ended.
    fn abandon(&self, place: &str) -> Result<()> {
        drop(UnixListener::bind(self.path(place))?);
        Ok(())
    }

    /// A connection of one of its users.
    fn to(&self, user: u32, uri: &str) -> Builder {
        let mut environment = Environment::of_process();
        environment.uid = user;
        environment.run_dir = self.path("run");
        environment.user_run_dir = Some(self.path("user"));
        environment.config_dir = self.path("etc");
        environment.user_config_dir = Some(self.path("etc"));
        environment.default_uri = None;
        environment.auth_file = None;
        Connect::builder(uri)
            .environment(environment)
            .deadline(CLIENT)
    }
}

/// What the daemon is told of a URI: all but the way to it.
fn without_the_way(uri: &str) -> String {
    let (uri, _) = uri.split_once('?').unwrap_or((uri, ""));
    uri.replace("+unix", "")
}

#[test]
fn the_daemon_is_found_where_driver_mode_and_user_say() {
    let cases = [
        (ROOT, "qemu:///system", false, VIRTQEMUD),
        (ROOT, "qemu:///system", true, VIRTQEMUD_RO),
        (ROOT, "qemu:///system?mode=direct", false, VIRTQEMUD),
        (ROOT, "qemu:///system?mode=legacy", false, LIBVIRTD),
        (ROOT, "qemu:///system?mode=legacy", true, LIBVIRTD_RO),
        // Root has no session of its own.
        (ROOT, "qemu:///session", false, VIRTQEMUD),
        (ROOT, "test+unix:///default", false, LIBVIRTD),
        (USER, "qemu:///system", false, VIRTQEMUD),
        (USER, "qemu:///session", false, USERS_VIRTQEMUD),
        (USER, "qemu:///session?mode=legacy", false, USERS_LIBVIRTD),
        (USER, "test+unix:///default", false, USERS_LIBVIRTD),
    ];
    story(Libvirtd::builder().run(async |daemon| {
        for (user, uri, read_only, place) in cases {
            let told = || format!("{uri} of user {user}, read only: {read_only}");
            let host = Host::new(daemon)?;
            for other in PLACES.into_iter().filter(|other| *other != place) {
                host.abandon(other)?;
            }
            host.listen(place, daemon)?;
            let to = || host.to(user, uri).read_only(read_only).open();
            let connect = to().await.with_context(told)?;
            daemon.has_clients(1).await?;
            let found = connect.uri();
            ensure!(found == without_the_way(uri), "{}: {found}", told());
            connect.close().await;
            daemon.has_clients(0).await?;

            // It was that place and no other.
            fs::remove_file(host.path(place))?;
            host.abandon(place)?;
            let error = to().await.err().with_context(told)?.to_string();
            let path = host.path(place).display().to_string();
            let mut words = error.split([' ', ':', ';', ',']);
            ensure!(words.any(|word| word == path), "{}: {error}", told());
        }
        Ok(())
    }));
}

#[test]
fn libvirtd_serves_where_the_driver_has_no_daemon_of_its_own() {
    story(Libvirtd::builder().run(async |daemon| {
        for (user, uri, place) in [
            (ROOT, "qemu:///system", LIBVIRTD),
            (USER, "qemu:///session", USERS_LIBVIRTD),
        ] {
            let host = Host::new(daemon)?;
            host.listen(place, daemon)?;
            let connect = host.to(user, uri).open().await?;
            ensure!(!connect.hostname().await?.is_empty());
            connect.close().await;
            let direct = host.to(user, &format!("{uri}?mode=direct")).open().await;
            let error = direct.err().context("there is no virtqemud")?;
            ensure!(error.to_string().contains("virtqemud-sock"), "{error}");
        }
        Ok(())
    }));
}

#[test]
fn without_a_driver_in_the_uri_the_daemon_chooses_one() {
    story(Libvirtd::builder().run(async |daemon| {
        for (user, uri, place) in [
            (ROOT, "", LIBVIRTD),
            (ROOT, "remote:///", LIBVIRTD),
            (ROOT, "", VIRTQEMUD),
            (USER, "", USERS_LIBVIRTD),
            (USER, "", USERS_VIRTQEMUD),
        ] {
            let host = Host::new(daemon)?;
            host.listen(place, daemon)?;
            let told = || format!("{uri:?} of user {user} at {place}");
            let connect = host.to(user, uri).open().await.with_context(told)?;
            // The private daemon is root's.
            let found = connect.uri();
            ensure!(found == "qemu:///system", "{}: {found}", told());
            connect.close().await;
        }
        Ok(())
    }));
}
