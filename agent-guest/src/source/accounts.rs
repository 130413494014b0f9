//! Names of many users and groups by their numbers, and the other way round: [`super::passwd`] as a table.

use std::collections::HashMap;

use super::{Reader, passwd};

/// The names that the guest's files have for users and groups.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    users: Names,
    groups: Names,
}

/// Names by number.
#[derive(Debug, Default)]
struct Names(HashMap<u32, String>);

impl Accounts {
    /// Reads both files; one that can't be read has no names.
    pub(crate) fn read(reader: &mut Reader) -> Self {
        let passwd = reader.read("etc/passwd").unwrap_or_default().into_owned();
        let group = reader.read("etc/group").unwrap_or_default();
        Self::of(&passwd, &group)
    }

    fn of(passwd: &str, group: &str) -> Self {
        Self {
            users: Names::of(passwd::users(passwd).map(|user| (user.uid, user.name))),
            groups: Names::of(passwd::groups(group).map(|group| (group.gid, group.name))),
        }
    }

    /// A user's name; empty if there is none.
    pub(crate) fn user(&self, uid: u32) -> &str {
        self.users.name(uid)
    }

    /// A group's name; empty if there is none.
    pub(crate) fn group(&self, gid: u32) -> &str {
        self.groups.name(gid)
    }

    /// The number of a user that is given by name or number.
    pub(crate) fn uid(&self, user: &str) -> Option<u32> {
        self.users.id(user)
    }

    /// The number of a group that is given by name or number.
    pub(crate) fn gid(&self, group: &str) -> Option<u32> {
        self.groups.id(group)
    }
}

impl Names {
    fn of(names: impl Iterator<Item = (u32, String)>) -> Self {
        let mut all = HashMap::new();
        for (id, name) in names {
            // Where a number has several names the first counts, as for getpwuid(3).
            all.entry(id).or_insert(name);
        }
        Self(all)
    }

    fn name(&self, id: u32) -> &str {
        self.0.get(&id).map_or("", String::as_str)
    }

    /// A name goes before a number, as chown(1) has it.
    fn id(&self, text: &str) -> Option<u32> {
        let named = self.0.iter().find(|(_, name)| *name == text);
        named.map(|(id, _)| *id).or_else(|| passwd::id(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_lead_to_each_other() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let passwd = "root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:\nada:x:1000:100::/home/ada:\n# no\nodd:x:y:\n7:x:70:0::/:\n";
        std::fs::write(dir.path().join("etc/passwd"), passwd).unwrap();
        std::fs::write(dir.path().join("etc/group"), "wheel:x:10:ada\n").unwrap();
        let accounts = Accounts::read(&mut Reader::below(dir.path()));
        assert_eq!((accounts.user(0), accounts.user(1)), ("root", ""));
        assert_eq!((accounts.group(10), accounts.group(0)), ("wheel", ""));
        assert_eq!(accounts.uid("ada"), Some(1000));
        assert_eq!((accounts.uid("7"), accounts.uid("8")), (Some(70), Some(8)));
        assert_eq!((accounts.uid("odd"), accounts.uid("-1")), (None, None));
        assert_eq!(accounts.uid("4294967295"), None);
        assert_eq!(accounts.gid("wheel"), Some(10));
    }

    #[test]
    fn a_guest_without_the_files_has_no_names() {
        let dir = tempfile::tempdir().unwrap();
        let accounts = Accounts::read(&mut Reader::below(dir.path()));
        assert_eq!((accounts.user(0), accounts.gid("root")), ("", None));
    }
}
