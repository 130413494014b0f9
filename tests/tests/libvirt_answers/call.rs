//! What a call is, and how it comes to an answer.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use futures_util::future::BoxFuture;
use libvirt::{Connect, raw::remote::PROCEDURES, rpc::Procedure};
use serde_json::{Map, Value};

use vbridge_tests::libvirt::reference::{Answer, Parameters, Refusal};

use super::{ask::Ask, device, domain, host, moments, network, parameters, storage};

/// A call of the reference's table, as the Rust client makes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    /// The procedure's name on the wire, without its prefix and in lower case.
    pub(super) name: &'static str,
    pub(super) answer: for<'a> fn(&'a Ask) -> BoxFuture<'a, Result<Value>>,
}

/// Writes calls down: `NAME(ARGS { FIELD: VALUE … }) |REPLY| SHOWN;`.
///
/// The first word names the question for the expressions. In brackets behind it stands a field that all arguments begin
/// with, which is the object that they are about. `NAME[nparams](…)` is called twice: first with `nparams` 0 to count,
/// then for so many; when there is nothing, the second is left out, and the answer is an empty object.
macro_rules! calls {
    ($ask:ident { $($calls:tt)* }) => { calls!(@all $ask [] $($calls)*) };
    ($ask:ident [$key:ident: $object:expr] { $($calls:tt)* }) => { calls!(@all $ask [$key: $object] $($calls)*) };
    (@all $ask:ident $key:tt $(
        $name:ident $([$count:ident])? ($($args:ident { $($fields:tt)* })?) |$found:ident| $shown:expr;
    )*) => {
        [$(super::Call {
            name: stringify!($name),
            answer: |$ask| Box::pin(async move {
                let $found = calls!(@found $ask $key $name $([$count])? ($($args { $($fields)* })?));
                Ok(serde_json::json!($shown))
            }),
        }),*]
    };
    (@found $ask:ident $key:tt $name:ident [$count:ident] $args:tt) => {{
        let $count = 0;
        let $count = calls!(@found $ask $key $name $args).$count;
        if $count == 0 {
            return Ok(serde_json::json!({}));
        }
        calls!(@found $ask $key $name $args)
    }};
    (@found $ask:ident [] $name:ident ()) => { $ask.remote.$name().await? };
    (@found $ask:ident [] $name:ident ($args:ident { $($fields:tt)* })) => {
        $ask.remote.$name(&libvirt::raw::remote::$args { $($fields)* }).await?
    };
    (@found $ask:ident [$key:ident: $object:expr] $name:ident ($args:ident { $($fields:tt)* })) => {
        $ask.remote.$name(&libvirt::raw::remote::$args { $key: $object, $($fields)* }).await?
    };
}

/// Calls that take more than one procedure: each is a function of its own.
macro_rules! by_hand {
    ($($name:ident),* $(,)?) => {
        [$(super::Call { name: stringify!($name), answer: |ask| Box::pin($name(ask)) }),*]
    };
}

pub(super) use {by_hand, calls};

/// Every call, through the raw layer: the generated types and methods.
pub(super) fn raw() -> Vec<Call> {
    let mut calls = host::calls();
    calls.extend(domain::calls());
    calls.extend(parameters::calls());
    calls.extend(moments::calls());
    calls.extend(network::calls());
    calls.extend(storage::calls());
    calls.extend(device::calls());
    calls
}

// === impl Call ===

impl Call {
    /// The procedure, as the generated table knows it.
    ///
    /// # Errors
    /// The table does not know it.
    pub(super) fn procedure(&self) -> Result<&'static Procedure> {
        let name = format!("REMOTE_PROC_{}", self.name.to_uppercase());
        PROCEDURES
            .iter()
            .find(|procedure| procedure.name == name)
            .with_context(|| format!("there is no procedure {name}"))
    }

    /// Asks it with these arguments, and the defaults of the others.
    ///
    /// # Errors
    /// Whatever goes wrong but an error of libvirt's, which is an answer.
    pub(super) async fn ask(
        &self,
        connect: &Connect,
        parameters: &Parameters,
        given: &Map<String, Value>,
    ) -> Result<Answer> {
        let mut arguments = parameters.defaults.clone();
        arguments.extend(given.clone());
        let ask = Ask::new(connect, arguments)?;
        let error = match (self.answer)(&ask).await {
            Ok(value) => return Ok(Answer::Value(value)),
            Err(error) => error,
        };
        match error.downcast_ref().and_then(libvirt::Error::remote) {
            Some(refused) => Ok(Answer::Error(Refusal {
                code: refused.code.raw(),
                domain: refused.domain.raw(),
                message: refused.message.clone(),
            })),
            None => Err(error.context(format!("{} {given:?}", self.name))),
        }
    }
}

/// The calls by their names.
///
/// # Errors
/// A call is there twice.
pub(super) fn by_name(calls: Vec<Call>) -> Result<BTreeMap<&'static str, Call>> {
    let count = calls.len();
    let by_name: BTreeMap<_, _> = calls.into_iter().map(|call| (call.name, call)).collect();
    anyhow::ensure!(by_name.len() == count, "a call is there twice");
    Ok(by_name)
}
