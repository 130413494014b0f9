//! What a model makes of a file: names, constants, types that contain themselves, annotations.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use libvirt_codegen::{
    Error, Model, Options,
    limits::{MAX_FIXED_LENGTH, MAX_FORWARD_CONSTANTS, MAX_TYPEDEF_CHAIN},
    model::{Fds, Form, Notation, Priority, StreamDirection, Type, TypeKind},
    parse,
};

fn model_with(text: &str, options: &Options) -> Result<Model, Error> {
    Model::new(&parse(text).unwrap(), options)
}

fn model(text: &str) -> Model {
    model_with(text, &Options::new()).unwrap()
}

/// The message, and where it points to.
fn refusal(text: &str) -> (String, usize, usize) {
    match model_with(text, &Options::new()) {
        Err(Error::Source(error)) => (error.message().to_owned(), error.line(), error.column()),
        other => panic!("{text} gave {other:?}"),
    }
}

#[test]
fn constants_are_computed_wherever_they_stand() {
    let model = model(
        "const SUM = A + B * 2;
         const A = 010;
         const B = 0x10 | 1 << 2;
         const C = -(A - B) / 2;
         const D = TRUE - FALSE;
         const E = SECOND;
         enum e { FIRST = 3, SECOND, THIRD, FOURTH = A };",
    );
    for (name, value) in [
        ("SUM", 48),
        ("A", 8),
        ("B", 20),
        ("C", 6),
        ("D", 1),
        ("E", 4),
        ("THIRD", 5),
        ("FOURTH", 8),
    ] {
        assert_eq!(model.value(name), Some(value), "{name}");
    }
    assert_eq!(model.constants[0].value.text, "A + B * 2");
}

#[test]
fn an_enum_without_values_counts_from_zero_as_in_c() {
    let text: String = (0..10_000).map(|index| format!(", E{index}")).collect();
    let text = format!("const LAST = E9999; enum e {{ E{text} }};");
    assert_eq!(model(&text).value("LAST"), Some(10_000));
}

#[test]
fn constants_that_cant_be_computed_are_refused_where_they_stand() {
    for (text, message, column) in [
        ("const A = B;", "the constant `B` is unknown", 11),
        ("const A = B; const B = A;", "`B` is defined by itself", 11),
        ("const A = 1 / 0;", "divides by zero", 11),
        (
            "const A = 0x7fffffffffffffff + 1;",
            "exceeds 64 bits with sign",
            11,
        ),
        (
            "const A = 0x8000000000000000;",
            "exceeds 64 bits with sign",
            11,
        ),
        ("const A = 1 << 63;", "exceeds 64 bits with sign", 11),
        ("const A = 1 << 64;", "exceeds 64 bits with sign", 11),
        ("const A = 1 << -1;", "exceeds 64 bits with sign", 11),
        ("enum e { A = 0x80000000 };", "an int of 32 bits", 10),
        ("enum e { A = 2147483647, B };", "an int of 32 bits", 26),
        ("struct s { int a[-1]; };", "a length here is from 0", 18),
        (
            "struct s { int a<0x100000000>; };",
            "a length here is from 0",
            18,
        ),
    ] {
        let (found, line, at) = refusal(text);
        assert!(found.contains(message), "{text}: {found}");
        assert_eq!((line, at), (1, column), "{text}");
    }
    let long = format!("struct s {{ opaque a[{}]; }};", MAX_FIXED_LENGTH + 1);
    assert!(
        refusal(&long)
            .0
            .contains("a length here is from 0 to 65536")
    );
}

#[test]
fn constants_defined_backwards_end_at_their_limit() {
    let chain = |length: usize| -> String {
        let links = (0..length).map(|index| format!("const A{index} = A{};", index + 1));
        links.chain([format!("const A{length} = 1;")]).collect()
    };
    assert_eq!(
        model(&chain(MAX_FORWARD_CONSTANTS - 1)).value("A0"),
        Some(1)
    );
    for length in [MAX_FORWARD_CONSTANTS + 1, 50_000] {
        assert!(refusal(&chain(length)).0.contains("put them in order"));
    }
    // In order there is no limit.
    let ordered = (1..20_000).map(|index| format!("const A{index} = A{} + 1;", index - 1));
    let ordered: String = ["const A0 = 0;".to_owned()]
        .into_iter()
        .chain(ordered)
        .collect();
    assert_eq!(model(&ordered).value("A19999"), Some(19_999));
}

#[test]
fn names_that_are_there_twice_are_refused_with_the_first_place() {
    for text in [
        "const A = 1;\nconst A = 2;",
        "const A = 1;\nenum e { A };",
        "enum A { B };\nstruct A { int x; };",
        "enum e { A };\nenum f { A };",
        "struct A { int x; };\ntypedef int A;",
        "struct a { struct { int x; } b; };\nstruct a_b { int x; };",
    ] {
        let (message, line, _) = refusal(text);
        assert!(
            message.contains("is defined twice, the first time in line 1"),
            "{message}"
        );
        assert_eq!(line, 2);
    }
    for (text, message) in [
        ("struct a { int x; int x; };", "`a` has two fields `x`"),
        (
            "union a switch (int b) { case 1: int x; case 1: int y; };",
            "the case 1 is there twice",
        ),
        (
            "const P_PROGRAM = 1; const P_PROTOCOL_VERSION = 1; enum p_procedure { P_PROC_A = 1, P_PROC_B = 1 };",
            "`P_PROC_B` has the number 1, which `P_PROC_A` has already",
        ),
        (
            "program P { version V { void A(void) = 1; void B(void) = 1; } = 1; } = 1;",
            "`B` has the number 1, which `A` has already",
        ),
        (
            "program P { version V { void A(void) = 1; } = 1; version W { void A(void) = 1; } = 1; } = 1;",
            "`W` has the number 1, which `V` has already",
        ),
        (
            "program P { version V { void A(void) = 1; void A(void) = 2; } = 1; } = 1;",
            "`A` is defined twice, the first time in line 1",
        ),
        (
            "program P { version V { void A(void) = 1; } = 1; version V { void A(void) = 1; } = 2; } = 1;",
            "`V` is defined twice, the first time in line 1",
        ),
    ] {
        assert_eq!(refusal(text).0, message);
    }
}

#[test]
fn a_procedures_name_is_known_within_its_version_only() {
    let model = model(
        "struct A { int x; };
        program P {
            version V { A A(void) = 1; } = 1;
            version W { A A(A) = 1; void V(void) = 2; } = 2;
        } = 1;
        program Q { version V { void A(void) = 1; } = 1; } = 2;",
    );
    let procedures: Vec<usize> = model
        .programs
        .iter()
        .map(|program| program.procedures.len())
        .collect();
    assert_eq!(procedures, [1, 2, 1]);
}

#[test]
fn unknown_types_are_refused_where_they_are_used() {
    assert_eq!(
        refusal("struct a {\n    b c;\n};"),
        (
            "the type `b` is unknown: define it, or name the file that does in the options"
                .to_owned(),
            2,
            5
        )
    );
    assert!(
        refusal("program P { version V { void A(b) = 1; } = 1; } = 1;")
            .0
            .contains("`b`")
    );
    assert!(refusal("typedef struct a a;").0.contains("`a`"));
}

#[test]
fn a_typedef_of_a_struct_to_its_own_name_is_none() {
    let model = model("struct a { int x; }; typedef struct a a;");
    assert_eq!(model.types.len(), 1);
}

#[test]
fn types_and_constants_of_other_files_can_be_used() {
    let base = model("const MAX = 3; struct a { int x; };");
    let options = Options::new().import("crate::base", base);
    let model = model_with("struct b { a one; int many<MAX>; };", &options).unwrap();
    let TypeKind::Struct(fields) = &model.types[0].kind else {
        panic!("a struct");
    };
    let Form::Variable(_, Some(max)) = &fields[1].form else {
        panic!("{:?}", fields[1]);
    };
    assert_eq!((max.number, max.text.as_str()), (3, "MAX"));
}

#[test]
fn the_files_own_constants_come_before_those_from_outside() {
    let options = Options::new().constant("A", 1).constant("B", 2);
    let model = model_with("const A = 5; const C = A + B;", &options).unwrap();
    assert_eq!(model.value("C"), Some(7));
}

#[test]
fn types_of_endless_size_are_refused_with_the_way_round() {
    let links =
        (0..20_000).map(|index| format!("struct t{index} {{ t{} x; }};", (index + 1) % 20_000));
    let (message, _, _) = refusal(&links.collect::<String>());
    assert!(message.contains("t0 contains t1"), "{message}");
    assert!(message.len() < 300, "{message}");
    for (text, way) in [
        ("struct a { a x; };", "a contains a"),
        (
            "struct a { b x; }; struct b { c x[2]; }; struct c { a x; };",
            "a contains b contains c contains a",
        ),
        ("struct z { a x; }; struct a { a x; };", "a contains a"),
        ("typedef a b; struct a { b x; };", "b contains a contains b"),
        ("union a switch (int b) { case 1: a x; };", "a contains a"),
    ] {
        let (message, _, _) = refusal(text);
        assert!(message.contains(way), "{text}: {message}");
    }
    for text in [
        "typedef a b; typedef b a;",
        "typedef a *b; typedef b *a;",
        "typedef a a<3>;",
    ] {
        assert!(refusal(text).0.contains("is defined by itself"), "{text}");
    }
}

#[test]
fn types_that_contain_themselves_behind_a_star_are_known() {
    let model = model(
        "struct list { int value; list *next; };
         struct tree { tree branches<>; };
         typedef link *maybe;
         struct link { maybe next; };
         struct holder { list *first; };",
    );
    let recursive: Vec<&str> = model.recursive.iter().map(String::as_str).collect();
    assert_eq!(recursive, ["link", "list", "maybe"]);
}

#[test]
fn types_between_two_that_contain_themselves_do_not() {
    let model = model(
        "struct first { first *next; second to; };
         struct second { third to; };
         struct third { third *next; };
         struct odd { even *next; };
         struct even { odd next; };",
    );
    let recursive: Vec<&str> = model.recursive.iter().map(String::as_str).collect();
    assert_eq!(recursive, ["even", "first", "odd", "third"]);
}

#[test]
fn long_chains_of_types_take_no_stack() {
    let links = (1..30_000).map(|index| {
        format!(
            "struct t{index} {{ t{} *x; t{} y; }};",
            index - 1,
            index - 1
        )
    });
    let text: String = ["struct t0 { t0 *x; };".to_owned()]
        .into_iter()
        .chain(links)
        .collect();
    assert_eq!(model(&text).recursive.len(), 1);
}

#[test]
fn chains_of_typedefs_end_at_their_limit() {
    let chain = |length: usize| -> String {
        let links = (1..length).map(|index| format!("typedef t{} t{index};", index - 1));
        ["typedef int t0;".to_owned()]
            .into_iter()
            .chain(links)
            .collect()
    };
    model(&chain(MAX_TYPEDEF_CHAIN));
    for length in [MAX_TYPEDEF_CHAIN + 1, 20_000] {
        assert!(
            refusal(&chain(length))
                .0
                .contains("typedefs stand for one another")
        );
    }
}

#[test]
fn a_union_switches_over_what_has_such_cases() {
    model("enum e { A, B }; typedef e f; union u switch (f x) { case A: void; default: int y; };");
    model("union u switch (unsigned int x) { case 0xffffffff: void; };");
    model("union u switch (bool x) { case TRUE: int y; case FALSE: void; };");
    for (text, message) in [
        ("union u switch (hyper x) { case 1: void; };", "neither int"),
        ("union u switch (int x<>) { case 1: void; };", "neither int"),
        (
            "struct s { int x; }; union u switch (s x) { case 1: void; };",
            "neither int",
        ),
        (
            "enum e { A }; union u switch (e x) { case 1: void; };",
            "has the case 1",
        ),
        (
            "union u switch (unsigned x) { case -1: void; };",
            "has the case -1",
        ),
        (
            "union u switch (bool x) { case 2: void; };",
            "has the case 2",
        ),
        (
            "union u switch (int x) { case 0x80000000: void; };",
            "has the case 0x80000000",
        ),
    ] {
        assert!(refusal(text).0.contains(message), "{text}");
    }
}

#[test]
fn bodies_on_the_spot_get_the_name_of_their_place() {
    let model = model("struct a { struct { enum { X } c; } b<2>; }; typedef struct { int x; } d;");
    let names: Vec<&str> = model.types.iter().map(|of| of.name.as_str()).collect();
    assert_eq!(names, ["a_b_c", "a_b", "a", "d"]);
}

const PROGRAM: &str = "
const P_PROGRAM = 0x20;
const P_PROTOCOL_VERSION = 2;
struct p_one_args { int x; };
struct p_one_ret { int y; };
struct p_two_msg { int z; };
enum p_procedure {
    /* @generate: in a plain comment, that is no annotation */
    /**
     * Words about it.
     *
     * @generate: both
     * @priority: high
     * @readstream: 2
     * @sparseflag: P_SPARSE
     * @acl: domain:read
     * @acl: domain:save:!P_CONFIG|P_LIVE
     * @aclfilter: domain:getattr
     * @fds: call
     * @function: pOne
     * @since: 1.2.3
     */
    P_PROC_ONE = 1,
    P_PROC_TWO = 2,
    /** @writestream: 1 */
    P_PROC_THREE = 3, /** @priority: high */
    /**
     * @readstream: 1
     * @stream: both
     * @event
     */
    P_PROC_FOUR
};";

#[test]
fn a_procedure_has_all_that_its_annotations_say() {
    let model = model(PROGRAM);
    let program = &model.programs[0];
    assert_eq!(
        (program.name.as_str(), program.number, program.version),
        ("p", 0x20, 2)
    );
    assert_eq!(
        program.notation,
        Notation::Enum {
            name: "p_procedure".to_owned(),
            prefix: "P_PROC_".to_owned()
        }
    );
    let [one, two, three, four] = program.procedures.as_slice() else {
        panic!("four procedures");
    };
    assert_eq!(one.arguments, [Type::Named("p_one_args".to_owned())]);
    assert_eq!(one.result, Some(Type::Named("p_one_ret".to_owned())));
    assert_eq!(one.message, None);
    assert_eq!(one.priority, Priority::High);
    assert_eq!(one.stream, Some(StreamDirection::Read));
    assert_eq!(one.read_stream, Some(2));
    assert_eq!(one.sparse_flag.as_deref(), Some("P_SPARSE"));
    assert_eq!(one.access, ["domain:read", "domain:save:!P_CONFIG|P_LIVE"]);
    assert_eq!(one.filters, ["domain:getattr"]);
    assert_eq!(one.fds, Fds::Call);
    assert_eq!(one.generate.as_deref(), Some("both"));
    assert_eq!(one.function.as_deref(), Some("pOne"));
    assert_eq!(one.docs.since.as_deref(), Some("1.2.3"));
    assert_eq!(one.docs.text, ["Words about it."]);
    assert!(!one.event);
    // A type for the message makes an event; without one, the annotation does.
    assert!(two.event && four.event);
    assert_eq!(two.message, Some(Type::Named("p_two_msg".to_owned())));
    assert_eq!(three.stream, Some(StreamDirection::Write));
    assert_eq!(three.priority, Priority::Low);
    assert_eq!(four.stream, Some(StreamDirection::Both));
    // A comment behind the last one is not the next one's.
    assert_eq!(four.priority, Priority::Low);
    assert_eq!(four.number, 4);
}

#[test]
fn names_in_camel_case_are_those_of_procedures_too() {
    let model = model(
        "const VIR_LOCK_PROGRAM = 1;
         const VIR_LOCK_PROGRAM_VERSION = 1;
         struct virLockNewSpaceArgs { int x; };
         enum virLockProcedure { VIR_LOCK_PROC_NEW_SPACE = 1, VIR_LOCK_PROC_NEWSPACE = 2 };",
    );
    let procedures = &model.programs[0].procedures;
    let expected = [Type::Named("virLockNewSpaceArgs".to_owned())];
    assert!(
        procedures
            .iter()
            .all(|procedure| procedure.arguments == expected)
    );
}

#[test]
fn an_enum_that_only_ends_like_procedures_stays_an_enum() {
    let model = model("enum a_procedure { A_ONE, A_TWO }; enum b_procedure { C_PROC_ONE };");
    assert_eq!(model.types.len(), 2);
    assert!(model.programs.is_empty());
}

#[test]
fn annotations_that_say_nothing_known_are_refused_where_they_stand() {
    let program = |comment: &str| {
        format!(
            "const P_PROGRAM = 1;\nconst P_PROTOCOL_VERSION = 1;\nenum p_procedure {{\n{comment}\nP_PROC_A = 1 }};"
        )
    };
    for (comment, message, column) in [
        (
            "/** @prioritiy: high */",
            "the annotation `@prioritiy` is unknown here",
            5,
        ),
        (
            "/** @priority: highest */",
            "`@priority` is one of `high`, `low`, not `highest`",
            5,
        ),
        (
            "/** @priority: low\n@priority: low */",
            "`@priority` is there more than once",
            1,
        ),
        (
            "/** @readstream: x */",
            "is the number of a parameter, `x` is none",
            5,
        ),
        ("/** @event: yes */", "`@event` takes no value", 5),
        (
            "/** @acl: read */",
            "`@acl` is `none` or `object:permission`, not `read`",
            5,
        ),
        (
            "/** @function: a b */",
            "`@function` is a name, `a b` is none",
            5,
        ),
        (
            "/** @flags */",
            "the annotation `@flags` is unknown here",
            5,
        ),
    ] {
        let (found, _, at) = refusal(&program(comment));
        assert!(found.contains(message), "{comment}: {found}");
        assert_eq!(at, column, "{comment}");
    }
    assert!(
        refusal("/** @priority: high */ struct a { int x; };")
            .0
            .contains("unknown here")
    );
    // These only look like some.
    let text = model(&program("/** @ home, mail@example, @not this */"));
    assert_eq!(
        text.programs[0].procedures[0].docs.text,
        ["@ home, mail@example, @not this"]
    );
}

#[test]
fn procedures_need_their_programs_numbers() {
    let text = "enum p_procedure { P_PROC_A = 1 };";
    assert!(refusal(text).0.contains("need a constant `P_PROGRAM`"));
    let text = "const P_PROGRAM = 1; enum p_procedure { P_PROC_A = 1 };";
    assert!(
        refusal(text)
            .0
            .contains("`P_PROTOCOL_VERSION` or `P_PROGRAM_VERSION`")
    );
    let text = "const P_PROGRAM = -1; enum p_procedure { P_PROC_A = 1 };";
    assert!(refusal(text).0.contains("no unsigned int"));
}

#[test]
fn many_comments_in_one_line_take_no_time_to_speak_of() {
    let text = format!(
        "struct a {{ int x; }}; {} struct b {{ int x; }};",
        "/**/".repeat(500_000)
    );
    assert_eq!(model(&text).types.len(), 2);
}

#[test]
fn flags_may_use_the_highest_bit() {
    let model = model("/** @flags */ enum a { A = 1 << 31 };");
    let TypeKind::Enum(of) = &model.types[0].kind else {
        panic!("an enum");
    };
    assert!(of.flags);
    assert_eq!(of.members[0].value.number, 0x8000_0000);
    assert_eq!(of.members[0].value.text, "1 << 31");
}
