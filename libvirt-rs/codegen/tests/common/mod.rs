//! The tables of facts, and models in the same shape.

// Each test file uses its own part of it.
#![allow(dead_code)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use libvirt_codegen::{
    Model, Options,
    model::{
        Arm, Fds, Field, Form, Notation, Priority, Procedure, StreamDirection, TypeKind, Union,
        Value,
    },
    parse_file,
};
use serde::Deserialize;

/// The protocols, each after those whose types it uses.
pub(crate) const PROTOCOLS: [&str; 6] = ["virnet", "keepalive", "remote", "qemu", "lxc", "admin"];

/// The interface file of a protocol, or `api`.
pub(crate) fn interface(name: &str) -> PathBuf {
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    proto.join(name).with_extension("x")
}

/// The models of all protocols, and the options that each has been made with.
pub(crate) fn protocols() -> Vec<(&'static str, Model, Options)> {
    let mut options = Options::libvirt();
    let mut models = Vec::new();
    for name in PROTOCOLS {
        let specification = parse_file(interface(name)).unwrap();
        let model = Model::new(&specification, &options).unwrap();
        models.push((name, model.clone(), options.clone()));
        options = options.import(format!("crate::raw::{name}"), model);
    }
    models
}

/// What is known of a protocol.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Facts {
    pub(crate) protocol: String,
    pub(crate) facts_of: String,
    pub(crate) program: Option<ProgramFacts>,
    pub(crate) external_constants: Vec<ExternalFacts>,
    pub(crate) constants: Vec<ConstantFacts>,
    pub(crate) typedefs: Vec<FieldFacts>,
    pub(crate) enums: Vec<EnumFacts>,
    pub(crate) structs: Vec<StructFacts>,
    pub(crate) unions: Vec<UnionFacts>,
    pub(crate) procedures: Vec<ProcedureFacts>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProgramFacts {
    pub(crate) name: String,
    pub(crate) number: u32,
    pub(crate) number_hex: String,
    pub(crate) version: u32,
    pub(crate) procedure_enum: String,
    pub(crate) procedure_prefix: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExternalFacts {
    pub(crate) name: String,
    pub(crate) value: i64,
    pub(crate) file: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConstantFacts {
    pub(crate) name: String,
    pub(crate) value: i64,
    pub(crate) expr: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EnumFacts {
    pub(crate) name: String,
    pub(crate) members: Vec<ConstantFacts>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StructFacts {
    pub(crate) name: String,
    pub(crate) fields: Vec<FieldFacts>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FieldFacts {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) of: String,
    pub(crate) kind: Option<String>,
    pub(crate) max: Option<i64>,
    pub(crate) max_const: Option<String>,
    pub(crate) fixed: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UnionFacts {
    pub(crate) name: String,
    pub(crate) discriminant: FieldFacts,
    pub(crate) cases: Vec<CaseFacts>,
    pub(crate) default: Option<FieldFacts>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CaseFacts {
    pub(crate) value: i64,
    #[serde(rename = "const")]
    pub(crate) name: Option<String>,
    pub(crate) field: Option<FieldFacts>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProcedureFacts {
    pub(crate) name: String,
    pub(crate) number: i32,
    pub(crate) args_struct: Option<String>,
    pub(crate) ret_struct: Option<String>,
    pub(crate) msg_struct: Option<String>,
    #[serde(default)]
    pub(crate) event: bool,
    pub(crate) priority: String,
    #[serde(default)]
    pub(crate) acl: Vec<String>,
    pub(crate) readstream: Option<u32>,
    pub(crate) writestream: Option<u32>,
    pub(crate) sparseflag: Option<String>,
    pub(crate) stream: Option<String>,
    #[serde(default)]
    pub(crate) fds: Vec<String>,
}

// === impl Facts ===

impl Facts {
    /// The table of a protocol.
    pub(crate) fn of(protocol: &str) -> Self {
        let facts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/facts");
        let text = fs::read_to_string(facts.join(protocol).with_extension("json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// What a model says. What is no matter of the model's is taken from the table.
    pub(crate) fn from_model(model: &Model, table: &Self) -> Self {
        let mut facts = Self {
            protocol: table.protocol.clone(),
            facts_of: table.facts_of.clone(),
            program: None,
            external_constants: table.external_constants.clone(),
            constants: model
                .constants
                .iter()
                .map(|constant| named(&constant.name, &constant.value))
                .collect(),
            typedefs: Vec::new(),
            enums: Vec::new(),
            structs: Vec::new(),
            unions: Vec::new(),
            procedures: Vec::new(),
        };
        for definition in &model.types {
            let name = definition.name.clone();
            match &definition.kind {
                TypeKind::Typedef(form) => facts.typedefs.push(typed(&name, form)),
                TypeKind::Enum(of) => facts.enums.push(EnumFacts {
                    name,
                    members: of
                        .members
                        .iter()
                        .map(|member| named(&member.name, &member.value))
                        .collect(),
                }),
                TypeKind::Struct(fields) => facts.structs.push(StructFacts {
                    name,
                    fields: fields.iter().map(field).collect(),
                }),
                TypeKind::Union(union) => facts.unions.push(union_facts(name, union)),
            }
        }
        if let Some(program) = model.programs.first() {
            let Notation::Enum { name, prefix } = &program.notation else {
                panic!("{} is no enum of procedures", program.name);
            };
            facts.program = Some(ProgramFacts {
                name: program.name.clone(),
                number: program.number,
                number_hex: format!("{:#010x}", program.number),
                version: program.version,
                procedure_enum: name.clone(),
                procedure_prefix: prefix.clone(),
            });
            facts.procedures = program.procedures.iter().map(procedure).collect();
        }
        facts
    }
}

fn named(name: &str, value: &Value) -> ConstantFacts {
    let is_decimal = value.text == value.number.to_string();
    ConstantFacts {
        name: name.to_owned(),
        value: value.number,
        expr: (!is_decimal).then(|| value.text.clone()),
    }
}

fn field(field: &Field) -> FieldFacts {
    typed(&field.name, &field.form)
}

fn typed(name: &str, form: &Form) -> FieldFacts {
    let facts = |of: String, kind: Option<&str>, bound: Option<&Value>, fixed| FieldFacts {
        name: name.to_owned(),
        of,
        kind: kind.map(str::to_owned),
        max: bound.map(|bound| bound.number),
        max_const: bound.and_then(constant_name),
        fixed,
    };
    match form {
        Form::Plain(of) => facts(of.to_string(), None, None, None),
        Form::Optional(of) => facts(of.to_string(), Some("optional"), None, None),
        Form::Fixed(of, length) => facts(of.to_string(), Some("fixed"), Some(length), None),
        Form::Variable(of, max) => facts(of.to_string(), Some("array"), max.as_ref(), None),
        Form::Text(max) => facts("string".to_owned(), Some("string"), max.as_ref(), None),
        Form::FixedOpaque(length) => facts(
            "opaque".to_owned(),
            Some("opaque"),
            Some(length),
            Some(true),
        ),
        Form::Opaque(max) => facts(
            "opaque".to_owned(),
            Some("opaque"),
            max.as_ref(),
            Some(false),
        ),
    }
}

fn constant_name(value: &Value) -> Option<String> {
    let is_name = value
        .text
        .starts_with(|first: char| first.is_ascii_alphabetic());
    is_name.then(|| value.text.clone())
}

fn union_facts(name: String, union: &Union) -> UnionFacts {
    let case = |arm: &Arm| {
        let of = arm.field.as_ref().map(field);
        let labels = arm.labels.iter();
        labels
            .map(|label| CaseFacts {
                value: label.number,
                name: constant_name(label),
                field: of.clone(),
            })
            .collect::<Vec<_>>()
    };
    UnionFacts {
        name,
        discriminant: field(&union.discriminant),
        cases: union.arms.iter().flat_map(case).collect(),
        default: union.default.iter().flatten().map(field).next(),
    }
}

fn procedure(procedure: &Procedure) -> ProcedureFacts {
    assert!(procedure.arguments.len() <= 1, "{}", procedure.name);
    ProcedureFacts {
        name: procedure.name.clone(),
        number: procedure.number,
        args_struct: procedure.arguments.first().map(ToString::to_string),
        ret_struct: procedure.result.as_ref().map(ToString::to_string),
        msg_struct: procedure.message.as_ref().map(ToString::to_string),
        event: procedure.event,
        priority: match procedure.priority {
            Priority::High => "high".to_owned(),
            Priority::Low => "low".to_owned(),
        },
        acl: procedure.access.clone(),
        readstream: procedure.read_stream,
        writestream: procedure.write_stream,
        sparseflag: procedure.sparse_flag.clone(),
        stream: procedure.stream.map(|stream| {
            match stream {
                StreamDirection::Read => "read",
                StreamDirection::Write => "write",
                StreamDirection::Both => "both",
            }
            .to_owned()
        }),
        fds: match procedure.fds {
            Fds::None => Vec::new(),
            Fds::Call => vec!["call".to_owned()],
            Fds::Reply => vec!["reply".to_owned()],
            Fds::Both => vec!["call".to_owned(), "reply".to_owned()],
        },
    }
}
