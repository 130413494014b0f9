//! A user's `.ssh/authorized_keys` (sshd(8)).
//!
//! The folder belongs to the user, who may put anything there; the agent is root. So no link in it is followed, what is
//! not a file of its own is not read, and the file is replaced as a whole.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::OwnedFd,
    path::Path,
};

use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid},
    io::Errno,
};

use super::passwd::User;
use crate::limits::{MAX_AUTHORIZED_KEY, MAX_AUTHORIZED_KEYS_FILE};

/// The folder in the user's home.
const FOLDER: &str = ".ssh";

/// The file in it.
const FILE: &str = "authorized_keys";

/// What it is written to first.
const NEW: &str = ".authorized_keys.vbridge";

/// Types of keys that OpenSSH knows.
const TYPES: [&str; 8] = [
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-rsa",
    "ssh-dss",
];

/// Every key begins with the length of its type's name in four bytes, three of which are 0.
const FIRST_BYTES: &str = "AAAA";

/// Why keys can't be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeysError {
    /// The kernel says no.
    #[error("{0}: {1}")]
    Io(&'static str, io::Error),
    /// There is something else.
    #[error("{0} is {1}")]
    Odd(&'static str, &'static str),
}

/// Whether it is a line with a key; else why not.
pub(crate) fn check(line: &str) -> Result<(), String> {
    if line.len() > MAX_AUTHORIZED_KEY {
        return Err(format!(
            "has {} bytes, and {MAX_AUTHORIZED_KEY} is the most",
            line.len()
        ));
    }
    if line.chars().any(|c| c.is_control() && c != '\t') {
        return Err("must be one line without control characters".to_owned());
    }
    let words = words(line);
    let kind = words.iter().position(|word| TYPES.contains(word));
    // Before the type stand options, in one word.
    let kind = kind.filter(|&kind| kind <= 1 && !line.trim_start().starts_with('#'));
    let Some(kind) = kind else {
        return Err(format!(
            "must have one of the types {} first, or after its options",
            TYPES.join(", ")
        ));
    };
    match words.get(kind + 1) {
        Some(key) if is_key(key) => Ok(()),
        _ => Err("must have the key in base64 after its type".to_owned()),
    }
}

/// Words between spaces; those within quotes don't count.
fn words(line: &str) -> Vec<&str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let words = line.split(|c: char| {
        let is_quote = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        is_quoted ^= is_quote;
        !is_quoted && matches!(c, ' ' | '\t')
    });
    words.filter(|word| !word.is_empty()).collect()
}

fn is_key(text: &str) -> bool {
    let bare = text.trim_end_matches('=');
    text.starts_with(FIRST_BYTES)
        && text.len().is_multiple_of(4)
        && text.len() - bare.len() <= 2
        && bare
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}

/// Lines of the file without comments and empty ones; none if it is not there.
pub(crate) fn list(root: &Path, user: &User) -> Result<Vec<String>, KeysError> {
    let text = match open_folder(root, user)? {
        Some(folder) => read(&folder)?,
        None => String::new(),
    };
    Ok(keys(&text).map(str::to_owned).collect())
}

/// Adds keys that are not there, and removes all others if `reset`. How many were not there before.
pub(crate) fn add(
    root: &Path,
    user: &User,
    new: &[String],
    reset: bool,
) -> Result<usize, KeysError> {
    let folder = match open_folder(root, user)? {
        Some(folder) => folder,
        None => make_folder(root, user)?,
    };
    let before = read(&folder)?;
    let mut text = if reset { String::new() } else { before.clone() };
    let mut added = 0;
    for key in new.iter().map(|key| key.trim()) {
        if !keys(&before).any(|known| known == key) && !keys(&text).any(|known| known == key) {
            added += 1;
        }
        if !keys(&text).any(|known| known == key) {
            end_line(&mut text);
            text.push_str(key);
            text.push('\n');
        }
    }
    replace(&folder, user, &before, &text)?;
    Ok(added)
}

/// Removes keys. How many were there before.
pub(crate) fn remove(root: &Path, user: &User, old: &[String]) -> Result<usize, KeysError> {
    let Some(folder) = open_folder(root, user)? else {
        return Ok(0);
    };
    let before = read(&folder)?;
    let mut removed = 0;
    let mut text = String::with_capacity(before.len());
    for line in before.lines() {
        if keys(line).any(|key| old.iter().any(|old| old.trim() == key)) {
            removed += 1;
        } else {
            text.push_str(line);
            text.push('\n');
        }
    }
    if removed > 0 {
        replace(&folder, user, &before, &text)?;
    }
    Ok(removed)
}

fn keys(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn end_line(text: &mut String) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
}

fn home(root: &Path, user: &User) -> Result<OwnedFd, KeysError> {
    let home = user.home.strip_prefix("/").unwrap_or(&user.home);
    // Links on the way to it are the administrator's.
    rustix::fs::open(root.join(home), FOLDER_FLAGS, Mode::empty())
        .map_err(|error| KeysError::Io("the user's home", error.into()))
}

const FOLDER_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

fn open_folder(root: &Path, user: &User) -> Result<Option<OwnedFd>, KeysError> {
    let flags = FOLDER_FLAGS | OFlags::NOFOLLOW;
    match rustix::fs::openat(home(root, user)?, FOLDER, flags, Mode::empty()) {
        Ok(folder) => Ok(Some(folder)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::LOOP | Errno::NOTDIR) => Err(KeysError::Odd(FOLDER, "no folder, or a link")),
        Err(error) => Err(KeysError::Io(FOLDER, error.into())),
    }
}

fn make_folder(root: &Path, user: &User) -> Result<OwnedFd, KeysError> {
    let failed = |error: Errno| KeysError::Io(FOLDER, error.into());
    rustix::fs::mkdirat(home(root, user)?, FOLDER, Mode::RWXU).map_err(failed)?;
    let folder = open_folder(root, user)?.ok_or_else(|| failed(Errno::NOENT))?;
    own(&folder, user).map_err(failed)?;
    Ok(folder)
}

/// Gives it to the user.
fn own(file: &OwnedFd, user: &User) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    rustix::fs::fchown(file, Some(uid), Some(gid))
}

fn read(folder: &OwnedFd) -> Result<String, KeysError> {
    let failed = |error: io::Error| KeysError::Io(FILE, error);
    // Without waiting for a pipe's other end.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(folder, FILE, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(String::new()),
        Err(Errno::LOOP) => return Err(KeysError::Odd(FILE, "a link")),
        Err(error) => return Err(failed(error.into())),
    };
    let stat = rustix::fs::fstat(&file).map_err(|error| failed(error.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(KeysError::Odd(FILE, "no regular file"));
    }
    // It may be another's, which the user must not see or replace through the agent.
    if stat.st_nlink != 1 {
        return Err(KeysError::Odd(FILE, "a second name of another file"));
    }
    let mut bytes = Vec::new();
    let most = MAX_AUTHORIZED_KEYS_FILE + 1;
    File::from(file)
        .take(u64::try_from(most).unwrap_or(u64::MAX))
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() > MAX_AUTHORIZED_KEYS_FILE {
        return Err(KeysError::Odd(FILE, "larger than any such file should be"));
    }
    // To write back what is none would change it.
    String::from_utf8(bytes).map_err(|_| KeysError::Odd(FILE, "no text in UTF-8"))
}

/// Puts another text into the file: whole, or the old one stays.
fn replace(folder: &OwnedFd, user: &User, before: &str, text: &str) -> Result<(), KeysError> {
    if before == text {
        return Ok(());
    }
    if text.len() > MAX_AUTHORIZED_KEYS_FILE {
        return Err(KeysError::Odd(FILE, "full: remove keys first"));
    }
    // Of an agent that was ended in the middle.
    let _ = rustix::fs::unlinkat(folder, NEW, AtFlags::empty());
    let written = write(folder, user, text);
    if written.is_err() {
        // What is left of it helps nobody; the error that counts is the first.
        let _ = rustix::fs::unlinkat(folder, NEW, AtFlags::empty());
    }
    written.map_err(|error| KeysError::Io(FILE, error))
}

fn write(folder: &OwnedFd, user: &User, text: &str) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, NEW, flags, Mode::RUSR | Mode::WUSR)?;
    own(&file, user)?;
    let mut file = File::from(file);
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    rustix::fs::renameat(folder, NEW, folder, FILE)?;
    rustix::fs::fsync(folder)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    };

    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== me@example";
    const OTHER: &str = "ssh-rsa AAAAB3NzaC1yc2E=";

    fn guest() -> (tempfile::TempDir, User) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("home/web")).unwrap();
        // Who runs the tests: only root may give files to others.
        let owner = fs::metadata(dir.path()).unwrap();
        let user = User {
            name: "web".to_owned(),
            uid: owner.uid(),
            gid: owner.gid(),
            home: "/home/web".into(),
            shell: String::new(),
        };
        (dir, user)
    }

    fn lines(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|&line| line.to_owned()).collect()
    }

    #[test]
    fn a_key_has_a_type_and_base64_after_its_options() {
        for key in [
            KEY,
            OTHER,
            &format!("restrict,command=\"echo \\\"a b\\\"\" {KEY}"),
            &format!("no-pty\t{OTHER} a comment with words"),
        ] {
            assert_eq!(check(key), Ok(()), "{key}");
        }
        for (key, part) in [
            ("", "types"),
            ("# comment", "types"),
            ("# ssh-rsa AAAAB3Nz", "types"),
            ("ssh-unknown AAAA", "types"),
            ("ssh-rsa", "base64"),
            ("ssh-rsa AAA", "base64"),
            ("ssh-rsa AAAA====", "base64"),
            ("ssh-rsa AAAAB3N!", "base64"),
            ("ssh-rsa BBBB", "base64"),
            ("a b ssh-rsa AAAAB3Nz", "types"),
            ("command=\"x ssh-rsa AAAAB3Nz", "types"),
            ("ssh-rsa AAAAB3Nz\nssh-rsa AAAAB3Nz", "one line"),
            ("ssh-rsa AAAAB3Nz\0", "one line"),
            (&"x".repeat(MAX_AUTHORIZED_KEY + 1), "is the most"),
        ] {
            let why = check(key).unwrap_err();
            assert!(why.contains(part), "{key:?}: {why}");
        }
    }

    #[test]
    fn keys_are_added_once_and_removed_and_the_rest_of_the_file_stays() {
        let (dir, user) = guest();
        let root = dir.path();
        assert!(list(root, &user).unwrap().is_empty());
        assert_eq!(remove(root, &user, &lines(&[KEY])).unwrap(), 0);
        assert!(!root.join("home/web/.ssh").exists());
        assert_eq!(add(root, &user, &lines(&[KEY, KEY]), false).unwrap(), 1);
        let path = root.join("home/web/.ssh/authorized_keys");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        fs::write(&path, format!("# by hand\n\n{KEY}")).unwrap();
        assert_eq!(add(root, &user, &lines(&[KEY, OTHER]), false).unwrap(), 1);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("# by hand\n\n{KEY}\n{OTHER}\n"));
        assert_eq!(list(root, &user).unwrap(), [KEY, OTHER]);
        assert_eq!(remove(root, &user, &lines(&[KEY, "x"])).unwrap(), 1);
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            format!("# by hand\n\n{OTHER}\n")
        );
        assert_eq!(add(root, &user, &lines(&[KEY]), true).unwrap(), 1);
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{KEY}\n"));
        let names = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(names, 1, "nothing is left behind");
    }

    #[test]
    fn no_link_of_the_users_is_followed() {
        let (dir, user) = guest();
        let root = dir.path();
        let secret = root.join("secret");
        fs::write(&secret, format!("{KEY}\n")).unwrap();
        let folder = root.join("home/web/.ssh");
        let refused = |part: &str| {
            let all = [
                list(root, &user).map(drop),
                add(root, &user, &lines(&[OTHER]), true).map(drop),
                remove(root, &user, &lines(&[KEY])).map(drop),
            ];
            for result in all {
                let why = result.unwrap_err().to_string();
                assert!(why.contains(part), "{why}");
            }
            assert_eq!(fs::read_to_string(&secret).unwrap(), format!("{KEY}\n"));
        };
        symlink(root, &folder).unwrap();
        refused(".ssh is no folder, or a link");
        fs::remove_file(&folder).unwrap();
        fs::create_dir(&folder).unwrap();
        let file = folder.join(FILE);
        symlink(&secret, &file).unwrap();
        refused("authorized_keys is a link");
        fs::remove_file(&file).unwrap();
        fs::hard_link(&secret, &file).unwrap();
        refused("a second name");
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        refused("no regular file");
    }

    #[test]
    fn a_file_that_is_no_list_of_keys_is_left_alone() {
        let (dir, user) = guest();
        add(dir.path(), &user, &lines(&[KEY]), false).unwrap();
        let path = dir.path().join("home/web/.ssh/authorized_keys");
        for content in [
            b"\xff\xfe".to_vec(),
            vec![b'x'; MAX_AUTHORIZED_KEYS_FILE + 1],
        ] {
            fs::write(&path, &content).unwrap();
            assert!(add(dir.path(), &user, &lines(&[KEY]), false).is_err());
            assert!(fs::read(&path).unwrap() == content);
        }
    }
}
