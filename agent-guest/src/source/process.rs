//! Processes in `/proc` (proc_pid_stat(5)).

use std::fs;

use super::Reader;

/// Whether a process of a group lives. Zombies don't. None if that can't be seen.
pub(crate) fn is_group_alive(reader: &mut Reader, group: i32) -> Option<bool> {
    let entries = fs::read_dir(reader.root.join("proc")).ok()?;
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut pids = pids.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    Some(pids.any(|pid| {
        // One that has gone meanwhile does not live.
        let stat = reader.read(&format!("proc/{pid}/stat"));
        stat.is_ok_and(|text| {
            parse(&text).is_some_and(|(state, of)| of == group && !matches!(state, 'Z' | 'X'))
        })
    }))
}

/// State and group. The name before them, in parentheses, may have anything in it.
pub(crate) fn parse(text: &str) -> Option<(char, i32)> {
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let _parent = fields.next()?;
    Some((state, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_look_like_the_fields_behind_it() {
        let text = "7 (a) R 1 2) S 1 42 42 0 -1 4194560";
        assert_eq!(parse(text), Some(('S', 42)));
        assert_eq!(parse("7 (a"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn a_group_of_zombies_is_dead() {
        let dir = tempfile::tempdir().unwrap();
        let mut reader = Reader::below(dir.path());
        assert_eq!(is_group_alive(&mut reader, 42), None);
        let add = |pid: &str, stat: &str| {
            let folder = dir.path().join("proc").join(pid);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("stat"), stat).unwrap();
        };
        add("42", "42 (sh) Z 1 42 42 0");
        add("43", "43 (sleep) S 1 41 41 0");
        add("self", "44 (x) S 1 42 42 0");
        assert_eq!(is_group_alive(&mut reader, 42), Some(false));
        add("45", "45 (sleep) S 42 42 42 0");
        assert_eq!(is_group_alive(&mut reader, 42), Some(true));
    }
}
