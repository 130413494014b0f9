//! Which file systems a call is about, and which are left out, and why.

use tonic::Status;

use crate::{
    error::{self, Reason},
    source::mounts::{self, Mount},
};

/// The file systems of a call, each once, in the order in which they were mounted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) chosen: Vec<Mount>,
    /// Mount points of those that nothing is done to, and why.
    pub(super) skipped: Vec<(String, String)>,
}

impl Plan {
    /// Chooses the file systems that are mounted at `points`; all that hold data if there are none.
    pub(super) fn new(mountinfo: &str, points: &[String]) -> Result<Self, Status> {
        let mut mounts = match points {
            [] => mounts::parse(mountinfo),
            points => at(points, &mounts::in_reach(mountinfo))?,
        };
        mounts.sort_by_key(|mount| mount.order);
        let mut plan = Self::default();
        for mount in mounts {
            let known = plan.chosen.iter().find(|known| mount.is_same(known));
            let obstacle = match known {
                Some(known) => Some(format!("the same file system as {}", known.point)),
                None => obstacle(&mount).map(str::to_owned),
            };
            match obstacle {
                Some(why) => plan.skipped.push((mount.point, why)),
                None => plan.chosen.push(mount),
            }
        }
        Ok(plan)
    }
}

fn at(points: &[String], mounts: &[Mount]) -> Result<Vec<Mount>, Status> {
    let mut found: Vec<Mount> = Vec::with_capacity(points.len());
    for point in points {
        let bare = match point.trim_end_matches('/') {
            "" if point.starts_with('/') => "/",
            bare => bare,
        };
        let mount = mounts.iter().find(|mount| mount.point == bare);
        let mount = mount.ok_or_else(|| {
            let message = format!(
                "nothing is mounted at {point:?} in the guest: ListFilesystems tells what is"
            );
            error::failure(Reason::NotFound, message)
        })?;
        if !found.iter().any(|known| known.point == mount.point) {
            found.push(mount.clone());
        }
    }
    Ok(found)
}

/// What is known of a file system without asking it. A server that is gone would never answer.
fn obstacle(mount: &Mount) -> Option<&'static str> {
    match mount {
        mount if mount.is_pseudo() => Some("it holds the kernel's own objects, and no data"),
        mount if mount.is_remote() => Some("it lies on a server"),
        mount if mount.is_in_memory() => Some("it is in memory"),
        // A mount that is read-only is not enough: the same file system may be written to elsewhere.
        mount if mount.sealed => Some("it is read-only"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    const MOUNTS: &str = "\
        1 0 0:21 / /proc rw - proc proc rw\n\
        2 0 254:1 / / ro - ext4 /dev/vda1 rw\n\
        3 2 254:2 / /data rw - xfs /dev/vda2 rw\n\
        4 2 254:1 /srv /export rw - ext4 /dev/vda1 rw\n\
        5 2 0:30 / /run rw - tmpfs tmpfs rw\n\
        6 2 0:40 / /net rw - nfs4 server:/x rw\n\
        7 2 11:0 / /cd rw - iso9660 /dev/sr0 ro\n";

    fn plan(points: &[&str]) -> (Vec<String>, Vec<String>) {
        let points: Vec<_> = points.iter().map(|&point| point.to_owned()).collect();
        let plan = Plan::new(MOUNTS, &points).unwrap();
        let chosen = plan.chosen.into_iter().map(|mount| mount.point);
        let skipped = plan.skipped.into_iter();
        (
            chosen.collect(),
            skipped
                .map(|(point, why)| format!("{point}: {why}"))
                .collect(),
        )
    }

    #[test]
    fn by_default_it_is_all_that_lie_on_a_disk_that_can_be_written_to() {
        let (chosen, skipped) = plan(&[]);
        assert_eq!(chosen, ["/", "/data"]);
        assert_eq!(
            skipped,
            [
                "/run: it is in memory",
                "/net: it lies on a server",
                "/cd: it is read-only",
            ]
        );
    }

    #[test]
    fn what_is_asked_for_is_chosen_once_and_in_the_order_of_mounting() {
        let (chosen, skipped) = plan(&["/export/", "/proc", "/data", "/", "/data"]);
        assert_eq!(chosen, ["/", "/data"]);
        assert_eq!(
            skipped,
            [
                "/proc: it holds the kernel's own objects, and no data",
                "/export: the same file system as /",
            ]
        );
        // By whatever path it is named.
        assert_eq!(plan(&["/export"]).0, ["/export"]);
    }

    #[test]
    fn a_point_where_nothing_is_mounted_is_not_found() {
        for point in ["/srv", "data", "", "/data/x"] {
            let status = Plan::new(MOUNTS, &[point.to_owned()]).unwrap_err();
            assert_eq!(status.code(), Code::NotFound, "{point:?}");
        }
    }
}
