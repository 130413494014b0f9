//! Whose rights a process gets.
//!
//! A user's groups can be set only between fork and exec, for which std has no way that is both stable and safe. So a
//! process of another user is started through setpriv(1) of util-linux, which becomes the program and keeps its process
//! id. Without it (busybox's can't do this) only users without further groups are possible, for std takes away all groups
//! but one.

use std::path::{Path, PathBuf};

use tonic::Status;

use super::command::Command;
use crate::{
    error::{self, Reason},
    source::{
        Reader,
        passwd::{self, User},
    },
};

/// Where programs of the system are, whatever the agent's own environment says.
const SYSTEM_PATH: [&str; 4] = ["usr/sbin", "usr/bin", "sbin", "bin"];

/// How a process gets its rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// It has the agent's.
    Own,
    /// Of its groups it has one, or the agent's if it stays the agent's user.
    Direct { uid: Option<u32>, gid: u32 },
    /// This setpriv gives it all of the user's groups.
    Setpriv { path: PathBuf, uid: u32, gid: u32 },
}

/// Whose rights a process gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) way: Way,
    /// The user's name, or the number of one without.
    pub(super) name: String,
    /// The user, if one was named and has an entry.
    pub(super) user: Option<User>,
}

/// Looks for the user and the group of a command in the guest below `root`; `own` are the agent's.
pub(super) fn find(command: &Command, root: &Path, own: (u32, u32)) -> Result<Identity, Status> {
    let mut reader = Reader::below(root);
    let group = command.group.as_deref();
    let group = group.map(|it| find_group(&mut reader, it)).transpose()?;
    let Some(wanted) = command.user.as_deref() else {
        let gid = group.filter(|gid| *gid != own.1);
        let own_name = passwd::user(&mut reader, &own.0.to_string());
        return Ok(Identity {
            way: match gid {
                None => Way::Own,
                Some(gid) => permitted(own, Way::Direct { uid: None, gid })?,
            },
            name: own_name.map_or_else(|| own.0.to_string(), |user| user.name),
            user: None,
        });
    };
    let Some(user) = passwd::user(&mut reader, wanted) else {
        return numbered(wanted, group, own);
    };
    let (uid, gid) = (user.uid, group.unwrap_or(user.gid));
    let way = if own.0 != 0 && own == (uid, gid) {
        Way::Own
    } else if let Some(path) = setpriv(root) {
        permitted(own, Way::Setpriv { path, uid, gid })?
    } else if passwd::has_more_groups(&mut reader, &user) {
        let message = format!(
            "the groups of the user {:?} can't be set: install setpriv (util-linux) in the guest, or name a user \
             without further groups",
            user.name
        );
        return Err(error::failure(Reason::Unsupported, message));
    } else {
        let uid = Some(uid);
        permitted(own, Way::Direct { uid, gid })?
    };
    Ok(Identity {
        way,
        name: user.name.clone(),
        user: Some(user),
    })
}

/// A user without an entry in `/etc/passwd`.
fn numbered(wanted: &str, group: Option<u32>, own: (u32, u32)) -> Result<Identity, Status> {
    let Some(uid) = passwd::id(wanted) else {
        let message = format!("there is no user {wanted:?} in the guest's /etc/passwd");
        return Err(error::failure(Reason::NotFound, message));
    };
    let gid = group.ok_or_else(|| {
        let description =
            format!("must be set, for the user {uid} has no entry in the guest's /etc/passwd");
        error::invalid_field("command.group", description)
    })?;
    let way = match own == (uid, gid) && uid != 0 {
        true => Way::Own,
        false => permitted(
            own,
            Way::Direct {
                uid: Some(uid),
                gid,
            },
        )?,
    };
    Ok(Identity {
        way,
        name: uid.to_string(),
        user: None,
    })
}

fn find_group(reader: &mut Reader, wanted: &str) -> Result<u32, Status> {
    let gid = passwd::group(reader, wanted).or_else(|| passwd::id(wanted));
    gid.ok_or_else(|| {
        let message = format!("there is no group {wanted:?} in the guest's /etc/group");
        error::failure(Reason::NotFound, message)
    })
}

fn permitted(own: (u32, u32), way: Way) -> Result<Way, Status> {
    match own.0 {
        0 => Ok(way),
        uid => Err(error::failure(
            Reason::PermissionDenied,
            format!(
                "the guest's agent runs as user {uid}, and only root gives processes to others"
            ),
        )),
    }
}

/// util-linux's setpriv, if the guest has it.
fn setpriv(root: &Path) -> Option<PathBuf> {
    SYSTEM_PATH
        .iter()
        .map(|folder| root.join(folder).join("setpriv"))
        .find(|path| {
            let target = path.canonicalize();
            target.is_ok_and(|it| it.is_file() && !it.ends_with("busybox"))
        })
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use vbridge_api::guest::v1 as api;

    use super::*;

    const ROOT: (u32, u32) = (0, 0);

    fn guest(has_setpriv: bool) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("etc")).unwrap();
        std::fs::create_dir_all(path("usr/bin")).unwrap();
        let passwd = "root:x:0:0::/root:/bin/sh\nann:x:10:20::/home/ann:/bin/zsh\n\
            bob:x:11:21::/:/bin/sh\n";
        std::fs::write(path("etc/passwd"), passwd).unwrap();
        std::fs::write(path("etc/group"), "wheel:x:5:ann\nbob:x:21:bob\n").unwrap();
        if has_setpriv {
            std::fs::write(path("usr/bin/setpriv"), "").unwrap();
        }
        dir
    }

    fn command(user: &str, group: &str) -> Command {
        let message = api::ExecStart {
            command: Some(api::Command {
                argv: vec!["true".to_owned()],
                user: user.to_owned(),
                group: group.to_owned(),
                ..api::Command::default()
            }),
            ..api::ExecStart::default()
        };
        super::super::command::start(message).unwrap()
    }

    #[test]
    fn a_named_user_gets_all_groups_through_setpriv() {
        let guest = guest(true);
        let of = |user, group| find(&command(user, group), guest.path(), ROOT).unwrap();
        let path = guest.path().join("usr/bin/setpriv");
        let ann = of("ann", "");
        let way = |uid, gid| Way::Setpriv {
            path: path.clone(),
            uid,
            gid,
        };
        assert_eq!((ann.way, ann.name.as_str()), (way(10, 20), "ann"));
        assert_eq!(of("10", "wheel").way, way(10, 5));
        assert_eq!(of("ann", "77").way, way(10, 77));
        assert_eq!(of("root", "").way, way(0, 0));
    }

    #[test]
    fn without_setpriv_only_users_without_further_groups_are_possible() {
        let guest = guest(false);
        let of = |user, group| find(&command(user, group), guest.path(), ROOT);
        let direct = |uid, gid| Way::Direct { uid, gid };
        assert_eq!(of("bob", "").unwrap().way, direct(Some(11), 21));
        let status = of("ann", "").unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
        assert!(status.message().contains("setpriv"), "{status}");
        std::os::unix::fs::symlink("busybox", guest.path().join("usr/bin/setpriv")).unwrap();
        std::fs::write(guest.path().join("usr/bin/busybox"), "").unwrap();
        assert!(of("ann", "").is_err(), "busybox's setpriv is none");
    }

    #[test]
    fn a_number_without_an_entry_needs_a_group() {
        let guest = guest(true);
        let of = |user, group| find(&command(user, group), guest.path(), ROOT);
        let (uid, gid) = (Some(4000), 5);
        assert_eq!(of("4000", "wheel").unwrap().way, Way::Direct { uid, gid });
        assert_eq!(of("4000", "").unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(of("nobody", "").unwrap_err().code(), Code::NotFound);
        assert_eq!(of("ann", "nobody").unwrap_err().code(), Code::NotFound);
    }

    #[test]
    fn who_is_not_root_has_only_its_own_rights() {
        let guest = guest(true);
        let of = |user, group| find(&command(user, group), guest.path(), (10, 20));
        for (user, group) in [("", ""), ("", "20"), ("ann", ""), ("10", "20")] {
            let identity = of(user, group).unwrap();
            assert_eq!((identity.way, identity.name.as_str()), (Way::Own, "ann"));
        }
        for (user, group) in [("bob", ""), ("root", ""), ("", "wheel"), ("9", "9")] {
            let status = of(user, group).unwrap_err();
            assert_eq!(status.code(), Code::PermissionDenied, "{user} {group}");
        }
    }
}
