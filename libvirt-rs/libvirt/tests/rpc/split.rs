//! Streams in two halves.

use std::time::Duration;

use libvirt::Error;
use libvirt::rpc::limits::{STREAM_CHUNK, STREAM_RECEIVED};
use libvirt::rpc::{Chunk, Client, OwnedReadHalf, OwnedWriteHalf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::support::{self, CONTINUE, Daemon, ERROR, HOLE, OK, STREAM};
use super::{PLAIN, open};

/// For what must come at once, on a machine that is badly overloaded.
const SOON: Duration = Duration::from_secs(10);

async fn halves() -> (Client, Daemon, OwnedReadHalf, OwnedWriteHalf, u32) {
    let (client, mut daemon) = support::connect();
    let (stream, serial) = open(&client, &mut daemon).await;
    let (reader, writer) = stream.into_split();
    (client, daemon, reader, writer, serial)
}

/// What the daemon said before has been received when this is over.
async fn call(client: &Client, daemon: &mut Daemon) {
    let (reply, ()) = tokio::join!(client.call(&PLAIN, Vec::new()), daemon.answer(b""));
    reply.unwrap();
}

#[tokio::test]
async fn each_half_works_in_a_task_of_its_own() {
    let (client, mut daemon, mut reader, mut writer, serial) = halves().await;
    let total = 8 * STREAM_RECEIVED;
    let writing = tokio::spawn(async move {
        for number in 0..total / 4096 {
            let byte = u8::try_from(number % 251).unwrap();
            writer.write_all(&[byte; 4096]).await.unwrap();
        }
        writer.flush().await.unwrap();
        writer
    });
    let reading = tokio::spawn(async move {
        let mut block = [0; 4096];
        for number in 0..total / 4096 {
            reader.read_exact(&mut block).await.unwrap();
            let byte = u8::try_from(number % 251).unwrap();
            assert!(block.iter().all(|read| *read == byte), "{number}");
        }
    });
    let mut echoed = 0;
    while echoed < total {
        let packet = daemon.packet().await;
        daemon
            .say(296, STREAM, serial, CONTINUE, &packet.payload)
            .await;
        echoed += packet.payload.len();
    }
    reading.await.unwrap();
    let writer = writing.await.unwrap();
    let (finished, ()) = tokio::join!(writer.finish(), async {
        let end = daemon.packet().await;
        assert_eq!((end.kind, end.status), (STREAM, OK));
        daemon.say(296, STREAM, serial, OK, b"").await;
    });
    finished.unwrap();
    assert_eq!(client.unfinished(), 0);
}

#[tokio::test]
async fn a_writer_that_finishes_leaves_the_reader_what_had_come() {
    let (client, mut daemon, mut reader, writer, serial) = halves().await;
    daemon.say(296, STREAM, serial, CONTINUE, b"early").await;
    call(&client, &mut daemon).await;
    let (finished, ()) = tokio::join!(writer.finish(), async {
        daemon.packet().await;
        daemon.say(296, STREAM, serial, CONTINUE, b"late").await;
        daemon.say(296, STREAM, serial, OK, b"").await;
    });
    finished.unwrap();
    let mut read = String::new();
    reader.read_to_string(&mut read).await.unwrap();
    assert_eq!(read, "early");
    assert_eq!(client.ignored_packets(), 0);
}

#[tokio::test]
async fn a_finish_ends_a_read_that_waits() {
    let (_client, mut daemon, mut reader, mut writer, _) = halves().await;
    let reading = tokio::spawn(async move { reader.chunk().await });
    tokio::task::yield_now().await;
    tokio::select! {
        _ = writer.shutdown() => unreachable!("nobody confirms it"),
        chunk = reading => assert_eq!(chunk.unwrap().unwrap(), None),
    }
    assert_eq!(daemon.packet().await.status, OK);
}

#[tokio::test]
async fn a_finish_does_not_wait_for_a_reader_that_is_behind() {
    let (_client, mut daemon, mut reader, writer, serial) = halves().await;
    let piece = vec![7; STREAM_CHUNK];
    let mut said = 0;
    while said < STREAM_RECEIVED {
        daemon.say(296, STREAM, serial, CONTINUE, &piece).await;
        said += piece.len();
    }
    let finished = timeout(SOON, async {
        tokio::join!(writer.finish(), async {
            daemon.packet().await;
            daemon.say(296, STREAM, serial, OK, b"").await;
        })
    });
    finished.await.unwrap().0.unwrap();
    // What had come is a part of it, which ends with a whole piece.
    let mut read = Vec::new();
    reader.read_to_end(&mut read).await.unwrap();
    assert_eq!(read.len() % STREAM_CHUNK, 0);
}

#[tokio::test]
async fn a_reader_that_is_dropped_holds_nobody_up() {
    let (client, mut daemon, reader, mut writer, serial) = halves().await;
    drop(reader);
    let hole = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    for _ in 0..3 * STREAM_RECEIVED / STREAM_CHUNK {
        daemon
            .say(296, STREAM, serial, CONTINUE, &[7; STREAM_CHUNK])
            .await;
    }
    for _ in 0..20_000 {
        daemon.say(296, HOLE, serial, CONTINUE, &hole).await;
    }
    timeout(SOON, call(&client, &mut daemon)).await.unwrap();
    writer.send(b"still open").await.unwrap();
    assert_eq!(daemon.packet().await.payload, b"still open");
    let (finished, ()) = tokio::join!(writer.finish(), async {
        daemon.packet().await;
        daemon.say(296, STREAM, serial, OK, b"").await;
    });
    finished.unwrap();
}

#[tokio::test]
async fn a_reader_that_is_dropped_while_it_is_behind_lets_the_connection_go_on() {
    let (client, mut daemon, reader, _writer, serial) = halves().await;
    for _ in 0..=STREAM_RECEIVED / STREAM_CHUNK {
        daemon
            .say(296, STREAM, serial, CONTINUE, &[7; STREAM_CHUNK])
            .await;
    }
    drop(reader);
    timeout(SOON, call(&client, &mut daemon)).await.unwrap();
}

#[tokio::test]
async fn a_writer_that_is_dropped_leaves_the_reader_until_it_goes_too() {
    let (client, mut daemon, mut reader, writer, serial) = halves().await;
    drop(writer);
    daemon.say(296, STREAM, serial, CONTINUE, b"more").await;
    let chunk = reader.chunk().await.unwrap();
    assert_eq!(chunk, Some(Chunk::Data("more".into())));
    // Nothing was said to the daemon so far: this is the next that it hears.
    call(&client, &mut daemon).await;
    drop(reader);
    let abort = daemon.packet().await;
    assert_eq!((abort.kind, abort.status), (STREAM, ERROR));
    daemon.say(296, STREAM, serial, OK, b"").await;
    call(&client, &mut daemon).await;
    assert_eq!((client.unfinished(), client.ignored_packets()), (0, 0));
}

#[tokio::test]
async fn an_abort_is_an_error_to_the_reader() {
    let (client, mut daemon, mut reader, writer, serial) = halves().await;
    let reading = tokio::spawn(async move {
        let chunk = reader.chunk().await;
        (chunk, reader)
    });
    tokio::task::yield_now().await;
    writer.abort();
    let (chunk, reader) = reading.await.unwrap();
    assert!(matches!(chunk, Err(Error::StreamOver)), "{chunk:?}");
    let abort = daemon.packet().await;
    assert_eq!((abort.kind, abort.status), (STREAM, ERROR));
    daemon.say(296, STREAM, serial, OK, b"").await;
    drop(reader);
    call(&client, &mut daemon).await;
    assert_eq!((client.unfinished(), client.ignored_packets()), (0, 0));
}

#[tokio::test]
async fn an_error_of_the_daemon_ends_both_halves() {
    let (_client, mut daemon, mut reader, mut writer, serial) = halves().await;
    let error = support::error_payload(38, 0, "No space left on device");
    daemon.say(296, STREAM, serial, ERROR, &error).await;
    let read = reader.chunk().await.unwrap_err();
    assert!(read.to_string().contains("No space left"), "{read}");
    let sent = writer.send(b"more").await.unwrap_err();
    assert!(sent.to_string().contains("No space left"), "{sent}");
    let finished = writer.finish().await.unwrap_err();
    assert!(finished.to_string().contains("No space left"), "{finished}");
}

#[tokio::test]
async fn both_halves_end_with_the_connection() {
    let (_client, daemon, mut reader, mut writer, _) = halves().await;
    let reading = tokio::spawn(async move { reader.chunk().await });
    let writing = tokio::spawn(async move {
        loop {
            if let Err(error) = writer.send(&[0; 100_000]).await {
                return error;
            }
        }
    });
    drop(daemon);
    let read = timeout(SOON, reading).await.unwrap().unwrap();
    assert!(matches!(read, Err(Error::Connection(_))), "{read:?}");
    let sent = timeout(SOON, writing).await.unwrap().unwrap();
    assert!(matches!(sent, Error::Connection(_)), "{sent}");
}
