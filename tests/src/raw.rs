//! gRPC on a bare HTTP/2 connection: the order of events is seen as it comes, every reset with its code, and nothing
//! is done on its own (no deadline, no status made up).

use std::{fmt, future::poll_fn};

use anyhow::{Context as _, Result, bail};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::{
    Reason, RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message;
use tokio::{net::TcpStream, task::JoinHandle};

use crate::place::Place;

/// The path of a method of the exercise service.
pub fn path(method: &str) -> String {
    format!("/vbridge.test.v1.Exercise/{method}")
}

/// How much may be under way to this client unread.
#[derive(Debug, Clone, Copy)]
pub struct Windows {
    /// On one stream, in bytes.
    pub stream: u32,
    /// On the connection, in bytes.
    pub connection: u32,
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            stream: 1024 * 1024,
            connection: 16 * 1024 * 1024,
        }
    }
}

/// An HTTP/2 connection.
#[derive(Debug)]
pub struct Connection {
    requests: SendRequest<Bytes>,
    authority: String,
    driver: JoinHandle<()>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens, or it is not HTTP/2.
    pub async fn open(place: &Place, windows: Windows) -> Result<Self> {
        let socket = TcpStream::connect(place.address())
            .await
            .with_context(|| format!("can't connect {}", place.name()))?;
        socket.set_nodelay(true)?;
        let (requests, connection) = h2::client::Builder::new()
            .initial_window_size(windows.stream)
            .initial_connection_window_size(windows.connection)
            .max_header_list_size(64 * 1024)
            .handshake(socket)
            .await
            .with_context(|| format!("no HTTP/2 with {}", place.name()))?;
        let driver = tokio::spawn(async move {
            // How it ends is seen by every call.
            let _ = connection.await;
        });
        Ok(Self {
            requests,
            authority: place.authority().to_owned(),
            driver,
        })
    }

    /// Begins a gRPC call, with further headers.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn call(&self, path: &str, headers: &[(&str, &str)]) -> Result<Call> {
        let mut request = http::Request::post(format!("http://{}{path}", self.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", "vbridge-tests");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.request(request.body(())?, false).await
    }

    /// Begins any request.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn request(&self, request: http::Request<()>, end: bool) -> Result<Call> {
        let mut requests = self.requests.clone().ready().await?;
        let (response, send) = requests.send_request(request, end)?;
        Ok(Call {
            send,
            receive: Receive::Headers(response),
            partial: BytesMut::new(),
            held: 0,
            hold: false,
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// One call.
#[derive(Debug)]
pub struct Call {
    send: SendStream<Bytes>,
    receive: Receive,
    /// The beginning of a message.
    partial: BytesMut,
    /// Bytes for which the server has not been given window again.
    held: usize,
    hold: bool,
}

#[derive(Debug)]
enum Receive {
    Headers(ResponseFuture),
    Body(RecvStream),
    Over,
}

/// What happens on a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Initial metadata.
    Headers(u16, HeaderMap),
    /// The answer consists of trailers only.
    TrailersOnly(u16, HeaderMap),
    /// A message.
    Message {
        /// Whether it is compressed.
        compressed: bool,
        /// What it consists of.
        data: Bytes,
    },
    /// Trailers: the call is over.
    Trailers(HeaderMap),
    /// The stream is over without trailers.
    End,
    /// The server, or what plays it, reset the stream.
    Reset(Reason),
    /// The connection is over.
    Gone(String),
}

impl Call {
    /// Sends a message.
    ///
    /// # Errors
    /// The stream has been reset, or the connection is over.
    pub async fn send(&mut self, message: &impl Message) -> Result<()> {
        let mut data = BytesMut::with_capacity(5 + message.encoded_len());
        data.put_u8(0);
        data.put_u32(message.encoded_len().try_into()?);
        message.encode(&mut data)?;
        self.send_data(data.freeze()).await
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The stream has been reset, or the connection is over.
    pub async fn send_data(&mut self, mut data: Bytes) -> Result<()> {
        while !data.is_empty() {
            self.send.reserve_capacity(data.len());
            let granted = match poll_fn(|cx| self.send.poll_capacity(cx)).await {
                Some(granted) => granted?,
                None => bail!("the stream takes no more data"),
            };
            self.send
                .send_data(data.split_to(granted.min(data.len())), false)?;
        }
        Ok(())
    }

    /// Sends the message, and the end of the stream with it.
    ///
    /// # Errors
    /// The stream has been reset, or the connection is over.
    pub async fn send_last(&mut self, message: &impl Message) -> Result<()> {
        self.send(message).await?;
        self.finish()
    }

    /// Ends the request.
    ///
    /// # Errors
    /// The stream has been reset, or the connection is over.
    pub fn finish(&mut self) -> Result<()> {
        Ok(self.send.send_data(Bytes::new(), true)?)
    }

    /// Resets the stream.
    pub fn reset(&mut self, reason: Reason) {
        self.send.send_reset(reason);
    }

    /// From now on, or no more, lets the server wait: what is read gives no window back.
    pub fn hold(&mut self, hold: bool) {
        self.hold = hold;
        if !hold {
            self.give_back(0);
        }
    }

    /// The code with which the server resets the stream.
    ///
    /// # Errors
    /// The connection ends in another way.
    pub async fn reset_by_server(&mut self) -> Result<Reason> {
        Ok(poll_fn(|cx| self.send.poll_reset(cx)).await?)
    }

    /// The next event.
    pub async fn next(&mut self) -> Event {
        loop {
            match &mut self.receive {
                Receive::Headers(response) => match response.await {
                    Ok(response) => {
                        let (head, body) = response.into_parts();
                        if body.is_end_stream() {
                            self.receive = Receive::Over;
                            return Event::TrailersOnly(head.status.as_u16(), head.headers);
                        }
                        self.receive = Receive::Body(body);
                        return Event::Headers(head.status.as_u16(), head.headers);
                    }
                    Err(error) => return self.over(&error),
                },
                Receive::Body(body) => {
                    if let Some(message) = take_message(&mut self.partial) {
                        return message;
                    }
                    match body.data().await {
                        Some(Ok(data)) => {
                            self.partial.extend_from_slice(&data);
                            self.give_back(data.len());
                        }
                        Some(Err(error)) => return self.over(&error),
                        None => {
                            let trailers = body.trailers().await;
                            return match trailers {
                                Ok(Some(trailers)) => {
                                    self.receive = Receive::Over;
                                    Event::Trailers(trailers)
                                }
                                Ok(None) => {
                                    self.receive = Receive::Over;
                                    Event::End
                                }
                                Err(error) => self.over(&error),
                            };
                        }
                    }
                }
                Receive::Over => return Event::End,
            }
        }
    }

    /// Events up to the last one.
    pub async fn rest(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let event = self.next().await;
            let last = event.is_last();
            events.push(event);
            if last {
                return events;
            }
        }
    }

    fn over(&mut self, error: &h2::Error) -> Event {
        self.receive = Receive::Over;
        match error.reason() {
            Some(reason) if error.is_reset() => Event::Reset(reason),
            _ => Event::Gone(error.to_string()),
        }
    }

    fn give_back(&mut self, len: usize) {
        self.held += len;
        if self.hold {
            return;
        }
        if let Receive::Body(body) = &mut self.receive {
            // It fails only where the stream is over.
            let _ = body.flow_control().release_capacity(self.held);
            self.held = 0;
        }
    }
}

impl Event {
    /// Whether nothing follows.
    pub fn is_last(&self) -> bool {
        !matches!(self, Self::Headers(..) | Self::Message { .. })
    }

    /// The message, decoded.
    ///
    /// # Errors
    /// It is another event, or does not decode.
    pub fn message<M: Message + Default>(&self) -> Result<M> {
        match self {
            Self::Message {
                compressed: false,
                data,
            } => Ok(M::decode(data.clone())?),
            other => bail!("expected a message, got {other}"),
        }
    }

    /// The trailers, or the headers where there is nothing else.
    ///
    /// # Errors
    /// It is another event.
    pub fn trailers(&self) -> Result<&HeaderMap> {
        match self {
            Self::Trailers(trailers) | Self::TrailersOnly(_, trailers) => Ok(trailers),
            other => bail!("expected trailers, got {other}"),
        }
    }

    /// The gRPC status code and its message.
    ///
    /// # Errors
    /// It is another event.
    pub fn status(&self) -> Result<(i32, String)> {
        let trailers = self.trailers()?;
        let text = |name| trailers.get(name).map(HeaderValue::to_str).transpose();
        let code = text("grpc-status")?.context("there is no grpc-status")?;
        Ok((
            code.parse()?,
            text("grpc-message")?.unwrap_or_default().to_owned(),
        ))
    }
}

/// One line. Long data are told by their length and a check.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Headers(status, headers) => write!(f, "headers {status} {}", show(headers)),
            Self::TrailersOnly(status, headers) => {
                write!(f, "trailers only {status} {}", show(headers))
            }
            Self::Message { compressed, data } => {
                let how = if *compressed {
                    "compressed message"
                } else {
                    "message"
                };
                write!(f, "{how} of {} bytes, {}", data.len(), digest(data))
            }
            Self::Trailers(trailers) => write!(f, "trailers {}", show(trailers)),
            Self::End => write!(f, "end without trailers"),
            Self::Reset(reason) => write!(f, "reset with code {}", u32::from(*reason)),
            Self::Gone(error) => write!(f, "connection lost: {error}"),
        }
    }
}

/// Headers in the order of their names. `date` is the server's clock and says nothing.
pub fn show(headers: &HeaderMap) -> String {
    let mut names: Vec<&HeaderName> = headers
        .keys()
        .filter(|name| *name != http::header::DATE)
        .collect();
    names.sort_by_key(|name| name.as_str());
    let mut lines = Vec::new();
    for name in names {
        for value in headers.get_all(name) {
            lines.push(format!(
                "{name}: {}",
                String::from_utf8_lossy(value.as_bytes())
            ));
        }
    }
    format!("{{{}}}", lines.join(", "))
}

/// The beginning of the SHA-256, in hexadecimal digits.
pub fn digest(data: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(data)
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn take_message(partial: &mut BytesMut) -> Option<Event> {
    let header = partial.first_chunk::<5>()?;
    let len = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
    let compressed = header[0] != 0;
    if partial.len() < 5 + len {
        return None;
    }
    partial.advance(5);
    Some(Event::Message {
        compressed,
        data: partial.split_to(len).freeze(),
    })
}
