//! What a request asks a guest for, and the way there.

use std::{sync::Arc, time::Duration};

use http::HeaderMap;
use tokio::time::{Instant, sleep};
use vbridge_api::guest::v1::{ExecRunRequest, FilesReadRequest, FilesStatRequest};

use super::{
    answer::Answer,
    code::{Code, Failure},
    endpoint::What,
    files::{self, Upload},
    request::Fields,
    service::{self, Control},
    shell, system,
};
use crate::{
    forward::silence,
    guest::Guest,
    inside::Inside,
    limits::{JSON_END_MARGIN, JSON_KILL_GRACE},
};

/// A request that keeps to the API.
#[derive(Debug)]
pub(super) enum Asked {
    /// Of these three nothing can be said but `timeout`.
    Ping,
    Info,
    Status,
    Exec(Box<ExecRunRequest>),
    Upload(Box<Upload>),
    Download(FilesReadRequest),
    Stat(FilesStatRequest),
    Control(Control),
}

// === impl Asked ===

impl Asked {
    /// What is asked for, and how long it may take altogether.
    pub(super) fn parse(what: What, mut fields: Fields) -> Result<(Self, Duration), Failure> {
        let timeout = fields.timeout();
        let mut limit = timeout;
        let asked = match what {
            What::Ping => Self::Ping,
            What::Info => Self::Info,
            What::Status => Self::Status,
            What::Exec => {
                limit += JSON_KILL_GRACE + JSON_END_MARGIN;
                Self::Exec(Box::new(shell::parse(&mut fields, timeout)?))
            }
            What::Upload => Self::Upload(Box::new(Upload::parse(&mut fields)?)),
            What::Download => Self::Download(files::parse_download(&mut fields)?),
            What::Stat => Self::Stat(files::parse_stat(&mut fields)?),
            What::Control => Self::Control(service::parse(&mut fields)?),
            What::Document => {
                let detail = "the document is asked of a guest";
                return Err(Failure::new(Code::InternalError, detail));
            }
        };
        fields.end()?;
        Ok((asked, limit))
    }

    /// Asks the guest, with `proof` as metadata of each call. It may take `limit` once the guest is there, for which it is waited as for every other call.
    pub(super) async fn ask(
        self,
        guest: Arc<Guest>,
        proof: HeaderMap,
        (wait, patient): (Duration, bool),
        limit: Duration,
    ) -> Result<Answer, Failure> {
        let ready = guest.ready(Instant::now() + wait, patient).await?;
        let inside = Inside::with(Arc::clone(&guest), proof);
        tokio::select! {
            outcome = self.carry_out(&inside) => outcome,
            () = silence(&guest, ready.link.as_ref()) => Err(guest.silent().into()),
            () = sleep(limit) => {
                let detail = format!(
                    "guest \"{}\" has not answered within {limit:?}: ask for more time with \"timeout\"",
                    guest.name()
                );
                Err(Failure::new(Code::ReadTimeout, detail))
            }
        }
    }

    async fn carry_out(self, guest: &Inside) -> Result<Answer, Failure> {
        match self {
            Self::Ping => system::ping(guest).await.map_err(Failure::of_command),
            Self::Info => system::info(guest).await.map_err(Failure::of_command),
            Self::Status => system::status(guest).await.map_err(Failure::of_command),
            Self::Exec(request) => shell::run(guest, *request)
                .await
                .map_err(Failure::of_command),
            Self::Control(control) => service::control(guest, control)
                .await
                .map_err(Failure::of_command),
            Self::Upload(upload) => upload.write(guest).await,
            Self::Download(request) => files::download(guest, request).await,
            Self::Stat(request) => files::stat(guest, request).await,
        }
    }
}
