//! What the parser reads, what it refuses, and how it says so.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use libvirt_codegen::{
    Error,
    ast::{ExpressionKind, Form, ItemKind, Primitive, SpecifierKind},
    limits::{MAX_NESTING, MAX_SOURCE, MAX_TERMS},
    parse,
};
use proptest::{prelude::*, test_runner::RngSeed};

fn kinds(text: &str) -> Vec<ItemKind> {
    let items = parse(text).unwrap().items;
    items.into_iter().map(|item| item.kind).collect()
}

fn kind(text: &str) -> ItemKind {
    let mut kinds = kinds(text);
    assert_eq!(kinds.len(), 1, "{text}");
    kinds.remove(0)
}

/// The message, and where it points to.
fn refusal(text: &str) -> (String, usize, usize) {
    match parse(text) {
        Err(Error::Source(error)) => (error.message().to_owned(), error.line(), error.column()),
        other => panic!("{text:?} gave {other:?}"),
    }
}

#[test]
fn the_example_of_rfc_4506_is_read() {
    let items = kinds(
        "const MAXUSERNAME = 32;     /* max length of a user name */
         const MAXFILELEN = 65535;   /* max length of a file      */
         const MAXNAMELEN = 255;     /* max length of a file name */
         enum filekind { TEXT = 0, DATA = 1, EXEC = 2 };
         union filetype switch (filekind kind) {
         case TEXT: void;
         case DATA: string creator<MAXNAMELEN>;
         case EXEC: string interpretor<MAXNAMELEN>;
         };
         struct file {
            string filename<MAXNAMELEN>;
            filetype type;
            string owner<MAXUSERNAME>;
            opaque data<MAXFILELEN>;
         };",
    );
    assert_eq!(items.len(), 6);
    let ItemKind::Union(name, body) = &items[4] else {
        panic!("{:?}", items[4]);
    };
    assert_eq!(name.text, "filetype");
    assert_eq!(body.arms.len(), 3);
    assert!(body.arms[0].body.is_none());
    assert!(body.default.is_none());
}

#[test]
fn every_type_and_every_form_of_it_is_read() {
    for (written, expected) in [
        ("int", Primitive::Int),
        ("unsigned int", Primitive::UnsignedInt),
        ("unsigned", Primitive::UnsignedInt),
        ("hyper", Primitive::Hyper),
        ("unsigned hyper", Primitive::UnsignedHyper),
        ("short", Primitive::Short),
        ("unsigned short", Primitive::UnsignedShort),
        ("char", Primitive::Char),
        ("unsigned char", Primitive::UnsignedChar),
        ("float", Primitive::Float),
        ("double", Primitive::Double),
        ("bool", Primitive::Bool),
    ] {
        for (form, is_it) in [
            (
                "x",
                (|form| matches!(form, Form::Plain)) as fn(&Form) -> bool,
            ),
            ("*x", |form| matches!(form, Form::Optional)),
            ("x[3]", |form| matches!(form, Form::Fixed(_))),
            ("x<3>", |form| matches!(form, Form::Variable(Some(_)))),
            ("x<>", |form| matches!(form, Form::Variable(None))),
        ] {
            let text = format!("typedef {written} {form};");
            let ItemKind::Typedef(declaration) = kind(&text) else {
                panic!("{text}");
            };
            assert_eq!(
                declaration.specifier.kind,
                SpecifierKind::Primitive(expected)
            );
            assert!(is_it(&declaration.form), "{text}: {:?}", declaration.form);
        }
    }
    for text in [
        "typedef opaque x[3];",
        "typedef opaque x<3>;",
        "typedef opaque x<>;",
        "typedef string x<3>;",
        "typedef string x<>;",
        "typedef struct other x;",
        "typedef enum other *x;",
        "typedef union other x[2];",
    ] {
        assert!(matches!(kind(text), ItemKind::Typedef(_)), "{text}");
    }
}

#[test]
fn bodies_can_stand_within_bodies() {
    let text = "struct a {
        struct { int x; enum { ONE = 1, TWO } y; } b<2>;
        union switch (int c) { case 1: case 2: struct { int z; } d; default: void; } e;
    };";
    let ItemKind::Struct(_, fields) = kind(text) else {
        panic!("{text}");
    };
    assert!(matches!(fields[0].specifier.kind, SpecifierKind::Struct(_)));
    let SpecifierKind::Union(body) = &fields[1].specifier.kind else {
        panic!("{:?}", fields[1]);
    };
    assert_eq!(body.arms[0].labels.len(), 2);
    assert_eq!(body.default, Some(None));
}

#[test]
fn the_program_of_rfc_5531_is_read() {
    let text = "program PING_PROG {
        version PING_VERS_PINGBACK {
            void PINGPROC_NULL(void) = 0;
            int PINGPROC_PINGBACK(unsigned int, struct options) = 1;
        } = 2;
        version PING_VERS_ORIG { void PINGPROC_NULL_1(void) = 0; } = 1;
    } = 1;";
    let ItemKind::Program(program) = kind(text) else {
        panic!("{text}");
    };
    assert_eq!(program.versions.len(), 2);
    let procedures = &program.versions[0].procedures;
    assert!(procedures[0].result.is_none());
    assert_eq!(procedures[1].arguments.len(), 2);
}

#[test]
fn expressions_bind_as_in_c() {
    for (text, written) in [
        ("1 | 2 << 3 + 4 * 5", "1 | 2 << 3 + 4 * 5"),
        ("((1 | 2) << 3 + 4) * 5", "((1 | 2) << 3 + 4) * 5"),
        ("1 - 2 - 3", "1 - 2 - 3"),
        ("1 - (2 - 3)", "1 - (2 - 3)"),
        ("(1) / -A", "1 / -A"),
        ("-(1 + 2)", "-(1 + 2)"),
        ("0x1F", "0x1F"),
    ] {
        let ItemKind::Constant(_, value) = kind(&format!("const X = {text};")) else {
            panic!("{text}");
        };
        assert_eq!(value.to_string(), written);
    }
    let ItemKind::Constant(_, value) = kind("const X = 017;") else {
        panic!("a constant");
    };
    assert_eq!(value.kind, ExpressionKind::Number(15, "017".to_owned()));
}

#[test]
fn comments_and_lines_for_c_are_kept_with_their_places() {
    let text = "/* head */\n%#include <a.h>\n/** @flags */ // two\nenum a { /* three */\n  A = 1, /* behind A */\n  /** four */\n  B };\n";
    let specification = parse(text).unwrap();
    assert_eq!(specification.comments.len(), 6);
    assert_eq!(
        specification.items[0].kind,
        ItemKind::PassThrough("#include <a.h>".to_owned())
    );
    let texts = |comments: &[libvirt_codegen::ast::Comment]| {
        let texts = comments
            .iter()
            .map(|comment| comment.text.trim().to_owned());
        texts.collect::<Vec<_>>()
    };
    assert_eq!(texts(&specification.items[1].comments), ["* @flags", "two"]);
    let ItemKind::Enum(_, members) = &specification.items[1].kind else {
        panic!("an enum");
    };
    // "three" stands behind the brace, and "behind A" behind A.
    assert_eq!(texts(&members[0].comments), [""; 0]);
    assert_eq!(texts(&members[1].comments), ["* four"]);
    for comment in &specification.comments {
        assert!(text[comment.span.start..comment.span.end].contains(&comment.text));
    }
}

#[test]
fn a_mistake_is_shown_where_it_is_with_what_was_expected() {
    for (text, message, line, column) in [
        (
            "const A = 1",
            "expected `;`, found the end of the file",
            1,
            12,
        ),
        ("const = 1;", "expected a name, found `=`", 1, 7),
        (
            "const int = 1;",
            "expected a name, found the keyword `int`",
            1,
            7,
        ),
        (
            "const A = ;",
            "expected a number, a constant's name, `-` or `(`, found `;`",
            1,
            11,
        ),
        ("const A = (1;", "expected `)`, found `;`", 1, 13),
        (
            "\n foo",
            "expected `const`, `typedef`, `enum`, `struct`, `union`, `program` or a line that begins with `%`, found `foo`",
            2,
            2,
        ),
        ("struct a {\n  int x\n};", "expected `;`, found `}`", 3, 1),
        (
            "struct a { 3 };",
            "expected `}` or a type, found `3`",
            1,
            12,
        ),
        (
            "struct a { int; };",
            "expected `*` or a name, found `;`",
            1,
            15,
        ),
        (
            "struct a { opaque x; };",
            "expected `[` or `<`, found `;`",
            1,
            20,
        ),
        (
            "struct a { string x[3]; };",
            "expected `<`, found `[`",
            1,
            20,
        ),
        (
            "enum a { A = 1 B };",
            "expected `}` or `,`, found `B`",
            1,
            16,
        ),
        ("enum a { A = 1, };", "expected a name, found `}`", 1, 17),
        ("enum a { };", "expected a name, found `}`", 1, 10),
        (
            "union a switch int",
            "expected `(`, found the keyword `int`",
            1,
            16,
        ),
        (
            "union a switch (int b) { int x; };",
            "expected `case`, `default` or `}`, found the keyword `int`",
            1,
            26,
        ),
        (
            "union a switch (int b) { default: void; case 1: void; };",
            "expected `}`, found the keyword `case`",
            1,
            41,
        ),
        ("typedef int a<3;", "expected `>`, found `;`", 1, 16),
        (
            "struct a {\n%x\n};",
            "expected `}` or a type, found a line that begins with `%`",
            2,
            1,
        ),
        (
            "program P { version V { void p(int,) = 1; } = 1; } = 1;",
            "expected a type, found `)`",
            1,
            36,
        ),
    ] {
        let expected = (message.to_owned(), line, column);
        assert_eq!(refusal(text), expected, "{text}");
    }
}

#[test]
fn what_has_no_meaning_is_refused_with_the_reason() {
    for (text, reason) in [
        ("struct a { quadruple x; };", "128 bits"),
        ("struct a { long x; };", "write `int` for 32 bits"),
        ("struct a { void; };", "arm of a union"),
        ("struct a { };", "at least one field"),
        (
            "union a switch (int b) { default: void; };",
            "at least one case",
        ),
        ("const A = 09;", "no octal number"),
        ("const A = 0x10000000000000000;", "exceeds 64 bits"),
        ("/* a", "`*/` is missing"),
        ("#define A 1", "cpp -P"),
        ("const A = 'a';", "has no meaning here"),
    ] {
        let (message, _, _) = refusal(text);
        assert!(message.contains(reason), "{text}: {message}");
    }
}

/// A text that nests so deep, in each way that there is.
fn nested(depth: usize) -> [String; 4] {
    let structs = |depth| {
        format!(
            "{}int x;{}",
            "struct { ".repeat(depth),
            " } y;".repeat(depth)
        )
    };
    [
        format!("const A = {}1{};", "(".repeat(depth), ")".repeat(depth)),
        format!("const A = {}1;", "- ".repeat(depth)),
        format!("struct a {{ {} }};", structs(depth)),
        format!("union a switch (int b) {{ case 1: {} }};", structs(depth)),
    ]
}

#[test]
fn nesting_ends_at_its_limit() {
    for text in nested(MAX_NESTING) {
        parse(&text).unwrap();
    }
    for text in nested(MAX_NESTING + 1) {
        assert!(refusal(&text).0.contains("nested deeper"), "{text}");
    }
    // So deep that a parser without a limit would have no stack left.
    for text in nested(200_000) {
        assert!(refusal(&text).0.contains("nested deeper"));
    }
}

#[test]
fn long_expressions_end_at_their_limit() {
    let sum = |terms: usize| format!("const A = 1{};", " + 1".repeat(terms - 1));
    parse(&sum(MAX_TERMS)).unwrap();
    for terms in [MAX_TERMS + 1, 300_000] {
        assert!(refusal(&sum(terms)).0.contains("numbers and names"));
    }
}

#[test]
fn a_file_that_is_too_long_is_refused_before_it_is_read() {
    let text = " ".repeat(MAX_SOURCE);
    assert!(parse(&text).unwrap().items.is_empty());
    assert!(refusal(&(text + "?")).0.contains("this one has more"));
}

/// Words that make up interface files, some of them mistakes.
const WORDS: &[&str] = &[
    "const",
    "typedef",
    "enum",
    "struct",
    "union",
    "switch",
    "case",
    "default",
    "void",
    "program",
    "version",
    "int",
    "unsigned",
    "hyper",
    "char",
    "opaque",
    "string",
    "quadruple",
    "bool",
    "A",
    "b_1",
    "0",
    "0x1f",
    "017",
    "-1",
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    "<",
    ">",
    "<<",
    ";",
    ",",
    "=",
    ":",
    "*",
    "+",
    "-",
    "/",
    "|",
    "/* c */",
    "/** @flags */",
    "// d\n",
    "\n%e\n",
    "\n",
    "é",
    "/*",
];

proptest! {
    // The same cases every time; another seed gives others.
    #![proptest_config(ProptestConfig {
        rng_seed: RngSeed::Fixed(5531),
        failure_persistence: None,
        ..ProptestConfig::with_cases(2000)
    })]

    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let _ = parse(&text);
    }

    #[test]
    fn no_mixture_of_words_makes_it_panic(
        words in prop::collection::vec(prop::sample::select(WORDS), 0..60)
    ) {
        let _ = parse(&words.join(" "));
    }
}
