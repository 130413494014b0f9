//! The RPC layer against a daemon that says just what a test wants: what a real one cannot be made to do.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "rpc/split.rs"]
mod split;
mod support;

use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::time::Duration;

use libvirt::rpc::limits::{
    CALL_BUDGET, PAYLOAD_MAX, READ, STREAM_CHUNK, STREAM_RECEIVED, STREAM_SENDING,
};
use libvirt::rpc::{
    Chunk, Client, ConnectionError, Interruption, KeepaliveConfig, Procedure, ProtocolError,
    RawStream, StreamDirection,
};
use libvirt::{Error, rpc};
use support::{
    CALL, CONTINUE, Daemon, ERROR, HOLE, MESSAGE, OK, PIPE, REPLY, STREAM, error_payload, words,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PLAIN: Procedure = Procedure::unlisted(0x2000_8086, 1, 4);
const EVENT: Procedure = Procedure::unlisted(0x2000_8086, 1, 318);

fn stream_procedure() -> Procedure {
    let mut procedure = Procedure::unlisted(0x2000_8086, 1, 296);
    procedure.stream = Some(StreamDirection::Both);
    procedure
}

async fn open(client: &Client, daemon: &mut Daemon) -> (RawStream, u32) {
    let procedure = stream_procedure();
    let opening = client.open_stream(&procedure, Vec::new());
    let answering = async {
        let call = daemon.packet().await;
        daemon.say(296, REPLY, call.serial, OK, b"").await;
        call.serial
    };
    let (opened, serial) = tokio::join!(opening, answering);
    (opened.unwrap().1, serial)
}

#[tokio::test]
async fn calls_overlap_and_each_reply_finds_its_call() {
    let (client, mut daemon) = support::connect();
    let calls: Vec<_> = (0..50_u8)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { client.call(&PLAIN, vec![n; 4]).await })
        })
        .collect();
    let mut packets = Vec::new();
    for _ in 0..50 {
        packets.push(daemon.packet().await);
    }
    for packet in packets.iter().rev() {
        daemon
            .say(4, REPLY, packet.serial, OK, &packet.payload)
            .await;
    }
    for (n, call) in (0_u8..).zip(calls) {
        assert_eq!(&call.await.unwrap().unwrap()[..], [n; 4]);
    }
}

#[tokio::test]
async fn an_event_numbered_one_does_not_answer_call_one() {
    let (client, mut daemon) = support::connect();
    let mut events = client.subscribe(&[EVENT], None).unwrap();
    let call = client.call(&PLAIN, Vec::new());
    let daemon = async {
        let packet = daemon.packet().await;
        assert_eq!(packet.serial, 1);
        daemon.say(318, MESSAGE, 1, OK, b"\0\0\0\x07").await;
        daemon.say(4, REPLY, 1, OK, b"done").await;
        daemon
    };
    let (reply, _daemon) = tokio::join!(call, daemon);
    assert_eq!(&reply.unwrap()[..], b"done");
    let event = events.next().await.unwrap().unwrap();
    assert_eq!(
        (event.procedure, &event.payload[..]),
        (318, &b"\0\0\0\x07"[..])
    );
}

#[tokio::test]
async fn a_second_reply_and_one_to_an_unknown_serial_change_nothing() {
    let (client, mut daemon) = support::connect();
    let call = client.call(&PLAIN, Vec::new());
    let (reply, ()) = tokio::join!(call, async {
        let packet = daemon.packet().await;
        daemon.say(4, REPLY, 4711, OK, b"????").await;
        daemon.say(4, REPLY, packet.serial, OK, b"good").await;
        daemon.say(4, REPLY, packet.serial, OK, b"more").await;
    });
    assert_eq!(&reply.unwrap()[..], b"good");
    let (reply, ()) = tokio::join!(client.call(&PLAIN, Vec::new()), daemon.answer(b"next"));
    assert_eq!(&reply.unwrap()[..], b"next");
    assert_eq!(client.ignored_packets(), 2);
}

#[tokio::test]
async fn the_daemons_error_is_the_calls() {
    let (client, mut daemon) = support::connect();
    let (reply, ()) = tokio::join!(client.call(&PLAIN, Vec::new()), async {
        let packet = daemon.packet().await;
        let error = error_payload(42, 10, "Domain not found");
        daemon.say(4, REPLY, packet.serial, ERROR, &error).await;
    });
    match reply.unwrap_err() {
        Error::Libvirt(error) => {
            assert_eq!((error.code.raw(), error.domain.raw()), (42, 10));
            assert_eq!(error.message, "Domain not found");
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn everything_that_waits_fails_when_the_daemon_dies() {
    let (client, mut daemon) = support::connect();
    let (mut reader, _) = open(&client, &mut daemon).await;
    let (mut writer, _) = open(&client, &mut daemon).await;
    let (finished, _) = open(&client, &mut daemon).await;
    let mut events = client.subscribe(&[EVENT], None).unwrap();
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.call(&PLAIN, Vec::new()).await })
        })
        .collect();
    let read = tokio::spawn(async move { reader.chunk().await });
    let write = tokio::spawn(async move {
        loop {
            if let Err(error) = writer.send(&[0; 100_000]).await {
                return error;
            }
        }
    });
    let finish = tokio::spawn(finished.finish());
    // The last thing that is sent before the daemon dies in the middle of a packet.
    daemon.raw(&[0, 0, 0, 99, 1, 2, 3]).await;
    drop(daemon);
    for call in calls {
        assert!(matches!(call.await.unwrap(), Err(Error::Connection(_))));
    }
    assert!(matches!(read.await.unwrap(), Err(Error::Connection(_))));
    assert!(matches!(write.await.unwrap(), Error::Connection(_)));
    assert!(matches!(finish.await.unwrap(), Err(Error::Connection(_))));
    assert!(matches!(
        events.next().await,
        Some(Err(Interruption::Ended(ConnectionError::ClosedByDaemon)))
    ));
    assert!(events.next().await.is_none());
    assert!(matches!(
        client.call(&PLAIN, Vec::new()).await,
        Err(Error::Connection(ConnectionError::ClosedByDaemon))
    ));
    assert!(matches!(
        client.subscribe(&[EVENT], None),
        Err(Error::Connection(_))
    ));
}

#[tokio::test]
async fn wrong_lengths_end_the_connection_and_say_so() {
    for length in [0, 27, 33_554_437, u32::MAX] {
        let (client, mut daemon) = support::connect();
        let (reply, ()) = tokio::join!(client.call(&PLAIN, Vec::new()), async {
            daemon.packet().await;
            daemon.raw(&length.to_be_bytes()).await;
        });
        let error = reply.unwrap_err();
        let Error::Connection(ConnectionError::Protocol(ProtocolError::Length(said))) = error
        else {
            panic!("{error}");
        };
        assert_eq!(said, length as usize);
    }
}

#[tokio::test]
async fn a_packet_that_comes_byte_by_byte_is_a_packet() {
    let (client, mut daemon) = support::connect();
    let (reply, ()) = tokio::join!(client.call(&PLAIN, Vec::new()), async {
        let packet = daemon.packet().await;
        let reply = support::packet(4, REPLY, packet.serial, OK, b"slow");
        for byte in reply {
            daemon.raw(&[byte]).await;
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(&reply.unwrap()[..], b"slow");
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_leaves_pings_unanswered_is_given_up() {
    let keepalive = KeepaliveConfig {
        interval: Duration::from_secs(5),
        count: 2,
    };
    let (client, mut daemon) = support::connect_bytes(keepalive);
    client.enable_keepalive();
    let start = tokio::time::Instant::now();
    let error = client.call(&PLAIN, Vec::new()).await.unwrap_err();
    assert!(
        matches!(error, Error::Connection(ConnectionError::Silent(silence)) if silence == Duration::from_secs(15)),
        "{error}"
    );
    assert_eq!(start.elapsed().as_secs(), 15);
    let procedures: Vec<_> = daemon.rest().await.iter().map(|p| p.procedure).collect();
    assert_eq!(procedures, [4, 1, 1], "the call and two pings");
}

#[tokio::test]
async fn a_daemons_ping_is_answered() {
    let (_client, mut daemon) = support::connect();
    daemon.raw(&support::keepalive(1)).await;
    let pong = daemon.packet().await;
    assert_eq!((pong.program, pong.procedure), (0x6b65_6570, 2));
}

#[tokio::test]
async fn a_slow_subscriber_misses_the_oldest_and_is_told() {
    let (client, mut daemon) = support::connect();
    let mut slow = client.subscribe(&[EVENT], Some(10)).unwrap();
    let mut all = client.subscribe(&[EVENT], None).unwrap();
    for n in 0..1000_u32 {
        daemon.say(318, MESSAGE, 1, OK, &n.to_be_bytes()).await;
    }
    let (reply, ()) = tokio::join!(client.call(&PLAIN, Vec::new()), daemon.answer(b""));
    reply.unwrap();
    assert!(matches!(
        slow.next().await,
        Some(Err(Interruption::Missed(990)))
    ));
    for n in 990..1000_u32 {
        let message = slow.next().await.unwrap().unwrap();
        assert_eq!(message.payload[..], n.to_be_bytes());
    }
    for n in 0..1000_u32 {
        let message = all.next().await.unwrap().unwrap();
        assert_eq!(message.payload[..], n.to_be_bytes());
    }
}

#[tokio::test]
async fn a_subscription_can_be_narrowed_to_one_callback() {
    let (client, mut daemon) = support::connect();
    let mut events = client.subscribe(&[EVENT], None).unwrap();
    for callback in [1, 2, 1_u32] {
        daemon
            .say(318, MESSAGE, 1, OK, &callback.to_be_bytes())
            .await;
    }
    let (reply, ()) = tokio::join!(client.call(&PLAIN, Vec::new()), daemon.answer(b""));
    reply.unwrap();
    events.only(&EVENT, 2);
    daemon.say(318, MESSAGE, 1, OK, b"\0\0\0\x01").await;
    daemon.say(318, MESSAGE, 1, OK, b"\0\0\0\x02last").await;
    assert_eq!(
        &events.next().await.unwrap().unwrap().payload[..],
        [0, 0, 0, 2]
    );
    assert_eq!(
        &events.next().await.unwrap().unwrap().payload[..],
        b"\0\0\0\x02last"
    );
}

#[tokio::test]
async fn a_dropped_call_frees_its_place_when_its_reply_comes() {
    let (client, mut daemon) = support::connect();
    {
        let mut call = pin!(client.call(&PLAIN, b"dropped!".to_vec()));
        tokio::select! {
            biased;
            _ = &mut call => unreachable!("nobody answers"),
            packet = daemon.packet() => assert_eq!(&packet.payload[..], b"dropped!"),
        }
    }
    assert_eq!(client.unfinished(), 1);
    daemon.say(4, REPLY, 1, OK, b"").await;
    let (reply, ()) = tokio::join!(client.call(&PLAIN, Vec::new()), daemon.answer(b"ok!!"));
    assert_eq!(&reply.unwrap()[..], b"ok!!");
    assert_eq!((client.unfinished(), client.ignored_packets()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_not_answered_in_time_fails_alone() {
    let (client, mut daemon) = support::connect_bytes(KeepaliveConfig::default());
    let hasty = client.with_deadline(Duration::from_secs(3));
    let error = hasty.call(&PLAIN, Vec::new()).await.unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }), "{error}");
    let late = daemon.packet().await;
    daemon.say(4, REPLY, late.serial, OK, b"late").await;
    let (reply, ()) = tokio::join!(hasty.call(&PLAIN, Vec::new()), daemon.answer(b"good"));
    assert_eq!(&reply.unwrap()[..], b"good");
}

#[tokio::test]
async fn calls_beyond_the_budget_wait_for_a_reply() {
    let (client, mut daemon) = support::connect();
    let calls: Vec<_> = (0..CALL_BUDGET + 1)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.call(&PLAIN, Vec::new()).await })
        })
        .collect();
    for _ in 0..CALL_BUDGET {
        daemon.packet().await;
    }
    assert_eq!(client.unfinished(), CALL_BUDGET);
    daemon.say(4, REPLY, 1, OK, b"").await;
    let last = daemon.packet().await;
    assert_eq!(last.serial as usize, CALL_BUDGET + 1);
    for serial in 2..=last.serial {
        daemon.say(4, REPLY, serial, OK, b"").await;
    }
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn arguments_larger_than_a_packet_are_refused_before_they_are_sent() {
    let (client, mut daemon) = support::connect();
    let error = client
        .call(&PLAIN, vec![0; PAYLOAD_MAX + 1])
        .await
        .unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    let (reply, size) = tokio::join!(client.call(&PLAIN, vec![0; PAYLOAD_MAX]), async {
        let packet = daemon.packet().await;
        daemon.say(4, REPLY, packet.serial, OK, b"").await;
        packet.payload.len()
    });
    reply.unwrap();
    assert_eq!(size, PAYLOAD_MAX);
}

#[tokio::test]
async fn a_stream_carries_data_both_ways_and_ends_confirmed() {
    let (client, mut daemon) = support::connect();
    let (mut stream, serial) = open(&client, &mut daemon).await;
    stream.write_all(b"to the daemon").await.unwrap();
    let packet = daemon.packet().await;
    assert_eq!(
        (
            packet.kind,
            packet.serial,
            packet.status,
            &packet.payload[..]
        ),
        (STREAM, serial, CONTINUE, &b"to the daemon"[..])
    );
    daemon
        .say(296, STREAM, serial, CONTINUE, b"from the daemon")
        .await;
    daemon.say(296, STREAM, serial, CONTINUE, b"").await;
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "from the daemon");
    let (finished, ()) = tokio::join!(stream.finish(), async {
        let end = daemon.packet().await;
        assert_eq!((end.kind, end.status, end.payload.len()), (STREAM, OK, 0));
        daemon.say(296, STREAM, serial, OK, b"").await;
    });
    finished.unwrap();
    assert_eq!(client.unfinished(), 0);
}

#[tokio::test]
async fn an_upload_that_the_daemon_could_not_keep_fails_at_its_end() {
    let (client, mut daemon) = support::connect();
    let (mut stream, serial) = open(&client, &mut daemon).await;
    stream.send(b"data").await.unwrap();
    let (finished, ()) = tokio::join!(stream.finish(), async {
        daemon.packet().await;
        daemon.packet().await;
        let error = error_payload(38, 0, "No space left on device");
        daemon.say(296, STREAM, serial, ERROR, &error).await;
    });
    assert!(finished.unwrap_err().to_string().contains("No space left"));
}

#[tokio::test]
async fn a_dropped_stream_is_aborted_and_what_still_comes_is_dropped() {
    let (client, mut daemon) = support::connect();
    let (stream, serial) = open(&client, &mut daemon).await;
    drop(stream);
    let abort = daemon.packet().await;
    assert_eq!((abort.serial, abort.status), (serial, ERROR));
    daemon
        .say(296, STREAM, serial, CONTINUE, &[1; 10_000])
        .await;
    daemon.say(296, STREAM, serial, OK, b"").await;
    let (reply, ()) = tokio::join!(client.call(&PLAIN, Vec::new()), daemon.answer(b""));
    reply.unwrap();
    assert_eq!((client.unfinished(), client.ignored_packets()), (0, 0));
}

#[tokio::test]
async fn holes_are_seen_as_chunks_and_read_as_zeros() {
    let (client, mut daemon) = support::connect();
    let (mut stream, serial) = open(&client, &mut daemon).await;
    let hole = |length: u64| {
        let mut payload = length.to_be_bytes().to_vec();
        payload.extend([0; 4]);
        payload
    };
    daemon.say(296, STREAM, serial, CONTINUE, b"ab").await;
    daemon
        .say(296, HOLE, serial, CONTINUE, &hole(1 << 40))
        .await;
    daemon.say(296, HOLE, serial, CONTINUE, &hole(5)).await;
    daemon.say(296, STREAM, serial, CONTINUE, b"cd").await;
    daemon.say(296, STREAM, serial, CONTINUE, b"").await;
    assert_eq!(
        stream.chunk().await.unwrap(),
        Some(Chunk::Data("ab".into()))
    );
    assert_eq!(stream.chunk().await.unwrap(), Some(Chunk::Hole(1 << 40)));
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"\0\0\0\0\0cd");
    stream.send_hole(77).await.unwrap();
    let sent = daemon.packet().await;
    assert_eq!((sent.kind, &sent.payload[..]), (HOLE, &hole(77)[..]));
    assert!(matches!(
        stream.send_hole(u64::MAX).await,
        Err(Error::HoleTooLong { .. })
    ));
}

/// Whether it can go no further: the clock stands still, and moves only when nobody has anything left to do.
async fn is_stuck(future: impl Future) -> bool {
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, future).await.is_err()
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_behind_stops_the_connection_and_starts_it_again() {
    let (client, mut daemon) = support::connect_bytes(KeepaliveConfig::default());
    let (mut stream, serial) = open(&client, &mut daemon).await;
    let piece = vec![7; STREAM_CHUNK];
    // What may wait for the reader, with the packet that went beyond; what has been read of the next ones; the pipe.
    let most = STREAM_RECEIVED + STREAM_CHUNK + READ + PIPE;
    let mut sent = 0;
    let sending = async {
        while sent <= most {
            daemon.say(296, STREAM, serial, CONTINUE, &piece).await;
            sent += piece.len();
        }
    };
    assert!(is_stuck(sending).await, "nothing stops the daemon");
    assert!(sent >= STREAM_RECEIVED, "{sent}");
    let mut read = 0;
    let reading = async {
        // The cut packet's rest cannot be said again, so only what was complete is counted.
        while read < sent {
            match stream.chunk().await.unwrap() {
                Some(Chunk::Data(bytes)) => read += bytes.len(),
                other => panic!("{other:?}"),
            }
        }
    };
    assert!(!is_stuck(reading).await);
}

#[tokio::test]
async fn the_death_of_the_daemon_is_noticed_while_a_reader_is_behind() {
    let (client, mut daemon) = support::connect();
    let (_stream, serial) = open(&client, &mut daemon).await;
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.call(&PLAIN, Vec::new()).await }
    });
    daemon.packet().await;
    for _ in 0..5 {
        daemon
            .say(296, STREAM, serial, CONTINUE, &[1; STREAM_CHUNK])
            .await;
    }
    drop(daemon);
    assert!(matches!(waiting.await.unwrap(), Err(Error::Connection(_))));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_behind_does_not_make_the_daemon_give_up() {
    let (client, mut daemon) = support::connect_bytes(KeepaliveConfig::default());
    client.enable_keepalive();
    let (_stream, serial) = open(&client, &mut daemon).await;
    for _ in 0..5 {
        daemon
            .say(296, STREAM, serial, CONTINUE, &[1; STREAM_CHUNK])
            .await;
    }
    let before = tokio::time::Instant::now();
    for _ in 0..20 {
        let packet = daemon.packet().await;
        assert_eq!((packet.program, packet.procedure), (0x6b65_6570, 2));
    }
    assert!(before.elapsed() >= Duration::from_secs(95));
    assert!(client.ended().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_slow_but_steady_does_not_make_the_daemon_give_up() {
    const ROUNDS: u32 = 60;
    // The reader takes a piece every other second: the connection stops and goes on, and never stops for an interval.
    const PACE: Duration = Duration::from_secs(2);

    let (client, mut daemon) = support::connect_bytes(KeepaliveConfig::default());
    client.enable_keepalive();
    let (mut stream, serial) = open(&client, &mut daemon).await;
    for _ in 0..STREAM_RECEIVED / STREAM_CHUNK + 1 {
        daemon
            .say(296, STREAM, serial, CONTINUE, &[1; STREAM_CHUNK])
            .await;
    }
    let reading = async {
        for _ in 0..ROUNDS {
            tokio::time::sleep(PACE).await;
            assert!(matches!(stream.chunk().await, Ok(Some(Chunk::Data(_)))));
            daemon
                .say(296, STREAM, serial, CONTINUE, &[1; STREAM_CHUNK])
                .await;
        }
    };
    reading.await;
    drop((client, stream));
    let said = daemon.rest().await;
    let pongs = said.iter().filter(|packet| packet.program == 0x6b65_6570);
    let pongs = pongs.inspect(|packet| assert_eq!(packet.procedure, 2));
    // One in each 5 s, give or take a round.
    assert!(pongs.count() >= 17, "{}", said.len());
}

#[tokio::test(start_paused = true)]
async fn a_writer_waits_while_the_daemon_does_not_read() {
    const PIECE: usize = 65_536;

    let (client, mut daemon) = support::connect_bytes(KeepaliveConfig::default());
    let (mut stream, _) = open(&client, &mut daemon).await;
    // What may wait, with the piece that went beyond, and the pipe.
    let most = STREAM_SENDING + PIECE + PIPE;
    let mut sent = 0;
    let writing = async {
        while sent <= most {
            stream.send(&[3; PIECE]).await.unwrap();
            sent += PIECE;
        }
    };
    assert!(is_stuck(writing).await, "nothing stops the writer");
    assert!(sent >= STREAM_SENDING, "{sent}");
    let mut received = 0;
    while received < sent {
        received += daemon.packet().await.payload.len();
    }
    stream.flush().await.unwrap();
}

#[tokio::test]
async fn descriptors_travel_with_calls_and_replies() {
    let (client, mut daemon) = support::connect();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let fds: Vec<OwnedFd> = vec![
        ours.into(),
        std::fs::File::open("/dev/null").unwrap().into(),
    ];
    let call = client.call_with_fds(&PLAIN, b"abcd".to_vec(), fds);
    let (reply, ()) = tokio::join!(call, async {
        let (packet, fds) = daemon.packet_with_descriptors().await;
        assert_eq!((packet.kind, packet.descriptors), (4, 2));
        daemon.answer_with_descriptors(&packet, b"okay", &fds).await;
        daemon.say(318, MESSAGE, 1, OK, b"").await;
    });
    let (payload, fds) = reply.unwrap();
    assert_eq!((&payload[..], fds.len()), (&b"okay"[..], 2));
    // The first one is the other half of the pair, after a trip to the daemon and back.
    let mut fds = fds.into_iter();
    let back = std::os::unix::net::UnixStream::from(fds.next().unwrap());
    std::io::Write::write_all(&mut &back, b"hello").unwrap();
    let mut read = [0; 5];
    std::io::Read::read_exact(&mut &theirs, &mut read).unwrap();
    assert_eq!(&read, b"hello");
    assert!(
        rustix::io::fcntl_getfd(back.as_fd())
            .unwrap()
            .contains(rustix::io::FdFlags::CLOEXEC)
    );
}

#[tokio::test]
async fn descriptors_of_a_call_that_never_left_are_closed_when_the_connection_ends() {
    let (client, mut daemon) = support::connect_one_by_one();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut reader = tokio::net::unix::pipe::Receiver::from_owned_fd(reader.into()).unwrap();
    let first = client.call(&PLAIN, Vec::new());
    let waiting = client.call_with_fds(&PLAIN, Vec::new(), vec![writer.into()]);
    let (first, waiting, ()) = tokio::join!(first, waiting, async {
        daemon.packet().await;
        drop(daemon);
    });
    first.unwrap_err();
    waiting.unwrap_err();
    // The client is still held, as by one who has not noticed yet.
    let end = tokio::time::timeout(Duration::from_secs(10), reader.read_u8()).await;
    let end = end.expect("it is still open").unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(client.unfinished(), 0);
}

#[tokio::test]
async fn descriptors_are_refused_where_they_cannot_travel() {
    let (client, _daemon) = support::connect_bytes(KeepaliveConfig::default());
    let error = client
        .call_with_fds(&PLAIN, Vec::new(), Vec::new())
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::DescriptorsNeedUnixSocket { .. }),
        "{error}"
    );

    let (client, _daemon) = support::connect();
    let fds = (0..33)
        .map(|_| std::fs::File::open("/dev/null").unwrap().into())
        .collect();
    let error = client
        .call_with_fds(&PLAIN, Vec::new(), fds)
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::TooManyDescriptors { given: 33, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn closing_sends_what_is_queued_first() {
    let (client, mut daemon) = support::connect();
    let (mut stream, _) = open(&client, &mut daemon).await;
    stream.send(b"the last words").await.unwrap();
    client.clone().close().await;
    assert_eq!(&daemon.packet().await.payload[..], b"the last words");
    assert!(daemon.rest().await.is_empty());
    assert!(matches!(client.ended(), Some(ConnectionError::ClosedHere)));
}

#[tokio::test]
async fn the_connection_closes_with_its_last_user() {
    let (client, mut daemon) = support::connect();
    let (stream, _) = open(&client, &mut daemon).await;
    drop(client);
    daemon.raw(&support::keepalive(1)).await;
    assert_eq!(
        daemon.packet().await.procedure,
        2,
        "the stream keeps it open"
    );
    drop(stream);
    assert_eq!(daemon.rest().await.len(), 1, "the abort");
}

#[tokio::test]
async fn a_reply_is_read_while_the_socket_cannot_be_written() {
    let (client, mut daemon) = support::connect();
    let first = tokio::spawn({
        let client = client.clone();
        async move { client.call(&PLAIN, Vec::new()).await }
    });
    let packet = daemon.packet().await;
    let stuck = tokio::spawn({
        let client = client.clone();
        async move { client.call(&PLAIN, vec![0; 8 << 20]).await }
    });
    daemon.say(4, REPLY, packet.serial, OK, b"back").await;
    assert_eq!(&first.await.unwrap().unwrap()[..], b"back");
    stuck.abort();
}

#[tokio::test]
async fn a_call_packet_is_what_libvirt_expects() {
    let (client, mut daemon) = support::connect();
    let call = rpc::Procedure::unlisted(0x2000_8086, 1, 66);
    let (reply, ()) = tokio::join!(client.call(&call, Vec::new()), async {
        let mut bytes = [0; 28];
        daemon.raw_read(&mut bytes).await;
        assert_eq!(bytes[..], words(&[28, 0x2000_8086, 1, 66, CALL, 1, OK]));
        daemon.say(66, REPLY, 1, OK, b"").await;
    });
    reply.unwrap();
}
