//! Who is logged in: `/run/utmp`, whose records utmp(5) describes.
//!
//! A record has 384 bytes with times of 32 bits where a 64-bit system can run 32-bit programs (x86, Arm, RISC-V), which
//! are the guests that there are. The numbers are in the machine's own order.

use prost_types::Timestamp;
use vbridge_api::guest::v1::UserSession;

use crate::limits::MAX_USER_SESSIONS;

/// Where the records are; the older place is a link to it, or the same.
pub(crate) const FILES: [&str; 2] = ["run/utmp", "var/run/utmp"];

const RECORD: usize = 384;

/// `USER_PROCESS`: somebody is logged in.
const USER: i16 = 7;

// Where the fields of a record begin, and how long the texts are.
const LINE: (usize, usize) = (8, 32);
const NAME: (usize, usize) = (44, 32);
const HOST: (usize, usize) = (76, 256);
const SECONDS: usize = 340;
const MICROSECONDS: usize = 344;

/// The sessions in the order of their beginning, [`MAX_USER_SESSIONS`] at most. What is left over at the end is no record.
pub(crate) fn parse(bytes: &[u8]) -> Vec<UserSession> {
    let mut sessions: Vec<_> = bytes
        .chunks_exact(RECORD)
        .filter_map(parse_record)
        .take(MAX_USER_SESSIONS)
        .collect();
    sessions.sort_by_key(|session| {
        let time = session.login_time.unwrap_or_default();
        (time.seconds, time.nanos)
    });
    sessions
}

fn parse_record(record: &[u8]) -> Option<UserSession> {
    let kind = i16::from_ne_bytes(*record.first_chunk()?);
    let user = text(record, NAME);
    if kind != USER || user.is_empty() {
        return None;
    }
    // Unsigned: there is nobody who has logged in before 1970, and so it lasts until 2106.
    let seconds = u32::from_ne_bytes(*record.get(SECONDS..)?.first_chunk()?);
    let microseconds = i32::from_ne_bytes(*record.get(MICROSECONDS..)?.first_chunk()?);
    Some(UserSession {
        user,
        terminal: text(record, LINE),
        host: text(record, HOST),
        login_time: Some(Timestamp {
            seconds: seconds.into(),
            nanos: microseconds.clamp(0, 999_999) * 1000,
        }),
    })
}

/// A text that a NUL ends unless it fills its field.
fn text(record: &[u8], (from, length): (usize, usize)) -> String {
    let field = record.get(from..from + length).unwrap_or_default();
    let end = field.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&field[..end.unwrap_or(field.len())]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: i16, user: &str, line: &str, host: &str, seconds: u32) -> Vec<u8> {
        let mut record = vec![0; RECORD];
        record[..2].copy_from_slice(&kind.to_ne_bytes());
        for ((from, _), text) in [(NAME, user), (LINE, line), (HOST, host)] {
            record[from..from + text.len()].copy_from_slice(text.as_bytes());
        }
        record[SECONDS..SECONDS + 4].copy_from_slice(&seconds.to_ne_bytes());
        record[MICROSECONDS..MICROSECONDS + 4].copy_from_slice(&250_000_i32.to_ne_bytes());
        record
    }

    #[test]
    fn those_who_are_logged_in_are_told_the_first_first() {
        let long = "u".repeat(32);
        let file = [
            record(2, "reboot", "~", "6.1.0", 1),
            record(USER, "late", "pts/0", "192.0.2.7", 2_000_000_000),
            record(8, "gone", "pts/1", "", 5),
            record(USER, &long, "tty1", "", 1_700_000_000),
            record(USER, "", "tty2", "", 3),
        ]
        .concat();
        let sessions = parse(&file);
        let users: Vec<_> = sessions
            .iter()
            .map(|it| (it.user.as_str(), it.terminal.as_str(), it.host.as_str()))
            .collect();
        assert_eq!(
            users,
            [(long.as_str(), "tty1", ""), ("late", "pts/0", "192.0.2.7")]
        );
        let time = sessions[0].login_time.unwrap();
        assert_eq!((time.seconds, time.nanos), (1_700_000_000, 250_000_000));
    }

    #[test]
    fn what_is_no_record_is_passed_over() {
        assert!(parse(b"").is_empty());
        assert!(parse(&[7; RECORD - 1]).is_empty());
        let file = record(USER, "one", "tty1", "", 3);
        assert_eq!(parse(&[&file[..], &[7; 100]].concat()).len(), 1);
        let many = file.repeat(MAX_USER_SESSIONS + 1);
        assert_eq!(parse(&many).len(), MAX_USER_SESSIONS);
    }
}
