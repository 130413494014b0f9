//! The first message of an upload: what goes together, and within which bounds.

use tonic::Status;
use vbridge_api::guest::v1::{Digest, FilesWriteStart, WriteMode};

use super::{
    change::{Attributes, Owner, length, permissions, time},
    digest,
    path::GuestPath,
};
use crate::{error, limits::MAX_UPLOAD_ID};

/// What is to be written, checked.
#[derive(Debug)]
pub(crate) struct Start {
    pub(super) path: GuestPath,
    pub(super) mode: WriteMode,
    /// All but the owner.
    attributes: Attributes,
    owner: String,
    group: String,
    pub(super) no_overwrite: bool,
    pub(super) make_parents: bool,
    pub(super) size: Option<u64>,
    pub(super) digest: Option<Digest>,
    pub(super) no_digests: bool,
    pub(super) offset: u64,
    pub(super) upload_id: String,
}

impl Start {
    /// Where it is to be written.
    pub(crate) fn path(&self) -> &GuestPath {
        &self.path
    }

    /// The attributes that it is to have. Looks the owner up in the guest's files.
    pub(super) fn attributes(&self) -> Result<Attributes, Status> {
        Ok(Attributes {
            owner: Owner::parse("start.", &self.owner, &self.group)?,
            ..self.attributes
        })
    }

    /// Checks what can be checked without looking at any file.
    pub(crate) fn parse(start: FilesWriteStart) -> Result<Self, Status> {
        let path = GuestPath::parse("start.path", &start.path)?;
        let wrong =
            |field: &str, what: &str| Err(error::invalid_field(format!("start.{field}"), what));
        let mode = match WriteMode::try_from(start.mode) {
            Ok(WriteMode::Unspecified) => WriteMode::Replace,
            Ok(mode) => mode,
            Err(_) => return wrong("mode", "is no way to write that there is"),
        };
        if mode != WriteMode::Replace {
            let only = "goes only with REPLACE";
            if start.no_overwrite {
                return wrong("no_overwrite", only);
            }
            if start.size.is_some() {
                return wrong("size", only);
            }
            if !start.upload_id.is_empty() {
                return wrong("upload_id", only);
            }
        }
        let has_id = !start.upload_id.is_empty();
        if start.offset > 0 && !(has_id || mode == WriteMode::InPlace) {
            return wrong(
                "offset",
                "goes only with IN_PLACE, or with REPLACE and an upload's id",
            );
        }
        if has_id {
            check_id("start.upload_id", &start.upload_id)?;
        }
        if let Some(digest) = &start.digest {
            if start.no_digests {
                return wrong("digest", "goes not with no_digests");
            }
            digest::check("start.digest", digest)?;
        }
        Ok(Self {
            path,
            mode,
            attributes: Attributes {
                owner: Owner::default(),
                permissions: permissions("start.", start.permissions)?,
                modified: time("start.modified", start.modified.as_ref())?,
                accessed: None,
            },
            owner: start.owner,
            group: start.group,
            no_overwrite: start.no_overwrite,
            make_parents: start.make_parents,
            size: start
                .size
                .map(|size| length("start.size", size))
                .transpose()?,
            digest: start.digest,
            no_digests: start.no_digests,
            offset: length("start.offset", start.offset)?,
            upload_id: start.upload_id,
        })
    }
}

/// Checks an upload's id.
pub(crate) fn check_id(field: &str, id: &str) -> Result<(), Status> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    match (1..=MAX_UPLOAD_ID).contains(&id.len()) && id.bytes().all(is_good) {
        true => Ok(()),
        false => {
            let description = "must have 1 to 64 of A-Z, a-z, 0-9, \"-\" and \"_\"";
            Err(error::invalid_field(field, description))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut FilesWriteStart);

    fn start(change: impl FnOnce(&mut FilesWriteStart)) -> Result<Start, Status> {
        let mut start = FilesWriteStart {
            path: "/tmp/x".to_owned(),
            ..FilesWriteStart::default()
        };
        change(&mut start);
        let start = Start::parse(start)?;
        start.attributes().map(|_| start)
    }

    #[test]
    fn what_does_not_go_together_is_refused_with_the_field() {
        assert!(start(|_| {}).is_ok());
        let wrong: [(&str, Change); 14] = [
            ("start.path", |start| start.path = "x".to_owned()),
            ("start.mode", |start| start.mode = 9),
            ("start.permissions", |start| {
                start.permissions = Some(0o10000)
            }),
            ("start.owner", |start| {
                start.owner = "nobody knows".to_owned()
            }),
            ("start.no_overwrite", |start| {
                (start.mode, start.no_overwrite) = (2, true);
            }),
            ("start.size", |start| {
                (start.mode, start.size) = (3, Some(1))
            }),
            ("start.upload_id", |start| {
                (start.mode, start.upload_id) = (2, "x".to_owned());
            }),
            ("start.upload_id", |start| {
                start.upload_id = "a/b".to_owned()
            }),
            ("start.upload_id", |start| start.upload_id = "x".repeat(65)),
            ("start.offset", |start| start.offset = 1),
            ("start.offset", |start| {
                (start.mode, start.offset) = (3, u64::MAX)
            }),
            ("start.digest.value", |start| {
                start.digest = Some(Digest::default())
            }),
            ("start.digest", |start| {
                (start.digest, start.no_digests) = (Some(Digest::default()), true);
            }),
            ("start.modified", |start| {
                start.modified = Some(prost_types::Timestamp {
                    seconds: -1,
                    nanos: 0,
                });
            }),
        ];
        for (field, change) in wrong {
            let status = start(change).unwrap_err();
            let begins = format!("{field}: ");
            assert!(
                status.message().starts_with(&begins),
                "{}",
                status.message()
            );
        }
        assert!(start(|start| start.upload_id = "x".repeat(64)).is_ok());
        assert!(start(|start| (start.mode, start.offset) = (3, 7)).is_ok());
    }
}
