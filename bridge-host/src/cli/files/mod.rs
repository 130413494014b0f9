//! `vbridge cp`, `ls` and `stat`: a guest's files.
//!
//! | module | what it does |
//! |---|---|
//! | [`place`] | `NAME:PATH`, as scp(1) writes it |
//! | [`copy`] | files and trees, both ways |
//! | [`list`] | what is there |

pub(super) mod copy;
pub(super) mod list;
mod place;

use tonic::{Code, Status};
use vbridge_api::guest::v1::{FileInfo, FilesStatRequest, files_client::FilesClient};

use super::{
    client::{Client, Wire},
    failure::Failure,
};

/// What is at a path, links followed; none if nothing is.
async fn look(client: &Client, path: &str) -> Result<Option<FileInfo>, Failure> {
    let wanted = FilesStatRequest {
        path: path.to_owned(),
        follow: true,
        digest: None,
    };
    let asked = client.asked(wanted, async |request| service(client).stat(request).await);
    match asked.await {
        Ok(answer) => Ok(answer.file),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(failure(client, path, &status)),
    }
}

fn service(client: &Client) -> FilesClient<Wire> {
    FilesClient::new(client.channel())
}

/// What a guest says of a path.
fn failure(client: &Client, path: &str, status: &Status) -> Failure {
    let sentence = client.sentence(status);
    let path = super::output::printable(path);
    match sentence.contains(&path) {
        true => Failure::new(sentence),
        false => Failure::new(format!("{path}: {sentence}")),
    }
}
