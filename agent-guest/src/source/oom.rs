//! Processes that the kernel has killed for want of memory: the counter in `/proc/vmstat`, and the names in its log
//! (`/dev/kmsg`), if that may be read.

use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, SeekFrom, open, seek},
    io::{Errno, read},
};
use vbridge_api::guest::v1::OomKill;

use super::Reader;
use crate::limits::{MAX_KMSG_RECORD, MAX_KMSG_RECORDS, MAX_OOM_EVENTS};

/// The counter's name.
const COUNTER: &str = "oom_kill ";

/// What the kernel says of a victim: `Killed process 42 (name) total-vm:…`.
const VICTIM: &str = "Killed process ";

/// Records of this priority and above come from programs and not from the kernel (syslog(3): facility times 8).
const FIRST_OF_PROGRAMS: u32 = 8;

/// The kills, as they were when they were looked at last.
#[derive(Debug)]
pub(crate) struct OomKills {
    reader: Reader,
    log: Option<OwnedFd>,
    /// `None` before the first look.
    total: Option<u64>,
    /// Found in the log and not told yet, at most [`MAX_OOM_EVENTS`].
    victims: VecDeque<(u32, String)>,
    /// The last look found more kills than victims: the kernel counts before it says whom.
    has_waited: bool,
}

impl OomKills {
    pub(crate) fn below(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self {
            log: open_log(&root),
            reader: Reader::below(root),
            total: None,
            victims: VecDeque::new(),
            has_waited: false,
        }
    }

    /// Those since the last look; at the first, none. It may block.
    pub(crate) fn new_ones(&mut self) -> Vec<OomKill> {
        let now = self.count();
        self.read_log();
        let Some((now, before)) = now.zip(self.total) else {
            self.total = now;
            return Vec::new();
        };
        let new = now.saturating_sub(before);
        let told = usize::try_from(new).map_or(MAX_OOM_EVENTS, |new| new.min(MAX_OOM_EVENTS));
        if told > self.victims.len() && self.log.is_some() && !self.has_waited {
            self.has_waited = true;
            return Vec::new();
        }
        self.has_waited = false;
        self.total = Some(now);
        // The last kills, and the last victims.
        self.victims
            .drain(..self.victims.len().saturating_sub(told));
        let unnamed = told - self.victims.len();
        let mut kills = Vec::new();
        for at in 0..told {
            let victim = (at >= unnamed).then(|| self.victims.pop_front()).flatten();
            let (pid, program) = victim.unwrap_or_default();
            // As many as are told lie between the last and this one.
            let later = u64::try_from(told - 1 - at).unwrap_or_default();
            let total = now - later;
            kills.push(OomKill {
                total,
                pid,
                program,
            });
        }
        kills
    }

    fn count(&mut self) -> Option<u64> {
        let text = self.reader.read("proc/vmstat").ok()?;
        let count = text.lines().find_map(|line| line.strip_prefix(COUNTER))?;
        count.trim().parse().ok()
    }

    fn read_log(&mut self) {
        let Some(log) = &self.log else {
            return;
        };
        let mut record = [0; MAX_KMSG_RECORD];
        for _ in 0..MAX_KMSG_RECORDS {
            let text = match read(log, &mut record) {
                // Records were overwritten before they were read: the next is the oldest that is left.
                Err(Errno::PIPE) => continue,
                Ok(0) | Err(_) => return,
                Ok(length) => String::from_utf8_lossy(record.get(..length).unwrap_or_default()),
            };
            for victim in text.lines().filter_map(victim) {
                if self.victims.len() == MAX_OOM_EVENTS {
                    self.victims.pop_front();
                }
                self.victims.push_back(victim);
            }
        }
    }
}

/// The kernel's log, from now on.
fn open_log(root: &Path) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let log = open(root.join("dev/kmsg"), flags, Mode::empty()).ok()?;
    seek(&log, SeekFrom::End(0)).ok()?;
    Some(log)
}

/// Whom a record of the kernel's says to be killed.
pub(super) fn victim(record: &str) -> Option<(u32, String)> {
    let (head, text) = record.split_once(';')?;
    let priority: u32 = head.split(',').next()?.parse().ok()?;
    let (_, rest) = text.split_once(VICTIM)?;
    let (pid, rest) = rest.split_once(" (")?;
    // A name may have parentheses in it.
    let end = [") total-vm", "), "]
        .iter()
        .filter_map(|end| rest.find(end))
        .min()?;
    let pid = pid.parse().ok()?;
    (priority < FIRST_OF_PROGRAMS).then(|| (pid, rest[..end].to_owned()))
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use super::*;

    fn set(root: &Path, count: u64) {
        fs::create_dir_all(root.join("proc")).unwrap();
        let text = format!("nr_free_pages 1\noom_kill {count}\nnuma_hit 7\n");
        fs::write(root.join("proc/vmstat"), text).unwrap();
    }

    fn say(root: &Path, text: &str) {
        fs::create_dir_all(root.join("dev")).unwrap();
        let path = root.join("dev/kmsg");
        let log = fs::File::options().append(true).create(true).open(path);
        writeln!(log.unwrap(), "{text}").unwrap();
    }

    fn told(kills: &mut OomKills) -> Vec<(u64, u32, String)> {
        let new = kills.new_ones().into_iter();
        new.map(|kill| (kill.total, kill.pid, kill.program))
            .collect()
    }

    #[test]
    fn a_kill_is_told_with_the_name_that_the_log_has() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        set(root, 2);
        say(
            root,
            "3,1,1,-;Out of memory: Killed process 1 (old) total-vm:1kB",
        );
        let mut kills = OomKills::below(root);
        assert_eq!(told(&mut kills), []);
        set(root, 4);
        say(root, "6,2,2,-;something else");
        say(
            root,
            "3,3,3,-;Memory cgroup out of memory: Killed process 42 (a (b) c) total-vm:1kB",
        );
        say(
            root,
            "3,4,4,-;Out of memory: Killed process 43 (other), UID 0, total-vm:1kB",
        );
        let expected = [(3, 42, "a (b) c".to_owned()), (4, 43, "other".to_owned())];
        assert_eq!(told(&mut kills), expected);
        assert_eq!(told(&mut kills), []);
    }

    #[test]
    fn a_name_that_comes_late_is_waited_for_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        set(root, 0);
        say(root, "6,1,1,-;boot");
        let mut kills = OomKills::below(root);
        assert_eq!(told(&mut kills), []);
        set(root, 1);
        assert_eq!(told(&mut kills), [], "the name may yet come");
        say(
            root,
            "3,2,2,-;Out of memory: Killed process 9 (late) total-vm:1kB",
        );
        assert_eq!(told(&mut kills), [(1, 9, "late".to_owned())]);
        set(root, 2);
        assert_eq!(told(&mut kills), []);
        assert_eq!(told(&mut kills), [(2, 0, String::new())]);
    }

    #[test]
    fn without_a_log_only_the_last_of_many_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let mut kills = OomKills::below(dir.path());
        assert_eq!(told(&mut kills), [], "there is no counter");
        set(dir.path(), 1);
        assert_eq!(told(&mut kills), []);
        set(dir.path(), 101);
        let all = told(&mut kills);
        assert_eq!(all.len(), MAX_OOM_EVENTS);
        assert_eq!(all.last().unwrap().0, 101);
    }

    #[test]
    fn what_a_program_writes_into_the_log_is_not_believed() {
        let text = "Killed process 1 (init) total-vm:1kB";
        assert_eq!(
            victim(&format!("3,1,1,-;{text}")),
            Some((1, "init".to_owned()))
        );
        assert_eq!(victim(&format!("12,1,1,-;{text}")), None);
        assert_eq!(victim(text), None);
    }
}
