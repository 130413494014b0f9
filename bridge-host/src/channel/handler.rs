//! The handlers that are built in: bytes as they are, and JSON in lines.

use serde_json::{Map, Value};
use tonic::async_trait;

use super::{ProtocolError, ProtocolHandler};

/// Bytes as they are. A response is whatever is there, so one may come in several pieces.
#[derive(Debug, Clone, Copy, Default)]
pub struct RawProtocolHandler;

/// A line of JSON each way: an object with the text in one field.
///
/// | | default | custom |
/// |---|---|---|
/// | a request is | `{"data":"TEXT"}` | the text in the field of that name |
/// | a response is | what is in `data`, or else in `result` | what is in the field of that name |
///
/// A response that is no string is its JSON. One without the field, but with `error`, is a [`ProtocolError::AgentError`].
#[derive(Debug, Clone)]
pub struct JsonProtocolHandler {
    request: String,
    responses: Vec<String>,
}

/// Where agents say why they failed.
const ERROR_FIELD: &str = "error";

#[async_trait]
impl ProtocolHandler for RawProtocolHandler {
    fn name(&self) -> &str {
        "raw"
    }

    async fn encode_request(&self, data: &[u8]) -> Result<Vec<u8>, ProtocolError> {
        Ok(data.to_vec())
    }

    async fn decode_response(&self, data: &[u8]) -> Result<Vec<u8>, ProtocolError> {
        Ok(data.to_vec())
    }

    fn delimiter(&self) -> Option<u8> {
        None
    }
}

// === impl JsonProtocolHandler ===

impl JsonProtocolHandler {
    /// With these fields.
    pub fn with_fields(request: impl Into<String>, response: impl Into<String>) -> Self {
        Self {
            request: request.into(),
            responses: vec![response.into()],
        }
    }
}

impl Default for JsonProtocolHandler {
    fn default() -> Self {
        Self {
            request: "data".to_owned(),
            responses: vec!["data".to_owned(), "result".to_owned()],
        }
    }
}

#[async_trait]
impl ProtocolHandler for JsonProtocolHandler {
    fn name(&self) -> &str {
        "json"
    }

    async fn encode_request(&self, data: &[u8]) -> Result<Vec<u8>, ProtocolError> {
        let text = std::str::from_utf8(data).map_err(|_| {
            ProtocolError::InvalidRequest(
                "JSON carries text, and this is not UTF-8; send it as base64, or with the raw handler"
                    .to_owned(),
            )
        })?;
        let object = Map::from_iter([(self.request.clone(), text.into())]);
        // In JSON's text there is no line's end: inside of strings it is escaped.
        Ok(format!("{}\n", Value::Object(object)).into_bytes())
    }

    async fn decode_response(&self, data: &[u8]) -> Result<Vec<u8>, ProtocolError> {
        let mut response: Map<String, Value> = serde_json::from_slice(data)
            .map_err(|error| ProtocolError::ParseError(format!("no JSON object: {error}")))?;
        let mut fields = self.responses.iter();
        if let Some(value) = fields.find_map(|field| response.remove(field)) {
            return Ok(text_of(value).into_bytes());
        }
        if let Some(error) = response.remove(ERROR_FIELD) {
            return Err(ProtocolError::agent("", &text_of(error)));
        }
        let missing = self.responses.join("\" or \"");
        Err(ProtocolError::ParseError(format!(
            "its JSON has no field \"{}\"",
            missing.escape_debug()
        )))
    }
}

fn text_of(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn decoded(handler: &JsonProtocolHandler, line: &str) -> Result<String, String> {
        let decoded = handler.decode_response(line.as_bytes()).await;
        let decoded = decoded.map_err(|error| error.to_string());
        decoded.map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[tokio::test]
    async fn a_text_is_wrapped_in_one_line_whatever_it_holds() {
        let handler = JsonProtocolHandler::default();
        let line = handler.encode_request(b"a \"b\"\n\xc3\xa9").await.unwrap();
        assert_eq!(line, "{\"data\":\"a \\\"b\\\"\\né\"}\n".as_bytes());
        let refused = handler.encode_request(b"\xff").await.unwrap_err();
        assert!(matches!(refused, ProtocolError::InvalidRequest(_)));
        let custom = JsonProtocolHandler::with_fields("command", "response");
        let line = custom.encode_request(b"ping").await.unwrap();
        assert_eq!(line, b"{\"command\":\"ping\"}\n");
    }

    #[tokio::test]
    async fn a_response_is_what_is_in_its_field() {
        let handler = JsonProtocolHandler::default();
        for (line, expected) in [
            (r#"{"data": "pong"}"#, "pong"),
            (r#"{"result": "pong", "code": 0}"#, "pong"),
            (r#"{"data": {"up": true}, "result": 1}"#, r#"{"up":true}"#),
            ("{\"data\": null}\r", "null"),
        ] {
            assert_eq!(decoded(&handler, line).await.unwrap(), expected);
        }
        let custom = JsonProtocolHandler::with_fields("command", "response");
        assert_eq!(decoded(&custom, r#"{"response":"a"}"#).await.unwrap(), "a");
        let other = decoded(&custom, r#"{"data":"a"}"#).await.unwrap_err();
        assert!(other.contains("no field \"response\""), "{other}");
    }

    #[tokio::test]
    async fn an_agents_error_and_what_is_no_object_are_told_apart() {
        let handler = JsonProtocolHandler::default();
        let error = handler.decode_response(br#"{"error": "no such file"}"#);
        let error = error.await.unwrap_err();
        assert!(
            matches!(&error, ProtocolError::AgentError { description, .. } if description == "no such file"),
            "{error}"
        );
        for line in ["", "pong", "[1]", "{\"data\":"] {
            let error = decoded(&handler, line).await.unwrap_err();
            assert!(error.contains("no JSON object"), "{error}");
        }
    }
}
