//! The libvirt tests' own ground: a private libvirtd, who may come in, and real domains on it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{env, fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    process::Command,
    time::timeout,
};
use vbridge_tests::{
    exercise::v1::UnaryRequest,
    fixture::{Bridge, Seat, eventually, story},
    libvirt::{
        certificates::{ClientCertificate, ServerCertificate},
        client::{virsh, virt_admin},
        daemon::{Auth, Libvirtd, SASL_USER},
        domain::Domain,
        reference::Reference,
    },
    process::Process,
};
use xtask::qemu::AGENT_PORT;

/// For what ends by itself to be gone, or for an answer, on a machine that is badly overloaded.
const GONE: Duration = Duration::from_secs(20);

/// A call that a daemon answers anybody (AUTH_LIST), as the seven words of its packet.
const AUTH_LIST: [u32; 7] = [28, 0x2000_8086, 1, 66, 0, 0, 0];

/// Tells a test that it is the program that the test kills.
const VICTIM: &str = "VBRIDGE_LIBVIRT_VICTIM";

/// Processes and mounts that know the folder.
fn traces(folder: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        for file in ["cmdline", "mountinfo"] {
            let path = process.path().join(file);
            let text = fs::read(&path).unwrap_or_default();
            if String::from_utf8_lossy(&text).contains(&folder) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

fn leaves_nothing(folder: &Path) -> Result<()> {
    let traces = traces(folder);
    ensure!(traces.is_empty(), "{traces:?} are left");
    ensure!(!folder.exists(), "{} is left", folder.display());
    Ok(())
}

// === The daemon ===

#[test]
fn a_daemon_answers_on_each_of_its_sockets() {
    story(Libvirtd::builder().run(async |daemon| {
        for driver in ["qemu", "test"] {
            let name = virsh(&daemon.uri(driver), &["uri"]).await?.ok()?;
            ensure!(name.starts_with(driver), "{name}");
        }
        let read_only = daemon.read_only_socket_path();
        let uri = format!("test+unix:///default?socket={}", read_only.display());
        let refused = virsh(&uri, &["destroy", "test"]).await?.refusal()?;
        ensure!(refused.contains("read only"), "{refused}");
        let servers = virt_admin(&daemon.admin_uri(), &["srv-list"]).await?.ok()?;
        ensure!(servers.contains("libvirtd"), "{servers}");
        let status = daemon.terminate().await?;
        ensure!(status.success(), "it has ended with {status}");
        daemon.start_again().await
    }));
}

#[test]
fn a_daemon_has_the_settings_that_it_was_given() {
    let builder = Libvirtd::builder()
        .workers(2, 3)
        .prio_workers(4)
        .max_clients(7, 6)
        .max_client_requests(2)
        .keepalive(-1, 3);
    story(builder.run(async |daemon| {
        let uri = daemon.admin_uri();
        let ask = async |what: &str| -> Result<String> {
            let words = virt_admin(&uri, &[what, "libvirtd"]).await?.ok()?;
            Ok(words.split_whitespace().collect::<Vec<_>>().join(" "))
        };
        let pool = ask("srv-threadpool-info").await?;
        for part in ["minWorkers : 2", "maxWorkers : 3", "prioWorkers : 4"] {
            ensure!(pool.contains(part), "{pool}");
        }
        let clients = ask("srv-clients-info").await?;
        for part in ["nclients_max : 7", "nclients_unauth_max : 6"] {
            ensure!(clients.contains(part), "{clients}");
        }
        Ok(())
    }));
}

#[test]
fn a_daemon_tells_who_is_connected() {
    story(Libvirtd::builder().run(async |daemon| {
        daemon.has_clients(0).await?;
        let first = Reference::connect(&daemon.uri("test")).await?;
        daemon.has_clients(1).await?;
        let second = Reference::connect(&daemon.uri("test")).await?;
        daemon.has_clients(2).await?;
        drop((first, second));
        daemon.has_clients(0).await
    }));
}

#[test]
fn a_daemon_stands_still_and_goes_on_where_it_was() {
    story(Libvirtd::builder().run(async |daemon| {
        let pid = daemon.pid();
        for _ in 0..3 {
            daemon.freeze().await?;
            // The kernel takes the connection and what is said, for the daemon to find.
            let mut socket = UnixStream::connect(daemon.socket_path()).await?;
            socket
                .write_all(&AUTH_LIST.map(u32::to_be_bytes).concat())
                .await?;
            daemon.thaw().await?;
            let length = timeout(GONE, socket.read_u32()).await??;
            ensure!(length > AUTH_LIST[0], "it answers with {length} bytes");
        }
        ensure!(daemon.pid() == pid, "it is another process");
        daemon.freeze().await?;
        daemon.thaw().await?;
        daemon.restart().await
    }));
}

#[test]
fn a_daemon_that_stands_still_leaves_nothing_behind() {
    story(async {
        let mut daemon = Libvirtd::builder().start().await?;
        let folder = daemon.folder().to_owned();
        daemon.freeze().await?;
        drop(daemon);
        leaves_nothing(&folder)
    });
}

#[test]
fn a_daemon_that_can_not_start_says_why() {
    story(async {
        let started = Libvirtd::builder()
            .setting("max_clients", "\"many\"")
            .start()
            .await;
        let error = format!("{:#}", started.err().context("it has started")?);
        ensure!(error.contains("max_clients"), "{error}");
        Ok(())
    });
}

#[test]
fn two_daemons_do_not_see_each_others_objects() {
    story(async {
        let (one, other) =
            tokio::try_join!(Libvirtd::builder().start(), Libvirtd::builder().start())?;
        // The same bridge and the same addresses, which only one on a machine could have.
        let network = one.folder().join("same.xml");
        let xml = "<network><name>same</name><bridge name='virbr0'/>\
                   <ip address='192.168.122.1' netmask='255.255.255.0'><dhcp>\
                   <range start='192.168.122.2' end='192.168.122.9'/></dhcp></ip></network>";
        fs::write(&network, xml)?;
        let network = network.display().to_string();
        let domain = Domain::builder("same").build().await?;
        for daemon in [&one, &other] {
            daemon.virsh(&["net-create", &network]).await?;
            domain.create(daemon).await?;
        }
        one.virsh(&["destroy", "same"]).await?;
        one.virsh(&["net-destroy", "same"]).await?;
        let none = one.virsh(&["list", "--all", "--name"]).await?;
        ensure!(none.trim().is_empty(), "{none}");
        let name = other.virsh(&["list", "--name"]).await?;
        ensure!(name.trim() == "same", "{name}");
        let name = other.virsh(&["net-list", "--name"]).await?;
        ensure!(name.trim() == "same", "{name}");
        let bridges = [
            one.within("ip", &["link"]).await?,
            other.within("ip", &["link"]).await?,
        ];
        let bridges = bridges.map(|said| said.stdout.contains("virbr0"));
        ensure!(bridges == [false, true], "{bridges:?}");
        one.stop().await?;
        other.stop().await
    });
}

#[test]
fn a_daemon_that_was_killed_starts_again_and_finds_its_domain() {
    let builder = Libvirtd::builder().tcp(Auth::None);
    story(builder.run(async |daemon| {
        let domain = Domain::builder("lasting").build().await?;
        domain.create(daemon).await?;
        let id = daemon.virsh(&["domid", "lasting"]).await?;
        let (pid, port) = (daemon.pid(), daemon.tcp_address()?);

        daemon.kill9().await?;
        ensure!(
            daemon.virsh(&["list"]).await.is_err(),
            "a dead daemon answers"
        );
        let refused = virsh(&daemon.tcp_uri("qemu")?, &["list"])
            .await?
            .refusal()?;
        ensure!(refused.contains("refused"), "{refused}");

        daemon.start_again().await?;
        ensure!(daemon.pid() != pid, "it is the same process");
        ensure!(daemon.tcp_address()? == port, "it has another port");
        let again = virsh(&daemon.tcp_uri("qemu")?, &["domid", "lasting"])
            .await?
            .ok()?;
        ensure!(again == id, "the domain was {id} and is {again}");
        // This waits for the end of whatever the daemon still does with the domain that it has found again.
        daemon.virsh(&["dommemstat", "lasting"]).await?;
        daemon.restart().await?;
        ensure!(
            daemon.virsh(&["domid", "lasting"]).await? == id,
            "it is gone"
        );
        domain.up(daemon, 1).await
    }));
}

#[test]
fn a_daemon_leaves_nothing_behind() {
    story(async {
        for in_order in [true, false] {
            let daemon = Libvirtd::builder()
                .tls(ServerCertificate::Good, Auth::None)
                .start()
                .await?;
            let folder = daemon.folder().to_owned();
            let network = folder.join("net.xml");
            fs::write(
                &network,
                "<network><name>net</name><ip address='10.9.8.1' prefix='24'/></network>",
            )?;
            daemon
                .virsh(&["net-create", &network.display().to_string()])
                .await?;
            Domain::builder("left")
                .build()
                .await?
                .create(&daemon)
                .await?;
            ensure!(!traces(&folder).is_empty(), "it should have processes");
            if in_order {
                daemon.stop().await?;
            } else {
                drop(daemon);
            }
            leaves_nothing(&folder)?;
        }
        Ok(())
    });
}

#[test]
fn a_daemon_ends_with_the_program_that_has_started_it() {
    if env::var_os(VICTIM).is_some() {
        story(async {
            let daemon = Libvirtd::builder().start().await?;
            Domain::builder("orphan")
                .build()
                .await?
                .create(&daemon)
                .await?;
            println!("victim at {}", daemon.folder().display());
            std::future::pending().await
        });
    }
    story(async {
        // Else the victim would have to build the guest's image first.
        Domain::builder("orphan").build().await?;
        let mut command = Command::new(env::current_exe()?);
        let name = "a_daemon_ends_with_the_program_that_has_started_it";
        command
            .args(["--exact", name, "--nocapture"])
            .env(VICTIM, "1");
        let mut victim = Process::spawn(command)?;
        let folder = victim
            .line("where its daemon is", |line| {
                let (_, folder) = line.split_once("victim at ")?;
                Some(Path::new(folder).to_owned())
            })
            .await?;
        ensure!(!traces(&folder).is_empty(), "it should have processes");
        victim.kill9().await?;
        eventually("the end of the orphans", GONE, async || {
            Ok(leaves_nothing(&folder).is_ok())
        })
        .await
        .with_context(|| format!("{:?}", leaves_nothing(&folder)))
    });
}

// === Who may come in ===

#[test]
fn a_tls_port_takes_clients_with_a_good_certificate_only() {
    let builder = Libvirtd::builder().tls(ServerCertificate::Good, Auth::None);
    story(builder.run(async |daemon| {
        let uri = daemon.tls_uri("test", ClientCertificate::Good)?;
        let name = virsh(&uri, &["list", "--name"]).await?.ok()?;
        ensure!(name.trim() == "test", "{name}");
        for client in [
            ClientCertificate::Expired,
            ClientCertificate::OtherAuthority,
            ClientCertificate::Missing,
        ] {
            // The C library would not even try with a certificate that has expired; that is no test of the daemon.
            let uri = daemon.tls_uri("test", client)?;
            for uri in [uri.clone(), format!("{uri}&no_sanity=1")] {
                let refused = virsh(&uri, &["list"]).await?.refusal();
                refused.with_context(|| format!("{client:?}"))?;
            }
        }
        Ok(())
    }));
}

#[test]
fn a_tls_port_with_a_bad_certificate_is_refused_by_its_clients() {
    story(async {
        for certificate in [
            ServerCertificate::OtherHost,
            ServerCertificate::Expired,
            ServerCertificate::OtherAuthority,
        ] {
            let builder = Libvirtd::builder().tls(certificate, Auth::None);
            let refused = async |daemon: &mut Libvirtd| {
                let uri = daemon.tls_uri("test", ClientCertificate::Good)?;
                let refused = virsh(&uri, &["list"]).await?.refusal()?;
                ensure!(refused.contains("ertificate"), "{refused}");
                // A client that does not look comes in: it is the certificate, and nothing else.
                virsh(&format!("{uri}&no_verify=1"), &["list"])
                    .await?
                    .ok()?;
                Ok(())
            };
            builder
                .run(refused)
                .await
                .with_context(|| format!("{certificate:?}"))?;
        }
        Ok(())
    });
}

#[test]
fn a_unix_socket_with_sasl_takes_the_right_password_only() {
    let builder = Libvirtd::builder()
        .unix(Auth::Sasl)
        .sasl_user("second", "two words");
    let (name, password) = SASL_USER;
    story(builder.sasl_user(name, password).run(async |daemon| {
        for (name, password) in [(name, password), ("second", "two words")] {
            let uri = daemon.sasl_uri("test", name, password)?;
            virsh(&uri, &["list"]).await?.ok().context(name)?;
        }
        for (name, password) in [(name, "wrong"), ("nobody", password)] {
            let uri = daemon.sasl_uri("test", name, password)?;
            let refused = virsh(&uri, &["list"]).await?.refusal().context(name)?;
            ensure!(refused.contains("authentication failed"), "{refused}");
        }
        Ok(())
    }));
}

#[test]
fn sasl_works_on_a_tcp_port_and_on_a_tls_port() {
    let builder = Libvirtd::builder()
        .tcp(Auth::Sasl)
        .tls(ServerCertificate::Good, Auth::Sasl)
        .sasl_mechanism("digest-md5")
        .sasl_mechanism("plain");
    let (name, password) = SASL_USER;
    story(builder.run(async |daemon| {
        let uris = [
            format!("{}?", daemon.tcp_uri("test")?),
            format!("{}&", daemon.tls_uri("test", ClientCertificate::Good)?),
        ];
        for uri in uris {
            for (password, is_right) in [(password, true), ("wrong", false)] {
                let file = daemon.auth_file(name, password)?;
                let uri = format!("{uri}authfile={}", file.display());
                let said = virsh(&uri, &["list"]).await?;
                ensure!(
                    said.success == is_right,
                    "{uri} with {password:?}: {said:?}"
                );
            }
        }
        Ok(())
    }));
}

// === Domains ===

#[test]
fn a_domain_boots_and_its_agent_answers_a_bridge() {
    story(Libvirtd::builder().run(async |daemon| {
        let domain = Domain::builder("web").build().await?;
        domain.create(daemon).await?;
        domain.up(daemon, 1).await?;
        let channel = domain.channel(daemon, AGENT_PORT).await?;
        let bridge = Bridge::start([Seat::new("web", channel)]).await?;
        bridge.ready("web").await?;
        let request = UnaryRequest {
            payload: b"hello".to_vec().into(),
            answer: None,
        };
        let mut client = bridge.place("web").exercise().await?;
        let answer = client.unary(request).await?.into_inner();
        ensure!(answer.payload == "hello", "{answer:?}");
        Ok(())
    }));
}

#[test]
fn a_domain_is_defined_paused_resumed_restarted_destroyed_and_undefined() {
    story(Libvirtd::builder().run(async |daemon| {
        let domain = Domain::builder("moved").build().await?;
        domain.define(daemon).await?;
        let state = async |expected: &str| -> Result<()> {
            let state = daemon.virsh(&["domstate", "moved"]).await?;
            ensure!(state.trim() == expected, "{state:?}, not {expected:?}");
            Ok(())
        };
        ensure!(daemon.virsh(&["domuuid", "moved"]).await?.trim() == domain.uuid());
        state("shut off").await?;
        daemon.virsh(&["start", "moved"]).await?;
        domain.up(daemon, 1).await?;
        daemon.virsh(&["suspend", "moved"]).await?;
        state("paused").await?;
        daemon.virsh(&["resume", "moved"]).await?;
        state("running").await?;
        daemon.virsh(&["reset", "moved"]).await?;
        domain.up(daemon, 2).await?;
        daemon.virsh(&["destroy", "moved"]).await?;
        state("shut off").await?;
        daemon.virsh(&["undefine", "moved"]).await?;
        ensure!(daemon.virsh(&["domstate", "moved"]).await.is_err());
        Ok(())
    }));
}
