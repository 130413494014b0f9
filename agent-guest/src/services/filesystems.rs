//! Sizes of file systems, some of which never answer.
//!
//! `statvfs` on a mount whose server is dead blocks for ever, and nothing can interrupt it. So it runs on a thread of its
//! own, one after the other, local file systems first. A mount that takes longer than [`STATVFS_TIMEOUT`] is *stuck*: its
//! thread is left behind, its sizes are 0, a new thread goes on with the next mount, and nobody asks the stuck one again
//! before its thread has come back. At most [`MAX_STUCK_STATVFS`] threads are left behind.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::fs::{StatVfs, StatVfsMountFlags};
use tokio::{sync::Notify, time::Instant};
use vbridge_api::guest::v1::FilesystemStatus;

use crate::{
    limits::{FILESYSTEMS_FRESHNESS, MAX_STUCK_STATVFS, STATVFS_TIMEOUT, STATVFS_TOTAL},
    source::{
        Reader,
        mounts::{self, Mount},
    },
};

/// Asks for the size of the file system at a mount point; `None` if it fails.
type Ask = dyn Fn(&str) -> Option<StatVfs> + Send + Sync;

/// A file system, and what `System.GetStatus` tells of it.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pub(crate) mount: Mount,
    pub(crate) status: FilesystemStatus,
}

/// Reads the sizes, for one caller at a time.
pub(crate) struct Filesystems {
    ask: Arc<Ask>,
    stuck: Arc<Mutex<HashSet<String>>>,
    /// The last answer. Who waits for the lock gets what the one before has just read.
    last: tokio::sync::Mutex<Option<(Instant, Vec<Measured>)>>,
}

/// What a thread and the task that waits for it share.
#[derive(Default)]
struct Job {
    results: Mutex<Results>,
    finished: Notify,
}

#[derive(Default)]
struct Results {
    /// Of the first mounts of the job.
    sizes: Vec<Option<StatVfs>>,
    /// Nobody waits any more: the thread ends when its call comes back.
    abandoned: bool,
}

impl Filesystems {
    pub(crate) fn new() -> Self {
        Self::with(|point| rustix::fs::statvfs(point).ok())
    }

    fn with(ask: impl Fn(&str) -> Option<StatVfs> + Send + Sync + 'static) -> Self {
        Self {
            ask: Arc::new(ask),
            stuck: Arc::default(),
            last: tokio::sync::Mutex::default(),
        }
    }

    /// The mounted file systems that hold data, local ones first; none without /proc.
    pub(crate) async fn read(&self) -> Vec<Measured> {
        let mut last = self.last.lock().await;
        if let Some((at, filesystems)) = &*last
            && at.elapsed() < FILESYSTEMS_FRESHNESS
        {
            return filesystems.clone();
        }
        let mounts = Reader::new()
            .read(mounts::FILE)
            .map(|text| mounts::parse(&text));
        let filesystems = self.sizes(mounts.unwrap_or_default()).await;
        *last = Some((Instant::now(), filesystems.clone()));
        filesystems
    }

    async fn sizes(&self, mut mounts: Vec<Mount>) -> Vec<Measured> {
        mounts.sort_by_key(Mount::is_remote);
        let mut filesystems = Vec::with_capacity(mounts.len());
        let end = Instant::now() + STATVFS_TOTAL;
        let mut rest = mounts.as_slice();
        while let Some((mount, after)) = rest.split_first() {
            if lock(&self.stuck).len() >= MAX_STUCK_STATVFS || Instant::now() >= end {
                filesystems.extend(rest.iter().map(Measured::unknown));
                break;
            }
            if lock(&self.stuck).contains(&mount.point) {
                filesystems.push(Measured::unknown(mount));
                rest = after;
                continue;
            }
            let sizes = self.run(rest, end).await;
            // A file system without any blocks holds no data (an empty ramfs, a container's masks).
            let known = rest.iter().zip(&sizes).filter_map(|(mount, size)| {
                size.as_ref().and_then(|size| Measured::known(mount, size))
            });
            filesystems.extend(known);
            rest = &rest[sizes.len()..];
        }
        filesystems
    }

    /// Asks for the sizes of `mounts` up to the first that is stuck.
    async fn run(&self, mounts: &[Mount], end: Instant) -> Vec<Option<StatVfs>> {
        let job = Arc::new(Job::default());
        let points: Vec<_> = mounts
            .iter()
            .map(|mount| mount.point.clone())
            .take_while(|point| !lock(&self.stuck).contains(point))
            .collect();
        let all = points.len();
        let (thread_job, ask, stuck) = (
            Arc::clone(&job),
            Arc::clone(&self.ask),
            Arc::clone(&self.stuck),
        );
        let last_point = points.clone();
        tokio::task::spawn_blocking(move || work(&points, &*ask, &thread_job, &stuck));
        let mut seen = 0;
        loop {
            let pause = STATVFS_TIMEOUT.min(end.saturating_duration_since(Instant::now()));
            let finished = tokio::time::timeout(pause, job.finished.notified())
                .await
                .is_ok();
            let mut results = lock(&job.results);
            let done = results.sizes.len();
            if finished || done == all {
                return std::mem::take(&mut results.sizes);
            }
            if done > seen && pause > Duration::ZERO {
                seen = done;
                continue;
            }
            results.abandoned = true;
            lock(&self.stuck).insert(last_point[done].clone());
            return std::mem::take(&mut results.sizes);
        }
    }
}

/// The thread.
fn work(points: &[String], ask: &Ask, job: &Job, stuck: &Mutex<HashSet<String>>) {
    for point in points {
        let size = ask(point);
        let mut results = lock(&job.results);
        if results.abandoned {
            lock(stuck).remove(point);
            return;
        }
        results.sizes.push(size);
    }
    job.finished.notify_one();
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Measured {
    fn unknown(mount: &Mount) -> Self {
        Self {
            mount: mount.clone(),
            status: FilesystemStatus {
                mount_point: mount.point.clone(),
                source: mount.source.clone(),
                r#type: mount.kind.clone(),
                read_only: mount.read_only,
                ..FilesystemStatus::default()
            },
        }
    }

    fn known(mount: &Mount, size: &StatVfs) -> Option<Self> {
        if size.f_blocks == 0 {
            return None;
        }
        let bytes = |blocks: u64| blocks.saturating_mul(size.f_frsize);
        let mut known = Self::unknown(mount);
        known.status = FilesystemStatus {
            total_bytes: bytes(size.f_blocks),
            used_bytes: bytes(size.f_blocks.saturating_sub(size.f_bfree)),
            available_bytes: bytes(size.f_bavail),
            inodes_total: size.f_files,
            inodes_used: size.f_files.saturating_sub(size.f_ffree),
            read_only: mount.read_only || size.f_flag.contains(StatVfsMountFlags::RDONLY),
            ..known.status
        };
        Some(known)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn mount(point: &str, kind: &str) -> Mount {
        Mount {
            point: point.to_owned(),
            source: "server:/export".to_owned(),
            kind: kind.to_owned(),
            ..Mount::default()
        }
    }

    /// File systems of which those below `/dead` do not answer before the sender is dropped.
    fn with_dead_ones() -> (Filesystems, mpsc::Sender<()>) {
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let filesystems = Filesystems::with(move |point| {
            if point.starts_with("/dead") {
                let _ = lock(&released).recv();
            }
            rustix::fs::statvfs("/").ok()
        });
        (filesystems, release)
    }

    #[tokio::test]
    async fn this_machine_has_a_root() {
        let filesystems = Filesystems::new().read().await;
        let root = filesystems
            .iter()
            .find(|filesystem| filesystem.mount.point == "/")
            .map(|root| &root.status)
            .unwrap();
        assert!(root.total_bytes >= root.used_bytes && root.total_bytes > 0);
        assert!(
            filesystems
                .iter()
                .all(|filesystem| filesystem.mount.kind != "proc")
        );
    }

    #[tokio::test]
    async fn a_dead_server_costs_one_timeout_once_and_hides_nothing() {
        let (filesystems, release) = with_dead_ones();
        let mounts = vec![
            mount("/dead", "nfs4"),
            mount("/", "ext4"),
            mount("/srv", "nfs4"),
        ];
        let start = Instant::now();
        let sizes = filesystems.sizes(mounts.clone()).await;
        assert!(start.elapsed() >= STATVFS_TIMEOUT);
        let told: Vec<_> = sizes
            .iter()
            .map(|measured| {
                (
                    measured.mount.point.as_str(),
                    measured.status.total_bytes > 0,
                )
            })
            .collect();
        assert_eq!(told, [("/", true), ("/dead", false), ("/srv", true)]);
        let start = Instant::now();
        assert_eq!(filesystems.sizes(mounts.clone()).await.len(), 3);
        assert!(
            start.elapsed() < STATVFS_TIMEOUT,
            "it is not asked again while its thread hangs"
        );
        drop(release);
        while !lock(&filesystems.stuck).is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(
            filesystems
                .sizes(mounts)
                .await
                .iter()
                .all(|measured| measured.status.total_bytes > 0)
        );
    }

    #[tokio::test]
    async fn many_dead_servers_end_in_time_and_in_few_threads() {
        let (filesystems, _release) = with_dead_ones();
        let mounts: Vec<_> = (0..50)
            .map(|number| mount(&format!("/dead/{number}"), "nfs"))
            .collect();
        for _ in 0..3 {
            let start = Instant::now();
            assert_eq!(filesystems.sizes(mounts.clone()).await.len(), 50);
            assert!(start.elapsed() < STATVFS_TOTAL + STATVFS_TIMEOUT * 2);
        }
        assert!(lock(&filesystems.stuck).len() <= MAX_STUCK_STATVFS);
    }
}
