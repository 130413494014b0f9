//! A client as plain as curl: one request, one connection, one answer.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// For one request. The longest has a command whose time is over after a second.
const LIMIT: Duration = Duration::from_secs(60);

/// A request that is about to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// What has come back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Value,
}

// === impl Ask ===

impl Ask {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new("GET", path)
    }

    pub(crate) fn post(path: impl Into<String>, body: &Value) -> Self {
        Self::new("POST", path)
            .header("Content-Type", "application/json")
            .body(body.to_string())
    }

    pub(crate) fn new(method: &'static str, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// With a header; one of that name that was there goes.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers
            .retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends it with HTTP/1.1, and leaves the answer to come.
    pub(crate) async fn begin(&self, address: SocketAddr) -> Result<TcpStream> {
        let mut text = format!("{} /api/v1/{} HTTP/1.1\r\n", self.method, self.path);
        let mut all = vec![("Host".to_owned(), address.to_string())];
        if self.headers.iter().any(|(name, _)| name == "Host") {
            all.clear();
        }
        if !self
            .headers
            .iter()
            .any(|(name, _)| name == "Content-Length")
        {
            all.push(("Content-Length".to_owned(), self.body.len().to_string()));
        }
        all.extend(self.headers.iter().cloned());
        for (name, value) in all {
            text += &format!("{name}: {value}\r\n");
        }
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(format!("{text}\r\n").as_bytes()).await?;
        // An answer may come before a body is read, and then nobody reads it.
        let _ = stream.write_all(&self.body).await;
        Ok(stream)
    }

    /// Sends it with HTTP/1.1, to the end.
    pub(crate) async fn send(&self, address: SocketAddr) -> Result<Answer> {
        let mut text = Vec::new();
        let exchange = async {
            let mut stream = self.begin(address).await?;
            stream.read_to_end(&mut text).await?;
            anyhow::Ok(())
        };
        timeout(LIMIT, exchange).await.context("no answer")??;
        Answer::parse(&text).with_context(|| format!("{self:?}"))
    }

    /// Sends it with HTTP/2, without TLS, to the end.
    pub(crate) async fn send_http2(&self, address: SocketAddr) -> Result<Answer> {
        let exchange = async {
            let stream = TcpStream::connect(address).await?;
            let (client, connection) = h2::client::handshake(stream).await?;
            let connection = tokio::spawn(connection);
            let uri = format!("http://{address}/api/v1/{}", self.path);
            let mut request = http::Request::builder().method(self.method).uri(uri);
            for (name, value) in &self.headers {
                request = request.header(name, value);
            }
            let (response, mut upload) = client
                .ready()
                .await?
                .send_request(request.body(())?, false)?;
            upload.send_data(Bytes::from(self.body.clone()), true)?;
            let (parts, mut body) = response.await?.into_parts();
            let mut text = Vec::new();
            while let Some(data) = body.data().await {
                let data = data?;
                body.flow_control().release_capacity(data.len())?;
                text.extend_from_slice(&data);
            }
            connection.abort();
            let headers = parts.headers.iter().map(|(name, value)| {
                let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                (name.to_string(), value)
            });
            Ok(Answer {
                status: parts.status.as_u16(),
                headers: headers.collect(),
                body: serde_json::from_slice(&text)?,
            })
        };
        timeout(LIMIT, exchange).await.context("no answer")?
    }
}

// === impl Answer ===

impl Answer {
    fn parse(text: &[u8]) -> Result<Self> {
        let end = text
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .with_context(|| format!("no answer: {:?}", String::from_utf8_lossy(text)))?;
        let (head, body) = (std::str::from_utf8(&text[..end])?, &text[end + 4..]);
        let mut lines = head.lines();
        let status = lines.next().context("no status")?;
        let status = status.split(' ').nth(1).context("no status")?.parse()?;
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let answer = Self {
            status,
            headers,
            body: serde_json::from_slice(body)
                .with_context(|| format!("no JSON: {:?}", String::from_utf8_lossy(body)))?,
        };
        let length = answer.header("content-length");
        ensure!(length == Some(&body.len().to_string()), "{answer:?}");
        Ok(answer)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known == name);
        found.next().map(|(_, value)| value.as_str())
    }

    /// What was asked for.
    pub(crate) fn data(&self) -> Result<&Value> {
        self.is(200, 0)?;
        Ok(&self.body["data"])
    }

    /// What is told of a failure, if it is this one.
    pub(crate) fn failed(&self, status: u16, code: u16, kind: &str) -> Result<&Value> {
        self.is(status, code)?;
        let data = &self.body["data"];
        ensure!(data["error_type"] == kind, "{self:?}");
        let detail = data["detail"].as_str().unwrap_or_default();
        ensure!(!detail.is_empty(), "no detail: {self:?}");
        Ok(data)
    }

    fn is(&self, status: u16, code: u16) -> Result<()> {
        ensure!(
            self.status == status && self.body["code"] == code,
            "not {status} with {code}: {self:?}"
        );
        let cors = |(name, _): &(String, String)| name.starts_with("access-control");
        ensure!(!self.headers.iter().any(cors), "{self:?}");
        ensure!(self.body["version"] == "1.0", "{self:?}");
        ensure!(self.body["message"].is_string(), "{self:?}");
        ensure!(self.body["timestamp"].is_u64(), "{self:?}");
        ensure!(self.header("x-request-id").is_some(), "{self:?}");
        ensure!(self.header("x-response-time").is_some(), "{self:?}");
        Ok(())
    }
}
