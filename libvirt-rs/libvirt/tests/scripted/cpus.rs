//! What a domain's CPUs do: the daemon is asked for exactly as many maps and values as there are.

use libvirt::{
    Connect, Domain, Value,
    raw::{api, remote},
};

use crate::script::{Answer, Scripted, is, text, words};

/// The host's CPUs: more than one question about their use may have, and more than a map of 16 bytes.
const HOST: usize = 130;
/// Those of which the daemon knows the use.
const KNOWN: usize = 129;
/// The bytes of a map of the host's CPUs.
const MAP: usize = 17;

fn say<T: serde::Serialize>(reply: &T) -> Answer {
    Answer::Say(libvirt_xdr::to_bytes(reply).unwrap())
}

/// The use of some of the host's CPUs: CPU 5 has used 5 ns.
fn cpu_stats(arguments: &[u8]) -> remote::DomainGetCpuStatsRet {
    let asked: remote::DomainGetCpuStatsArgs = libvirt_xdr::from_bytes(arguments).unwrap();
    if (asked.nparams, asked.start_cpu, asked.ncpus) == (0, 0, 0) {
        return remote::DomainGetCpuStatsRet {
            params: Vec::new(),
            nparams: i32::try_from(HOST).unwrap(),
        };
    }
    assert!(asked.nparams >= 2 && asked.ncpus <= 128 && asked.nparams * asked.ncpus <= 2048);
    let first = usize::try_from(asked.start_cpu).unwrap();
    let end = (first + asked.ncpus as usize).min(KNOWN);
    let value = |name: &str, value: usize| remote::TypedParam {
        field: name.to_owned(),
        value: remote::TypedParamValue::Ullong(value as u64),
    };
    remote::DomainGetCpuStatsRet {
        params: (first..end)
            .flat_map(|cpu| [value("cpu_time", cpu), value("vcpu_time", 1)])
            .collect(),
        nparams: 2,
    }
}

/// A map with this one CPU.
fn map(cpu: usize) -> Vec<u8> {
    let mut map = vec![0; MAP];
    map[cpu / 8] = 1 << (cpu % 8);
    map
}

/// A daemon with a domain of two CPUs, which may have three, and a host that tells how many it has in one way or another.
fn daemon(tells_map: bool) -> Scripted {
    Scripted::unix(move |procedure, arguments| {
        if is(procedure, &remote::DOMAIN_LOOKUP_BY_NAME) {
            return Answer::Say([text("web"), vec![7; 16], words(&[3])].concat());
        }
        if is(procedure, &remote::NODE_GET_CPU_MAP) {
            if !tells_map {
                return Answer::Unsupported;
            }
            return Answer::Say(words(&[0, 0, 130]));
        }
        if is(procedure, &remote::NODE_GET_INFO) {
            return say(&remote::NodeGetInfoRet {
                nodes: 1,
                sockets: 5,
                cores: 13,
                threads: 2,
                ..remote::NodeGetInfoRet::default()
            });
        }
        if is(procedure, &remote::DOMAIN_GET_INFO) {
            return say(&remote::DomainGetInfoRet {
                nr_virt_cpu: 2,
                ..remote::DomainGetInfoRet::default()
            });
        }
        if is(procedure, &remote::DOMAIN_GET_VCPUS_FLAGS) {
            return Answer::Say(words(&[3]));
        }
        if is(procedure, &remote::DOMAIN_GET_VCPUS) {
            let asked: remote::DomainGetVcpusArgs = libvirt_xdr::from_bytes(arguments).unwrap();
            assert_eq!((asked.maxinfo, asked.maplen), (2, 17));
            let vcpu = |number: u32, cpu| remote::VcpuInfo {
                number,
                state: 1,
                cpu_time: 9,
                cpu,
            };
            return say(&remote::DomainGetVcpusRet {
                info: vec![vcpu(0, 129), vcpu(2, -1)],
                cpumaps: [map(129), map(4)].concat(),
            });
        }
        if is(procedure, &remote::DOMAIN_GET_VCPU_PIN_INFO) {
            let asked: remote::DomainGetVcpuPinInfoArgs =
                libvirt_xdr::from_bytes(arguments).unwrap();
            assert_eq!((asked.ncpumaps, asked.maplen, asked.flags), (3, 17, 2));
            return say(&remote::DomainGetVcpuPinInfoRet {
                // As long as was asked for, with two that are meant.
                cpumaps: [map(1), map(2), vec![0; MAP]].concat(),
                num: 2,
            });
        }
        if is(procedure, &remote::DOMAIN_GET_EMULATOR_PIN_INFO) {
            return say(&remote::DomainGetEmulatorPinInfoRet {
                cpumaps: map(129),
                ret: 1,
            });
        }
        if is(procedure, &remote::DOMAIN_GET_CPU_STATS) {
            return say(&cpu_stats(arguments));
        }
        Answer::Usual
    })
}

async fn web(daemon: &Scripted) -> Domain {
    let opening = Connect::builder(&daemon.uri).keepalive(None).open();
    let connect = opening.await.unwrap();
    connect.domain_by_name("web").await.unwrap()
}

#[tokio::test]
async fn virtual_cpus_come_with_the_hosts_cpus_that_they_may_run_on() {
    for tells_map in [true, false] {
        let daemon = daemon(tells_map);
        let vcpus = web(&daemon).await.vcpus().await.unwrap();
        let found: Vec<_> = vcpus
            .into_iter()
            .map(|vcpu| (vcpu.number, vcpu.cpu, vcpu.cpus))
            .collect();
        assert_eq!(found, [(0, Some(129), map(129)), (2, None, map(4))]);
    }
}

#[tokio::test]
async fn pins_are_told_for_each_virtual_cpu_and_for_the_emulator() {
    let daemon = daemon(true);
    let domain = web(&daemon).await;
    let config = api::DomainModificationImpact::CONFIG;
    assert_eq!(domain.vcpu_pins(config).await.unwrap(), [map(1), map(2)]);
    assert_eq!(domain.emulator_pin(config).await.unwrap(), map(129));
}

#[tokio::test]
async fn the_use_of_each_of_the_hosts_cpus_is_asked_for_piece_by_piece() {
    let daemon = daemon(true);
    let domain = web(&daemon).await;
    let of_each = domain.cpu_stats_by_cpu().await.unwrap();
    assert_eq!(of_each.len(), HOST);
    for (cpu, values) in of_each.iter().enumerate() {
        let expected = (cpu < KNOWN).then_some(Value::ULong(cpu as u64));
        assert_eq!(values.get("cpu_time"), expected.as_ref(), "CPU {cpu}");
    }
    assert_eq!(of_each[KNOWN].iter().count(), 0);
    let asked = daemon.procedures();
    let stats = asked
        .iter()
        .filter(|&&of| is(of, &remote::DOMAIN_GET_CPU_STATS));
    assert_eq!(stats.count(), 3, "the count, and two pieces");
}
