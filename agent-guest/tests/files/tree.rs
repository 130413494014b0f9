//! Trees, as tar archives.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
};

use rustix::fs::{CWD, FileType as Type, Mode, mknodat};
use tar::{EntryType, Header};
use vbridge_api::guest::v1::{
    FilesPullTreeRequest, FilesPushTreeRequest, FilesPushTreeStart, TreeSummary,
    files_pull_tree_response, files_push_tree_request::Message,
};

use super::*;

async fn pull(guest: &Guest, name: &str) -> Result<(Vec<u8>, TreeSummary), Status> {
    use files_pull_tree_response::Piece;
    let request = FilesPullTreeRequest {
        path: guest.path(name),
        one_file_system: true,
    };
    let mut stream = within(guest.files.clone().pull_tree(request))
        .await?
        .into_inner();
    let mut archive = Vec::new();
    let mut summary = None;
    while let Some(message) = within(stream.message()).await? {
        match message.piece.unwrap() {
            Piece::Data(data) => {
                assert!(summary.is_none() && data.len() <= 256 * 1024);
                archive.extend(data);
            }
            Piece::Summary(told) => summary = Some(told),
        }
    }
    Ok((archive, summary.unwrap()))
}

async fn push(
    guest: &Guest,
    start: FilesPushTreeStart,
    archive: &[u8],
) -> Result<TreeSummary, Status> {
    let data = archive
        .chunks(50_001)
        .map(|data| Message::Data(data.to_vec()));
    let messages: Vec<_> = [Message::Start(start)]
        .into_iter()
        .chain(data)
        .map(|message| FilesPushTreeRequest {
            message: Some(message),
        })
        .collect();
    let mut files = guest.files.clone();
    let call = within(files.push_tree(tokio_stream::iter(messages)));
    Ok(call.await?.into_inner().summary.unwrap())
}

fn into(guest: &Guest, name: &str) -> FilesPushTreeStart {
    FilesPushTreeStart {
        path: guest.path(name),
        ..FilesPushTreeStart::default()
    }
}

/// What is to be the same in both trees, of one entry after the other.
fn told(top: &Path) -> Vec<String> {
    let mut told = Vec::new();
    let mut paths = vec![top.to_owned()];
    while let Some(path) = paths.pop() {
        let info = fs::symlink_metadata(&path).unwrap();
        let content = match info.file_type() {
            kind if kind.is_file() => sha256(&fs::read(&path).unwrap()),
            kind if kind.is_symlink() => fs::read_link(&path)
                .unwrap()
                .into_os_string()
                .into_encoded_bytes(),
            kind if kind.is_dir() => {
                let entries = fs::read_dir(&path).unwrap();
                paths.extend(entries.map(|entry| entry.unwrap().path()));
                Vec::new()
            }
            _ => Vec::new(),
        };
        let links = if info.is_dir() { 0 } else { info.nlink() };
        told.push(format!(
            "{:?} {:o} {}:{} {}.{} {links} {content:?}",
            path.strip_prefix(top).unwrap(),
            info.mode(),
            info.uid(),
            info.gid(),
            info.mtime(),
            info.mtime_nsec(),
        ));
    }
    told.sort();
    told
}

#[tokio::test]
async fn a_tree_comes_back_as_it_was() {
    let guest = Guest::start().await;
    let at = |name: &str| guest.at("tree").join(name);
    fs::create_dir_all(at("a/b")).unwrap();
    fs::create_dir(at("empty")).unwrap();
    fs::write(at("a/file"), noise(300_000)).unwrap();
    fs::write(at("a/b/nothing"), "").unwrap();
    fs::hard_link(at("a/file"), at("a/b/other name")).unwrap();
    fs::write(at(&"n".repeat(255)), "long").unwrap();
    fs::write(at("umläut\nline"), "odd").unwrap();
    let raw: &OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"raw\xff");
    fs::write(guest.at("tree").join(raw), "raw").unwrap();
    symlink("/nowhere/at/all", at("absolute")).unwrap();
    symlink("x".repeat(200), at("a/long link")).unwrap();
    mknodat(CWD, at("pipe"), Type::Fifo, Mode::RWXU, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    fs::set_permissions(at("a/file"), fs::Permissions::from_mode(0o6755)).unwrap();
    fs::set_permissions(at("empty"), fs::Permissions::from_mode(0o1500)).unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::new(5, 123);
    for name in ["a/b", "a"] {
        fs::File::open(at(name)).unwrap().set_modified(old).unwrap();
    }
    let (archive, summary) = pull(&guest, "tree").await.unwrap();
    assert_eq!((summary.files, summary.directories), (5, 4));
    assert_eq!((summary.others, summary.skipped_count), (4, 1));
    assert!(summary.skipped[0].contains("tree/socket"), "{summary:?}");

    fs::create_dir(guest.at("copy")).unwrap();
    let unpacked = push(&guest, into(&guest, "copy"), &archive).await.unwrap();
    assert_eq!((unpacked.files, unpacked.directories), (5, 4));
    assert_eq!((unpacked.others, unpacked.bytes), (4, summary.bytes));
    fs::remove_file(at("socket")).unwrap();
    // To take the socket away has changed the time of the directory that it was in.
    let copy = guest.at("copy/tree");
    let time = fs::metadata(&copy).unwrap().modified().unwrap();
    fs::File::open(guest.at("tree"))
        .unwrap()
        .set_modified(time)
        .unwrap();
    assert_eq!(told(&guest.at("tree")), told(&copy));
    // Once more, over what is there.
    push(&guest, into(&guest, "copy"), &archive).await.unwrap();
    assert_eq!(told(&guest.at("tree")), told(&copy));
    let mut start = into(&guest, "copy");
    start.no_overwrite = true;
    let there = push(&guest, start, &archive).await.unwrap_err();
    assert_eq!(reason(&there), "FILE_EXISTS");
    assert_eq!(told(&guest.at("tree")), told(&copy));
    // Without owners nothing runs as the agent's user.
    let mut start = into(&guest, "copy");
    start.no_owner = true;
    push(&guest, start, &archive).await.unwrap();
    assert_eq!(
        fs::metadata(copy.join("a/file")).unwrap().mode() & 0o7777,
        0o755
    );
}

#[tokio::test]
async fn tar_understands_what_is_packed_and_the_agent_what_tar_packs() {
    let guest = Guest::start().await;
    fs::create_dir_all(guest.at("tree/dir")).unwrap();
    fs::write(guest.at("tree/dir").join("l".repeat(150)), noise(1000)).unwrap();
    symlink("dir", guest.at("tree/link")).unwrap();
    let (archive, _) = pull(&guest, "tree").await.unwrap();
    fs::write(guest.at("pulled.tar"), &archive).unwrap();
    fs::create_dir(guest.at("by-tar")).unwrap();
    let tar = |arguments: &[&str]| {
        let mut command = std::process::Command::new("tar");
        let status = command
            .current_dir(guest.dir.path())
            .args(arguments)
            .status();
        assert!(status.expect("tar(1) is installed").success());
    };
    tar(&["-xpf", "pulled.tar", "-C", "by-tar"]);
    assert_eq!(told(&guest.at("tree")), told(&guest.at("by-tar/tree")));
    for format in ["gnu", "pax", "ustar"] {
        let name = format!("to-{format}");
        fs::create_dir(guest.at(&name)).unwrap();
        // ustar has no room for such a name.
        let what = if format == "ustar" {
            "tree/link"
        } else {
            "tree"
        };
        tar(&["--format", format, "-cf", "packed.tar", what]);
        let archive = fs::read(guest.at("packed.tar")).unwrap();
        push(&guest, into(&guest, &name), &archive).await.unwrap();
        let link = fs::read_link(guest.at(&name).join("tree/link")).unwrap();
        assert_eq!(link, Path::new("dir"));
        if format == "pax" {
            assert_eq!(told(&guest.at("tree")), told(&guest.at(&name).join("tree")));
        }
    }
}

/// An archive with one entry after the other: its type, its name, and where it leads or what it holds.
fn archive(entries: &[(EntryType, &str, &str)]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (kind, name, what) in entries {
        let mut header = Header::new_ustar();
        let ustar = header.as_ustar_mut().unwrap();
        ustar.name[..name.len()].copy_from_slice(name.as_bytes());
        let is_file = *kind == EntryType::Regular;
        if !is_file {
            ustar.linkname[..what.len()].copy_from_slice(what.as_bytes());
        }
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_uid(rustix::process::geteuid().as_raw().into());
        header.set_gid(rustix::process::getegid().as_raw().into());
        header.set_mtime(0);
        header.set_size(if is_file { what.len() as u64 } else { 0 });
        header.set_cksum();
        archive.extend_from_slice(header.as_bytes());
        if is_file {
            archive.extend_from_slice(what.as_bytes());
            archive.resize(archive.len().next_multiple_of(512), 0);
        }
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

#[tokio::test]
async fn a_hostile_archive_is_refused_and_writes_nothing_outside() {
    let guest = Guest::start().await;
    fs::create_dir(guest.at("outside")).unwrap();
    fs::write(guest.at("outside/secret"), "secret").unwrap();
    let outside = guest.path("outside");
    let file = |name| (EntryType::Regular, name, "evil");
    let absolute = format!("{outside}/evil");
    let secret = format!("{outside}/secret");
    let hostile: [&[(EntryType, &str, &str)]; 9] = [
        &[file("../outside/evil")],
        &[file("a/../../outside/evil")],
        &[file(&absolute)],
        &[(EntryType::Symlink, "way", &outside), file("way/evil")],
        &[(EntryType::Symlink, "way", "../outside"), file("way/evil")],
        &[
            (EntryType::Symlink, "way", "../outside"),
            (EntryType::Directory, "way/evil", ""),
        ],
        &[
            (EntryType::Symlink, "way", "../outside"),
            (EntryType::Link, "here", "way/secret"),
        ],
        &[(EntryType::Link, "here", "../outside/secret")],
        &[(EntryType::Link, "here", &secret)],
    ];
    for (number, entries) in hostile.iter().enumerate() {
        let name = format!("target{number}");
        fs::create_dir(guest.at(&name)).unwrap();
        let refused = push(&guest, into(&guest, &name), &archive(entries)).await;
        let refused = refused.unwrap_err();
        assert_eq!(reason(&refused), "INVALID_FIELD", "{entries:?}");
        assert!(refused.message().contains("leads out"), "{refused}");
        let names = fs::read_dir(guest.at("outside")).unwrap().count();
        assert_eq!((names, guest.at(&name).join("here").exists()), (1, false));
    }
    // A link in a file's place is replaced and not written through.
    let entries = [(EntryType::Symlink, "x", secret.as_str()), file("x")];
    push(&guest, into(&guest, "target0"), &archive(&entries))
        .await
        .unwrap();
    assert_eq!(fs::read(guest.at("target0/x")).unwrap(), b"evil");
    assert_eq!(fs::read(guest.at("outside/secret")).unwrap(), b"secret");
}

#[tokio::test]
async fn devices_are_named_and_half_an_archive_is_told() {
    let guest = Guest::start().await;
    fs::create_dir(guest.at("target")).unwrap();
    let entries = [
        (EntryType::Block, "disk", ""),
        (EntryType::Regular, "a/b/file", "x"),
        (EntryType::Regular, "last", "y"),
    ];
    let whole = archive(&entries);
    let summary = push(&guest, into(&guest, "target"), &whole).await.unwrap();
    assert_eq!((summary.files, summary.skipped_count), (2, 1));
    assert!(
        summary.skipped[0].contains("\"disk\": a device"),
        "{summary:?}"
    );
    assert!(!guest.at("target/disk").exists());
    for end in [whole.len() - 1024, whole.len() - 1300, 100] {
        let half = push(&guest, into(&guest, "target"), &whole[..end]).await;
        let half = half.unwrap_err();
        assert!(half.message().contains("without an end"), "{half}");
    }
    let none = push(&guest, into(&guest, "target"), &[1; 600]).await;
    assert_eq!(reason(&none.unwrap_err()), "INVALID_FIELD");
    let missing = push(&guest, into(&guest, "nowhere"), &whole).await;
    assert_eq!(reason(&missing.unwrap_err()), "FILE_NOT_FOUND");
    let socket = guest.at("socket");
    let _socket = std::os::unix::net::UnixListener::bind(socket).unwrap();
    assert!(pull(&guest, "socket").await.is_err());
    guest.until_only("target", &["a", "last"]).await;
}
