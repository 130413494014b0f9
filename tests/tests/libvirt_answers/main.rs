//! The Rust client gives the same answers as libvirt's C library: every call of the reference's table, on the test driver
//! and on QEMU.
//!
//! | module | what it is |
//! |---|---|
//! | this one | who asks what, and the tests |
//! | [`call`] | what a call is, and how it comes to an answer |
//! | [`ask`] | a question: its arguments, and the objects that they name |
//! | [`shape`] | how values of the wire and of the handles are shown |
//! | [`host`], [`domain`], [`parameters`], [`moments`], [`network`], [`storage`], [`device`] | the calls, through the raw layer |
//! | [`handles`] | most of them once more, through `Connect`, `Domain` and the other handles |
//! | [`reference`] | the C library, and what its Python binding gets wrong |
//! | [`compare`] | whether two answers are the same |
//! | [`moving`] | the values that move by themselves |
//! | [`report`] | what all calls have come to: a list, and the differences |
//! | [`document`] | the list in `docs`, held against that |
//!
//! The raw layer is the wire, and the wire is not the C API. What the C library does between the two, these calls do as
//! well:
//!
//! | the C library | the wire |
//! |---|---|
//! | counts first, then lists as many names | `maxnames` is in the arguments; more than the protocol's bound is refused |
//! | typed parameters: counts with `nparams` 0, then fetches | the same two calls of one procedure; the first reply has the count and no values |
//! | says that it understands texts as parameters | bit 2 of `flags`, which nobody sets otherwise; what does not know it refuses it |
//! | node statistics: counts first | any other number than the right one is refused, also a larger one |
//! | lists everything into an array of its own | `need_results`, without which only the count comes |
//! | takes the number of the host's CPUs for the length of a CPU map | `maplen`, in bytes; without it no maps come |
//! | sums up a domain's CPUs: `start_cpu` is -1 | the same, with `ncpus` 1; and with everything 0, the count of CPUs |
//! | has a scheduler's parameters counted by another function | a procedure that also tells the scheduler's name |
//! | a handle of a device | its bare name |
//! | arrays of `char` | as many as the text has, or all 32 filled up with zeros; each takes four bytes |
//! | tells the URI that it was given | the daemon's own, without the way to it |
//! | a counter that there is not: -1 | the same: these numbers are signed for that alone |

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod ask;
mod call;
mod compare;
mod device;
mod document;
mod domain;
mod handles;
mod host;
mod moments;
mod moving;
mod network;
mod parameters;
mod reference;
mod report;
mod shape;
mod storage;

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use libvirt::Connect;
use vbridge_tests::{
    fixture::story,
    libvirt::{
        daemon::Libvirtd,
        reference::{Parameters, Reference},
        scene::Scene,
    },
};

use self::{
    call::{Call, by_hand, by_name, calls},
    compare::Around,
    report::{Driver, Layer, Report},
};

/// Calls that must have been answered with a value on at least one driver, by any version. The others show that errors are
/// the same.
const VALUES: usize = 150;

/// A call that tells what the daemon is at: asked at once with all the others, it has to tell of these.
const TELLS_OF_OTHERS: &str = "domain_get_control_info";

/// Who asks, and what.
struct Inquiry {
    driver: Driver,
    scene: Scene,
    reference: Reference,
    connect: Connect,
    table: BTreeMap<String, Parameters>,
    raw: BTreeMap<&'static str, Call>,
    handles: BTreeMap<&'static str, Call>,
}

// === impl Inquiry ===

impl Inquiry {
    async fn open(driver: Driver, scene: Scene) -> Result<Self> {
        let mut reference = Reference::connect(scene.uri()).await?;
        Ok(Self {
            driver,
            connect: Connect::open(scene.uri()).await?,
            table: reference.table().await?,
            raw: by_name(call::raw())?,
            handles: by_name(handles::calls())?,
            reference,
            scene,
        })
    }

    /// Asks one by one: the C library, the raw layer, the handles, and the C library again.
    async fn one_by_one(&mut self, report: &mut Report) -> Result<BTreeMap<String, Around>> {
        let mut all = BTreeMap::new();
        for (name, parameters) in &self.table {
            let given = self.scene.arguments(name, parameters)?;
            let before = reference::ask(&mut self.reference, name, &given).await?;
            let mut ours = Vec::new();
            for (layer, calls) in [(Layer::Raw, &self.raw), (Layer::Handles, &self.handles)] {
                if let Some(call) = calls.get(name.as_str()) {
                    let answer = call.ask(&self.connect, parameters, &given).await?;
                    ours.push((layer, call, answer));
                }
            }
            let by_raw = ours.iter().any(|(layer, ..)| *layer == Layer::Raw);
            ensure!(by_raw, "the raw layer is not asked for {name}");
            let after = reference::ask(&mut self.reference, name, &given).await?;
            let around = Around { before, after };
            for (layer, call, ours) in ours {
                let differences = around.differences(name, &ours);
                report.note(self.driver, layer, call, ours, &differences)?;
            }
            all.insert(name.clone(), around);
        }
        Ok(all)
    }

    /// Asks everything at once. `before` is what the C library has answered before.
    async fn at_once(
        &mut self,
        mut before: BTreeMap<String, Around>,
        report: &mut Report,
    ) -> Result<()> {
        before.remove(TELLS_OF_OTHERS);
        let calls = self.table.iter().map(async |(name, parameters)| {
            let call = &self.raw[name.as_str()];
            let given = self.scene.arguments(name, parameters)?;
            let ours = call.ask(&self.connect, parameters, &given).await?;
            anyhow::Ok((name, given, call, ours))
        });
        for (name, given, call, ours) in try_join_all(calls).await? {
            let Some(mut around) = before.remove(name) else {
                continue;
            };
            around.after = reference::ask(&mut self.reference, name, &given).await?;
            let differences = around.differences(name, &ours);
            report.note(self.driver, Layer::Overlapping, call, ours, &differences)?;
        }
        Ok(())
    }
}

async fn ask_all(daemon: &Libvirtd) -> Result<Report> {
    let mut report = Report::default();
    let scenes = [
        (Driver::Test, Scene::on_test_driver(daemon).await?),
        (Driver::Qemu, Scene::on_qemu(daemon).await?),
    ];
    for (driver, scene) in scenes {
        let mut inquiry = Inquiry::open(driver, scene).await?;
        let around = inquiry.one_by_one(&mut report).await?;
        inquiry.at_once(around, &mut report).await?;
        inquiry.connect.close().await;
    }
    Ok(report)
}

/// What decides which procedures there are, and how they are answered.
async fn versions(daemon: &Libvirtd) -> Result<String> {
    let connect = Connect::open(&daemon.uri("qemu")).await?;
    let libvirt = connect.libvirt_version().await?;
    let qemu = connect.hypervisor_version().await?;
    connect.close().await;
    let mut reference = Reference::connect(&daemon.uri("test")).await?;
    let binding = reference.binding().await?;
    Ok(format!(
        "libvirt {libvirt}, QEMU {qemu}, Python binding {binding}"
    ))
}

#[test]
fn every_call_is_answered_as_the_c_library_is() {
    story(Libvirtd::builder().run(async |daemon| {
        let report = ask_all(daemon).await?;
        let made = report.document(&versions(daemon).await?);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        fs::write(folder.join("libvirt-answers.md"), &made)?;
        fs::write(folder.join("libvirt-answers.txt"), report.transcript())?;
        println!("{made}");

        let differences = report.differences();
        ensure!(
            differences.is_empty(),
            "{} differences:\n{}",
            differences.len(),
            differences.join("\n")
        );
        let counts = report.counts();
        ensure!(counts.on_either >= VALUES, "{counts}");
        document::check(&made)
    }));
}

#[test]
fn every_call_is_a_procedure_of_the_protocol() {
    let raw = by_name(call::raw()).unwrap();
    for call in raw.values() {
        call.procedure().unwrap();
    }
    for name in by_name(handles::calls()).unwrap().keys() {
        assert!(raw.contains_key(name), "{name}");
    }
}
