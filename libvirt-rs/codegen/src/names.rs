//! From the names of an interface file to those of Rust.

use heck::{ToSnakeCase as _, ToUpperCamelCase as _};
use proc_macro2::{Ident, Span};

use crate::model::Model;

/// Names that generated code uses for what Rust's prelude has.
const PRELUDE: &[&str] = &[
    "Box", "Err", "None", "Ok", "Option", "Result", "Self", "Some", "String", "TryFrom", "Vec",
];

/// Words at the end of an enum's name that say what kind of enum it is, and that its members lack.
const KINDS: &[&str] = &[
    "CODE", "FLAG", "FLAGS", "KIND", "NUMBER", "REASON", "STATE", "STATUS", "TYPE", "TYPES",
    "VALUE", "VALUES",
];

/// What is left out of the names of a model's types: `remote_`, or C's `vir` where names stand for no wire type.
pub(crate) fn prefix(model: &Model, wire: bool) -> String {
    match model.programs.first() {
        Some(program) => program.type_prefix(),
        None if wire => String::new(),
        None => "vir".to_owned(),
    }
}

/// `remote_nonnull_domain` → `NonnullDomain`. The prefix stays where the name would hide one of Rust's prelude.
pub(crate) fn type_name(name: &str, prefix: &str) -> String {
    let bare = name.strip_prefix(prefix).unwrap_or(name);
    let short = upper_camel(bare);
    let begins_well = short.starts_with(|first: char| first.is_ascii_alphabetic());
    if begins_well && !PRELUDE.contains(&short.as_str()) {
        return short;
    }
    let long = upper_camel(name);
    if PRELUDE.contains(&long.as_str()) {
        return format!("{long}Xdr");
    }
    long
}

/// `callbackID` → `callback_id`.
pub(crate) fn snake(name: &str) -> String {
    plurals(name).to_snake_case()
}

/// `DOMAIN_GET_XML_DESC` → `DomainGetXmlDesc`.
pub(crate) fn upper_camel(name: &str) -> String {
    plurals(name).to_upper_camel_case()
}

/// Any name as an identifier, escaped if it is a keyword.
pub(crate) fn ident(name: &str) -> Ident {
    // A keyword since edition 2024, of which `syn` does not know.
    let is_plain = name != "gen" && syn::parse_str::<Ident>(name).is_ok();
    if is_plain {
        return Ident::new(name, Span::call_site());
    }
    let ident = |name: &str| Ident::new(name, Span::call_site());
    match name {
        // Of names that are nothing but underscores, this is left.
        "" | "_" => ident("__"),
        // These can't be escaped.
        "self" | "Self" | "super" | "crate" => ident(&format!("{name}_")),
        _ if name.starts_with(|first: char| first.is_ascii_digit()) => ident(&format!("_{name}")),
        // Names of interface files are letters, digits and underscores: what is left are keywords.
        _ => Ident::new_raw(name, Span::call_site()),
    }
}

/// `xmlCPUs` → `xmlCpus`, or the `s` would begin a word with the last letter before it: `xml_cp_us`.
fn plurals(name: &str) -> String {
    let characters: Vec<char> = name.chars().collect();
    let mut result = characters.clone();
    for (end, character) in characters.iter().enumerate() {
        let behind = characters.get(end + 1);
        let ends = behind.is_none_or(|behind| !behind.is_ascii_lowercase());
        let acronym = characters[..end].iter().rev();
        let length = acronym
            .take_while(|before| before.is_ascii_uppercase())
            .count();
        if *character == 's' && ends && length > 1 {
            for letter in &mut result[end + 1 - length..end] {
                letter.make_ascii_lowercase();
            }
        }
    }
    result.into_iter().collect()
}

/// The names of an enum's members without what they have in common, still in capitals.
///
/// What they begin with is either the enum's own name, as in `VIR_DOMAIN_XML_SECURE` of `virDomainXMLFlags`, or
/// whatever all of them begin with. At least one word is left of each, and no digit comes first.
pub(crate) fn members<'a>(of: &str, names: &[&'a str]) -> Vec<&'a str> {
    let split: Vec<Vec<&str>> = names.iter().map(|name| name.split('_').collect()).collect();
    let common = common_words(&split);
    let own = own_words(of, &split);
    let usual = usual_words(&split, common);
    split
        .iter()
        .zip(names)
        .map(|(words, name)| {
            let mut skip = own.unwrap_or(common);
            if own.is_none() && !usual.is_empty() && words.starts_with(&usual) {
                skip = usual.len();
            }
            skip = skip.min(words.len() - 1);
            let valid = |skip: usize| words[skip].starts_with(|c: char| c.is_ascii_alphabetic());
            while skip > 0 && !valid(skip) {
                skip -= 1;
            }
            let skipped: usize = words[..skip].iter().map(|word| word.len() + 1).sum();
            &name[skipped..]
        })
        .collect()
}

/// How many words all names begin with.
fn common_words(names: &[Vec<&str>]) -> usize {
    let Some((first, others)) = names.split_first() else {
        return 0;
    };
    let shortest = names.iter().map(Vec::len).min().unwrap_or_default();
    (0..shortest.saturating_sub(1))
        .take_while(|index| others.iter().all(|other| other[*index] == first[*index]))
        .count()
}

/// How many words at the begin of all names are the enum's own, if these include the last that means something.
///
/// Words of the enum's name may be missing in its members', or cut short: `VIR_DOMAIN_TIME_SYNC` is one of
/// `virDomainSetTimeFlags`, `VIR_TYPED_PARAM_INT` of `virTypedParameterType`.
fn own_words(of: &str, names: &[Vec<&str>]) -> Option<usize> {
    let of = snake(of).to_uppercase();
    let own: Vec<&str> = of.split('_').collect();
    let meaning = own.iter().rposition(|word| !KINDS.contains(word))?;
    let covered = names.iter().map(|words| {
        let mut next = 0;
        let mut count = 0;
        for word in &words[..words.len() - 1] {
            let found = (next..own.len()).find_map(|at| Some(at + stands_for(word, &own[at..])?));
            let Some(end) = found else {
                break;
            };
            next = end;
            count += 1;
        }
        // There is nothing else to go by if the enum has no other members.
        (next > meaning || names.len() == 1).then_some(count)
    });
    let covered: Option<Vec<usize>> = covered.collect();
    covered?.into_iter().min()
}

/// How many words `word` stands for: `PARAM` and `PARAMETERS` for `PARAMETER`, `NWFILTER` for `NW` and `FILTER`.
fn stands_for(word: &str, own: &[&str]) -> Option<usize> {
    const SHORTEST: usize = 3;
    let (first, others) = own.split_first()?;
    if word == *first
        || word.strip_suffix('S') == Some(first)
        || word.len() >= SHORTEST && first.starts_with(word)
    {
        return Some(1);
    }
    let rest = word.strip_prefix(first)?;
    (others.first() == Some(&rest)).then_some(2)
}

/// Where all names share no more than one word, the words that three quarters of them share: error numbers begin with
/// `VIR_ERR_`, but the warnings among them with `VIR_WAR_`.
fn usual_words<'a>(names: &[Vec<&'a str>], common: usize) -> Vec<&'a str> {
    let Some(first) = names.first() else {
        return Vec::new();
    };
    if common != 1 || first.len() < 3 {
        return Vec::new();
    }
    let usual = &first[..2];
    let count = names
        .iter()
        .filter(|words| words.len() > 2 && words.starts_with(usual));
    if count.count() * 4 >= names.len() * 3 {
        return usual.to_vec();
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acronyms_and_numbers_are_words() {
        for (name, camel, snaked) in [
            ("callbackID", "CallbackId", "callback_id"),
            ("get_xml_desc", "GetXmlDesc", "get_xml_desc"),
            ("XML2Desc", "Xml2Desc", "xml2_desc"),
            ("xmlCPUs", "XmlCpus", "xml_cpus"),
            ("nrVirtCpu", "NrVirtCpu", "nr_virt_cpu"),
            ("libVer", "LibVer", "lib_ver"),
            ("usageID", "UsageId", "usage_id"),
            (
                "virNodeGetCPUStatsAllCPUs",
                "VirNodeGetCpuStatsAllCpus",
                "vir_node_get_cpu_stats_all_cpus",
            ),
            (
                "virDomainFDAssociateFlags",
                "VirDomainFdAssociateFlags",
                "vir_domain_fd_associate_flags",
            ),
            (
                "DOMAIN_MIGRATE_PREPARE3_PARAMS",
                "DomainMigratePrepare3Params",
                "domain_migrate_prepare3_params",
            ),
            (
                "DOMAIN_EVENT_BLOCK_JOB_2",
                "DomainEventBlockJob2",
                "domain_event_block_job_2",
            ),
            ("errs", "Errs", "errs"),
            ("rd_req", "RdReq", "rd_req"),
        ] {
            assert_eq!(upper_camel(name), camel);
            assert_eq!(snake(name), snaked);
        }
    }

    #[test]
    fn a_types_prefix_goes_unless_the_rest_would_hide_the_prelude() {
        for (name, prefix, expected) in [
            ("remote_nonnull_domain", "remote_", "NonnullDomain"),
            ("remote_string", "remote_", "RemoteString"),
            ("admin_string", "admin_", "AdminString"),
            ("virNetMessageError", "", "VirNetMessageError"),
            ("virDomainState", "vir", "DomainState"),
            ("remote_2x", "remote_", "Remote2x"),
            ("string_", "remote_", "StringXdr"),
        ] {
            assert_eq!(type_name(name, prefix), expected);
        }
    }

    #[test]
    fn keywords_are_escaped() {
        for (name, expected) in [
            ("type", "r#type"),
            ("name", "name"),
            ("self", "self_"),
            ("gen", "r#gen"),
            ("_", "__"),
            ("1", "_1"),
        ] {
            assert_eq!(ident(name).to_string(), expected);
        }
    }

    #[test]
    fn members_lose_what_they_have_in_common() {
        for (of, names, expected) in [
            (
                "virDomainState",
                &["VIR_DOMAIN_NOSTATE", "VIR_DOMAIN_RUNNING"][..],
                &["NOSTATE", "RUNNING"][..],
            ),
            (
                "virDomainXMLFlags",
                &["VIR_DOMAIN_XML_SECURE", "VIR_DOMAIN_XML_UPDATE_CPU"],
                &["SECURE", "UPDATE_CPU"],
            ),
            // The enum's name is complete before what its members share ends.
            (
                "virDomainFDAssociateFlags",
                &[
                    "VIR_DOMAIN_FD_ASSOCIATE_SECLABEL_RESTORE",
                    "VIR_DOMAIN_FD_ASSOCIATE_SECLABEL_WRITABLE",
                ],
                &["SECLABEL_RESTORE", "SECLABEL_WRITABLE"],
            ),
            // Words of the enum's name are missing, or in the plural.
            (
                "virConnectListAllDomainsFlags",
                &[
                    "VIR_CONNECT_LIST_DOMAINS_ACTIVE",
                    "VIR_CONNECT_LIST_DOMAINS_INACTIVE",
                ],
                &["ACTIVE", "INACTIVE"],
            ),
            (
                "virConnectListAllNodeDeviceFlags",
                &[
                    "VIR_CONNECT_LIST_NODE_DEVICES_CAP_NET",
                    "VIR_CONNECT_LIST_NODE_DEVICES_CAP_SCSI",
                ],
                &["CAP_NET", "CAP_SCSI"],
            ),
            (
                "virDomainSetTimeFlags",
                &["VIR_DOMAIN_TIME_SYNC"],
                &["SYNC"],
            ),
            // The members' names are not the enum's.
            (
                "virDomainMemoryFailureActionType",
                &[
                    "VIR_DOMAIN_EVENT_MEMORY_FAILURE_ACTION_IGNORE",
                    "VIR_DOMAIN_EVENT_MEMORY_FAILURE_ACTION_RESET",
                ],
                &["IGNORE", "RESET"],
            ),
            (
                "virErrorDomain",
                &["VIR_FROM_NONE", "VIR_FROM_XEN"],
                &["NONE", "XEN"],
            ),
            (
                "virErrorNumber",
                &[
                    "VIR_ERR_OK",
                    "VIR_ERR_NO_DOMAIN",
                    "VIR_ERR_RPC",
                    "VIR_WAR_NO_NETWORK",
                ],
                &["OK", "NO_DOMAIN", "RPC", "WAR_NO_NETWORK"],
            ),
            // No digit comes first, and something is left.
            ("e", &["E_1", "E_2"], &["E_1", "E_2"]),
            ("e", &["A", "B"], &["A", "B"]),
            ("e", &["A_B", "A_B_C"], &["B", "B_C"]),
            (
                "virTypedParameterType",
                &["VIR_TYPED_PARAM_INT", "VIR_TYPED_PARAM_STRING"],
                &["INT", "STRING"],
            ),
            (
                "virTypedParameterFlags",
                &["VIR_TYPED_PARAM_STRING_OKAY"],
                &["STRING_OKAY"],
            ),
            (
                "virConnectCloseReason",
                &[
                    "VIR_CONNECT_CLOSE_REASON_EOF",
                    "VIR_CONNECT_CLOSE_REASON_ERROR",
                ],
                &["EOF", "ERROR"],
            ),
            ("virAlone", &["VIR_ALONE"], &["ALONE"]),
        ] {
            assert_eq!(members(of, names), expected, "{of}");
        }
    }
}
