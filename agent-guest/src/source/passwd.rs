//! Users and groups: `/etc/passwd` and `/etc/group`, which passwd(5) and group(5) describe.
//!
//! The agent is one static binary, and so there is no name service switch (nss(5)): users of LDAP, systemd-homed and the
//! like are not found by their names here. Such a user can be named by number.

use super::Reader;

/// A line of `/etc/passwd`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: String,
    pub(crate) shell: String,
}

/// A line of `/etc/group`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) gid: u32,
    pub(crate) members: Vec<String>,
}

/// The user with this name, or else with this number.
pub(crate) fn user(reader: &mut Reader, wanted: &str) -> Option<User> {
    let text = reader.read("etc/passwd").ok()?;
    let named = users(&text).find(|user| user.name == wanted);
    named.or_else(|| {
        let uid = id(wanted)?;
        users(&text).find(|user| user.uid == uid)
    })
}

/// The user with this name, who must have a home that can be one.
pub(crate) fn named(reader: &mut Reader, name: &str) -> Option<User> {
    let text = reader.read("etc/passwd").ok()?;
    users(&text).find(|user| user.name == name && user.home.starts_with('/'))
}

/// The number of the group with this name.
pub(crate) fn group(reader: &mut Reader, wanted: &str) -> Option<u32> {
    let text = reader.read("etc/group").ok()?;
    let named = groups(&text).find(|group| group.name == wanted);
    named.map(|group| group.gid)
}

/// Whether a user is a member of groups beside the own one.
pub(crate) fn has_more_groups(reader: &mut Reader, user: &User) -> bool {
    reader.read("etc/group").is_ok_and(|text| {
        groups(&text).any(|group| group.gid != user.gid && group.members.contains(&user.name))
    })
}

/// A user's or group's number. The highest one means "none" to the kernel.
pub(crate) fn id(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let id = is_number.then(|| text.parse().ok()).flatten();
    id.filter(|id| *id != u32::MAX)
}

/// The users in a text. Lines that can't be understood are passed over.
pub(crate) fn users(text: &str) -> impl Iterator<Item = User> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let _password = fields.next()?;
        let uid = id(fields.next()?)?;
        let gid = id(fields.next()?)?;
        let _comment = fields.next()?;
        Some(User {
            name: name.to_owned(),
            uid,
            gid,
            home: fields.next()?.to_owned(),
            shell: fields.next().unwrap_or_default().to_owned(),
        })
    })
}

/// The groups in a text. Lines that can't be understood are passed over.
pub(crate) fn groups(text: &str) -> impl Iterator<Item = Group> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let _password = fields.next()?;
        let gid = id(fields.next()?)?;
        let members = fields.next().unwrap_or_default().split(',');
        Some(Group {
            name: name.to_owned(),
            gid,
            members: members
                .map(str::trim)
                .filter(|member| !member.is_empty())
                .map(str::to_owned)
                .collect(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
        # a comment, and then what is no user\n\
        +::::::\n\
        broken:x:many:1::/:/bin/sh\n\
        1000:x:7:7:a name of digits:/seven:\n\
        ann:x:1000:1000:Ann,,,:/home/ann:/bin/zsh\n";

    const GROUP: &str = "root:x:0:\nann:x:1000:ann\nwheel:x:10:bob, ann\nempty:x:11\n:x:12:\n";

    fn below(files: &[(&str, &str)]) -> (tempfile::TempDir, Reader) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join("etc").join(name), text).unwrap();
        }
        let reader = Reader::below(dir.path());
        (dir, reader)
    }

    #[test]
    fn a_user_is_found_by_name_before_number() {
        let (_dir, mut reader) = below(&[("passwd", PASSWD)]);
        let ann = user(&mut reader, "ann").unwrap();
        assert_eq!((ann.uid, ann.gid), (1000, 1000));
        assert_eq!(
            (ann.home.as_str(), ann.shell.as_str()),
            ("/home/ann", "/bin/zsh")
        );
        assert_eq!(user(&mut reader, "1000").unwrap().uid, 7);
        assert_eq!(user(&mut reader, "0").unwrap().name, "root");
        assert_eq!(named(&mut reader, "ann").unwrap().uid, 1000);
        assert_eq!(named(&mut reader, "1000").unwrap().uid, 7, "a name, too");
        assert_eq!(named(&mut reader, "0"), None, "a number is no name");
        for nobody in ["", "broken", "+", "8", "-1", "4294967295", "# a comment"] {
            assert_eq!(user(&mut reader, nobody), None, "{nobody}");
        }
    }

    #[test]
    fn groups_beside_the_own_one_are_seen() {
        let (_dir, mut reader) = below(&[("passwd", PASSWD), ("group", GROUP)]);
        let ann = user(&mut reader, "ann").unwrap();
        assert!(has_more_groups(&mut reader, &ann));
        let root = user(&mut reader, "root").unwrap();
        assert!(!has_more_groups(&mut reader, &root));
        assert_eq!(group(&mut reader, "wheel"), Some(10));
        assert_eq!(group(&mut reader, "empty"), Some(11));
        assert_eq!(group(&mut reader, "none"), None);
    }

    #[test]
    fn a_guest_without_the_files_has_no_users() {
        let (_dir, mut reader) = below(&[]);
        assert_eq!(user(&mut reader, "root"), None);
        assert_eq!(group(&mut reader, "root"), None);
    }
}
