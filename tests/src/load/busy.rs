//! Many commands and many files at once, each with bytes of its own.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::{Barrier, mpsc},
    task::JoinSet,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use vbridge_api::guest::v1::{
    Command, ExecStart, ExecStartRequest, ProcessInput, exec_client::ExecClient,
    exec_start_request, exec_start_response::Message, exit_status::How, process_input::Input,
    process_output::Output,
};

use super::{Check, download, upload};
use crate::{content::Random, place::Place};

/// Bytes in one message of input.
const PIECE: usize = 16 * 1024;

/// Runs so many commands that return their random input, and so many transfers, half of them up and half of them down
/// again, all at the same time: no command gets its input before all of them run. Files go to `directory` in the guest.
///
/// # Errors
/// One of them fails or gets other bytes, or all together take longer than `limit`.
pub async fn busy(
    place: &Place,
    (execs, transfers): (usize, usize),
    directory: &str,
    limit: Duration,
) -> Result<()> {
    let channel = place.channel().await?;
    let mut random = Random::new(Random::seed_from("VBRIDGE_TEST_SEED"));
    // What goes down must be there before.
    let mut files = Vec::new();
    for number in 0..transfers {
        let size = (4 << 20) + random.below(4 << 20);
        let (path, seed) = (format!("{directory}/{number}"), random.number());
        if number % 2 == 0 {
            timeout(
                limit,
                upload(channel.clone(), &path, (seed, size), Check::Digests),
            )
            .await
            .with_context(|| format!("{path} takes for ever"))??;
        }
        files.push((path, seed, size, number % 2 == 0));
    }
    let all_run = Arc::new(Barrier::new(execs + transfers));
    let mut tasks = JoinSet::new();
    for _ in 0..execs {
        let input = random.bytes(100_000);
        tasks.spawn(echo(channel.clone(), input.to_vec(), Arc::clone(&all_run)));
    }
    for (path, seed, size, is_there) in files {
        let (channel, all_run) = (channel.clone(), Arc::clone(&all_run));
        tasks.spawn(async move {
            all_run.wait().await;
            match is_there {
                true => download(channel, &path, (seed, size), Check::Digests).await,
                false => upload(channel, &path, (seed, size), Check::Digests).await,
            }
        });
    }
    let all = async {
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        Ok(())
    };
    timeout(limit, all).await.context("it takes for ever")?
}

/// Runs `cat`, gives it bytes once all are ready, and has the same ones back.
async fn echo(channel: Channel, input: Vec<u8>, all_run: Arc<Barrier>) -> Result<()> {
    let (requests, messages) = mpsc::channel(1);
    let command = Command {
        argv: vec!["cat".to_owned()],
        ..Command::default()
    };
    let start = exec_start_request::Message::Start(ExecStart {
        command: Some(command),
        ..ExecStart::default()
    });
    let message = |message| ExecStartRequest {
        message: Some(message),
    };
    requests.send(message(start)).await?;
    let mut outputs = ExecClient::new(channel)
        .start(ReceiverStream::new(messages))
        .await?
        .into_inner();
    let first = outputs.message().await?.and_then(|first| first.message);
    ensure!(matches!(first, Some(Message::Started(_))), "{first:?}");
    let expected = Sha256::digest(&input);
    let feed = async {
        all_run.wait().await;
        for piece in input.chunks(PIECE) {
            let input = ProcessInput {
                input: Some(Input::Stdin(piece.to_vec())),
            };
            let sent = requests.send(message(exec_start_request::Message::Input(input)));
            sent.await?;
        }
        // The end of the call's messages is the end of the command's input.
        drop(requests);
        anyhow::Ok(())
    };
    let take = async {
        let mut hasher = Sha256::new();
        loop {
            let message = outputs.message().await?.and_then(|next| next.message);
            let Some(Message::Output(output)) = message else {
                bail!("{message:?} instead of output");
            };
            match output.output {
                Some(Output::Stdout(bytes)) => hasher.update(&bytes.data),
                Some(Output::Exit(status)) => {
                    ensure!(status.how == Some(How::Code(0)), "{status:?}");
                    return Ok(hasher.finalize());
                }
                None => {}
                Some(Output::Stderr(bytes)) => {
                    bail!("{}", String::from_utf8_lossy(&bytes.data))
                }
            }
        }
    };
    let ((), digest) = tokio::try_join!(feed, take)?;
    ensure!(digest == expected, "other bytes have come back");
    Ok(())
}
