//! The service on made-up file systems: no test may stop the machine that it runs on.

use std::{
    collections::BTreeMap,
    sync::{Mutex, mpsc},
};

use rustix::io::Errno;
use storage_server::Storage as _;
use tonic::Code;
use tonic_types::StatusExt as _;
use vbridge_api::guest::v1::{
    FilesystemStatus, FreezeChanged, TrimResult, events_subscribe_response::Event,
};

use super::*;
use crate::{
    events::{Bus, Kinds},
    source::{SourceError, filesystem, mounts::Mount},
    standstill::Standstill,
};

const MOUNTS: &str = "\
    1 0 254:1 / / rw - ext4 /dev/vda1 rw\n\
    2 1 254:2 / /data rw - xfs /dev/vda2 rw\n\
    3 1 254:3 / /efi rw - vfat /dev/vda3 rw\n\
    4 2 7:0 / /data/image rw - ext4 /dev/loop0 rw\n\
    5 1 0:30 / /run rw - tmpfs tmpfs rw\n";

/// What the kernel was told, in order.
type Told = Arc<Mutex<Vec<String>>>;

/// A kernel that only remembers.
#[derive(Clone, Default)]
struct Fake {
    told: Told,
    /// What fails, by what is told.
    errors: BTreeMap<&'static str, Errno>,
    /// Freezing `/data` waits for it.
    gate: Option<Arc<Mutex<mpsc::Receiver<()>>>>,
}

struct FakeFilesystem(Fake, String);

impl Kernel for Fake {
    fn mountinfo(&self) -> Result<String, SourceError> {
        Ok(MOUNTS.to_owned())
    }

    fn open(&self, mount: &Mount) -> Result<Arc<dyn filesystem::Filesystem>, String> {
        Ok(Arc::new(FakeFilesystem(self.clone(), mount.point.clone())))
    }
}

impl FakeFilesystem {
    fn tell(&self, what: &str) -> Result<(), Errno> {
        let told = format!("{what} {}", self.1);
        let error = self.0.errors.get(told.as_str()).copied();
        self.0.told.lock().unwrap().push(told);
        error.map_or(Ok(()), Err)
    }
}

impl filesystem::Filesystem for FakeFilesystem {
    fn freeze(&self) -> Result<(), Errno> {
        if let (Some(gate), "/data") = (&self.0.gate, self.1.as_str()) {
            // Opened, or gone at the test's end.
            let _ = gate.lock().unwrap().recv();
        }
        match self.1.as_str() {
            "/efi" => Err(Errno::OPNOTSUPP),
            _ => self.tell("freeze"),
        }
    }

    fn thaw(&self) -> Result<(), Errno> {
        self.tell("thaw")
    }

    fn trim(&self, minimum: u64) -> Result<u64, Errno> {
        if self.1 == "/efi" {
            return Err(Errno::NOTTY);
        }
        self.tell("trim").map(|()| minimum + 1)
    }
}

struct Machine {
    storage: Storage,
    standstill: Standstill,
    told: Told,
    events: Bus,
    place: tempfile::TempDir,
}

impl Machine {
    fn new(fake: Fake) -> Self {
        let standstill = Standstill::default();
        let told = Arc::clone(&fake.told);
        let kernel: Arc<dyn Kernel> = Arc::new(fake);
        let events = Bus::new();
        let place = tempfile::tempdir().unwrap();
        let records = Records::at(place.path().join("frozen"));
        let freezer = Freezer::new(
            Arc::clone(&kernel),
            standstill.clone(),
            events.clone(),
            records,
        );
        Self {
            storage: Storage::new(Arc::new(Filesystems::new()), kernel, freezer),
            standstill,
            told,
            events,
            place,
        }
    }

    /// Whether there is a record of a standstill.
    fn is_recorded(&self) -> bool {
        self.place.path().join("frozen").exists()
    }

    /// Another agent of the same guest starts. What it tells the kernel.
    async fn another_starts(&self) -> Vec<String> {
        let other = Fake::default();
        let records = Records::at(self.place.path().join("frozen"));
        let told = Arc::clone(&other.told);
        let freezer = Freezer::new(Arc::new(other), Standstill::default(), Bus::new(), records);
        freezer.recover();
        // It is done when its thread is.
        freezer.end().await;
        let told = told.lock().unwrap();
        told.clone()
    }

    fn failing(errors: &[(&'static str, Errno)]) -> Self {
        Self::new(Fake {
            errors: errors.iter().copied().collect(),
            ..Fake::default()
        })
    }

    async fn freeze(&self, limit: Duration) -> Result<StorageFreezeResponse, Status> {
        self.freeze_at(&[], limit).await
    }

    async fn freeze_at(
        &self,
        points: &[&str],
        limit: Duration,
    ) -> Result<StorageFreezeResponse, Status> {
        let request = StorageFreezeRequest {
            mount_points: points.iter().map(|&point| point.to_owned()).collect(),
            limit: Some(limit.try_into().unwrap()),
        };
        let answer = self.storage.freeze(Request::new(request)).await?;
        Ok(answer.into_inner())
    }

    async fn thaw(&self) -> Result<Vec<String>, Status> {
        let answer = self.storage.thaw(Request::new(StorageThawRequest {}));
        Ok(answer.await?.into_inner().thawed)
    }

    async fn status(&self) -> StorageFreezeStatusResponse {
        let request = Request::new(StorageFreezeStatusRequest {});
        let answer = self.storage.freeze_status(request).await;
        answer.unwrap().into_inner()
    }

    async fn trim(&self, points: &[&str]) -> Result<Vec<TrimResult>, Status> {
        let request = StorageTrimRequest {
            mount_points: points.iter().map(|&point| point.to_owned()).collect(),
            minimum_bytes: 4095,
        };
        let answer = self.storage.trim(Request::new(request)).await?;
        Ok(answer.into_inner().results)
    }

    /// Waits until nothing stands still.
    async fn ended(&self) {
        let mut changes = self.standstill.changes();
        changes.wait_for(Option::is_none).await.unwrap();
    }

    fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn what_was_mounted_last_is_frozen_first_and_thawed_last() {
    let machine = Machine::new(Fake::default());
    let answer = machine.freeze(MINUTE).await.unwrap();
    assert_eq!(answer.frozen, ["/data/image", "/data", "/"]);
    assert_eq!(
        answer.skipped,
        [
            "/run: it is in memory",
            "/efi: vfat has no means to be frozen"
        ]
    );
    let status = machine.status().await;
    assert_eq!(status.frozen, answer.frozen);
    assert!((1..=60).contains(&status.remaining.unwrap().seconds));
    assert!(machine.standstill.is_frozen());
    let thawed = machine.thaw().await.unwrap();
    assert_eq!(thawed, ["/", "/data", "/data/image"]);
    assert_eq!(
        machine.told(),
        [
            "freeze /data/image",
            "freeze /data",
            "freeze /",
            "thaw /",
            "thaw /data",
            "thaw /data/image"
        ]
    );
    assert_eq!(
        machine.status().await,
        StorageFreezeStatusResponse::default()
    );
    assert!(!machine.standstill.is_frozen());
}

#[tokio::test]
async fn a_failure_in_the_middle_thaws_what_was_frozen_and_is_named() {
    let machine = Machine::failing(&[("freeze /", Errno::BUSY)]);
    let status = machine.freeze(MINUTE).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(
        status.message().starts_with("/ can't be frozen: ")
            && status.message().contains("something else has frozen it"),
        "{status}"
    );
    assert_eq!(
        machine.told()[3..],
        ["thaw /data", "thaw /data/image"].map(str::to_owned)
    );
    assert!(!machine.standstill.is_frozen());
    let machine = Machine::failing(&[("freeze /", Errno::PERM), ("thaw /data", Errno::IO)]);
    let status = machine.freeze(MINUTE).await.unwrap_err();
    assert!(
        status.message().contains("but can't be thawed: /data: "),
        "{status}"
    );
}

#[tokio::test]
async fn at_the_limit_it_goes_on_by_itself() {
    let machine = Machine::new(Fake::default());
    let answer = machine.freeze_at(&["/data"], MIN_FREEZE).await.unwrap();
    assert_eq!(answer.frozen, ["/data"]);
    machine.ended().await;
    assert_eq!(machine.told(), ["freeze /data", "thaw /data"]);
    assert!(machine.status().await.expired);
    assert_eq!(machine.thaw().await.unwrap(), [""; 0]);
    machine.freeze_at(&["/data"], MINUTE).await.unwrap();
    machine.thaw().await.unwrap();
    assert!(
        !machine.status().await.expired,
        "the last was thawed in time"
    );
}

#[tokio::test]
async fn a_second_standstill_is_refused_and_the_first_stays() {
    let machine = Machine::new(Fake::default());
    machine.freeze_at(&["/"], MINUTE).await.unwrap();
    let status = machine.freeze_at(&["/data"], MINUTE).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "FILESYSTEM_FROZEN");
    assert!(details.retry_info().unwrap().retry_delay.unwrap() > MINUTE / 2);
    let status = machine.trim(&[]).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(machine.told(), ["freeze /"]);
    assert_eq!(machine.thaw().await.unwrap(), ["/"]);
}

#[tokio::test]
async fn thawing_what_is_not_frozen_is_no_error() {
    let machine = Machine::new(Fake::default());
    assert!(machine.thaw().await.unwrap().is_empty());
    let machine = Machine::failing(&[("thaw /", Errno::INVAL), ("thaw /data", Errno::IO)]);
    machine.freeze_at(&["/"], MINUTE).await.unwrap();
    assert!(
        machine.thaw().await.unwrap().is_empty(),
        "something else has thawed it"
    );
    machine.freeze_at(&["/data"], MINUTE).await.unwrap();
    let status = machine.thaw().await.unwrap_err();
    assert!(
        status.message().starts_with("can't be thawed: /data: "),
        "{status}"
    );
}

#[tokio::test]
async fn where_nothing_can_be_frozen_nothing_stands_still() {
    let machine = Machine::new(Fake::default());
    let answer = machine.freeze_at(&["/efi", "/run"], MINUTE).await.unwrap();
    assert_eq!((answer.frozen.len(), answer.skipped.len()), (0, 2));
    assert!(!machine.standstill.is_frozen());
}

#[tokio::test]
async fn what_the_kernel_does_not_freeze_in_time_is_thawed_when_it_does() {
    let (open, gate) = mpsc::channel();
    let machine = Machine::new(Fake {
        gate: Some(Arc::new(Mutex::new(gate))),
        ..Fake::default()
    });
    let status = machine.freeze(MIN_FREEZE).await.unwrap_err();
    assert!(
        status
            .message()
            .starts_with("the kernel has not frozen /data within"),
        "{status}"
    );
    assert_eq!(
        machine.told(),
        ["freeze /data/image", "thaw /data/image"],
        "what was frozen does not wait for it"
    );
    assert!(machine.status().await.expired);
    let status = machine.freeze(MINUTE).await.unwrap_err();
    assert!(
        status
            .message()
            .contains("not yet come back from freezing /data"),
        "{status}"
    );
    open.send(()).unwrap();
    machine.storage.freezer.end().await;
    assert_eq!(
        machine.told()[2..],
        ["freeze /data", "thaw /data"].map(str::to_owned)
    );
    machine.freeze_at(&["/"], MINUTE).await.unwrap();
    machine.thaw().await.unwrap();
}

#[tokio::test]
async fn thawing_while_the_kernel_still_freezes_ends_both_calls() {
    let (_open, gate) = mpsc::channel();
    let machine = Machine::new(Fake {
        gate: Some(Arc::new(Mutex::new(gate))),
        ..Fake::default()
    });
    let freeze = machine.freeze(MINUTE);
    let thaw = async {
        while machine.told().is_empty() {
            tokio::task::yield_now().await;
        }
        machine.thaw().await
    };
    let (frozen, thawed) = tokio::join!(freeze, thaw);
    assert_eq!(frozen.unwrap_err().code(), Code::Aborted);
    assert_eq!(thawed.unwrap(), ["/data/image"]);
}

#[tokio::test]
async fn a_caller_that_does_not_wait_gets_no_standstill() {
    let (open, gate) = mpsc::channel();
    let machine = Machine::new(Fake {
        gate: Some(Arc::new(Mutex::new(gate))),
        ..Fake::default()
    });
    {
        let freeze = machine.freeze(MINUTE);
        let frozen = async {
            while machine.told().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = freeze => panic!("the gate is shut"),
            () = frozen => {}
        }
    }
    open.send(()).unwrap();
    machine.ended().await;
    assert_eq!(machine.told()[3..].len(), 3, "{:?}", machine.told());
}

#[tokio::test]
async fn the_agents_end_thaws() {
    let machine = Machine::new(Fake::default());
    machine.freeze_at(&["/"], MINUTE).await.unwrap();
    drop(machine.storage.freezer.thaw_on_drop());
    machine.ended().await;
    machine.freeze_at(&["/"], MINUTE).await.unwrap();
    machine.storage.freezer.end().await;
    assert_eq!(machine.told(), ["freeze /", "thaw /", "freeze /", "thaw /"]);
}

#[tokio::test]
async fn what_a_killed_agent_has_left_frozen_is_thawed_by_the_next() {
    let machine = Machine::new(Fake::default());
    machine.freeze_at(&["/", "/data"], MINUTE).await.unwrap();
    assert!(
        machine.another_starts().await.is_empty(),
        "it is the standstill of one that lives"
    );
    let path = machine.place.path().join("frozen");
    let record = std::fs::read(&path).unwrap();
    assert_eq!(machine.thaw().await.unwrap(), ["/", "/data"]);
    assert!(!machine.is_recorded());
    assert!(machine.another_starts().await.is_empty());
    // As the kernel leaves it of one that was killed: without a lock.
    std::fs::write(&path, record).unwrap();
    assert_eq!(machine.another_starts().await, ["thaw /", "thaw /data"]);
    assert!(!machine.is_recorded());
}

#[tokio::test]
async fn a_wrong_request_freezes_nothing() {
    let machine = Machine::new(Fake::default());
    for limit in [Duration::from_millis(99), MAX_FREEZE + MIN_FREEZE] {
        let status = machine.freeze(limit).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{limit:?}");
    }
    let status = machine.freeze_at(&["/nowhere"], MINUTE).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let many = vec!["/"; MAX_FILESYSTEMS + 1];
    let status = machine.freeze_at(&many, MINUTE).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(machine.told().is_empty() && !machine.standstill.is_frozen());
    assert_eq!(limit(None).unwrap(), DEFAULT_FREEZE);
}

#[tokio::test]
async fn a_standstill_is_told_when_it_begins_and_when_it_ends() {
    let machine = Machine::failing(&[]);
    let mut events = machine.events.subscribe(Kinds::from_request(&[]).unwrap());
    let mut next = async || match events.next().await.unwrap().event {
        Some(Event::Freeze(change)) => change,
        other => panic!("{other:?}"),
    };
    for (limit, is_thawed) in [(Duration::from_secs(60), true), (MIN_FREEZE, false)] {
        let frozen = machine.freeze(limit).await.unwrap().frozen;
        if is_thawed {
            machine.thaw().await.unwrap();
        }
        let begun: FreezeChanged = next().await;
        assert!(begun.frozen && !frozen.is_empty());
        assert_eq!(begun.mount_points, frozen);
        let mut ended = next().await;
        assert_eq!((ended.frozen, ended.expired), (false, !is_thawed));
        // What was frozen last is thawed first.
        ended.mount_points.reverse();
        assert_eq!(ended.mount_points, frozen);
    }
}

#[tokio::test]
async fn what_can_is_trimmed_and_what_was_asked_for_is_told() {
    let machine = Machine::failing(&[("trim /", Errno::IO)]);
    let told = |results: Vec<TrimResult>| -> Vec<String> {
        let told = results.into_iter();
        told.map(|result| {
            format!(
                "{} {} {}",
                result.mount_point, result.trimmed_bytes, result.error
            )
        })
        .collect()
    };
    let all = told(machine.trim(&[]).await.unwrap());
    assert_eq!(all.len(), 3);
    assert!(all[0].starts_with("/ 0 Input/output error"), "{all:?}");
    assert_eq!(all[1..], ["/data 4096 ", "/data/image 4096 "]);
    let some = told(machine.trim(&["/run", "/efi"]).await.unwrap());
    assert_eq!(
        some,
        [
            "/efi 0 the file system or its disk can't",
            "/run 0 it is in memory"
        ]
    );
    let status = machine.trim(&["/nowhere"]).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[test]
fn a_file_system_is_told_with_its_disks_and_names() {
    let disk = |name: &str, device: &str, slaves: &[&str]| Disk {
        name: name.to_owned(),
        path: format!("/dev/{name}"),
        device: device.to_owned(),
        slaves: slaves.iter().map(|&slave| slave.to_owned()).collect(),
        ..Disk::default()
    };
    let disks = [
        disk("dm-0", "253:0", &["vda", "vdb"]),
        disk("vda", "254:0", &[]),
        disk("vdb", "254:16", &[]),
    ];
    let of = |source: &str, device: &str| {
        let mount = Mount {
            source: source.to_owned(),
            device: device.to_owned(),
            ..Mount::default()
        };
        let status = FilesystemStatus::default();
        let measured = Measured { mount, status };
        let told = describe(&measured, &disks, &Links::default());
        (told.device, told.disks.join(" "))
    };
    let pair = |device: &str, disks: &str| (device.to_owned(), disks.to_owned());
    assert_eq!(of("/dev/root", "253:0"), pair("253:0", "vda vdb"));
    assert_eq!(of("/dev/vdb", "0:44"), pair("254:16", "vdb"), "btrfs");
    assert_eq!(of("/dev/gone", "8:1"), pair("8:1", ""));
    assert_eq!(of("tmpfs", "0:30"), pair("", ""));
}
