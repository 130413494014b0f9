//! Sockets of this host: which one a URI means, and connecting to it.

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio::{net::UnixStream, time::sleep};

use super::{Deadline, Error, limits::BACKLOG_RETRY};
use crate::{
    Environment,
    uri::{Mode, Uri},
};

/// Drivers with a daemon of their own, in the order in which the empty URI looks for one.
const DRIVERS: [&str; 7] = ["qemu", "xen", "lxc", "ch", "bhyve", "vz", "vbox"];

/// The socket that a URI means.
pub(super) fn socket(
    uri: &Uri,
    environment: &Environment,
    read_only: bool,
) -> Result<PathBuf, Error> {
    if let Some(socket) = &uri.settings().socket {
        return Ok(socket.clone());
    }
    let place = Place::of(uri, environment, read_only)?;
    let driver = uri.driver();
    let direct = |driver: &str| place.socket(&format!("virt{driver}d"));
    let legacy = place.socket("libvirt");
    let candidates = match (uri.settings().mode, driver) {
        (Mode::Legacy, _) => vec![legacy],
        (Mode::Direct, "" | "remote") => {
            return Err(Error::Unsupported {
                what: "mode=direct".to_owned(),
                why: "needs a driver whose daemon it names",
                remedy: "write a URI like qemu:///system?mode=direct".to_owned(),
            });
        }
        (Mode::Direct, driver) => vec![direct(driver)],
        // libvirtd, or virtproxyd in its place, finds out what there is; a host may also have a driver's daemon alone.
        (Mode::Auto, "" | "remote") => {
            let drivers = DRIVERS.iter().map(|driver| direct(driver));
            std::iter::once(legacy).chain(drivers).collect()
        }
        (Mode::Auto, driver) => vec![direct(driver), legacy],
    };
    match candidates.iter().find(|socket| is_there(socket)) {
        Some(socket) => Ok(socket.clone()),
        None => Err(Error::NoSocket {
            remedy: place.remedy(uri),
            tried: candidates,
        }),
    }
}

/// Also a socket that may not be looked at is there: connecting to it says more.
fn is_there(socket: &Path) -> bool {
    !matches!(socket.try_exists(), Ok(false))
}

/// Where the daemons have their sockets.
struct Place {
    dir: PathBuf,
    session: bool,
    suffix: &'static str,
}

impl Place {
    fn of(uri: &Uri, environment: &Environment, read_only: bool) -> Result<Self, Error> {
        // A test driver behind an explicit transport belongs to the user who asks for it, as libvirt has it.
        let of_user = uri.is_empty() || uri.path() == "/session" || uri.driver() == "test";
        // Root has no session of its own.
        if !of_user || environment.is_root() {
            return Ok(Self {
                dir: environment.run_dir.join("libvirt"),
                session: false,
                suffix: if read_only { "-ro" } else { "" },
            });
        }
        let dir = environment.user_run_dir.as_ref();
        let dir = dir.ok_or_else(|| Error::Unsupported {
            what: format!("a session daemon of user {}", environment.uid),
            why: "can't be found, for neither XDG_RUNTIME_DIR nor HOME is set",
            remedy: "set one of them, or name the socket with socket=".to_owned(),
        })?;
        // Its owner is the only one who reaches it, so there is none for readers.
        Ok(Self {
            dir: dir.join("libvirt"),
            session: true,
            suffix: "",
        })
    }

    fn socket(&self, daemon: &str) -> PathBuf {
        self.dir.join(format!("{daemon}-sock{}", self.suffix))
    }

    fn remedy(&self, uri: &Uri) -> String {
        let driver = match uri.driver() {
            "" | "remote" | "test" => "qemu",
            driver => driver,
        };
        if self.session {
            format!("start `virt{driver}d --daemon` or `libvirtd --daemon` as this user")
        } else {
            let suffix = self.suffix;
            format!(
                "start virt{driver}d or libvirtd, as by `systemctl start virt{driver}d{suffix}.socket`, \
                 or name the socket with socket= in the URI"
            )
        }
    }
}

pub(super) async fn connect(path: PathBuf, deadline: &Deadline) -> Result<UnixStream, Error> {
    match deadline.within("connecting to", attempt(&path)).await? {
        Ok(stream) => Ok(stream),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::NoSocket {
            tried: vec![path],
            remedy: "start the daemon that makes it, or correct socket= in the URI".to_owned(),
        }),
        Err(error) => Err(Error::Unix {
            path,
            kind: error.kind(),
            why: why(&error),
        }),
    }
}

/// Where the daemon is behind with accepting connections, the kernel neither queues another one nor tells when it
/// would: so this one asks again.
async fn attempt(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(BACKLOG_RETRY).await,
            result => return result,
        }
    }
}

fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "permission denied; run as a member of the group that the socket belongs to, often `libvirt`, \
             or ask for a read-only connection"
                .to_owned()
        }
        io::ErrorKind::ConnectionRefused => {
            "nobody listens there; the daemon that made it has ended, so start it again".to_owned()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::net::UnixListener, time::Duration};

    use futures_util::FutureExt as _;

    use super::*;

    /// A system and a user's session, each with the sockets that a test makes.
    struct Host {
        dir: tempfile::TempDir,
        environment: Environment,
    }

    impl Host {
        fn new(uid: u32, sockets: &[&str]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let mut environment = Environment::of_process();
            environment.uid = uid;
            environment.run_dir = dir.path().join("run");
            environment.user_run_dir = Some(dir.path().join("user"));
            for place in ["run", "user"] {
                fs::create_dir_all(dir.path().join(place).join("libvirt")).unwrap();
            }
            for socket in sockets {
                let (place, name) = socket.split_once('/').unwrap();
                fs::write(dir.path().join(place).join("libvirt").join(name), "").unwrap();
            }
            Self { dir, environment }
        }

        /// The socket that is chosen, below the temporary directory.
        fn chosen(&self, uri: &str, read_only: bool) -> String {
            let uri = Uri::parse(uri).unwrap();
            let path = socket(&uri, &self.environment, read_only).unwrap();
            let path = path.strip_prefix(self.dir.path()).unwrap();
            path.display().to_string()
        }

        fn error(&self, uri: &str) -> String {
            let uri = Uri::parse(uri).unwrap();
            socket(&uri, &self.environment, false)
                .unwrap_err()
                .to_string()
        }
    }

    const BOTH: [&str; 8] = [
        "run/libvirt-sock",
        "run/libvirt-sock-ro",
        "run/virtqemud-sock",
        "run/virtqemud-sock-ro",
        "run/virtlxcd-sock",
        "user/libvirt-sock",
        "user/virtqemud-sock",
        "user/virtlxcd-sock",
    ];

    #[test]
    fn the_socket_follows_driver_path_mode_and_user() {
        for (uid, uri, read_only, chosen) in [
            (0, "qemu:///system", false, "run/libvirt/virtqemud-sock"),
            (0, "qemu:///system", true, "run/libvirt/virtqemud-sock-ro"),
            (0, "qemu:///session", false, "run/libvirt/virtqemud-sock"),
            (0, "xen:///system", false, "run/libvirt/libvirt-sock"),
            (
                0,
                "qemu:///system?mode=legacy",
                false,
                "run/libvirt/libvirt-sock",
            ),
            (
                0,
                "qemu:///system?mode=legacy",
                true,
                "run/libvirt/libvirt-sock-ro",
            ),
            (
                0,
                "qemu:///system?mode=direct",
                false,
                "run/libvirt/virtqemud-sock",
            ),
            (0, "", false, "run/libvirt/libvirt-sock"),
            (0, "remote:///", true, "run/libvirt/libvirt-sock-ro"),
            (
                1000,
                "qemu:///system",
                true,
                "run/libvirt/virtqemud-sock-ro",
            ),
            (
                1000,
                "qemu:///session",
                false,
                "user/libvirt/virtqemud-sock",
            ),
            (1000, "qemu:///session", true, "user/libvirt/virtqemud-sock"),
            (1000, "xen:///session", false, "user/libvirt/libvirt-sock"),
            (
                1000,
                "test+unix:///default",
                false,
                "user/libvirt/libvirt-sock",
            ),
            (1000, "", false, "user/libvirt/libvirt-sock"),
        ] {
            let host = Host::new(uid, &BOTH);
            assert_eq!(
                host.chosen(uri, read_only),
                chosen,
                "{uid} {uri} {read_only}"
            );
        }
    }

    #[test]
    fn an_empty_uri_finds_a_drivers_daemon_where_it_is_alone() {
        let host = Host::new(0, &["run/virtlxcd-sock"]);
        assert_eq!(host.chosen("", false), "run/libvirt/virtlxcd-sock");
        let host = Host::new(1000, &["run/libvirt-sock", "user/virtqemud-sock"]);
        assert_eq!(host.chosen("", false), "user/libvirt/virtqemud-sock");
    }

    #[test]
    fn a_named_socket_is_taken_whatever_else_the_uri_says() {
        let host = Host::new(1000, &BOTH);
        let uri = Uri::parse("qemu:///session?socket=/tmp/a&mode=direct").unwrap();
        let path = socket(&uri, &host.environment, true).unwrap();
        assert_eq!(path, Path::new("/tmp/a"));
    }

    #[test]
    fn a_missing_socket_is_reported_with_the_paths_and_what_to_start() {
        let system = Host::new(0, &[]);
        let text = system.error("qemu:///system");
        let run = system.dir.path().join("run/libvirt");
        for part in [
            format!("{}", run.join("virtqemud-sock").display()),
            format!("and no {};", run.join("libvirt-sock").display()),
            "systemctl start virtqemud.socket".to_owned(),
        ] {
            assert!(text.contains(&part), "{part}: {text}");
        }
        let user = Host::new(1000, &["run/libvirt-sock"]);
        let text = user.error("qemu:///session");
        assert!(text.contains("user/libvirt/virtqemud-sock"), "{text}");
        assert!(text.contains("`virtqemud --daemon`"), "{text}");
        let text = user.error("");
        assert!(text.contains("virtvboxd-sock"), "{text}");
    }

    #[test]
    fn what_names_no_socket_is_refused() {
        let mut host = Host::new(1000, &BOTH);
        let text = host.error("remote:///?mode=direct");
        assert!(text.contains("needs a driver"), "{text}");
        host.environment.user_run_dir = None;
        let text = host.error("qemu:///session");
        assert!(
            text.contains("XDG_RUNTIME_DIR") && text.contains("1000"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_daemon_that_is_behind_with_accepting_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let listener = UnixListener::bind(&path).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let mut queued = Vec::new();
        while let Ok(stream) = UnixStream::connect(&path).await {
            queued.push(stream);
        }
        let deadline = Deadline::new(Duration::from_secs(60), String::new());
        let mut connecting = std::pin::pin!(connect(path, &deadline));
        assert!((&mut connecting).now_or_never().is_none());
        for _ in &queued {
            listener.accept().unwrap();
        }
        connecting.await.unwrap();
    }

    #[tokio::test]
    async fn a_socket_without_its_daemon_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let deadline = Deadline::new(Duration::from_secs(60), String::new());
        let missing = connect(path.clone(), &deadline).await.unwrap_err();
        assert!(missing.to_string().contains("correct socket="), "{missing}");
        let listener = UnixListener::bind(&path).unwrap();
        connect(path.clone(), &deadline).await.unwrap();
        drop(listener);
        let stale = connect(path.clone(), &deadline).await.unwrap_err();
        assert!(stale.to_string().contains("start it again"), "{stale}");
        assert!(matches!(
            stale,
            Error::Unix {
                kind: io::ErrorKind::ConnectionRefused,
                ..
            }
        ));
    }
}
