//! What is generated from some small files, word for word.
//!
//! After a change that is meant, `LIBVIRT_CODEGEN_BLESS=1 cargo test -p libvirt-codegen --test golden` writes the files
//! anew; the difference shows in the repository.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{env, fs, path::Path};

use libvirt_codegen::{Error, Model, Options, generate, parse, parse_file};

fn assert_generates(name: &str, options: &Options) -> Model {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let specification = parse_file(golden.join(name).with_extension("x")).unwrap();
    let model = Model::new(&specification, options).unwrap();
    let code = generate(&model, options).unwrap();
    let path = golden.join(name).with_extension("rs");
    if env::var_os("LIBVIRT_CODEGEN_BLESS").is_some() {
        fs::write(&path, &code).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap();
    assert!(
        code == expected,
        "{name}.x becomes other code than {name}.rs; it is now:\n{code}"
    );
    model
}

#[test]
fn types_become_what_they_were() {
    assert_generates("types", &Options::new());
}

#[test]
fn programs_become_what_they_were() {
    let base = assert_generates("program", &Options::new());
    let options = Options::new()
        .import("crate::raw::base", base)
        .client(false);
    assert_generates("importing", &options);
}

#[test]
fn numbers_of_an_api_become_what_they_were() {
    assert_generates("api", &Options::new().wire(false));
}

#[test]
fn what_has_no_counterpart_in_rust_is_refused_with_the_reason() {
    let program = "const P_PROGRAM = 1; const P_PROTOCOL_VERSION = 1; enum p_procedure";
    for (text, item, why) in [
        (
            "struct a_b { int x; }; struct aB { int x; };",
            "aB",
            "both it and `a_b` would be `AB`",
        ),
        (
            "struct a { int bC; int b_c; };",
            "b_c",
            "both it and `bC` would be `b_c`",
        ),
        (
            "const self = 1; const self_ = 2;",
            "self_",
            "both it and `self` would be `self_`",
        ),
        (
            "const element = 1;",
            "element",
            "the name of a function that the code needs",
        ),
        (
            "enum e { e_a = 1, as_raw = 1 };",
            "as_raw",
            "would be `as_raw`",
        ),
        (
            "enum e { E_A_B, E_AB, E_A__B };",
            "E_A__B",
            "both it and `E_A_B` would be `AB`",
        ),
        (
            &format!("{program} {{ P_PROC_P_PROGRAM }};"),
            "P_PROC_P_PROGRAM",
            "would be `P_PROGRAM`",
        ),
        (
            &format!("struct p_event {{ int x; }}; {program} {{ /** @event */ P_PROC_A }};"),
            "p_event",
            "that of the enum of all events",
        ),
        (
            &format!("struct p_p {{ int x; }}; {program} {{ P_PROC_A }};"),
            "p_p",
            "that of the client",
        ),
        (
            &format!("{program} {{ /**\n@fds: call\n@readstream: 1 */ P_PROC_A }};"),
            "P_PROC_A",
            "both a stream and descriptors",
        ),
        (
            "const OTHER = 1; union u switch (int x) { case OTHER: void; default: void; };",
            "OTHER",
            "both it and `default` would be `Other`",
        ),
        (
            &format!("{program} {{ P_PROC_A_B, P_PROC_A__B }};"),
            "P_PROC_A__B",
            "both it and `P_PROC_A_B` would be `a_b`",
        ),
        (
            "program P { version V { void A(int) = 1; } = 1; } = 1;",
            "A",
            "an argument that is no struct",
        ),
        (
            "struct s { int x; }; program P { version V { void A(s, s) = 1; } = 1; } = 1;",
            "A",
            "more than one argument",
        ),
        (
            "program P { version V { int A(void) = 1; } = 1; } = 1;",
            "A",
            "a result that is no struct",
        ),
        (
            "program P { version V { void A(void) = 1; } = 1; version W { void B(void) = 1; } = 2; } = 1;",
            "P",
            "the second program",
        ),
    ] {
        let model = Model::new(&parse(text).unwrap(), &Options::new()).unwrap();
        match generate(&model, &Options::new()) {
            Ok(_) => panic!("{text} was not refused"),
            Err(Error::Generate {
                item: found,
                why: reason,
            }) => {
                assert_eq!(found, item, "{text}: {reason}");
                assert!(reason.contains(why), "{text}: {reason}");
            }
            Err(other) => panic!("{text}: {other}"),
        }
    }
}

#[test]
fn types_of_files_that_the_options_lack_are_refused() {
    let base = Model::new(&parse("struct a { int x; };").unwrap(), &Options::new()).unwrap();
    let options = Options::new().import("crate::base", base);
    let model = Model::new(&parse("struct b { a x; };").unwrap(), &options).unwrap();
    assert!(
        generate(&model, &options)
            .unwrap()
            .contains("pub x: crate::base::A")
    );
    let error = generate(&model, &Options::new()).unwrap_err().to_string();
    assert!(error.contains("`a`: its type is in no file"), "{error}");
}

#[test]
fn a_secret_has_a_debug_of_its_own_and_the_rest_of_the_code_stays() {
    let text = "struct door { opaque key<8>; int number; }; struct house { door front; }; \
                union lock switch (int kind) { case 1: door main; };";
    let open = Options::new();
    let model = Model::new(&parse(text).unwrap(), &open).unwrap();
    let shown = generate(&model, &open).unwrap();
    let hidden = generate(&model, &open.secret("door").secret("lock")).unwrap();
    for name in ["Door", "Lock"] {
        let own = format!("impl std::fmt::Debug for {name} {{");
        assert!(hidden.contains(&own) && !shown.contains(&own), "{hidden}");
    }
    assert!(!hidden.contains("Debug for House"), "{hidden}");
    // Three types, of which one derives what the others have by hand.
    let derived = |code: &str| code.matches("#[derive(Debug, ").count();
    assert_eq!((derived(&shown), derived(&hidden)), (3, 1));
    // What else is derived stays.
    assert!(
        hidden.contains("#[derive(Clone, PartialEq, Eq, Default)]\npub struct Door"),
        "{hidden}"
    );
}

#[test]
fn a_secret_that_is_not_in_the_file_is_refused() {
    let model = Model::new(
        &parse("struct a { int x; }; enum e { E_A };").unwrap(),
        &Options::new(),
    )
    .unwrap();
    for name in ["A", "b", "e", ""] {
        let error = generate(&model, &Options::new().secret(name)).unwrap_err();
        let said = error.to_string();
        assert!(
            said.contains("the file has no such struct or union"),
            "{said}"
        );
    }
}
