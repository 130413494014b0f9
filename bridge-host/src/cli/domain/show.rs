//! Domains in tables, facts and JSON.

use serde_json::{Value, json};
use vbridge_api::host::v1::{
    Domain, DomainState, GetDomainResponse, Hypervisor, ListDomainsResponse,
};

use super::{printable, printable_sentence};
use crate::cli::{
    output::{facts, listing},
    units::{bytes, duration, json_seconds, long_time},
};

/// As `virsh list` has it, with the guests, and with the hypervisors if there are several.
pub(super) fn table(answer: &ListDomainsResponse) -> String {
    let several = answer.hypervisors.len() > 1;
    let mut header = vec!["ID", "NAME", "STATE", "GUEST"];
    if several {
        header.push("HYPERVISOR");
    }
    let rows = answer.domains.iter().map(|domain| {
        let id = domain.id.map_or("-".to_owned(), |id| id.to_string());
        let state = state(domain).to_owned();
        let mut row = vec![id, printable(&domain.name), state, printable(&domain.guest)];
        if several {
            row.push(printable(&domain.hypervisor));
        }
        row
    });
    listing(&header, rows)
}

/// Why a hypervisor's domains are not among those that are listed.
pub(super) fn unreachable(hypervisor: &Hypervisor) -> String {
    format!(
        "the hypervisor {} can't be asked: {}",
        printable(&hypervisor.uri),
        printable_sentence(&hypervisor.unreachable)
    )
}

pub(super) fn facts_of(answer: &GetDomainResponse) -> String {
    let domain = answer.domain.clone().unwrap_or_default();
    let details = answer.details.unwrap_or_default();
    let reason = match domain.state_reason.as_str() {
        "" => String::new(),
        reason => format!(" ({})", printable(reason)),
    };
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let cpu_time = duration(details.cpu_time.as_ref()).map(long_time);
    facts([
        ("Name", printable(&domain.name)),
        ("UUID", printable(&domain.uuid)),
        ("ID", domain.id.map_or("-".to_owned(), |id| id.to_string())),
        ("State", format!("{}{reason}", state(&domain))),
        ("Guest", printable(&domain.guest)),
        ("Hypervisor", printable(&domain.hypervisor)),
        ("Host", printable(&domain.host)),
        ("CPUs", details.vcpus.to_string()),
        ("CPU time", cpu_time.unwrap_or_default()),
        ("Memory", bytes(details.memory_bytes)),
        ("Max memory", bytes(details.max_memory_bytes)),
        ("Persistent", yes(details.persistent)),
        ("Autostart", yes(details.autostart)),
    ])
}

pub(super) fn json_list(answer: &ListDomainsResponse) -> Value {
    let domains: Vec<Value> = answer.domains.iter().map(json_domain).collect();
    json!({ "domains": domains, "hypervisors": json_hypervisors(&answer.hypervisors) })
}

pub(super) fn json_hypervisors(hypervisors: &[Hypervisor]) -> Vec<Value> {
    let json = |hypervisor: &Hypervisor| {
        json!({
            "uri": hypervisor.uri,
            "host": hypervisor.host,
            "unreachable": hypervisor.unreachable,
        })
    };
    hypervisors.iter().map(json).collect()
}

pub(super) fn json_info(answer: &GetDomainResponse) -> Value {
    let details = answer.details.unwrap_or_default();
    json!({
        "domain": answer.domain.as_ref().map(json_domain),
        "vcpus": details.vcpus,
        "cpu_time_seconds": json_seconds(details.cpu_time.as_ref()),
        "memory_bytes": details.memory_bytes,
        "max_memory_bytes": details.max_memory_bytes,
        "persistent": details.persistent,
        "autostart": details.autostart,
    })
}

pub(super) fn json_domain(domain: &Domain) -> Value {
    json!({
        "hypervisor": domain.hypervisor,
        "host": domain.host,
        "name": domain.name,
        "uuid": domain.uuid,
        "id": domain.id,
        "state": state(domain),
        "state_reason": domain.state_reason,
        "guest": domain.guest,
    })
}

/// The state in virsh's words, for people and programs alike.
pub(super) fn state(domain: &Domain) -> &'static str {
    match domain.state() {
        DomainState::Unspecified => "no state",
        DomainState::Running => "running",
        DomainState::Blocked => "idle",
        DomainState::Paused => "paused",
        DomainState::Shutdown => "in shutdown",
        DomainState::Shutoff => "shut off",
        DomainState::Crashed => "crashed",
        DomainState::Pmsuspended => "pmsuspended",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(name: &str, id: Option<i32>) -> Domain {
        let state = match id {
            Some(_) => DomainState::Running,
            None => DomainState::Shutoff,
        };
        Domain {
            hypervisor: "qemu:///system".to_owned(),
            name: name.to_owned(),
            id,
            state: state.into(),
            state_reason: "booted".to_owned(),
            ..Domain::default()
        }
    }

    fn hypervisor(uri: &str, unreachable: &str) -> Hypervisor {
        Hypervisor {
            uri: uri.to_owned(),
            host: String::new(),
            unreachable: unreachable.to_owned(),
        }
    }

    #[test]
    fn domains_are_listed_as_virsh_does_and_hypervisors_where_there_are_several() {
        let mut answer = ListDomainsResponse {
            domains: vec![domain("db", None), domain("web\u{7}", Some(3))],
            hypervisors: vec![hypervisor("qemu:///system", "")],
        };
        let text = table(&answer);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with("ID") && !lines[0].contains("HYPERVISOR"),
            "{text}"
        );
        assert!(
            lines[1].starts_with('-') && lines[1].contains("shut off"),
            "{text}"
        );
        assert!(
            lines[2].starts_with('3') && lines[2].contains("web\\u{7}"),
            "{text}"
        );
        answer
            .hypervisors
            .push(hypervisor("qemu:///far", "it is\taway"));
        assert!(table(&answer).contains("qemu:///system"));
        let sentence = unreachable(&answer.hypervisors[1]);
        assert!(
            sentence.contains("qemu:///far") && sentence.ends_with("it is\\taway"),
            "{sentence}"
        );
    }

    #[test]
    fn a_domain_is_told_with_its_state_and_why() {
        let answer = GetDomainResponse {
            domain: Some(domain("web", Some(3))),
            details: None,
        };
        let text = facts_of(&answer);
        assert!(text.contains("running (booted)"), "{text}");
        assert_eq!(json_info(&answer)["domain"]["state"], "running");
        assert_eq!(json_domain(&domain("db", None))["id"], Value::Null);
    }
}
