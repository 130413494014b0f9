//! A file's content in pieces, holes as holes if that is wanted, and what is added later.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
};

use rustix::{fs::OFlags, io::Errno};
use tonic::Status;
use vbridge_api::guest::v1::{
    FileInfo, FilesReadRequest, FilesReadResponse, files_read_response::Piece,
};

use super::{
    digest::{Hasher, piece},
    failure::{errno, failed, told},
    info::Teller,
    path::{GuestPath, Root, stat},
    work::{Step, Work},
};
use crate::{
    error::Reason,
    limits::{FILE_PIECE, HOLE_STEP},
};

/// A file that is being read.
#[derive(Debug)]
pub(crate) struct Reading {
    file: File,
    path: GuestPath,
    /// What the first message tells.
    info: Option<FileInfo>,
    position: u64,
    /// Bytes that are wanted at most from here on.
    left: u64,
    /// Up to where the bytes are data, or a hole, as far as that is known.
    extent: Extent,
    /// The longest that the file was, if it is followed.
    follow: Option<u64>,
    hasher: Option<Hasher>,
}

/// What comes next in the file.
#[derive(Debug, Clone, Copy)]
enum Extent {
    /// Data up to the file's end, for holes are not asked for, or the file system does not tell.
    All,
    /// It must be looked for.
    Unknown,
    /// Data up to there.
    Data(u64),
    /// A hole up to there.
    Hole(u64),
}

impl Reading {
    pub(crate) fn new(
        root: &Root,
        path: GuestPath,
        request: &FilesReadRequest,
    ) -> Result<Self, Status> {
        let hasher = request.digest.map(|digest| Hasher::new("digest", digest));
        let hasher = hasher.transpose()?;
        let mut file = root.regular(&path, OFlags::RDONLY, request.follow_link)?;
        let info = Teller::new()
            .open(&file, path.name())
            .map_err(|errno| failed("look at", &path, errno))?;
        if request.offset > 0 {
            file.seek(SeekFrom::Start(request.offset))
                .map_err(|error| failed("find the offset in", &path, errno(&error)))?;
        }
        Ok(Self {
            file,
            path,
            follow: request.follow.then_some(info.size),
            info: Some(info),
            position: request.offset,
            left: request.length.unwrap_or(u64::MAX),
            extent: match request.sparse {
                true => Extent::Unknown,
                false => Extent::All,
            },
            hasher,
        })
    }

    /// Looks for what comes next.
    fn look(&mut self) -> Result<Extent, Status> {
        use rustix::fs::SeekFrom::{Data, Hole, Start};
        let fail = |errno| failed("read", &self.path, errno);
        let size = || file_size(&self.file, &self.path);
        let extent = match rustix::fs::seek(&self.file, Data(self.position)) {
            Ok(data) if data > self.position => Extent::Hole(data),
            Ok(_) => match rustix::fs::seek(&self.file, Hole(self.position)) {
                Ok(hole) if hole > self.position => Extent::Data(hole),
                // It became shorter this moment.
                Ok(_) | Err(Errno::NXIO) => Extent::Unknown,
                Err(errno) => return Err(fail(errno)),
            },
            // There is nothing but a hole up to the end.
            Err(Errno::NXIO) => Extent::Hole(size()?),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Extent::All,
            Err(errno) => return Err(fail(errno)),
        };
        rustix::fs::seek(&self.file, Start(self.position)).map_err(fail)?;
        Ok(extent)
    }

    fn read(&mut self, up_to: Option<u64>) -> Result<Step<FilesReadResponse>, Status> {
        let most = up_to.map_or(u64::MAX, |end| end.saturating_sub(self.position));
        let mut data = vec![0; piece(self.left.min(most), FILE_PIECE)];
        let read = self
            .file
            .read(&mut data)
            .map_err(|error| failed("read", &self.path, errno(&error)))?;
        if read == 0 {
            return self.end();
        }
        data.truncate(read);
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&data);
        }
        self.pass(read as u64);
        Ok(message(Piece::Data(data)))
    }

    fn hole(&mut self, end: u64) -> Result<Step<FilesReadResponse>, Status> {
        let mut count = end.saturating_sub(self.position).min(self.left);
        if let Some(hasher) = &mut self.hasher {
            count = count.min(HOLE_STEP);
            hasher.zeros(count);
        }
        if count == 0 {
            return self.end();
        }
        self.pass(count);
        self.file
            .seek(SeekFrom::Start(self.position))
            .map_err(|error| failed("read", &self.path, errno(&error)))?;
        Ok(message(Piece::Hole(count)))
    }

    fn pass(&mut self, count: u64) {
        self.position = self.position.saturating_add(count);
        self.left = self.left.saturating_sub(count);
        if let Extent::Data(end) | Extent::Hole(end) = self.extent
            && self.position >= end
        {
            self.extent = Extent::Unknown;
        }
    }

    /// There is nothing more, or nothing for the moment.
    fn end(&mut self) -> Result<Step<FilesReadResponse>, Status> {
        if let Some(longest) = self.follow
            && self.left > 0
        {
            let size = file_size(&self.file, &self.path)?;
            if size < longest {
                let what = "has become shorter while it was followed: read it anew";
                return Err(told(Reason::Aborted, &self.path, what));
            }
            self.follow = Some(size);
            if !matches!(self.extent, Extent::All) {
                self.extent = Extent::Unknown;
            }
            return Ok(Step::Later);
        }
        self.left = 0;
        Ok(match self.hasher.take() {
            Some(hasher) => message(Piece::Digest(hasher.finish())),
            None => Step::End,
        })
    }
}

impl Work for Reading {
    type Piece = FilesReadResponse;

    fn step(&mut self) -> Result<Step<FilesReadResponse>, Status> {
        if let Some(info) = self.info.take() {
            return Ok(message(Piece::File(info)));
        }
        if self.left == 0 {
            return self.end();
        }
        if matches!(self.extent, Extent::Unknown) {
            let size = file_size(&self.file, &self.path)?;
            self.extent = match size {
                // Files of /proc say so, too, and have a content nevertheless.
                0 => Extent::All,
                size if self.position >= size => return self.end(),
                _ => self.look()?,
            };
        }
        match self.extent {
            Extent::Unknown => Ok(Step::Again),
            Extent::All => self.read(None),
            Extent::Data(end) => self.read(Some(end)),
            Extent::Hole(end) => self.hole(end),
        }
    }
}

fn file_size(file: &File, path: &GuestPath) -> Result<u64, Status> {
    let (_, stat) = stat(file, path)?;
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}

fn message(piece: Piece) -> Step<FilesReadResponse> {
    Step::Piece(FilesReadResponse { piece: Some(piece) })
}
