//! The socket for a daemon's administration.

use std::path::PathBuf;

use super::Error;
use crate::{Environment, uri::Transport, uri::Uri};

/// The socket that a URI means, whose driver is the daemon's name.
pub(super) fn socket(uri: &Uri, environment: &Environment) -> Result<PathBuf, Error> {
    if uri.transport() != Transport::Unix {
        return Err(wrong(
            uri,
            "names another host, and a daemon is administered from its own",
        ));
    }
    if let Some(name) = uri.parameter_beside("socket") {
        return Err(Error::Unsupported {
            what: format!("{name}= in {uri}"),
            why: "has no meaning for a daemon's administration",
            remedy: "leave it out; socket= is the only parameter".to_owned(),
        });
    }
    if let Some(socket) = &uri.settings().socket {
        return Ok(socket.clone());
    }
    let dir = match uri.path() {
        "/system" => environment.run_dir.clone(),
        // Root has no session of its own.
        "/session" if environment.is_root() => environment.run_dir.clone(),
        "/session" => environment
            .user_run_dir
            .clone()
            .ok_or_else(|| Error::Unsupported {
                what: format!("a session daemon of user {}", environment.uid),
                why: "can't be found, for neither XDG_RUNTIME_DIR nor HOME is set",
                remedy: "set one of them, or name the socket with socket=".to_owned(),
            })?,
        _ => return Err(wrong(uri, "names neither the system's daemon nor a user's")),
    };
    let name = match uri.driver() {
        // virtproxyd stands in libvirtd's place, and has its sockets.
        "libvirtd" | "virtproxyd" => "libvirt",
        daemon => daemon,
    };
    Ok(dir.join("libvirt").join(format!("{name}-admin-sock")))
}

fn wrong(uri: &Uri, why: &'static str) -> Error {
    Error::Unsupported {
        what: uri.to_string(),
        why,
        remedy: "write a URI like libvirtd:///system or virtqemud:///session".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(uid: u32) -> Environment {
        let mut environment = Environment::of_process();
        environment.uid = uid;
        environment.run_dir = "/run".into();
        environment.user_run_dir = Some("/user".into());
        environment
    }

    #[test]
    fn the_socket_follows_daemon_path_and_user() {
        for (uid, uri, expected) in [
            (0, "libvirtd:///system", "/run/libvirt/libvirt-admin-sock"),
            (0, "libvirtd:///session", "/run/libvirt/libvirt-admin-sock"),
            (1, "libvirtd:///system", "/run/libvirt/libvirt-admin-sock"),
            (1, "libvirtd:///session", "/user/libvirt/libvirt-admin-sock"),
            (0, "virtproxyd:///system", "/run/libvirt/libvirt-admin-sock"),
            (
                0,
                "virtqemud:///system",
                "/run/libvirt/virtqemud-admin-sock",
            ),
            (0, "virtlogd:///system", "/run/libvirt/virtlogd-admin-sock"),
            (0, "libvirtd:///?socket=/a/b", "/a/b"),
        ] {
            let parsed = Uri::parse(uri).unwrap();
            let found = socket(&parsed, &environment(uid)).unwrap();
            assert_eq!(found, PathBuf::from(expected), "{uri}");
        }
    }

    #[test]
    fn what_the_administration_does_not_have_is_refused_with_advice() {
        for (uri, part) in [
            ("libvirtd://host/system", "from its own"),
            ("libvirtd+tls:///system", "from its own"),
            ("libvirtd:///default", "neither the system's"),
            ("libvirtd:///system?mode=legacy", "mode= in"),
            ("libvirtd:///system?other=1", "other= in"),
        ] {
            let uri = Uri::parse(uri).unwrap();
            let error = socket(&uri, &environment(0)).unwrap_err().to_string();
            assert!(error.contains(part), "{uri}: {error}");
        }
    }
}
