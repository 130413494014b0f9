//! `/etc/passwd`: the guest's own users (passwd(5)).

use std::path::{Path, PathBuf};

use super::Reader;

/// Where they stand.
const FILE: &str = "etc/passwd";

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// An absolute path.
    pub(crate) home: PathBuf,
}

/// The user with a name; none if there is none, or the line is not well-formed.
pub(crate) fn user(root: &Path, name: &str) -> Option<User> {
    let mut reader = Reader::below(root);
    let text = reader.read(FILE).ok()?;
    text.lines()
        .filter_map(parse)
        .find(|user| user.name == name)
}

fn parse(line: &str) -> Option<User> {
    // name:x:1000:1000:Full Name:/home/name:/bin/sh
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let _password = fields.next()?;
    let uid = id(fields.next()?)?;
    let gid = id(fields.next()?)?;
    let _full_name = fields.next()?;
    let home = Path::new(fields.next()?);
    home.is_absolute().then(|| User {
        name: name.to_owned(),
        uid,
        gid,
        home: home.to_owned(),
    })
}

/// The number of a user or group. The largest stands for none in system calls.
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|&id| id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_odd_lines_are_none() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let text = "root:x:0:0:root:/root:/bin/sh\n\
            +nis::::::\n\
            :x:1:1::/:/bin/sh\n\
            homeless:x:2:2:::/bin/sh\n\
            short:x:3\n\
            none:x:4294967295:1::/:/bin/sh\n\
            web:x:1000:100:Web,,,:/home/web:/bin/bash\n";
        std::fs::write(dir.path().join(FILE), text).unwrap();
        let web = user(dir.path(), "web").unwrap();
        assert_eq!((web.uid, web.gid), (1000, 100));
        assert_eq!(web.home, Path::new("/home/web"));
        for name in ["", "+nis", "homeless", "short", "none", "we", "web:x"] {
            assert_eq!(user(dir.path(), name), None, "{name:?}");
        }
    }
}
