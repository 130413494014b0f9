//! The project's interface files: their layout, and the code that comes of them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use common::{PROTOCOLS, interface, protocols};
use libvirt_codegen::{
    Input, Model, Options, compile_to, generate,
    model::{Enum, StreamDirection, TypeKind},
    parse, parse_file, render,
};
use proptest::{prelude::*, test_runner::RngSeed};
use syn::{ImplItem, Item};

fn api() -> Model {
    let specification = parse_file(interface("api")).unwrap();
    Model::new(&specification, &Options::new()).unwrap()
}

fn enums(model: &Model) -> BTreeMap<&str, &Enum> {
    let enums = model
        .types
        .iter()
        .filter_map(|definition| match &definition.kind {
            TypeKind::Enum(of) => Some((definition.name.as_str(), of)),
            _ => None,
        });
    enums.collect()
}

#[test]
fn every_file_has_the_layout_that_the_example_format_gives_it() {
    let mut models: Vec<_> = protocols()
        .into_iter()
        .map(|(name, model, _)| (name, model))
        .collect();
    models.push(("api", api()));
    for (name, model) in models {
        let text = fs::read_to_string(interface(name)).unwrap();
        let hint = "run the example `format` of libvirt-codegen over it";
        assert!(
            render(&model) == text,
            "{name}.x has another layout: {hint}"
        );
    }
}

#[test]
fn every_file_becomes_code_that_is_rust() {
    let mut codes: Vec<_> = protocols()
        .iter()
        .map(|(_, model, options)| generate(model, options).unwrap())
        .collect();
    codes.push(generate(&api(), &Options::libvirt().wire(false)).unwrap());
    for code in codes {
        let file = syn::parse_file(&code).unwrap();
        assert!(file.items.len() > 3);
    }
}

#[test]
fn every_procedure_that_a_client_may_call_is_a_method_and_every_other_an_event() {
    for (name, model, options) in protocols() {
        let Some(program) = model.programs.first() else {
            continue;
        };
        let file = syn::parse_file(&generate(&model, &options).unwrap()).unwrap();
        let events = program.procedures.iter().filter(|of| of.event).count();
        let methods: BTreeSet<_> = file.items.iter().flat_map(methods).collect();
        assert_eq!(methods.len(), program.procedures.len() - events, "{name}");
        let variants = file.items.iter().find_map(|item| match item {
            Item::Enum(of) if of.ident == "Event" => Some(of.variants.len()),
            _ => None,
        });
        assert_eq!(variants.unwrap_or_default(), events, "{name}");
        let tables = file.items.iter().filter(|item| match item {
            Item::Const(of) => is_procedure(&of.ty),
            _ => false,
        });
        assert_eq!(tables.count(), program.procedures.len(), "{name}");
    }
}

fn methods(item: &Item) -> Vec<String> {
    let Item::Impl(of) = item else {
        return Vec::new();
    };
    let functions = of.items.iter().filter_map(|item| match item {
        ImplItem::Fn(function) if function.sig.asyncness.is_some() => Some(&function.sig.ident),
        _ => None,
    });
    functions.map(ToString::to_string).collect()
}

fn is_procedure(of: &syn::Type) -> bool {
    let syn::Type::Path(path) = of else {
        return false;
    };
    path.path
        .segments
        .last()
        .is_some_and(|last| last.ident == "Procedure")
}

#[test]
fn streams_go_the_way_that_is_known() {
    let protocols = protocols();
    let (_, remote, _) = &protocols[2];
    let streams: Vec<_> = remote.programs[0]
        .procedures
        .iter()
        .filter_map(|procedure| Some((procedure.number, procedure.stream?)))
        .collect();
    use StreamDirection::{Both, Read, Write};
    assert_eq!(
        streams,
        [
            (148, Write),
            (201, Both),
            (208, Write),
            (209, Read),
            (211, Read),
            (215, Write),
            (296, Both),
            (304, Write),
        ]
    );
}

#[test]
fn every_procedure_tells_since_which_version_it_is_there() {
    for (_, model, _) in protocols() {
        for procedure in model
            .programs
            .iter()
            .flat_map(|program| &program.procedures)
        {
            let name = &procedure.name;
            let Some(since) = &procedure.docs.since else {
                panic!("{name} tells no version");
            };
            let parts: Vec<u32> = since.split('.').map(|part| part.parse().unwrap()).collect();
            assert_eq!(parts.len(), 3, "{name}");
        }
    }
}

#[test]
fn sets_of_flags_are_told_from_other_enums() {
    let api = api();
    let enums = enums(&api);
    for name in [
        "virConnectListAllDomainsFlags",
        "virDomainCreateFlags",
        "virDomainMemoryModFlags",
        "virDomainModificationImpact",
        "virDomainSaveRestoreFlags",
        "virDomainStatsTypes",
        "virDomainGuestInfoTypes",
        "virDomainUndefineFlagsValues",
        "virDomainXMLFlags",
        "virEventHandleType",
        "virDomainMigrateFlags",
        "virNetworkUpdateFlags",
        "virStorageVolCreateFlags",
        "virStreamEventType",
    ] {
        assert!(enums[name].flags, "{name}");
    }
    for name in [
        "virDomainState",
        "virDomainEventID",
        "virDomainEventType",
        "virDomainShutoffReason",
        "virErrorDomain",
        "virErrorLevel",
        "virErrorNumber",
        "virKeycodeSet",
        "virNetworkUpdateSection",
        "virSecretUsageType",
        "virStoragePoolState",
        "virTypedParameterType",
        "virVcpuState",
    ] {
        assert!(!enums[name].flags, "{name}");
    }
}

#[test]
fn well_known_numbers_of_the_api_are_right() {
    let api = api();
    for (name, value) in [
        ("VIR_DOMAIN_RUNNING", 1),
        ("VIR_DOMAIN_PMSUSPENDED", 7),
        ("VIR_ERR_NO_SUPPORT", 3),
        ("VIR_ERR_RPC", 39),
        ("VIR_ERR_NO_DOMAIN", 42),
        ("VIR_ERR_AUTH_FAILED", 45),
        ("VIR_FROM_RPC", 7),
        ("VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE", 18),
        ("VIR_DOMAIN_VCPU_MAXIMUM", 4),
        ("VIR_DOMAIN_DEVICE_MODIFY_LIVE", 1),
        ("VIR_CONNECT_GET_ALL_DOMAINS_STATS_ENFORCE_STATS", 1 << 31),
        ("VIR_TYPED_PARAM_STRING", 7),
    ] {
        assert_eq!(api.value(name), Some(value), "{name}");
    }
    assert_eq!(api.value("VIR_DOMAIN_LAST"), None);
}

#[test]
fn a_build_script_gets_one_file_for_each() {
    let directory = std::env::temp_dir().join(format!("libvirt-codegen-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let inputs: Vec<Input> = PROTOCOLS
        .iter()
        .map(|name| {
            Input::new(
                interface(name),
                format!("crate::raw::{name}"),
                Options::libvirt(),
            )
        })
        .collect();
    compile_to(&inputs, &directory).unwrap();
    for (name, model, options) in protocols() {
        let written = fs::read_to_string(directory.join(name).with_extension("rs")).unwrap();
        assert_eq!(written, generate(&model, &options).unwrap());
    }
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn errors_name_the_file_that_they_are_about() {
    let missing = Input::new(interface("missing"), "crate::missing", Options::new());
    let error = compile_to(&[missing], &std::env::temp_dir()).unwrap_err();
    assert!(error.to_string().contains("missing.x"), "{error}");
    // Without remote.x, the types that qemu.x takes from it are unknown.
    let alone = Input::new(interface("qemu"), "crate::qemu", Options::new());
    let error = compile_to(&[alone], &std::env::temp_dir())
        .unwrap_err()
        .to_string();
    assert!(error.contains("qemu.x:"), "{error}");
    assert!(
        error.contains("the type `remote_nonnull_domain` is unknown"),
        "{error}"
    );
}

/// Puts a word of the text somewhere else in it, takes one away, or has one twice.
fn damage(text: &str, from: usize, to: usize, how: usize) -> String {
    let mut words: Vec<&str> = text
        .split_inclusive(|c: char| !c.is_alphanumeric())
        .collect();
    let (from, to) = (from % words.len(), to % words.len());
    match how {
        0 => words.swap(from, to),
        1 => drop(words.remove(from)),
        2 => words.insert(to, words[from]),
        _ => words[from] = ["_", "__1", "0x", "self ", "{ ", "*", "type "][to % 7],
    }
    words.concat()
}

proptest! {
    // The same cases every time; another seed gives others.
    #![proptest_config(ProptestConfig {
        rng_seed: RngSeed::Fixed(4506),
        failure_persistence: None,
        ..ProptestConfig::with_cases(300)
    })]

    #[test]
    fn a_damaged_file_is_refused_or_becomes_code_but_nothing_panics(
        damages in prop::collection::vec((any::<usize>(), any::<usize>(), 0..4_usize), 1..4)
    ) {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        for path in [golden.join("types.x"), golden.join("program.x"), interface("virnet")] {
            let mut text = fs::read_to_string(path).unwrap();
            for (from, to, how) in &damages {
                text = damage(&text, *from, *to, *how);
            }
            let options = Options::libvirt();
            let Ok(specification) = parse(&text) else {
                continue;
            };
            let Ok(model) = Model::new(&specification, &options) else {
                continue;
            };
            prop_assert_eq!(
                Model::new(&parse(&render(&model)).unwrap(), &options).unwrap(),
                model.clone()
            );
            if let Ok(code) = generate(&model, &options) {
                prop_assert!(syn::parse_file(&code).is_ok(), "{}", code);
            }
        }
    }
}
