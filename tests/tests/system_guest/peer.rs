//! The QEMU guest agent in the same guest, on a port of its own: both are asked the same, and must answer the same.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::time::sleep;
use tonic::transport::Channel;
use vbridge_api::guest::v1::{
    AccountsListAuthorizedKeysRequest, Command, ExecRunRequest, GetInfoRequest, GetTimezoneRequest,
    HardwareListCpusRequest, HardwareListMemoryBlocksRequest, ListUsersRequest,
    NetworkListInterfacesRequest, StorageFreezeStatusRequest, StorageListDisksRequest,
    StorageListFilesystemsRequest, TimeGetRequest, accounts_client::AccountsClient,
    exec_client::ExecClient, exit_status::How, hardware_client::HardwareClient,
    network_client::NetworkClient, storage_client::StorageClient, system_client::SystemClient,
    time_client::TimeClient,
};
use vbridge_tests::process::PATIENCE;

use crate::world::{USER, World};

/// Between two looks at what changes while both are asked, such as the bytes in use on a disk.
const POLL: Duration = Duration::from_millis(100);

/// The guest's clock moves on between two questions.
const NEAR: Duration = Duration::from_secs(1);

/// A question.
pub(crate) struct Question {
    /// The test's name.
    pub(crate) name: &'static str,
    command: &'static str,
    arguments: Value,
    /// What of their answer is compared.
    theirs: fn(&Value) -> Value,
    /// The same of ours.
    ours: fn(Channel) -> BoxFuture<'static, Result<Value>>,
    /// Whether somebody has to be logged in meanwhile.
    login: bool,
}

/// A row of the table: what it is, their command, what we take of its answer, and ours.
macro_rules! question {
    ($name:literal, $command:literal, $arguments:tt, $theirs:expr, $ours:path) => {
        Question {
            name: $name,
            command: $command,
            arguments: json!($arguments),
            theirs: $theirs,
            ours: |channel| Box::pin($ours(channel)),
            login: false,
        }
    };
}

pub(crate) fn questions() -> Vec<Question> {
    vec![
        question!(
            "the_system_is_what_the_qemu_guest_agent_says",
            "guest-get-osinfo",
            null,
            |it| it.clone(),
            system
        ),
        question!(
            "the_hosts_name_is_what_the_qemu_guest_agent_says",
            "guest-get-host-name",
            null,
            |it| it["host-name"].clone(),
            hostname
        ),
        question!(
            "interfaces_and_addresses_are_those_of_the_qemu_guest_agent",
            "guest-network-get-interfaces",
            null,
            their_interfaces,
            interfaces
        ),
        question!(
            "file_systems_and_their_sizes_are_those_of_the_qemu_guest_agent",
            "guest-get-fsinfo",
            null,
            their_filesystems,
            filesystems
        ),
        Question {
            login: true,
            ..question!(
                "users_are_those_of_the_qemu_guest_agent",
                "guest-get-users",
                null,
                their_users,
                users
            )
        },
        question!(
            "cpus_are_those_of_the_qemu_guest_agent",
            "guest-get-vcpus",
            null,
            |it| sorted(it.clone(), "logical-id"),
            cpus
        ),
        question!(
            "the_time_zone_is_what_the_qemu_guest_agent_says",
            "guest-get-timezone",
            null,
            |it| it.clone(),
            timezone
        ),
        question!(
            "disks_are_those_of_the_qemu_guest_agent",
            "guest-get-disks",
            null,
            their_disks,
            disks
        ),
        question!(
            "memory_blocks_are_those_of_the_qemu_guest_agent",
            "guest-get-memory-blocks",
            null,
            |it| sorted(it.clone(), "phys-index"),
            memory_blocks
        ),
        question!(
            "memory_blocks_have_the_size_that_the_qemu_guest_agent_says",
            "guest-get-memory-block-info",
            null,
            |it| it["size"].clone(),
            memory_block_size
        ),
        question!(
            "nothing_is_frozen_as_the_qemu_guest_agent_says",
            "guest-fsfreeze-status",
            null,
            |it| json!(it == "thawed"),
            thawed
        ),
        Question {
            login: true,
            ..question!("keys_are_those_of_the_qemu_guest_agent", "guest-ssh-get-authorized-keys", {"username": USER}, |it| in_order(&it["keys"]), keys)
        },
    ]
}

/// Asks both until they agree.
pub(crate) async fn agree(world: Arc<World>, question: Question) -> Result<()> {
    let login = match question.login {
        true => Some(world.log_in().await?),
        false => None,
    };
    let began = Instant::now();
    loop {
        let arguments = question.arguments.clone();
        let theirs = world
            .qga
            .lock()
            .await
            .call(question.command, arguments)
            .await?;
        let theirs = (question.theirs)(&theirs);
        let ours = (question.ours)(world.channel().await?).await?;
        let empty = ours.as_array().is_some_and(Vec::is_empty);
        ensure!(!empty, "{}: nothing to compare", question.command);
        if ours == theirs {
            break;
        }
        if began.elapsed() > PATIENCE {
            bail!("{}:\n ours  {ours}\ntheirs {theirs}", question.command);
        }
        sleep(POLL).await;
    }
    drop(login);
    Ok(())
}

fn sorted(list: Value, key: &str) -> Value {
    let Value::Array(mut list) = list else {
        return list;
    };
    list.sort_by_key(|entry| (entry[key].as_u64(), entry[key].as_str().map(str::to_owned)));
    Value::Array(list)
}

/// The entries of a list, each made anew, sorted by a key.
fn mapped(list: &Value, key: &str, map: impl FnMut(&Value) -> Value) -> Value {
    let list = list.as_array().into_iter().flatten();
    sorted(list.map(map).collect(), key)
}

async fn system(channel: Channel) -> Result<Value> {
    let mut client = SystemClient::new(channel);
    let info = client.get_info(GetInfoRequest {}).await?.into_inner();
    let os = info.os.unwrap_or_default();
    let kernel = info.kernel.unwrap_or_default();
    Ok(json!({
        "id": os.id,
        "name": os.name,
        "pretty-name": os.pretty_name,
        "version": os.version,
        "version-id": os.version_id,
        "kernel-release": kernel.release,
        "kernel-version": kernel.version,
        "machine": info.architecture,
    }))
}

async fn hostname(channel: Channel) -> Result<Value> {
    let mut client = SystemClient::new(channel);
    let info = client.get_info(GetInfoRequest {}).await?.into_inner();
    Ok(info.hostname.into())
}

fn their_interfaces(it: &Value) -> Value {
    mapped(it, "name", |interface| {
        let addresses = mapped(&interface["ip-addresses"], "address", |address| {
            json!({
                "address": address["ip-address"],
                "prefix": address["prefix"],
            })
        });
        let statistics = &interface["statistics"];
        // The loopback device has none, which we say with no address.
        let hardware = interface["hardware-address"].as_str().unwrap_or_default();
        json!({
            "name": interface["name"],
            "hardware": if hardware == "00:00:00:00:00:00" { "" } else { hardware },
            "addresses": addresses,
            "received": statistics["rx-bytes"],
            "sent": statistics["tx-bytes"],
            "dropped": statistics["rx-dropped"],
        })
    })
}

async fn interfaces(channel: Channel) -> Result<Value> {
    let mut client = NetworkClient::new(channel);
    let answer = client
        .list_interfaces(NetworkListInterfacesRequest {})
        .await?;
    let interfaces = answer.into_inner().interfaces.into_iter().map(|interface| {
        let addresses = interface
            .addresses
            .iter()
            .map(|address| json!({"address": address.address, "prefix": address.prefix_length}));
        let counters = interface.counters.unwrap_or_default();
        json!({
            "name": interface.name,
            "hardware": interface.hardware_address,
            "addresses": sorted(addresses.collect(), "address"),
            "received": counters.received_bytes,
            "sent": counters.sent_bytes,
            "dropped": counters.receive_dropped,
        })
    });
    Ok(sorted(interfaces.collect(), "name"))
}

fn their_filesystems(it: &Value) -> Value {
    mapped(it, "mountpoint", |filesystem| {
        json!({
            "mountpoint": filesystem["mountpoint"],
            "name": filesystem["name"],
            "type": filesystem["type"],
            "used": filesystem["used-bytes"],
            // What is kept for root is not in it.
            "total": filesystem["total-bytes"],
        })
    })
}

async fn filesystems(channel: Channel) -> Result<Value> {
    let mut client = StorageClient::new(channel);
    let answer = client
        .list_filesystems(StorageListFilesystemsRequest {})
        .await?;
    let all = answer.into_inner().filesystems.into_iter();
    // They leave out what lies on no device.
    let filesystems = all.filter(|filesystem| filesystem.source.starts_with('/'));
    let filesystems = filesystems.map(|filesystem| {
        json!({
            "mountpoint": filesystem.mount_point,
            "name": filesystem.disks.join(" "),
            "type": filesystem.r#type,
            "used": filesystem.used_bytes,
            "total": filesystem.used_bytes + filesystem.available_bytes,
        })
    });
    Ok(sorted(filesystems.collect(), "mountpoint"))
}

fn their_users(it: &Value) -> Value {
    mapped(it, "user", |user| {
        let time = user["login-time"].as_f64().unwrap_or_default();
        json!({"user": user["user"], "time": format!("{time:.0}")})
    })
}

async fn users(channel: Channel) -> Result<Value> {
    let mut client = SystemClient::new(channel);
    let answer = client.list_users(ListUsersRequest {}).await?.into_inner();
    let users = answer.users.into_iter().map(|user| {
        let time = user.login_time.unwrap_or_default();
        let time = time.seconds + i64::from(time.nanos >= 500_000_000);
        json!({"user": user.user, "time": time.to_string()})
    });
    Ok(sorted(users.collect(), "user"))
}

async fn cpus(channel: Channel) -> Result<Value> {
    let mut client = HardwareClient::new(channel);
    let answer = client
        .list_cpus(HardwareListCpusRequest {})
        .await?
        .into_inner();
    let cpus = answer.cpus.iter().map(
        |cpu| json!({"logical-id": cpu.id, "online": cpu.online, "can-offline": cpu.can_offline}),
    );
    Ok(sorted(cpus.collect(), "logical-id"))
}

async fn timezone(channel: Channel) -> Result<Value> {
    let mut client = SystemClient::new(channel);
    let zone = client
        .get_timezone(GetTimezoneRequest {})
        .await?
        .into_inner();
    Ok(json!({"zone": zone.abbreviation, "offset": zone.offset_seconds}))
}

fn their_disks(it: &Value) -> Value {
    mapped(it, "name", |disk| {
        json!({
            "name": disk["name"],
            "partition": disk["partition"],
            "bus": disk["address"]["bus-type"],
            "serial": disk["address"]["serial"],
        })
    })
}

async fn disks(channel: Channel) -> Result<Value> {
    let mut client = StorageClient::new(channel);
    let answer = client
        .list_disks(StorageListDisksRequest {})
        .await?
        .into_inner();
    let disks = answer.disks.iter().map(|disk| {
        json!({
            "name": disk.path,
            "partition": disk.partition,
            "bus": disk.bus,
            "serial": disk.serial,
        })
    });
    Ok(sorted(disks.collect(), "name"))
}

async fn memory_blocks(channel: Channel) -> Result<Value> {
    let mut client = HardwareClient::new(channel);
    let answer = client
        .list_memory_blocks(HardwareListMemoryBlocksRequest {})
        .await?;
    let blocks = answer.into_inner().blocks.into_iter().map(|block| {
        json!({"phys-index": block.id, "online": block.online, "can-offline": block.can_offline})
    });
    Ok(sorted(blocks.collect(), "phys-index"))
}

async fn memory_block_size(channel: Channel) -> Result<Value> {
    let mut client = HardwareClient::new(channel);
    let answer = client
        .list_memory_blocks(HardwareListMemoryBlocksRequest {})
        .await?;
    Ok(answer.into_inner().block_bytes.into())
}

async fn thawed(channel: Channel) -> Result<Value> {
    let mut client = StorageClient::new(channel);
    let answer = client.freeze_status(StorageFreezeStatusRequest {}).await?;
    Ok(answer.into_inner().frozen.is_empty().into())
}

async fn keys(channel: Channel) -> Result<Value> {
    let mut client = AccountsClient::new(channel);
    let request = AccountsListAuthorizedKeysRequest { user: USER.into() };
    let answer = client.list_authorized_keys(request).await?;
    Ok(in_order(&answer.into_inner().keys.into()))
}

/// Keys without the order of their lines, which the QEMU guest agent turns round.
fn in_order(keys: &Value) -> Value {
    let mut keys = keys.as_array().cloned().unwrap_or_default();
    keys.sort_by_key(Value::to_string);
    keys.into()
}

pub(crate) async fn clocks(world: Arc<World>) -> Result<()> {
    let mut client = TimeClient::new(world.channel().await?);
    let theirs = world
        .qga
        .lock()
        .await
        .call("guest-get-time", Value::Null)
        .await?;
    let ours = client.get(TimeGetRequest {}).await?.into_inner();
    let theirs = Duration::from_nanos(theirs.as_u64().context("no time")?);
    let ours = SystemTime::try_from(ours.time.context("no time")?)?;
    let between = ours.duration_since(SystemTime::UNIX_EPOCH + theirs)?;
    ensure!(between < NEAR, "they are {between:?} apart");
    Ok(())
}

pub(crate) async fn commands(world: Arc<World>) -> Result<()> {
    let mut client = ExecClient::new(world.channel().await?);
    for line in [
        "printf 'a\\0b\\377'; exit 3",
        "id; pwd; umask",
        "seq 20000",
        "kill -9 $$",
    ] {
        let mut qga = world.qga.lock().await;
        let theirs = qga.exec("/bin/sh", &["-c", line]).await?;
        let request = ExecRunRequest {
            command: Some(Command {
                argv: ["/bin/sh", "-c", line].map(str::to_owned).into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let ours = client.run(request).await?.into_inner();
        let code = match ours.status.and_then(|status| status.how) {
            Some(How::Code(code)) => Some(i64::from(code)),
            _ => None,
        };
        ensure!(code == theirs.status, "{line}: {code:?} {theirs:?}");
        let told = String::from_utf8_lossy(&theirs.stdout);
        ensure!(
            ours.stdout == theirs.stdout,
            "{line}: {:?} {told:?}",
            String::from_utf8_lossy(&ours.stdout)
        );
    }
    Ok(())
}
