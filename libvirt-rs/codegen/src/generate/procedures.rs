//! Procedures: what is known of each, a method for each that a client may call, and the events.

use std::collections::HashMap;

use proc_macro2::{Ident, Literal, TokenStream};
use quote::quote;

use crate::{
    error::Error,
    model::{Docs, Fds, Priority, Procedure, Program, StreamDirection, Type},
    names,
};

use super::{
    Doc, Output,
    context::{Context, unique},
};

/// The name in libvirt's tables for "no right is needed".
const NO_RIGHT: &str = "none";

/// All that is made of a program.
pub(super) fn program(
    context: &Context<'_>,
    output: &mut Output,
    program: &Program,
) -> Result<(), Error> {
    let mut sorted: Vec<&Procedure> = program.procedures.iter().collect();
    sorted.sort_by_key(|procedure| procedure.number);
    let mut taken = HashMap::from([("PROCEDURES".to_owned(), program.name.as_str())]);
    for constant in &context.model.constants {
        let rust = names::ident(&constant.name).to_string();
        unique(&mut taken, &rust, &constant.name)?;
    }
    let mut constants = Vec::with_capacity(sorted.len());
    for procedure in &sorted {
        let name = names::ident(&bare(program, procedure).to_uppercase());
        unique(&mut taken, &name.to_string(), &procedure.name)?;
        constants.push(name);
    }
    let first = format!("The procedures of `{}`, by number.", program.name);
    let doc = Doc::new(first, &program.docs);
    let all = quote!(#doc pub static PROCEDURES: &[crate::rpc::Procedure] = &[#(#constants),*];);
    output.items(&program.name, all)?;
    for (procedure, name) in sorted.iter().zip(&constants) {
        output.items(&procedure.name, metadata(program, procedure, name))?;
    }
    if context.options.client {
        output.items(&program.name, client(context, program, &sorted)?)?;
    }
    output.items(&program.name, events(context, program, &sorted)?)
}

/// Which procedure a type belongs to, and as what: a line for its documentation.
pub(super) fn roles(program: &Program) -> HashMap<&str, String> {
    let mut roles = HashMap::new();
    for procedure in &program.procedures {
        let name = bare(program, procedure).to_uppercase();
        let types = [
            (procedure.arguments.first(), "the arguments"),
            (procedure.result.as_ref(), "the reply"),
            (procedure.message.as_ref(), "the message"),
        ];
        for (of, role) in types {
            if let Some(Type::Named(of)) = of {
                roles.insert(of.as_str(), format!("{role} of [`{name}`]"));
            }
        }
    }
    roles
}

/// `DOMAIN_CREATE` of `REMOTE_PROC_DOMAIN_CREATE`.
fn bare<'a>(program: &Program, procedure: &'a Procedure) -> &'a str {
    let prefix = program.procedure_prefix();
    let bare = procedure.name.strip_prefix(prefix);
    let bare = bare.filter(|bare| bare.starts_with(|c: char| c.is_ascii_alphabetic()));
    bare.unwrap_or(&procedure.name)
}

/// The rights that a procedure asks for.
fn rights(procedure: &Procedure) -> Vec<&str> {
    let rights = procedure.access.iter().map(String::as_str);
    rights.filter(|right| *right != NO_RIGHT).collect()
}

fn metadata(program: &Program, procedure: &Procedure, ident: &Ident) -> TokenStream {
    let number = Literal::i32_unsuffixed(procedure.number);
    let doc = Doc::new(format!("`{} = {number}`", procedure.name), &Docs::default());
    let program_number: Literal = hexadecimal(program.number);
    let version = Literal::u32_unsuffixed(program.version);
    let name = &procedure.name;
    let priority = match procedure.priority {
        Priority::High => quote!(High),
        Priority::Low => quote!(Low),
    };
    let access = rights(procedure);
    let stream = option(procedure.stream.map(|stream| match stream {
        StreamDirection::Read => quote!(crate::rpc::StreamDirection::Read),
        StreamDirection::Write => quote!(crate::rpc::StreamDirection::Write),
        StreamDirection::Both => quote!(crate::rpc::StreamDirection::Both),
    }));
    let sparse_flag = option(procedure.sparse_flag.as_ref().map(|flag| quote!(#flag)));
    let fds = match procedure.fds {
        Fds::None => quote!(None),
        Fds::Call => quote!(Call),
        Fds::Reply => quote!(Reply),
        Fds::Both => quote!(Both),
    };
    let event = procedure.event;
    let since = option(procedure.docs.since.as_ref().map(|since| quote!(#since)));
    quote! {
        #doc
        pub const #ident: crate::rpc::Procedure = crate::rpc::Procedure {
            program: #program_number,
            version: #version,
            number: #number,
            name: #name,
            priority: crate::rpc::Priority::#priority,
            access: &[#(#access),*],
            stream: #stream,
            sparse_flag: #sparse_flag,
            fds: crate::rpc::Fds::#fds,
            event: #event,
            since: #since,
        };
    }
}

/// As RPC programs are known.
fn hexadecimal(number: u32) -> Literal {
    let text = format!("{number:#010x}");
    // Always a literal; the other is the same number.
    text.parse().unwrap_or(Literal::u32_unsuffixed(number))
}

fn option(value: Option<TokenStream>) -> TokenStream {
    value.map_or_else(|| quote!(None), |value| quote!(Some(#value)))
}

/// The methods. The struct itself, a tuple around a `crate::rpc::Client`, is written by hand beside the `include!`.
fn client(
    context: &Context<'_>,
    program: &Program,
    procedures: &[&Procedure],
) -> Result<TokenStream, Error> {
    let name = names::upper_camel(&program.name);
    context.check_free(&name, "the client")?;
    let name = names::ident(&name);
    let mut methods = TokenStream::new();
    let mut taken = HashMap::new();
    for procedure in procedures.iter().filter(|procedure| !procedure.event) {
        let name = names::snake(bare(program, procedure));
        unique(&mut taken, &name, &procedure.name)?;
        methods.extend(method(context, program, procedure)?);
    }
    Ok(quote! {
        /// One method for each procedure. An error is the connection's or the server's.
        impl #name { #methods }
    })
}

fn method(
    context: &Context<'_>,
    program: &Program,
    procedure: &Procedure,
) -> Result<TokenStream, Error> {
    let bare = bare(program, procedure);
    let name = names::ident(&names::snake(bare));
    let constant = names::ident(&bare.to_uppercase());
    let doc = method_doc(procedure);
    let (parameter, payload) = match procedure.arguments.as_slice() {
        [] => (None, quote!(&())),
        [Type::Named(of)] => {
            let of = context.path(of)?;
            (Some(quote!(args: &#of,)), quote!(args))
        }
        [Type::Primitive(_)] => {
            return Err(unsupported(procedure, "an argument that is no struct"));
        }
        _ => return Err(unsupported(procedure, "more than one argument")),
    };
    let result = match &procedure.result {
        None => None,
        Some(Type::Named(of)) => Some(context.path(of)?),
        Some(Type::Primitive(_)) => {
            return Err(unsupported(procedure, "a result that is no struct"));
        }
    };
    let shape = Shape::of(procedure)?;
    let descriptors = shape
        .takes_descriptors()
        .then(|| quote!(fds: Vec<std::os::fd::OwnedFd>,));
    let returned = shape.returned(result.as_ref());
    let body = shape.body(result.is_some(), &constant, &payload);
    Ok(quote! {
        #doc
        pub async fn #name(&self, #parameter #descriptors) -> Result<#returned, crate::Error> {
            #body
        }
    })
}

fn unsupported(procedure: &Procedure, what: &str) -> Error {
    let why = format!("a method can't have {what}: put it into a struct, or leave the client out");
    Error::generate(&procedure.name, why)
}

/// What travels beside a procedure's structs.
#[derive(Clone, Copy)]
enum Shape {
    Plain,
    Stream,
    /// Descriptors with the call, with the reply.
    Descriptors(bool, bool),
}

impl Shape {
    fn of(procedure: &Procedure) -> Result<Self, Error> {
        match (procedure.stream, procedure.fds) {
            (None, Fds::None) => Ok(Self::Plain),
            (Some(_), Fds::None) => Ok(Self::Stream),
            (None, Fds::Call) => Ok(Self::Descriptors(true, false)),
            (None, Fds::Reply) => Ok(Self::Descriptors(false, true)),
            (None, Fds::Both) => Ok(Self::Descriptors(true, true)),
            (Some(_), _) => {
                let why = "it has both a stream and descriptors, for which there is no call";
                Err(Error::generate(&procedure.name, why))
            }
        }
    }

    fn takes_descriptors(self) -> bool {
        matches!(self, Self::Descriptors(true, _))
    }

    fn returned(self, result: Option<&TokenStream>) -> TokenStream {
        let beside = match self {
            Self::Plain | Self::Descriptors(_, false) => None,
            Self::Stream => Some(quote!(crate::rpc::RawStream)),
            Self::Descriptors(_, true) => Some(quote!(Vec<std::os::fd::OwnedFd>)),
        };
        match (result, beside) {
            (Some(result), Some(beside)) => quote!((#result, #beside)),
            (Some(one), None) => quote!(#one),
            (None, Some(one)) => one,
            (None, None) => quote!(()),
        }
    }

    /// A reply without a struct is decoded too, as nothing: it has to be empty.
    fn body(self, result: bool, constant: &Ident, payload: &TokenStream) -> TokenStream {
        let finish = |beside: TokenStream| {
            if result {
                quote!(Ok((crate::raw::decode(&reply)?, #beside)))
            } else {
                quote! {
                    let () = crate::raw::decode(&reply)?;
                    Ok(#beside)
                }
            }
        };
        match self {
            Self::Plain => quote! {
                crate::raw::call(&self.0, &#constant, #payload).await
            },
            Self::Stream => {
                let finish = finish(quote!(stream));
                quote! {
                    let (reply, stream) = self.0.open_stream(&#constant, crate::raw::encode(#payload)?).await?;
                    #finish
                }
            }
            Self::Descriptors(call, reply) => {
                let sent = if call {
                    quote!(fds)
                } else {
                    quote!(Vec::new())
                };
                let call = quote!(self.0.call_with_fds(&#constant, crate::raw::encode(#payload)?, #sent).await?);
                if reply {
                    let finish = finish(quote!(fds));
                    quote!(let (reply, fds) = #call; #finish)
                } else {
                    quote!(let (reply, _) = #call; crate::raw::decode(&reply))
                }
            }
        }
    }
}

fn method_doc(procedure: &Procedure) -> Doc {
    let Procedure {
        number,
        function,
        docs,
        ..
    } = procedure;
    let first = match function {
        Some(function) => format!("Procedure {number}, `{function}` in the C library."),
        None => format!("Procedure {number}."),
    };
    let mut facts = Vec::new();
    let rights: Vec<String> = rights(procedure)
        .iter()
        .map(|right| format!("`{right}`"))
        .collect();
    if !rights.is_empty() {
        facts.push(format!("Access: {}.", rights.join(", ")));
    }
    match procedure.stream {
        Some(StreamDirection::Read) => facts.push("A stream follows, to read from.".to_owned()),
        Some(StreamDirection::Write) => facts.push("A stream follows, to write to.".to_owned()),
        Some(StreamDirection::Both) => {
            facts.push("A stream follows, for both directions.".to_owned())
        }
        None => {}
    }
    if let Some(flag) = &procedure.sparse_flag {
        facts.push(format!("With the flag `{flag}` it has holes."));
    }
    match procedure.fds {
        Fds::Call => facts.push("File descriptors go with the call.".to_owned()),
        Fds::Reply => facts.push("File descriptors come with the reply.".to_owned()),
        Fds::Both => {
            facts.push("File descriptors go with the call and come with the reply.".to_owned())
        }
        Fds::None => {}
    }
    if let Some(since) = &docs.since {
        facts.push(format!("Since {since}."));
    }
    let mut doc = Doc::new(first, &Docs::default());
    doc.paragraph(&docs.text);
    if !facts.is_empty() {
        doc.paragraph(&[facts.join(" ")]);
    }
    doc
}

/// The messages that a server sends unasked.
fn events(
    context: &Context<'_>,
    program: &Program,
    procedures: &[&Procedure],
) -> Result<TokenStream, Error> {
    let events: Vec<_> = procedures
        .iter()
        .filter(|procedure| procedure.event)
        .collect();
    if events.is_empty() {
        return Ok(TokenStream::new());
    }
    context.check_free("Event", "the enum of all events")?;
    let mut taken = HashMap::new();
    let mut variants = TokenStream::new();
    let mut cases = TokenStream::new();
    for procedure in events {
        let bare = bare(program, procedure);
        let variant = names::upper_camel(bare);
        unique(&mut taken, &variant, &procedure.name)?;
        let variant = names::ident(&variant);
        let number = Literal::i32_unsuffixed(procedure.number);
        let doc = Doc::new(format!("Procedure {number}"), &procedure.docs);
        match &procedure.message {
            Some(Type::Named(of)) => {
                let of = context.path(of)?;
                variants.extend(quote!(#doc #variant(#of),));
                cases.extend(quote!(#number => Self::#variant(xdr::from_bytes(payload)?),));
            }
            Some(Type::Primitive(_)) => {
                return Err(Error::generate(&procedure.name, "its message is no struct"));
            }
            None => {
                variants.extend(quote!(#doc #variant,));
                cases.extend(quote! {
                    #number => {
                        let () = xdr::from_bytes(payload)?;
                        Self::#variant
                    }
                });
            }
        }
    }
    let all = format!("What a server of `{}` sends unasked.", program.name);
    let all = Doc::new(all, &Docs::default());
    Ok(quote! {
        #all
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub enum Event { #variants }

        impl Event {
            /// Reads the message of a procedure; `None` if the procedure is no known event.
            ///
            /// # Errors
            /// The message is not as the procedure has it.
            pub fn decode(procedure: i32, payload: &[u8]) -> Result<Option<Self>, xdr::Error> {
                Ok(Some(match procedure {
                    #cases
                    _ => return Ok(None),
                }))
            }
        }
    })
}
