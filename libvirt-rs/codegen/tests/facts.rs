//! The project's interface files against the tables of facts, and against libvirt's own files if there are any.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Debug,
    fs,
    path::Path,
};

use common::{Facts, PROTOCOLS, ProcedureFacts, interface, protocols};
use libvirt_codegen::{Model, Options, parse_file};

#[test]
fn every_interface_file_says_what_its_table_says_and_nothing_else() {
    for (name, model, _) in protocols() {
        let table = Facts::of(name);
        let facts = Facts::from_model(&model, &table);
        // First what differs least, so that a failure shows the difference and not a whole file.
        same(name, &facts.constants, &table.constants, |of| &of.name);
        same(name, &facts.typedefs, &table.typedefs, |of| &of.name);
        same(name, &facts.enums, &table.enums, |of| &of.name);
        same(name, &facts.structs, &table.structs, |of| &of.name);
        same(name, &facts.unions, &table.unions, |of| &of.name);
        same(name, &facts.procedures, &table.procedures, |of| &of.name);
        assert_eq!(facts.program, table.program, "{name}");
        assert_eq!(facts, table, "the order in {name}.x");
    }
}

/// Both have the same, each entry as the other.
fn same<T: PartialEq + Debug>(file: &str, ours: &[T], table: &[T], name: fn(&T) -> &String) {
    let by_name = |of: &[T]| {
        of.iter()
            .map(|of| name(of).clone())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(by_name(ours), by_name(table), "the names in {file}.x");
    for (ours, table) in ours.iter().zip(table) {
        assert_eq!(ours, table, "{} in {file}.x", name(table));
    }
}

#[test]
fn the_counts_are_those_that_are_known() {
    let counts: Vec<_> = protocols()
        .iter()
        .map(|(name, model, _)| {
            let procedures = model
                .programs
                .iter()
                .flat_map(|program| &program.procedures);
            (*name, procedures.count(), Facts::of(name).structs.len())
        })
        .collect();
    assert_eq!(
        counts,
        [
            ("virnet", 0, 5),
            ("keepalive", 2, 0),
            ("remote", 456, 704),
            ("qemu", 7, 12),
            ("lxc", 1, 1),
            ("admin", 20, 31),
        ]
    );
}

#[test]
fn the_constants_from_c_headers_are_those_of_the_tables() {
    let mut bare = Options::new();
    for (name, model, _) in protocols() {
        let externals = Facts::of(name).external_constants;
        bare = externals.iter().fold(bare, |options, external| {
            options.constant(&external.name, external.value)
        });
        let specification = parse_file(interface(name)).unwrap();
        let alone = Model::new(&specification, &bare).unwrap();
        assert_eq!(alone, model, "{name}");
        bare = bare.import(name, alone);
    }
}

/// What libvirt's files know: they don't say where descriptors travel, nor which way a stream goes that is used for
/// both.
fn without_ours(procedure: &ProcedureFacts) -> ProcedureFacts {
    let stream = match (procedure.readstream, procedure.writestream) {
        (Some(_), _) => Some("read".to_owned()),
        (None, Some(_)) => Some("write".to_owned()),
        (None, None) => None,
    };
    ProcedureFacts {
        fds: Vec::new(),
        stream,
        ..procedure.clone()
    }
}

/// With `LIBVIRT_SOURCE` set to a source tree of libvirt, its files are read too. A tree of another version than the
/// tables' may lack procedures, and ask for other access rights; these differences are named.
#[test]
fn libvirts_own_files_say_the_same() {
    let Some(source) = env::var_os("LIBVIRT_SOURCE") else {
        println!(
            "LIBVIRT_SOURCE is not set: libvirt's own files were NOT compared, only the tables made from them"
        );
        return;
    };
    let build = fs::read_to_string(Path::new(&source).join("meson.build")).unwrap();
    let same_version = build.contains("version: '11.3.0'");
    let source = Path::new(&source).join("src");
    let files = [
        "rpc/virnetprotocol.x",
        "rpc/virkeepaliveprotocol.x",
        "remote/remote_protocol.x",
        "remote/qemu_protocol.x",
        "remote/lxc_protocol.x",
        "admin/admin_protocol.x",
    ];
    let mut options = Options::libvirt();
    for (name, file) in PROTOCOLS.iter().zip(files) {
        let specification = parse_file(source.join(file)).unwrap();
        let model = Model::new(&specification, &options).unwrap();
        let table = Facts::of(name);
        let mut theirs = Facts::from_model(&model, &table);
        theirs.procedures = theirs.procedures.iter().map(without_ours).collect();
        let mut ours: Vec<_> = table.procedures.iter().map(without_ours).collect();
        if !same_version {
            forget_rights(file, &mut theirs.procedures, &mut ours);
        }
        within(file, &theirs.constants, &table.constants, |of| &of.name);
        within(file, &theirs.typedefs, &table.typedefs, |of| &of.name);
        within(file, &theirs.enums, &table.enums, |of| &of.name);
        within(file, &theirs.structs, &table.structs, |of| &of.name);
        within(file, &theirs.unions, &table.unions, |of| &of.name);
        within(file, &theirs.procedures, &ours, |of| &of.name);
        assert_eq!(theirs.program, table.program, "{file}");
        options = options.import(*name, model);
    }
}

fn forget_rights(file: &str, theirs: &mut [ProcedureFacts], ours: &mut [ProcedureFacts]) {
    for procedure in ours {
        let rights = std::mem::take(&mut procedure.acl);
        if let Some(same) = theirs.iter_mut().find(|of| of.name == procedure.name) {
            let others = std::mem::take(&mut same.acl);
            if rights != others {
                let name = &procedure.name;
                println!("{file}: {name} asks for {others:?}, and in the tables for {rights:?}");
            }
        }
    }
}

/// Whatever libvirt has, the tables have as well.
fn within<T: PartialEq + Debug>(file: &str, theirs: &[T], table: &[T], name: fn(&T) -> &String) {
    let known: BTreeMap<&String, &T> = table.iter().map(|of| (name(of), of)).collect();
    for of in theirs {
        assert_eq!(Some(&of), known.get(name(of)), "{} in {file}", name(of));
    }
    let theirs: BTreeSet<&String> = theirs.iter().map(name).collect();
    let alone: Vec<_> = known
        .keys()
        .filter(|name| !theirs.contains(*name))
        .collect();
    println!("{file}: {} entries are the same", theirs.len());
    if !alone.is_empty() {
        println!("{file}: only the tables have {alone:?}");
    }
}

/// The other files of a source tree, whose protocols the project does not speak, are read as well.
#[test]
fn libvirts_other_files_can_be_read() {
    let Some(source) = env::var_os("LIBVIRT_SOURCE") else {
        println!("LIBVIRT_SOURCE is not set: libvirt's other files were NOT read");
        return;
    };
    let source = Path::new(&source).join("src");
    for (file, procedures) in [
        ("locking/lock_protocol.x", 8),
        ("logging/log_protocol.x", 4),
        ("lxc/lxc_monitor_protocol.x", 2),
    ] {
        let specification = parse_file(source.join(file)).unwrap();
        let model = Model::new(&specification, &Options::libvirt()).unwrap();
        assert_eq!(model.programs[0].procedures.len(), procedures, "{file}");
    }
}
