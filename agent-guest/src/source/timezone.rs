//! The time zone of the guest's clocks: `/etc/localtime`, and `/etc/timezone` where that does not tell its name.

use std::{fs, path::Path};

use tz::TimeZone;
use vbridge_api::guest::v1::GetTimezoneResponse;

use crate::limits::MAX_TIMEZONE_FILE;

/// Where a zone's name begins in the path that the link leads to.
const DATABASE: &str = "zoneinfo/";

/// The time zone at a time in seconds since 1970. Without a file it is UTC, as the C library has it.
pub(crate) fn read(root: &Path, now: i64) -> GetTimezoneResponse {
    let localtime = root.join("etc/localtime");
    let name = linked(&localtime).or_else(|| {
        let text = fs::read_to_string(root.join("etc/timezone")).ok()?;
        let name = text.trim();
        (!name.is_empty()).then(|| name.to_owned())
    });
    let zone = data(&localtime).and_then(|data| TimeZone::from_tz_data(&data).ok());
    let local = zone
        .as_ref()
        .and_then(|zone| zone.find_local_time_type(now).ok());
    match local {
        Some(local) => GetTimezoneResponse {
            name: name.unwrap_or_default(),
            abbreviation: local.time_zone_designation().to_owned(),
            offset_seconds: local.ut_offset(),
        },
        None => GetTimezoneResponse {
            name: name.unwrap_or_else(|| "UTC".to_owned()),
            abbreviation: "UTC".to_owned(),
            offset_seconds: 0,
        },
    }
}

/// The name in the path that the link leads to.
fn linked(localtime: &Path) -> Option<String> {
    let path = fs::read_link(localtime).ok()?;
    let (_, name) = path.to_str()?.split_once(DATABASE)?;
    Some(name.to_owned())
}

fn data(localtime: &Path) -> Option<Vec<u8>> {
    let length = fs::metadata(localtime).ok()?.len();
    (length <= MAX_TIMEZONE_FILE).then(|| fs::read(localtime).ok())?
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A zone without changes: an hour ahead, called CET. As RFC 8536 has it, in its first version.
    fn cet() -> Vec<u8> {
        let mut file = b"TZif\0".to_vec();
        file.extend([0; 15]);
        // Counts: UT indicators, standard indicators, leap seconds, transitions, types, characters.
        for count in [0_u32, 0, 0, 0, 1, 4] {
            file.extend(count.to_be_bytes());
        }
        file.extend(3600_i32.to_be_bytes());
        file.extend([0, 0]);
        file.extend(b"CET\0");
        file
    }

    fn machine() -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path().join("etc");
        fs::create_dir(&etc).unwrap();
        (dir, etc)
    }

    #[test]
    fn a_link_tells_the_name_and_the_file_the_offset() {
        let (dir, etc) = machine();
        let database = dir.path().join("zoneinfo/Europe");
        fs::create_dir_all(&database).unwrap();
        fs::write(database.join("Warsaw"), cet()).unwrap();
        symlink(database.join("Warsaw"), etc.join("localtime")).unwrap();
        let zone = read(dir.path(), 1_700_000_000);
        assert_eq!(
            (
                zone.name.as_str(),
                zone.abbreviation.as_str(),
                zone.offset_seconds
            ),
            ("Europe/Warsaw", "CET", 3600)
        );
    }

    #[test]
    fn a_copy_has_its_name_in_a_file_of_its_own() {
        let (dir, etc) = machine();
        fs::write(etc.join("localtime"), cet()).unwrap();
        assert_eq!(read(dir.path(), 0).name, "");
        fs::write(etc.join("timezone"), "Europe/Warsaw\n").unwrap();
        assert_eq!(read(dir.path(), 0).name, "Europe/Warsaw");
    }

    #[test]
    fn without_a_zone_it_is_utc() {
        let (dir, etc) = machine();
        for content in [None, Some(&b"no zone"[..])] {
            if let Some(content) = content {
                fs::write(etc.join("localtime"), content).unwrap();
            }
            let zone = read(dir.path(), 0);
            assert_eq!(
                (
                    zone.name.as_str(),
                    zone.abbreviation.as_str(),
                    zone.offset_seconds
                ),
                ("UTC", "UTC", 0)
            );
        }
    }
}
