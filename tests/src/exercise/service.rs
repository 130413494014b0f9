//! The methods.

use std::{pin::Pin, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};
use tonic::{
    Code, Request, Response, Status, Streaming,
    metadata::{AsciiMetadataKey, BinaryMetadataKey, KeyAndValueRef, MetadataMap, MetadataValue},
};

use super::{
    counters::{Counted, Counters},
    v1::{
        Answer, BidiRequest, BidiResponse, BigMessageRequest, BigMessageResponse, BulkReadRequest,
        BulkReadResponse, BulkWriteRequest, BulkWriteResponse, ClientStreamRequest,
        ClientStreamResponse, CountersRequest, CountersResponse, DeadlineRequest, DeadlineResponse,
        EchoMetadataRequest, EchoMetadataResponse, HangRequest, HangResponse, Metadata,
        ServerStreamRequest, ServerStreamResponse, TrailersOnlyRequest, TrailersOnlyResponse,
        UnaryRequest, UnaryResponse, exercise_server,
    },
    wire::Ending,
};
use crate::content;

/// Bytes of a bulk message whose size is not asked for: two HTTP/2 frames' worth would be 32 KiB; this is what
/// services that send files use.
const DEFAULT_CHUNK: usize = 64 * 1024;

/// The largest bulk message.
const MAX_CHUNK: usize = 16 * 1024 * 1024;

/// Bytes that are digested or made before another task has its turn.
const PART: usize = 64 * 1024;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service's methods. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Exercise {
    counters: Counters,
}

impl Exercise {
    pub(super) fn counters(&self) -> Counters {
        self.counters.clone()
    }
}

#[tonic::async_trait]
impl exercise_server::Exercise for Exercise {
    async fn unary(
        &self,
        request: Request<UnaryRequest>,
    ) -> Result<Response<UnaryResponse>, Status> {
        let UnaryRequest { payload, answer } = request.into_inner();
        answer
            .unwrap_or_default()
            .unary(UnaryResponse { payload })
            .await
    }

    async fn client_stream(
        &self,
        request: Request<Streaming<ClientStreamRequest>>,
    ) -> Result<Response<ClientStreamResponse>, Status> {
        let mut requests = request.into_inner();
        let mut digest = Sha256::new();
        let (mut count, mut bytes, mut answer, mut counted) = (0, 0, None, None);
        while let Some(request) = requests.message().await? {
            counted.get_or_insert_with(|| self.counters.begin(&request.id));
            digest.update(&request.payload);
            count += 1;
            bytes += request.payload.len() as u64;
            answer = request.answer;
        }
        finish(&mut counted);
        let sha256 = sha256(digest);
        let response = ClientStreamResponse {
            count,
            bytes,
            sha256,
        };
        answer.unwrap_or_default().unary(response).await
    }

    type ServerStreamStream = Answers<ServerStreamResponse>;

    async fn server_stream(
        &self,
        request: Request<ServerStreamRequest>,
    ) -> Result<Response<Self::ServerStreamStream>, Status> {
        let ServerStreamRequest {
            count,
            size,
            seed,
            interval,
            answer,
            id,
        } = request.into_inner();
        let answer = answer.unwrap_or_default();
        let interval = duration(interval);
        let counted = self.counters.begin(&id);
        answer.wait().await;
        let end = answer.clone();
        let messages = stream::unfold((0, counted), move |(index, mut counted)| {
            let end = end.clone();
            async move {
                if index > 0 {
                    pause(interval).await;
                }
                if index < count {
                    let offset = u64::from(index) * u64::from(size);
                    let payload = content::bytes(seed, offset, size as usize);
                    return Some((
                        Ok(ServerStreamResponse { payload, index }),
                        (index + 1, counted),
                    ));
                }
                counted.done();
                let status = (index == count).then(|| end.status()).flatten()?;
                Some((Err(status), (count + 1, counted)))
            }
        });
        Ok(answer.dress(Response::new(Box::pin(messages) as Self::ServerStreamStream)))
    }

    type BidiStream = Answers<BidiResponse>;

    async fn bidi(
        &self,
        request: Request<Streaming<BidiRequest>>,
    ) -> Result<Response<Self::BidiStream>, Status> {
        let requests = request.into_inner();
        let counters = self.counters.clone();
        let state = Some((requests, 0, None::<Counted>));
        let messages = stream::unfold(state, move |state| {
            let counters = counters.clone();
            async move {
                let (mut requests, index, mut counted) = state?;
                let request = match requests.message().await {
                    Ok(Some(request)) => request,
                    Ok(None) => {
                        finish(&mut counted);
                        return None;
                    }
                    Err(status) => return Some((Err(status), None)),
                };
                let mut counted = if index == 0 {
                    Some(counters.begin(&request.id))
                } else {
                    counted
                };
                if let Some(answer) = request.answer {
                    answer.wait().await;
                    finish(&mut counted);
                    return answer.status().map(|status| (Err(status), None));
                }
                let response = BidiResponse {
                    payload: request.payload,
                    index,
                };
                Some((Ok(response), Some((requests, index + 1, counted))))
            }
        });
        let mut response = Response::new(Box::pin(messages) as Self::BidiStream);
        response.metadata_mut().insert(
            "x-exercise-begun",
            MetadataValue::from_static("before the first message"),
        );
        Ok(response)
    }

    async fn trailers_only(
        &self,
        request: Request<TrailersOnlyRequest>,
    ) -> Result<Response<TrailersOnlyResponse>, Status> {
        let mut answer = request.into_inner().answer.unwrap_or_default();
        if answer.code == 0 {
            answer.code = Code::Aborted.into();
        }
        answer.unary(TrailersOnlyResponse {}).await
    }

    async fn hang(&self, request: Request<HangRequest>) -> Result<Response<HangResponse>, Status> {
        let _counted = self.counters.begin(&request.into_inner().id);
        std::future::pending().await
    }

    async fn counters(
        &self,
        request: Request<CountersRequest>,
    ) -> Result<Response<CountersResponse>, Status> {
        let count = self.counters.read(&request.into_inner().id);
        let tasks = tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks();
        Ok(Response::new(CountersResponse {
            started: count.started,
            cancelled: count.cancelled,
            active: count.active,
            bulk_bytes: count.bulk_bytes,
            resets: count.resets,
            tasks: tasks as u64,
            descriptors: std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as u64,
            pid: std::process::id(),
            calls: self.counters.calls(),
        }))
    }

    type BulkReadStream = Answers<BulkReadResponse>;

    async fn bulk_read(
        &self,
        request: Request<BulkReadRequest>,
    ) -> Result<Response<Self::BulkReadStream>, Status> {
        let BulkReadRequest {
            size,
            chunk,
            seed,
            without_digest,
            id,
        } = request.into_inner();
        let chunk = match chunk as usize {
            0 => DEFAULT_CHUNK,
            chunk => chunk.min(MAX_CHUNK),
        };
        let counted = self.counters.begin(&id);
        let digest = (!without_digest).then(Sha256::new);
        let messages = stream::unfold(
            (0, digest, counted, false),
            move |(offset, mut digest, mut counted, over)| async move {
                if over {
                    counted.done();
                    return None;
                }
                let len = usize::try_from(size - offset)
                    .unwrap_or(usize::MAX)
                    .min(chunk);
                let data = content::bytes(seed, offset, len);
                if let Some(digest) = &mut digest {
                    digest.update(&data);
                }
                counted.bulk(len);
                let offset = offset + len as u64;
                let over = offset == size;
                let sha256 = digest.take_if(|_| over).map(sha256).unwrap_or_default();
                Some((
                    Ok(BulkReadResponse { data, sha256 }),
                    (offset, digest, counted, over),
                ))
            },
        );
        let mut response = Response::new(Box::pin(messages) as Self::BulkReadStream);
        // The content can't be compressed; trying would be all that a slow guest does.
        response.disable_compression();
        Ok(response)
    }

    async fn bulk_write(
        &self,
        request: Request<Streaming<BulkWriteRequest>>,
    ) -> Result<Response<BulkWriteResponse>, Status> {
        let mut requests = request.into_inner();
        let Some(first) = requests.message().await? else {
            return Ok(Response::new(BulkWriteResponse::default()));
        };
        let mut counted = self.counters.begin(&first.id);
        let mut digest = (!first.without_digest).then(Sha256::new);
        let (seed, answer_after) = (first.seed, first.answer_after.unwrap_or(u64::MAX));
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(BulkWriteRequest { data, rest, .. }) = next {
            if let Some(position) = content::first_difference(seed, bytes, &data) {
                counted.done();
                return Err(Status::data_loss(format!(
                    "byte {position} of the content of seed {seed} is wrong"
                )));
            }
            if let Some(digest) = &mut digest {
                digest.update(&data);
            }
            counted.bulk(data.len());
            bytes += data.len() as u64;
            if bytes >= answer_after {
                break;
            }
            pause(duration(rest)).await;
            next = requests.message().await?;
        }
        counted.done();
        let sha256 = digest.map(sha256).unwrap_or_default();
        Ok(Response::new(BulkWriteResponse { bytes, sha256 }))
    }

    async fn deadline(
        &self,
        request: Request<DeadlineRequest>,
    ) -> Result<Response<DeadlineResponse>, Status> {
        let Some(header) = request.metadata().get("grpc-timeout") else {
            return Ok(Response::new(DeadlineResponse::default()));
        };
        let header = String::from_utf8_lossy(header.as_bytes()).into_owned();
        let milliseconds = timeout_ms(&header).ok_or_else(|| {
            Status::invalid_argument(format!("grpc-timeout {header:?} is no duration"))
        })?;
        Ok(Response::new(DeadlineResponse {
            present: true,
            milliseconds,
            header,
        }))
    }

    async fn big_message(
        &self,
        request: Request<BigMessageRequest>,
    ) -> Result<Response<BigMessageResponse>, Status> {
        let BigMessageRequest {
            payload,
            response_size,
            seed,
        } = request.into_inner();
        let mut digest = Sha256::new();
        for part in payload.chunks(PART) {
            digest.update(part);
            // An emulated guest takes seconds for all of it, and others want to be served.
            tokio::task::yield_now().await;
        }
        let received = payload.len() as u64;
        drop(payload);
        let size = response_size as usize;
        let mut payload = BytesMut::with_capacity(size);
        while payload.len() < size {
            let len = PART.min(size - payload.len());
            payload.extend_from_slice(&content::bytes(seed, payload.len() as u64, len));
            tokio::task::yield_now().await;
        }
        Ok(Response::new(BigMessageResponse {
            payload: payload.freeze(),
            received,
            sha256: sha256(digest),
        }))
    }

    async fn echo_metadata(
        &self,
        request: Request<EchoMetadataRequest>,
    ) -> Result<Response<EchoMetadataResponse>, Status> {
        let mut metadata: Vec<_> = request
            .metadata()
            .iter()
            .map(|entry| seen(&entry))
            .collect();
        // Stable: values of one name stay in their order.
        metadata.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Response::new(EchoMetadataResponse { metadata }))
    }
}

// === impl Answer ===

impl Answer {
    async fn wait(&self) {
        pause(duration(self.delay)).await;
    }

    /// The status to fail with, if it is to fail.
    fn status(&self) -> Option<Status> {
        if self.code == 0 {
            return None;
        }
        let trailers = MetadataMap::from_headers(headers(&self.trailers));
        let code = Code::from(self.code);
        Some(Status::with_details_and_metadata(
            code,
            self.message.clone(),
            self.details.clone(),
            trailers,
        ))
    }

    /// Waits, then answers with `response` or fails.
    async fn unary<T>(&self, response: T) -> Result<Response<T>, Status> {
        self.wait().await;
        match self.status() {
            Some(status) if self.reset.is_none() => Err(status),
            _ => Ok(self.dress(Response::new(response))),
        }
    }

    /// Adds headers and, for a call that succeeds, trailers.
    fn dress<T>(&self, mut response: Response<T>) -> Response<T> {
        let sent = MetadataMap::from_headers(headers(&self.headers));
        for entry in sent.iter() {
            match entry {
                KeyAndValueRef::Ascii(key, value) => {
                    _ = response.metadata_mut().append(key, value.clone())
                }
                KeyAndValueRef::Binary(key, value) => {
                    _ = response.metadata_mut().append_bin(key, value.clone())
                }
            }
        }
        // A status brings its trailers along.
        let trailers = if self.code == 0 {
            headers(&self.trailers)
        } else {
            HeaderMap::new()
        };
        response.extensions_mut().insert(Ending {
            trailers,
            reset: self.reset,
        });
        response
    }
}

/// As headers; what can't be one is left out, and missed by the test.
fn headers(metadata: &[Metadata]) -> HeaderMap {
    let mut map = MetadataMap::new();
    for Metadata { key, value } in metadata {
        if key.ends_with("-bin") {
            if let Ok(key) = BinaryMetadataKey::from_bytes(key.as_bytes()) {
                map.append_bin(key, MetadataValue::from_bytes(value));
            }
        } else if let (Ok(key), Ok(text)) = (
            AsciiMetadataKey::from_bytes(key.as_bytes()),
            std::str::from_utf8(value),
        ) && let Ok(value) = text.parse()
        {
            map.append(key, value);
        }
    }
    let mut headers = HeaderMap::new();
    for (name, value) in &map.into_headers() {
        let (name, value): (HeaderName, HeaderValue) = (name.clone(), value.clone());
        headers.append(name, value);
    }
    headers
}

fn seen(entry: &KeyAndValueRef<'_>) -> Metadata {
    match entry {
        KeyAndValueRef::Ascii(key, value) => Metadata {
            key: key.to_string(),
            value: Bytes::copy_from_slice(value.as_bytes()),
        },
        // One that is not base64 is shown as it came.
        KeyAndValueRef::Binary(key, value) => Metadata {
            key: key.to_string(),
            value: value
                .to_bytes()
                .unwrap_or_else(|_| Bytes::copy_from_slice(value.as_encoded_bytes())),
        },
    }
}

fn finish(counted: &mut Option<Counted>) {
    if let Some(counted) = counted {
        counted.done();
    }
}

fn sha256(digest: Sha256) -> Bytes {
    Bytes::copy_from_slice(&digest.finalize())
}

fn duration(duration: Option<prost_types::Duration>) -> Duration {
    duration
        .and_then(|duration| Duration::try_from(duration).ok())
        .unwrap_or_default()
}

async fn pause(duration: Duration) {
    if !duration.is_zero() {
        tokio::time::sleep(duration).await;
    }
}

/// `grpc-timeout` in milliseconds.
fn timeout_ms(header: &str) -> Option<u64> {
    let (number, unit) = header.split_at_checked(header.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => number * 3_600_000,
        "M" => number * 60_000,
        "S" => number * 1000,
        "m" => number,
        "u" => number / 1000,
        "n" => number / 1_000_000,
        _ => return None,
    })
}
