//! `file/upload`, `file/download` and `file/info`.
//!
//! Contents are base64 in JSON. A file that is uploaded appears as a whole or not at all; of a download the digest is that of the
//! bytes that it gives, of the information that of the whole file. Symbolic links are followed.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio_stream::iter;
use vbridge_api::guest::v1::{
    DigestAlgorithm, FileInfo, FileType, FilesChecksumRequest, FilesReadRequest, FilesStatRequest,
    FilesWriteRequest, FilesWriteStart, WriteMode, files_client::FilesClient,
    files_read_response::Piece, files_write_request::Message,
};

use super::{
    answer::Answer,
    code::{Code, Failure},
    request::{Fields, wrong},
};
use crate::{
    inside::Inside,
    limits::{DEFAULT_JSON_DOWNLOAD, JSON_UPLOAD_CHUNK, MAX_JSON_DIGEST, MAX_JSON_DOWNLOAD},
};

/// The largest place in a file that all programs can say in JSON (RFC 8259, section 6).
pub(super) const MAX_OFFSET: u64 = 9_007_199_254_740_991;

/// A file to be written.
#[derive(Debug)]
pub(super) struct Upload {
    start: FilesWriteStart,
    content: Bytes,
}

// === impl Upload ===

impl Upload {
    pub(super) fn parse(fields: &mut Fields) -> Result<Self, Failure> {
        let path = fields.required("path")?;
        let Some(content) = fields.text("content")? else {
            let detail = "content: must be there, \"\" for an empty file";
            return Err(Failure::new(Code::MissingRequired, detail));
        };
        let content = STANDARD.decode(content).map_err(|error| {
            let description = format!("must be base64 without line ends (base64 -w0): {error}");
            wrong("content", &description)
        })?;
        let start = FilesWriteStart {
            path,
            mode: WriteMode::Replace.into(),
            permissions: fields
                .filled("mode")?
                .map(|mode| octal(&mode))
                .transpose()?,
            owner: fields.filled("owner")?.unwrap_or_default(),
            group: fields.filled("group")?.unwrap_or_default(),
            // What is there goes only if that is wanted.
            no_overwrite: !fields.truth("overwrite")?.unwrap_or(false),
            size: u64::try_from(content.len()).ok(),
            ..FilesWriteStart::default()
        };
        Ok(Self {
            start,
            content: Bytes::from(content),
        })
    }

    pub(super) async fn write(self, guest: &Inside) -> Result<Answer, Failure> {
        let mut files = FilesClient::with_origin(guest.clone(), Inside::origin());
        let (path, content) = (self.start.path.clone(), self.content);
        let start = Message::Start(self.start);
        let chunks = (0..content.len())
            .step_by(JSON_UPLOAD_CHUNK)
            .map(move |at| {
                let end = content.len().min(at.saturating_add(JSON_UPLOAD_CHUNK));
                Message::Data(content.slice(at..end).to_vec())
            });
        let messages = std::iter::once(start).chain(chunks);
        let messages = messages.map(|message| FilesWriteRequest {
            message: Some(message),
        });
        let written = files.write(iter(messages)).await?.into_inner();
        Ok(Answer::success(json!({
            "path": path,
            "size": written.file.unwrap_or_default().size,
            "md5": hex(&written.md5),
        })))
    }
}

/// Permission bits, as chmod takes them.
fn octal(mode: &str) -> Result<u32, Failure> {
    let is_octal =
        (3..=5).contains(&mode.len()) && mode.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    match u32::from_str_radix(mode, 8) {
        Ok(bits) if is_octal && bits <= 0o7777 => Ok(bits),
        _ => Err(wrong("mode", "must be octal digits, \"0000\" to \"7777\"")),
    }
}

pub(super) fn parse_download(fields: &mut Fields) -> Result<FilesReadRequest, Failure> {
    let length = fields.whole("length", MAX_JSON_DOWNLOAD)?;
    Ok(FilesReadRequest {
        path: fields.required("path")?,
        offset: fields.whole("offset", MAX_OFFSET)?.unwrap_or(0),
        length: Some(length.unwrap_or(DEFAULT_JSON_DOWNLOAD)),
        digest: Some(DigestAlgorithm::Md5.into()),
        follow_link: true,
        ..FilesReadRequest::default()
    })
}

pub(super) async fn download(guest: &Inside, request: FilesReadRequest) -> Result<Answer, Failure> {
    let mut files = FilesClient::with_origin(guest.clone(), Inside::origin());
    let path = request.path.clone();
    let most = request.length.unwrap_or(DEFAULT_JSON_DOWNLOAD);
    let mut pieces = files.read(request).await?.into_inner();
    let (mut content, mut total, mut md5) = (Vec::new(), 0, String::new());
    while let Some(message) = pieces.message().await? {
        match message.piece {
            Some(Piece::File(file)) => total = file.size,
            Some(Piece::Data(data)) => content.extend_from_slice(&data),
            Some(Piece::Digest(digest)) => md5 = hex(&digest.value),
            // Holes were not asked for.
            Some(Piece::Hole(_)) | None => {}
        }
        if u64::try_from(content.len()).unwrap_or(u64::MAX) > most {
            let detail = "the guest has sent more than it was asked for";
            return Err(Failure::new(Code::InternalError, detail));
        }
    }
    Ok(Answer::success(json!({
        "path": path,
        "content": STANDARD.encode(&content),
        "size": content.len(),
        "total_size": total,
        "md5": md5,
    })))
}

pub(super) fn parse_stat(fields: &mut Fields) -> Result<FilesStatRequest, Failure> {
    Ok(FilesStatRequest {
        path: fields.required("path")?,
        follow: true,
        digest: None,
    })
}

pub(super) async fn stat(guest: &Inside, request: FilesStatRequest) -> Result<Answer, Failure> {
    let mut files = FilesClient::with_origin(guest.clone(), Inside::origin());
    let path = request.path.clone();
    let found = files.stat(request).await.map_err(Failure::from);
    let file = match found {
        Ok(found) => found.into_inner().file.unwrap_or_default(),
        Err(failure) if failure.code() == Code::FileNotFound => {
            return Ok(Answer::success(json!({"path": path, "exists": false})));
        }
        Err(failure) => return Err(failure),
    };
    let has_digest = file.r#type() == FileType::Regular && file.size <= MAX_JSON_DIGEST;
    let md5 = match has_digest {
        true => digest(&mut files, path.clone()).await?,
        false => None,
    };
    Ok(Answer::success(told(&path, &file, md5.as_deref())))
}

/// The digest of a file; none where the guest's policy does not give it.
async fn digest(files: &mut FilesClient<Inside>, path: String) -> Result<Option<String>, Failure> {
    // Not a second `Stat`: what was signed holds once for each method.
    let request = FilesChecksumRequest {
        path,
        algorithm: DigestAlgorithm::Md5.into(),
        follow_link: true,
        ..FilesChecksumRequest::default()
    };
    match files.checksum(request).await.map_err(Failure::from) {
        Ok(found) => Ok(found.into_inner().digest.map(|digest| hex(&digest.value))),
        Err(failure) if failure.code() == Code::PermissionDenied => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn told(path: &str, file: &FileInfo, md5: Option<&str>) -> Value {
    json!({
        "path": path,
        "exists": true,
        "type": kind(file.r#type()),
        "size": file.size,
        "mode": format!("{:04o}", file.mode),
        "owner": name(&file.owner, file.uid),
        "group": name(&file.group, file.gid),
        "mtime": file.modified.as_ref().map(|time| time.seconds),
        "md5": md5,
    })
}

fn kind(kind: FileType) -> &'static str {
    match kind {
        FileType::Regular => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symlink",
        FileType::BlockDevice => "block_device",
        FileType::CharacterDevice => "character_device",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::Unspecified => "unknown",
    }
}

/// A name, or the number of what has none.
fn name(name: &str, id: u32) -> String {
    match name.is_empty() {
        true => id.to_string(),
        false => name.to_owned(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::endpoint::What;

    fn upload(text: &str) -> Result<Upload, Failure> {
        let mut fields = Fields::of_body(text.as_bytes(), What::Upload).unwrap();
        Upload::parse(&mut fields)
    }

    #[test]
    fn an_upload_replaces_only_what_it_may() {
        let start = |text: &str| upload(text).unwrap().start;
        let plain = start(r#"{"path": "/a", "content": "aGk="}"#);
        assert!(plain.no_overwrite);
        assert_eq!((plain.permissions, plain.size), (None, Some(2)));
        let full = start(
            r#"{"path": "/a", "content": "", "mode": "0644", "owner": "root", "group": "adm", "overwrite": true}"#,
        );
        assert!(!full.no_overwrite);
        assert_eq!(full.permissions, Some(0o644));
        assert_eq!((full.owner.as_str(), full.group.as_str()), ("root", "adm"));
    }

    #[test]
    fn what_is_no_base64_or_no_mode_is_refused() {
        for content in ["a", "aGk", "aGk=\\n", "aGk=aGk=", "%%%%", "aGl="] {
            let text = format!(r#"{{"path": "/a", "content": "{content}"}}"#);
            assert_eq!(
                upload(&text).unwrap_err().code(),
                Code::InvalidParams,
                "{content}"
            );
        }
        for mode in [
            "",
            "8",
            "64",
            "0o644",
            "+644",
            "10000",
            "00644x",
            "000644",
            "rw-r--r--",
        ] {
            assert!(octal(mode).is_err(), "{mode}");
        }
        for (mode, bits) in [
            ("644", 0o644),
            ("0644", 0o644),
            ("4755", 0o4755),
            ("07777", 0o7777),
        ] {
            assert_eq!(octal(mode).unwrap(), bits);
        }
        let missing = upload(r#"{"path": "/a"}"#).unwrap_err();
        assert_eq!(missing.code(), Code::MissingRequired);
    }

    #[test]
    fn a_file_is_told_by_names_and_by_numbers_where_it_has_none() {
        let file = FileInfo {
            r#type: FileType::Regular.into(),
            mode: 0o644,
            uid: 7,
            group: "adm".to_owned(),
            ..FileInfo::default()
        };
        let told = told("/a", &file, None);
        assert_eq!(told["mode"], "0644");
        assert_eq!(told["owner"], "7");
        assert_eq!(told["group"], "adm");
        assert_eq!(told["md5"], Value::Null);
    }
}
