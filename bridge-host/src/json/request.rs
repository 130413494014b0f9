//! What a request says, in its body or its query.
//!
//! A body is an object, in one of two forms: the parameters themselves, or
//! `{"version": "1.0", "action": "…", "params": {parameters}, "timeout": 30}`. A parameter that is not known is refused like one that
//! is wrong: a misspelt `overwrite` must not pass for none.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::{
    answer::VERSION,
    code::{Code, Failure},
    endpoint::What,
};
use crate::{
    forward::BoxError,
    limits::{
        DEFAULT_JSON_TIMEOUT, JSON_BODY_TIMEOUT, MAX_JSON_BODY, MAX_JSON_TIMEOUT, MIN_JSON_TIMEOUT,
    },
};

/// The most bytes that a body may turn out to have.
pub(super) fn most(body: &impl Body) -> Result<usize, Failure> {
    let size = body.size_hint();
    let limit = u64::try_from(MAX_JSON_BODY).unwrap_or(u64::MAX);
    if size.lower() > limit {
        return Err(too_large());
    }
    let most = size.upper().unwrap_or(limit).min(limit);
    Ok(usize::try_from(most).unwrap_or(MAX_JSON_BODY))
}

/// Reads a body to its end.
pub(super) async fn read<B>(body: B) -> Result<Bytes, Failure>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    let body = Box::pin(Limited::new(body, MAX_JSON_BODY));
    match timeout(JSON_BODY_TIMEOUT, body.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => {
            let detail = format!("the body has broken off: {error}");
            Err(Failure::new(Code::InvalidParams, detail))
        }
        Err(_) => {
            let detail = format!("the body has not come within {JSON_BODY_TIMEOUT:?}");
            Err(Failure::new(Code::ReadTimeout, detail))
        }
    }
}

fn too_large() -> Failure {
    let detail = format!(
        "the body is larger than {MAX_JSON_BODY} bytes: upload more in parts, or with the gRPC method Files.Write"
    );
    Failure::new(Code::InvalidParams, detail).status(StatusCode::PAYLOAD_TOO_LARGE)
}

fn invalid(name: &str, description: &str) -> Failure {
    // A name that nobody knows is the client's, and may be anything.
    let name: String = name.escape_debug().take(100).collect();
    Failure::new(Code::InvalidParams, format!("{name}: {description}"))
}

/// The parameters of a request, of which each is taken once.
#[derive(Debug)]
pub(super) struct Fields {
    values: Map<String, Value>,
    timeout: Option<Duration>,
}

// === impl Fields ===

impl Fields {
    /// Those of a body.
    pub(super) fn of_body(body: &[u8], what: What) -> Result<Self, Failure> {
        let parsed: Value = serde_json::from_slice(body)
            .map_err(|error| Failure::new(Code::JsonParseError, error.to_string()))?;
        let Value::Object(values) = parsed else {
            return Err(invalid("body", "must be an object"));
        };
        let mut fields = Self {
            values,
            timeout: None,
        };
        if fields.values.contains_key("params") {
            fields.open(what)?;
        }
        if let Some(timeout) = fields.values.remove("timeout") {
            fields.timeout = Some(duration(&timeout)?);
        }
        Ok(fields)
    }

    /// Takes the parameters out of the general form.
    fn open(&mut self, what: What) -> Result<(), Failure> {
        match self.text("version")? {
            Some(version) if version != VERSION => {
                return Err(invalid("version", &format!("must be \"{VERSION}\"")));
            }
            _ => {}
        }
        let action = self.text("action")?;
        let Some(Value::Object(params)) = self.values.remove("params") else {
            return Err(invalid("params", "must be an object"));
        };
        if let Some(timeout) = self.values.remove("timeout") {
            self.timeout = Some(duration(&timeout)?);
        }
        // What remains is not known.
        std::mem::replace(&mut self.values, params)
            .into_iter()
            .next()
            .map_or(Ok(()), |(name, _)| Err(unknown(&name)))?;
        // Elsewhere the path says what is done.
        if let (What::Control, Some(action)) = (what, action) {
            self.values.entry("action").or_insert_with(|| action.into());
        }
        Ok(())
    }

    /// Those of a query.
    pub(super) fn of_query(query: Option<&str>) -> Result<Self, Failure> {
        let mut values = Map::new();
        let pairs = query.unwrap_or_default().split('&');
        for pair in pairs.filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decoded(name)?, decoded(value)?);
            if values.contains_key(&name) {
                return Err(invalid(&name, "is there twice"));
            }
            values.insert(name, value.into());
        }
        let mut fields = Self {
            values,
            timeout: None,
        };
        if let Some(text) = fields.text("timeout")? {
            let number: Result<Value, _> = serde_json::from_str(&text);
            let number = number.map_err(|_| invalid("timeout", "must be a number"))?;
            fields.timeout = Some(duration(&number)?);
        }
        Ok(fields)
    }

    /// How long it may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(DEFAULT_JSON_TIMEOUT)
    }

    /// A text.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Failure> {
        match self.values.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(invalid(name, "must be a string")),
        }
    }

    /// A text that is not empty.
    pub(super) fn filled(&mut self, name: &str) -> Result<Option<String>, Failure> {
        match self.text(name)? {
            Some(text) if text.is_empty() => Err(invalid(name, "must not be empty")),
            text => Ok(text),
        }
    }

    /// A text that must be there, and must not be empty.
    pub(super) fn required(&mut self, name: &str) -> Result<String, Failure> {
        match self.filled(name)? {
            Some(text) => Ok(text),
            None => {
                let detail = format!("{name}: must be there");
                Err(Failure::new(Code::MissingRequired, detail))
            }
        }
    }

    /// Yes or no.
    pub(super) fn truth(&mut self, name: &str) -> Result<Option<bool>, Failure> {
        match self.values.remove(name) {
            None => Ok(None),
            Some(Value::Bool(truth)) => Ok(Some(truth)),
            Some(_) => Err(invalid(name, "must be true or false")),
        }
    }

    /// A whole number of at most `most`. To JSON 1.0 is one, too.
    pub(super) fn whole(&mut self, name: &str, most: u64) -> Result<Option<u64>, Failure> {
        let Some(value) = self.values.remove(name) else {
            return Ok(None);
        };
        match whole(&value).filter(|number| *number <= most) {
            Some(number) => Ok(Some(number)),
            None => Err(invalid(
                name,
                &format!("must be a whole number, 0 to {most}"),
            )),
        }
    }

    /// Texts by names.
    pub(super) fn texts(&mut self, name: &str) -> Result<Vec<(String, String)>, Failure> {
        let wrong = || invalid(name, "must be an object whose values are strings");
        match self.values.remove(name) {
            None => Ok(Vec::new()),
            Some(Value::Object(texts)) => texts
                .into_iter()
                .map(|(name, value)| match value {
                    Value::String(text) => Ok((name, text)),
                    _ => Err(wrong()),
                })
                .collect(),
            Some(_) => Err(wrong()),
        }
    }

    /// Nothing else may be there.
    pub(super) fn end(self) -> Result<(), Failure> {
        match self.values.into_iter().next() {
            None => Ok(()),
            Some((name, _)) => Err(unknown(&name)),
        }
    }
}

/// A parameter that is not as it should be.
pub(super) fn wrong(name: &str, description: &str) -> Failure {
    invalid(name, description)
}

fn unknown(name: &str) -> Failure {
    invalid(name, "there is no such parameter")
}

fn whole(value: &Value) -> Option<u64> {
    /// Up to it every whole number is one of `f64`, too.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if let Some(number) = value.as_u64() {
        return Some(number);
    }
    let number = value.as_f64()?;
    let is_whole = number.fract() == 0.0 && (0.0..=EXACT).contains(&number);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is whole, not negative, and small enough"
    )]
    is_whole.then_some(number as u64)
}

fn duration(value: &Value) -> Result<Duration, Failure> {
    let seconds = value.as_f64();
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    match duration {
        Some(duration) if (MIN_JSON_TIMEOUT..=MAX_JSON_TIMEOUT).contains(&duration) => Ok(duration),
        _ => Err(invalid(
            "timeout",
            &format!(
                "must be a number of seconds, {} to {}",
                MIN_JSON_TIMEOUT.as_secs_f64(),
                MAX_JSON_TIMEOUT.as_secs()
            ),
        )),
    }
}

/// A name or value of a query.
fn decoded(text: &str) -> Result<String, Failure> {
    let text = text.replace('+', " ");
    match percent_decode_str(&text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(invalid("query", "must be UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> Result<Fields, Failure> {
        Fields::of_body(text.as_bytes(), What::Exec)
    }

    fn code<T: std::fmt::Debug>(outcome: Result<T, Failure>) -> u16 {
        outcome.unwrap_err().code().number()
    }

    #[test]
    fn both_forms_of_a_body_say_the_same() {
        let forms = [
            r#"{"command": "ls", "timeout": 2.5}"#,
            r#"{"version": "1.0", "action": "exec", "params": {"command": "ls"}, "timeout": 2.5}"#,
            r#"{"params": {"command": "ls", "timeout": 2.5}, "timeout": 9}"#,
        ];
        for form in forms {
            let mut fields = body(form).unwrap();
            assert_eq!(fields.timeout(), Duration::from_millis(2500), "{form}");
            assert_eq!(fields.required("command").unwrap(), "ls");
            fields.end().unwrap();
        }
    }

    #[test]
    fn the_general_forms_action_is_a_services_unless_its_parameters_have_one() {
        let of = |text: &str| {
            let mut fields = Fields::of_body(text.as_bytes(), What::Control).unwrap();
            fields.required("action").unwrap()
        };
        assert_eq!(of(r#"{"action": "stop", "params": {"name": "x"}}"#), "stop");
        assert_eq!(
            of(r#"{"action": "service.control", "params": {"action": "stop"}}"#),
            "stop"
        );
    }

    #[test]
    fn what_is_no_json_or_no_object_is_told_apart() {
        for text in [
            "",
            "{",
            "{'a': 1}",
            r#"{"a": 1} x"#,
            "\u{feff}{}",
            r#"{"a": 1e999}"#,
        ] {
            assert_eq!(code(body(text)), 2002, "{text:?}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(code(body(&deep)), 2002);
        for text in ["[]", "null", "1", r#""{}""#, r#"{"params": []}"#] {
            assert_eq!(code(body(text)), 2001, "{text:?}");
        }
    }

    #[test]
    fn a_parameter_of_the_wrong_type_or_name_is_refused() {
        let mut fields = body(r#"{"a": 1, "b": "x", "c": null, "d": {"e": 1}, "f": ""}"#).unwrap();
        assert_eq!(code(fields.text("a")), 2001);
        assert_eq!(code(fields.truth("b")), 2001);
        assert_eq!(code(fields.whole("c", 9)), 2001);
        assert_eq!(code(fields.texts("d")), 2001);
        assert_eq!(code(fields.required("f")), 2001);
        assert_eq!(code(fields.required("g")), 2003);
        assert_eq!(code(body(r#"{"overwite": false}"#).unwrap().end()), 2001);
        let extra = r#"{"params": {}, "verbose": true}"#;
        assert_eq!(code(body(extra)), 2001);
        assert_eq!(code(body(r#"{"params": {}, "version": "2.0"}"#)), 2001);
    }

    #[test]
    fn whole_numbers_are_those_of_json() {
        let of = |text: &str| {
            body(&format!(r#"{{"n": {text}}}"#))
                .unwrap()
                .whole("n", 100)
        };
        for (text, number) in [
            ("0", 0),
            ("100", 100),
            ("7.0", 7),
            ("1e2", 100),
            ("-0.0", 0),
        ] {
            assert_eq!(of(text).unwrap(), Some(number), "{text}");
        }
        for text in ["-1", "101", "7.5", "1e30", "\"7\"", "true"] {
            assert_eq!(code(of(text)), 2001, "{text}");
        }
    }

    #[test]
    fn a_timeout_is_bounded() {
        for text in [
            "0", "-1", "0.0009", "300.001", "1e300", "\"5\"", "null", "1e-320",
        ] {
            assert_eq!(
                code(body(&format!(r#"{{"timeout": {text}}}"#))),
                2001,
                "{text}"
            );
        }
        let most = body(r#"{"timeout": 300}"#).unwrap().timeout();
        assert_eq!(most, MAX_JSON_TIMEOUT);
        assert_eq!(body("{}").unwrap().timeout(), DEFAULT_JSON_TIMEOUT);
        let query = Fields::of_query(Some("timeout=0.5")).unwrap();
        assert_eq!(query.timeout(), Duration::from_millis(500));
        assert_eq!(code(Fields::of_query(Some("timeout=soon"))), 2001);
    }

    #[test]
    fn a_query_is_decoded_and_says_each_thing_once() {
        let mut fields = Fields::of_query(Some("path=%2Fa+b%2Fc%C3%BC%3D&&x=1")).unwrap();
        assert_eq!(fields.required("path").unwrap(), "/a b/cü=");
        assert_eq!(code(fields.end()), 2001);
        assert_eq!(code(Fields::of_query(Some("path=/a&path=/b"))), 2001);
        assert_eq!(code(Fields::of_query(Some("path=%ff"))), 2001);
        assert_eq!(code(Fields::of_query(None).unwrap().required("path")), 2003);
    }
}
