//! The C library as a reference: its numbers, what it answers on the test driver and on QEMU, and how fast it is.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result, ensure};
use libvirt_codegen::{Model, Options, parse_file};
use serde_json::{Map, json};
use vbridge_tests::{
    fixture::story,
    libvirt::{
        daemon::Libvirtd,
        domain::Domain,
        reference::{Answer, Reference, measured},
        scene::Scene,
    },
};

#[test]
fn the_c_library_is_measured_in_calls_and_through_a_channel() {
    const BYTES: u64 = 8 * 1024 * 1024;
    story(Libvirtd::builder().run(async |daemon| {
        let domain = Domain::builder("fast").bytes(BYTES).build().await?;
        domain.create(daemon).await?;
        domain.up(daemon, 1).await?;
        let uri = daemon.uri("qemu");
        for call in ["lib_version", "domains", "info", "xml", "capabilities"] {
            let result = measured("calls.py", &[&uri, call, "200"]).await?;
            ensure!(result["calls"] == 200, "{result}");
            eprintln!("{call}: {}", result["per_second"]);
        }
        for kind in ["sink", "source", "sink"] {
            let result = measured("channel.py", &[&uri, "fast", kind, &BYTES.to_string()]).await?;
            ensure!(result["bytes"] == BYTES, "{result}");
            eprintln!("{kind}: {}", result["per_second"]);
        }
        let result = measured("channel.py", &[&uri, "fast", "echo", "100"]).await?;
        ensure!(result["round_trips"] == 100, "{result}");
        eprintln!("echo: {}", result["median"]);
        Ok(())
    }));
}

#[test]
fn the_c_library_tells_an_error_from_a_value_and_from_a_mistake() {
    story(Libvirtd::builder().run(async |daemon| {
        let mut reference = Reference::connect(&daemon.uri("test")).await?;
        let of = |name: &str| Map::from_iter([("domain".to_owned(), json!(name))]);
        let state = reference.value("domain_get_state", &of("test")).await?;
        ensure!(state == json!({"state": 1, "reason": 0}), "{state}");
        let Answer::Error(error) = reference.ask("domain_get_state", &of("nobody")).await? else {
            anyhow::bail!("there is a domain nobody");
        };
        // 42: there is no such domain; 12: the test driver says so.
        ensure!((error.code, error.domain) == (42, 12), "{error}");
        ensure!(
            reference
                .ask("domain_get_state", &Map::new())
                .await
                .is_err()
        );
        ensure!(reference.ask("domain_destroy", &of("test")).await.is_err());
        let nowhere = Reference::connect("test+unix:///default?socket=/nowhere").await;
        let error = format!("{:#}", nowhere.err().context("it is connected")?);
        ensure!(error.contains("/nowhere"), "{error}");
        Ok(())
    }));
}

/// Numbers that must have been compared. libvirt 9 has 948, and none ever goes.
const COMPARED: usize = 900;

/// The version that the interface file follows. A newer library has more.
const FOLLOWED: i64 = 12_008_000;

/// What the C library has and the interface file leaves out, by the beginnings and ends of the names.
const LEFT_OUT: [(&str, &str); 5] = [
    // Older names for the types of typed parameters.
    ("VIR_DOMAIN_BLKIO_PARAM_", ""),
    ("VIR_DOMAIN_MEMORY_PARAM_", ""),
    ("VIR_DOMAIN_SCHED_FIELD_", ""),
    // Members that only count the others.
    ("VIR_DOMAIN_MEMORY_STAT_NR", ""),
    ("", "_LAST"),
];

#[test]
fn the_apis_numbers_are_the_c_librarys() {
    story(async {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../libvirt-rs/proto/api.x");
        let api = Model::new(&parse_file(file)?, &Options::new())?;
        let mut told = measured("constants.py", &[]).await?;
        let theirs: BTreeMap<String, i64> = serde_json::from_value(told["numbers"].take())?;
        let version = told["version"].as_i64().context("it has no version")?;

        let mut compared = 0;
        let mut wrong = Vec::new();
        for (name, theirs) in theirs {
            let left_out = LEFT_OUT
                .iter()
                .any(|(start, end)| name.starts_with(start) && name.ends_with(end));
            match api.value(&name) {
                Some(ours) if ours == theirs => compared += 1,
                Some(ours) => wrong.push(format!("{name} is {theirs}, and not {ours}")),
                None if left_out || version > FOLLOWED => {}
                None => wrong.push(format!("{name} is {theirs}, and is missing")),
            }
        }
        ensure!(wrong.is_empty(), "{wrong:#?}");
        ensure!(compared >= COMPARED, "{compared} numbers are compared");
        eprintln!("{compared} numbers are the same");
        Ok(())
    });
}

/// Asks everything. What is not listed has to be answered; what is listed is refused with that code, or answered by
/// another version of libvirt.
async fn everything(scene: &Scene, refusals: &[(i32, &str)]) -> Result<usize> {
    let mut reference = Reference::connect(scene.uri()).await?;
    let mut answered = 0;
    let mut wrong = Vec::new();
    for (call, parameters) in reference.table().await? {
        let arguments = scene.arguments(&call, &parameters)?;
        let expected: Vec<i32> = refusals
            .iter()
            .filter(|(_, calls)| calls.split_whitespace().any(|listed| listed == call))
            .map(|(code, _)| *code)
            .collect();
        match reference.ask(&call, &arguments).await? {
            Answer::Value(_) => answered += 1,
            Answer::Error(error) => {
                eprintln!("{call}: {error}");
                if !expected.contains(&error.code) {
                    wrong.push(format!("{call}: {error}"));
                }
            }
        }
    }
    eprintln!("{}: {answered} calls are answered", scene.uri());
    ensure!(wrong.is_empty(), "{wrong:#?}");
    Ok(answered)
}

#[test]
fn the_test_driver_answers_the_c_library_all_that_it_can() {
    /// By code: 1 is an internal error, 3 "not supported by the driver", 8 an invalid argument, 38 an error of the
    /// system.
    const REFUSALS: [(i32, &str); 4] = [
        // The binding has lost the error of the second, "not supported".
        (1, "node_get_free_pages node_device_get_parent domain_get_security_label_list"),
        (
            3,
            "connect_baseline_hypervisor_cpu connect_compare_cpu connect_compare_hypervisor_cpu
             connect_domain_xml_from_native connect_domain_xml_to_native connect_get_domain_capabilities
             connect_get_storage_pool_capabilities connect_list_all_nwfilter_bindings connect_list_all_nwfilters
             connect_list_all_secrets connect_list_nwfilters connect_list_secrets connect_num_of_nwfilters
             connect_num_of_secrets domain_authorized_ssh_keys_get domain_backup_get_xml_desc domain_block_peek
             domain_block_stats_flags domain_get_block_job_info domain_get_guest_info domain_get_guest_vcpus domain_get_job_info
             domain_get_job_stats domain_managed_save_get_xml_desc domain_migrate_get_max_speed
             domain_migrate_get_max_downtime domain_migrate_get_compression_cache
             network_get_dhcp_leases network_list_all_ports network_port_get_parameters network_port_get_xml_desc
             network_port_lookup_by_uuid node_device_get_autostart node_device_is_active node_device_is_persistent
             node_device_lookup_scsi_host_by_wwn node_get_memory_parameters node_get_memory_stats node_get_sev_info
             nwfilter_binding_get_xml_desc nwfilter_binding_lookup_by_port_dev nwfilter_get_xml_desc
             nwfilter_lookup_by_name nwfilter_lookup_by_uuid secret_get_value secret_get_xml_desc
             secret_lookup_by_usage secret_lookup_by_uuid storage_pool_lookup_by_target_path storage_vol_download
             storage_vol_get_info_flags",
        ),
        // libvirt adds the flag 4 (typed parameters may hold strings) to what a client gives; these two functions of the
        // driver do not expect it.
        (8, "domain_get_launch_security_info domain_get_scheduler_parameters_flags"),
        (38, "domain_save_image_get_xml_desc"),
    ];
    story(Libvirtd::builder().run(async |daemon| {
        let scene = Scene::on_test_driver(daemon).await?;
        let answered = everything(&scene, &REFUSALS).await?;
        ensure!(answered >= 130, "{answered} calls are answered");
        Ok(())
    }));
}

#[test]
fn qemu_answers_the_c_library_all_that_it_can() {
    /// By code: 1 is an internal error, 3 "not supported by the driver", 55 an invalid operation, 67 an unsupported
    /// configuration, 74 an unsupported argument, 84 an unsupported operation, 104 "there is no backup".
    const REFUSALS: [(i32, &str); 7] = [
        // The first is not found, which libvirt 9 does not say in words; the second has no parent.
        (1, "node_device_lookup_scsi_host_by_wwn node_device_get_parent"),
        (3, "connect_domain_xml_from_native connect_find_storage_pool_sources"),
        // The daemon has no cgroups.
        (
            55,
            "domain_get_blkio_parameters domain_get_cpu_stats domain_get_memory_parameters
             domain_get_scheduler_parameters domain_get_scheduler_parameters_flags domain_get_scheduler_type",
        ),
        // Nor a host's BIOS, in a virtual machine without one.
        (67, "connect_get_sysinfo"),
        // QEMU's guest agent is not ours.
        (
            74,
            "domain_authorized_ssh_keys_get domain_get_fsinfo domain_get_guest_info domain_get_guest_vcpus
             domain_get_hostname domain_get_time",
        ),
        (84, "node_get_sev_info domain_migrate_get_compression_cache domain_get_launch_security_info"),
        (104, "domain_backup_get_xml_desc"),
    ];
    story(Libvirtd::builder().run(async |daemon| {
        let scene = Scene::on_qemu(daemon).await?;
        let answered = everything(&scene, &REFUSALS).await?;
        ensure!(answered >= 165, "{answered} calls are answered");
        Ok(())
    }));
}
