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

use tonic::{Code, Status, transport::Channel};
use vbridge_api::guest::v1::{FileInfo, FilesStatRequest, files_client::FilesClient};

use super::{client::Client, failure::Failure};

/// What is at a path, links followed; none if nothing is.
async fn look(client: &Client, path: &str) -> Result<Option<FileInfo>, Failure> {
    let request = client.request_in_time(FilesStatRequest {
        path: path.to_owned(),
        follow: true,
        digest: None,
    });
    match service(client).stat(request).await {
        Ok(answer) => Ok(answer.into_inner().file),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(failure(client, path, &status)),
    }
}

fn service(client: &Client) -> FilesClient<Channel> {
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
