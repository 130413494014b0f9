//! `vbridge ls` and `vbridge stat`.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tonic::Streaming;
use vbridge_api::guest::v1::{
    Digest, DigestAlgorithm, FileInfo, FileType, FilesListRequest, FilesListResponse,
    FilesStatRequest,
};

use super::{
    super::{
        client::{Client, ClientOptions, Twice},
        duration,
        failure::Failure,
        output::{Output, facts, listing, print, print_compact, print_pretty, printable},
        units::{bytes, date, json_time},
    },
    failure, look,
    place::GuestPath,
    service,
};

#[derive(Debug, Args)]
pub(in crate::cli) struct ListOptions {
    /// The directory or file: NAME:PATH, or :PATH if there is only one guest
    #[arg(value_name = "NAME:PATH")]
    place: GuestPath,
    /// Entries whose names begin with a dot, too
    #[arg(long, short = 'a')]
    all: bool,
    /// Owner, size, time and more
    #[arg(long, short = 'l')]
    long: bool,
    /// How long to wait for a guest that is not there yet
    #[arg(long, value_name = "TIME", value_parser = duration)]
    wait: Option<Duration>,
    #[command(flatten)]
    client: ClientOptions,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct StatOptions {
    /// What to look at: NAME:PATH, or :PATH if there is only one guest
    #[arg(value_name = "NAME:PATH")]
    place: GuestPath,
    /// Look at what a symbolic link leads to, and not at the link
    #[arg(long, short = 'L')]
    dereference: bool,
    /// The SHA-256 of its content, too
    #[arg(long)]
    sha256: bool,
    /// How long to wait for a guest that is not there yet
    #[arg(long, value_name = "TIME", value_parser = duration)]
    wait: Option<Duration>,
    #[command(flatten)]
    client: ClientOptions,
}

/// Shows a directory's entries, or a file.
pub(in crate::cli) async fn list(options: &ListOptions) -> Result<(), Failure> {
    let path = &options.place.path;
    let client = Client::named(
        &options.client,
        options.place.guest.as_deref(),
        options.wait,
    )
    .await?;
    let file = look(&client, path).await?.ok_or_else(|| {
        Failure::new(format!(
            "{}: there is no such file or directory",
            options.place
        ))
    })?;
    if file.r#type() != FileType::Directory {
        return show(options, &[file]);
    }
    let wanted = FilesListRequest {
        path: path.clone(),
        follow_link: true,
    };
    let listed = client.watch(wanted, async |request| service(&client).list(request).await);
    let mut entries: Streaming<FilesListResponse> = listed.await?;
    // Message by message: a directory may be larger than what anybody wants to hold.
    while let Some(entries) = client.next(&mut entries, Some(Duration::ZERO)).await? {
        let mut files = entries.files;
        files.retain(|file| options.all || !file.name.starts_with('.'));
        show(options, &files)?;
    }
    Ok(())
}

fn show(options: &ListOptions, files: &[FileInfo]) -> Result<(), Failure> {
    match options.client.output {
        Output::Json => files.iter().try_for_each(|file| print_compact(&json(file))),
        Output::Table if files.is_empty() => Ok(()),
        Output::Table if options.long => print(listing(
            &[
                "MODE", ">LINKS", "OWNER", "GROUP", ">SIZE", "MODIFIED", "NAME",
            ],
            files.iter().map(row),
        )),
        Output::Table => files
            .iter()
            .try_for_each(|file| print(printable(&file.name))),
    }
}

/// Shows one file.
pub(in crate::cli) async fn stat(options: &StatOptions) -> Result<(), Failure> {
    let client = Client::named(
        &options.client,
        options.place.guest.as_deref(),
        options.wait,
    )
    .await?;
    let wanted = FilesStatRequest {
        path: options.place.path.clone(),
        follow: options.dereference,
        digest: options.sha256.then_some(DigestAlgorithm::Sha256.into()),
    };
    // A digest of a large file takes its time.
    let answer = match options.sha256 {
        true => client
            .again(Twice::Harmless, async || {
                let request = client.request(wanted.clone());
                let answer = service(&client).stat(request).await;
                answer.map(tonic::Response::into_inner)
            })
            .await
            .map_err(|status| failure(&client, &options.place.path, &status))?,
        false => {
            let asked = client.ask(wanted, async |request| service(&client).stat(request).await);
            asked.await?
        }
    };
    let file = answer.file.unwrap_or_default();
    match options.client.output {
        Output::Table => print(table(&file, answer.digest.as_ref())),
        Output::Json => {
            let mut value = json(&file);
            if let Some(digest) = answer.digest {
                value["sha256"] = hex(&digest.value).into();
            }
            print_pretty(&value)
        }
    }
}

fn table(file: &FileInfo, digest: Option<&Digest>) -> String {
    facts([
        ("Name", name(file)),
        ("Type", word(file.r#type()).to_owned()),
        ("Size", format!("{} ({})", file.size, bytes(file.size))),
        ("On disk", bytes(file.allocated_bytes)),
        ("Mode", format!("{:04o} ({})", file.mode, letters(file))),
        (
            "Owner",
            format!("{} ({})", printable(&file.owner), file.uid),
        ),
        (
            "Group",
            format!("{} ({})", printable(&file.group), file.gid),
        ),
        ("Links", file.links.to_string()),
        ("Inode", file.inode.to_string()),
        ("Modified", date(file.modified.as_ref())),
        ("Changed", date(file.changed.as_ref())),
        ("Read", date(file.accessed.as_ref())),
        ("Made", date(file.created.as_ref())),
        (
            "SHA-256",
            digest.map(|digest| hex(&digest.value)).unwrap_or_default(),
        ),
    ])
}

fn row(file: &FileInfo) -> Vec<String> {
    let or = |name: &str, number: u32| match name {
        "" => number.to_string(),
        name => printable(name),
    };
    vec![
        letters(file),
        file.links.to_string(),
        or(&file.owner, file.uid),
        or(&file.group, file.gid),
        file.size.to_string(),
        date(file.modified.as_ref()),
        name(file),
    ]
}

fn name(file: &FileInfo) -> String {
    match file.link_target.as_str() {
        "" => printable(&file.name),
        target => format!("{} -> {}", printable(&file.name), printable(target)),
    }
}

fn json(file: &FileInfo) -> Value {
    json!({
        "name": file.name,
        "type": word(file.r#type()),
        "size": file.size,
        "allocated_bytes": file.allocated_bytes,
        "mode": format!("{:04o}", file.mode),
        "uid": file.uid,
        "gid": file.gid,
        "owner": file.owner,
        "group": file.group,
        "modified": json_time(file.modified.as_ref()),
        "accessed": json_time(file.accessed.as_ref()),
        "changed": json_time(file.changed.as_ref()),
        "created": json_time(file.created.as_ref()),
        "link_target": file.link_target,
        "links": file.links,
        "inode": file.inode,
    })
}

fn word(of: FileType) -> &'static str {
    match of {
        FileType::Unspecified => "unknown",
        FileType::Regular => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "link",
        FileType::BlockDevice => "block device",
        FileType::CharacterDevice => "character device",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
    }
}

/// Type and permissions as ls(1) writes them.
fn letters(file: &FileInfo) -> String {
    let kind = match file.r#type() {
        FileType::Unspecified => '?',
        FileType::Regular => '-',
        FileType::Directory => 'd',
        FileType::Symlink => 'l',
        FileType::BlockDevice => 'b',
        FileType::CharacterDevice => 'c',
        FileType::Fifo => 'p',
        FileType::Socket => 's',
    };
    let mut letters = String::from(kind);
    // Set-uid, set-gid and sticky stand where those may execute to whom they belong.
    for (shift, special, set) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = file.mode >> shift;
        letters.push(if bits & 4 == 0 { '-' } else { 'r' });
        letters.push(if bits & 2 == 0 { '-' } else { 'w' });
        letters.push(match (bits & 1 != 0, file.mode & special != 0) {
            (true, true) => set,
            (false, true) => set.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    letters
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_written_as_ls_writes_them() {
        for (kind, mode, expected) in [
            (FileType::Regular, 0o644, "-rw-r--r--"),
            (FileType::Directory, 0o1777, "drwxrwxrwt"),
            (FileType::Regular, 0o4755, "-rwsr-xr-x"),
            (FileType::Regular, 0o6640, "-rwSr-S---"),
            (FileType::Symlink, 0o777, "lrwxrwxrwx"),
        ] {
            let file = FileInfo {
                r#type: kind.into(),
                mode,
                ..FileInfo::default()
            };
            assert_eq!(letters(&file), expected);
        }
    }

    #[test]
    fn a_name_can_not_harm_the_terminal() {
        let file = FileInfo {
            name: "a\u{1b}[2J".into(),
            link_target: "\r".into(),
            ..FileInfo::default()
        };
        assert_eq!(name(&file), "a\\u{1b}[2J -> \\r");
        assert!(table(&file, None).is_ascii());
    }
}
