//! `vbridge.guest.v1.Files`: the guest's files, in messages. What is done with them is in [`crate::files`].

use std::{os::fd::OwnedFd, sync::Arc};

use futures_util::{FutureExt as _, StreamExt as _, stream};
use rustix::fs::OFlags;
use tokio::io::{Interest, unix::AsyncFd};
use tonic::{Request, Response, Status, Streaming};
use vbridge_api::guest::v1::{
    Digest, FileInfo, FilesChecksumRequest, FilesChecksumResponse, FilesGetUploadRequest,
    FilesGetUploadResponse, FilesListRequest, FilesListResponse, FilesMkdirRequest,
    FilesMkdirResponse, FilesPullTreeRequest, FilesPullTreeResponse, FilesPushTreeRequest,
    FilesPushTreeResponse, FilesReadRequest, FilesReadResponse, FilesRemoveRequest,
    FilesRemoveResponse, FilesRenameRequest, FilesRenameResponse, FilesSetAttributesRequest,
    FilesSetAttributesResponse, FilesStatRequest, FilesStatResponse, FilesWatchRequest,
    FilesWatchResponse, FilesWriteRequest, FilesWriteResponse, files_push_tree_request,
    files_server, files_write_request,
};

use super::first;
use crate::{
    error::{self, Reason},
    files::{
        change,
        digest::{Checksum, Hasher},
        failure::{errno, failed},
        info::Teller,
        list::Listing,
        path::{GuestPath, Root},
        read::Reading,
        remove::Removal,
        replace::upload_size,
        start::{Start, check_id},
        tree::{pull::Packer, push::Unpacker},
        watch::Watch,
        work::{Pieces, Pool, Step, Work as _, Worker},
        write::Upload,
    },
    limits::{HOLE_STEP, MAX_FILE_DATA, WRITE_AT_ONCE},
    policy::{Access, Fence, Policy},
    port::async_fd,
};

/// The method that a digest needs, whoever asks for it.
const CHECKSUM: &str = "/vbridge.guest.v1.Files/Checksum";

/// The service.
#[derive(Debug)]
pub(crate) struct Files {
    pool: Pool,
    policy: Policy,
}

impl Files {
    pub(crate) fn new(policy: Policy) -> Self {
        Self {
            pool: Pool::new(),
            policy,
        }
    }

    /// What keeps a call in the root that its path lies in, if the policy lets that be done there.
    fn fence(&self, path: &GuestPath, access: Access) -> Result<Option<Arc<Fence>>, Status> {
        self.policy.rules().fence(path.as_str(), access)
    }

    /// The digest of a part of a file.
    async fn digest(
        &self,
        path: GuestPath,
        follow: bool,
        hasher: Hasher,
        (offset, length): (u64, Option<u64>),
    ) -> Result<(Digest, u64), Status> {
        let fence = self.fence(&path, Access::Read)?;
        let place = self.pool.transfer()?;
        let begin = move || {
            let mut file = Root::within(fence)?.regular(&path, OFlags::RDONLY, follow)?;
            if offset > 0 {
                std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(offset))
                    .map_err(|error| failed("find the offset in", &path, errno(&error)))?;
            }
            Ok(Checksum {
                file,
                path,
                hasher,
                left: length.unwrap_or(u64::MAX),
                size: 0,
            })
        };
        self.pool.begin(place, begin).await?.answer().await
    }
}

#[tonic::async_trait]
impl files_server::Files for Files {
    type ListStream = Pieces<FilesListResponse>;
    type ReadStream = Pieces<FilesReadResponse>;
    type PullTreeStream = Pieces<FilesPullTreeResponse>;
    type WatchStream = Pieces<FilesWatchResponse>;

    async fn stat(
        &self,
        request: Request<FilesStatRequest>,
    ) -> Result<Response<FilesStatResponse>, Status> {
        let request = request.into_inner();
        let path = GuestPath::parse("path", &request.path)?;
        let fence = self.fence(&path, Access::Read)?;
        let digest = match request.digest {
            None => None,
            Some(algorithm) => {
                // A digest tells of the content, and who may look at a file must not guess that by Stat.
                self.policy.admit(CHECKSUM)?;
                let hasher = Hasher::new("digest", algorithm)?;
                let digest = self.digest(path.clone(), request.follow, hasher, (0, None));
                Some(digest.await?.0)
            }
        };
        let stat = move || {
            let found = Root::within(fence)?.find(&path, request.follow)?;
            tell(found, &path)
        };
        Ok(Response::new(FilesStatResponse {
            file: Some(self.pool.run(stat).await?),
            digest,
        }))
    }

    async fn list(
        &self,
        request: Request<FilesListRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let request = request.into_inner();
        let path = GuestPath::parse("path", &request.path)?;
        let fence = self.fence(&path, Access::Read)?;
        let place = self.pool.transfer()?;
        let begin = move || Listing::new(&Root::within(fence)?, path, request.follow_link);
        let listing = self.pool.begin(place, begin).await?;
        Ok(Response::new(listing.pieces()))
    }

    async fn read(
        &self,
        request: Request<FilesReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let request = request.into_inner();
        let path = GuestPath::parse("path", &request.path)?;
        let fence = self.fence(&path, Access::Read)?;
        change::length("offset", request.offset)?;
        let place = self.pool.transfer()?;
        let begin = move || Reading::new(&Root::within(fence)?, path, &request);
        let reading = self.pool.begin(place, begin).await?;
        Ok(Response::new(reading.pieces()))
    }

    async fn write(
        &self,
        request: Request<Streaming<FilesWriteRequest>>,
    ) -> Result<Response<FilesWriteResponse>, Status> {
        use files_write_request::Message;
        let mut messages = request.into_inner();
        let first = first(&mut messages, "start").await?;
        let first = first.and_then(|first| first.message);
        let Some(Message::Start(start)) = first else {
            return Err(error::invalid_field("start", "must be the first message"));
        };
        let start = Start::parse(start)?;
        let fence = self.fence(start.path(), Access::Write)?;
        // Not before the caller has said something: one that does not would keep it from others.
        let place = self.pool.transfer()?;
        let begin = move || Upload::open(&Root::within(fence)?, start);
        let mut upload = self.pool.begin(place, begin).await?;
        while !upload.run(Upload::prepare).await? {}
        let mut is_over = false;
        let mut read_ahead = None;
        loop {
            let message = match read_ahead.take() {
                Some(message) => message,
                None => messages.message().await,
            };
            let Some(message) = message? else {
                break;
            };
            if is_over {
                return Err(error::invalid_field("digest", "must be the last message"));
            }
            match message.message {
                Some(Message::Data(data)) => {
                    let mut bytes = data.len();
                    let mut pieces = vec![data];
                    // What has come meanwhile goes with it: to get to a thread and back is what costs.
                    while bytes < WRITE_AT_ONCE && read_ahead.is_none() {
                        match messages.message().now_or_never() {
                            Some(Ok(Some(FilesWriteRequest {
                                message: Some(Message::Data(data)),
                            }))) => {
                                bytes += data.len();
                                pieces.push(data);
                            }
                            Some(other) => read_ahead = Some(other),
                            None => break,
                        }
                    }
                    let write = move |upload: &mut Upload| {
                        let mut pieces = pieces.iter();
                        pieces.try_for_each(|data| upload.data(data))
                    };
                    upload.run(write).await?;
                }
                Some(Message::Hole(count)) => write_hole(&mut upload, count).await?,
                Some(Message::Digest(digest)) => {
                    is_over = true;
                    upload.run(move |upload| upload.expect(digest)).await?;
                }
                Some(Message::Start(_)) => {
                    return Err(error::invalid_field("start", "comes only once"));
                }
                None => return Err(error::invalid_field("message", "must not be empty")),
            }
        }
        Ok(Response::new(upload.run(Upload::finish).await?))
    }

    async fn get_upload(
        &self,
        request: Request<FilesGetUploadRequest>,
    ) -> Result<Response<FilesGetUploadResponse>, Status> {
        let request = request.into_inner();
        let path = GuestPath::parse("path", &request.path)?;
        let fence = self.fence(&path, Access::Write)?;
        check_id("upload_id", &request.upload_id)?;
        let look = move || {
            let root = Root::within(fence)?;
            let (dir, _) = root.parent(&path)?;
            upload_size(&dir, &path, &request.upload_id)
        };
        let size = self.pool.run(look).await?;
        Ok(Response::new(FilesGetUploadResponse { size }))
    }

    async fn mkdir(
        &self,
        request: Request<FilesMkdirRequest>,
    ) -> Result<Response<FilesMkdirResponse>, Status> {
        let request = request.into_inner();
        let path = GuestPath::parse("path", &request.path)?;
        let fence = self.fence(&path, Access::Write)?;
        let make = move || change::make(&Root::within(fence)?, &path, &request);
        let file = Some(self.pool.run(make).await?);
        Ok(Response::new(FilesMkdirResponse { file }))
    }

    async fn remove(
        &self,
        request: Request<FilesRemoveRequest>,
    ) -> Result<Response<FilesRemoveResponse>, Status> {
        let request = request.into_inner();
        let path = GuestPath::parse("path", &request.path)?;
        let fence = self.fence(&path, Access::Write)?;
        let place = self.pool.transfer()?;
        let begin = move || Removal::new(&Root::within(fence)?, path, request.recursive);
        let removed = match self.pool.begin(place, begin).await {
            Ok(removal) => removal.answer().await,
            Err(status) => Err(status),
        };
        match removed {
            Ok(removed) => Ok(Response::new(FilesRemoveResponse { removed })),
            Err(status)
                if request.ignore_missing && status.code() == Reason::FileNotFound.code() =>
            {
                Ok(Response::new(FilesRemoveResponse { removed: 0 }))
            }
            Err(status) => Err(status),
        }
    }

    async fn rename(
        &self,
        request: Request<FilesRenameRequest>,
    ) -> Result<Response<FilesRenameResponse>, Status> {
        let request = request.into_inner();
        let from = GuestPath::parse("from", &request.from)?;
        let to = GuestPath::parse("to", &request.to)?;
        let fences = (
            self.fence(&from, Access::Write)?,
            self.fence(&to, Access::Write)?,
        );
        let rename = move || {
            let roots = (Root::within(fences.0)?, Root::within(fences.1)?);
            change::rename((&roots.0, &from), (&roots.1, &to), request.no_overwrite)
        };
        self.pool.run(rename).await?;
        Ok(Response::new(FilesRenameResponse {}))
    }

    async fn set_attributes(
        &self,
        request: Request<FilesSetAttributesRequest>,
    ) -> Result<Response<FilesSetAttributesResponse>, Status> {
        let request = request.into_inner();
        let path = GuestPath::parse("path", &request.path)?;
        let fence = self.fence(&path, Access::Write)?;
        let set = move || change::set(&Root::within(fence)?, &path, &request);
        let file = Some(self.pool.run(set).await?);
        Ok(Response::new(FilesSetAttributesResponse { file }))
    }

    async fn checksum(
        &self,
        request: Request<FilesChecksumRequest>,
    ) -> Result<Response<FilesChecksumResponse>, Status> {
        let request = request.into_inner();
        let path = GuestPath::parse("path", &request.path)?;
        let hasher = Hasher::new("algorithm", request.algorithm)?;
        let part = (change::length("offset", request.offset)?, request.length);
        let (digest, size) = self.digest(path, request.follow_link, hasher, part).await?;
        Ok(Response::new(FilesChecksumResponse {
            digest: Some(digest),
            size,
        }))
    }

    async fn pull_tree(
        &self,
        request: Request<FilesPullTreeRequest>,
    ) -> Result<Response<Self::PullTreeStream>, Status> {
        let request = request.into_inner();
        let path = GuestPath::parse("path", &request.path)?;
        let fence = self.fence(&path, Access::Read)?;
        let place = self.pool.transfer()?;
        let begin = move || Packer::new(&Root::within(fence)?, &path, request.one_file_system);
        let packer = self.pool.begin(place, begin).await?;
        Ok(Response::new(packer.pieces()))
    }

    async fn push_tree(
        &self,
        request: Request<Streaming<FilesPushTreeRequest>>,
    ) -> Result<Response<FilesPushTreeResponse>, Status> {
        use files_push_tree_request::Message;
        let mut messages = request.into_inner();
        let first = first(&mut messages, "start").await?;
        let first = first.and_then(|first| first.message);
        let Some(Message::Start(start)) = first else {
            return Err(error::invalid_field("start", "must be the first message"));
        };
        let path = GuestPath::parse("start.path", &start.path)?;
        let fence = self.fence(&path, Access::Write)?;
        // Not before the caller has said something: one that does not would keep it from others.
        let place = self.pool.transfer()?;
        let begin = move || Unpacker::new(&Root::within(fence)?, &start);
        let mut unpacker = self.pool.begin(place, begin).await?;
        while let Some(message) = messages.message().await? {
            match message.message {
                Some(Message::Data(data)) if data.len() <= MAX_FILE_DATA => {
                    unpacker.run(move |unpacker| unpacker.data(&data)).await?;
                }
                Some(Message::Data(data)) => {
                    let description =
                        format!("has {} bytes, and {MAX_FILE_DATA} is the most", data.len());
                    return Err(error::invalid_field("data", description));
                }
                Some(Message::Start(_)) => {
                    return Err(error::invalid_field("start", "comes only once"));
                }
                None => return Err(error::invalid_field("message", "must not be empty")),
            }
        }
        Ok(Response::new(unpacker.run(Unpacker::finish).await?))
    }

    async fn watch(
        &self,
        request: Request<FilesWatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        let path = GuestPath::parse("path", &request.path)?;
        let fence = self.fence(&path, Access::Read)?;
        let place = self.pool.watch()?;
        let begin = move || {
            let root = Root::within(fence)?;
            Watch::new(root, path, request.recursive, request.follow_link)
        };
        let mut worker = self.pool.begin(place, begin).await?;
        let inotify = worker.run(|watch| watch.inotify()).await?;
        let readable = async_fd(inotify, Interest::READABLE)
            .map_err(|error| error::failure(Reason::Internal, format!("can't watch: {error}")))?;
        let told = stream::unfold(Some((worker, readable)), |state| async move {
            let (mut worker, readable) = state?;
            match watched(&mut worker, &readable).await {
                Ok(Some(told)) => Some((Ok(told), Some((worker, readable)))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        });
        let messages = told.flat_map(|told| {
            let messages: Vec<_> = match told {
                Ok(told) => told.into_iter().map(Ok).collect(),
                Err(status) => vec![Err(status)],
            };
            stream::iter(messages)
        });
        Ok(Response::new(Box::pin(messages)))
    }
}

/// The next changes; none if there will be no more.
async fn watched(
    worker: &mut Worker<Watch>,
    readable: &AsyncFd<OwnedFd>,
) -> Result<Option<Vec<FilesWatchResponse>>, Status> {
    loop {
        match worker.run(Watch::step).await? {
            Step::Piece(told) => return Ok(Some(told)),
            Step::End => return Ok(None),
            Step::Again => {}
            Step::Later => {
                let ready = readable.readable().await;
                let ready = ready.map_err(|_| error::agent_stopping());
                // What has come since the last look makes it ready again.
                ready?.clear_ready();
            }
        }
    }
}

/// Writes a hole a step at a time: its zeros count for the digests, and may be many.
async fn write_hole(upload: &mut Worker<Upload>, count: u64) -> Result<(), Status> {
    upload.run(move |upload| upload.check_hole(count)).await?;
    let mut left = count;
    while left > 0 {
        let part = left.min(HOLE_STEP);
        upload.run(move |upload| upload.hole(part)).await?;
        left -= part;
    }
    Ok(())
}

fn tell(found: OwnedFd, path: &GuestPath) -> Result<FileInfo, Status> {
    Teller::new()
        .open(found, path.name())
        .map_err(|errno| failed("look at", path, errno))
}
