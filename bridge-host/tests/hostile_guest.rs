//! A guest that means harm: the bridge neither crashes nor spins nor grows, and other guests notice nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::Duration;

use support::{Background, LIMIT, Running, bridge, fake_channel, fake_guest, good_guest, resident};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::{Instant, timeout},
};
use tonic::Code;
use vbridge_link::{GuestConfig, GuestEnd, GuestEvent, Random, Session, SessionId};

/// More memory than the bridge may take for one hostile guest, buffers of the test included.
const GROWTH: u64 = 32 * 1024 * 1024;
/// So many calls to another guest must go through while the hostile one does its worst.
const CALLS: usize = 200;

/// Calls the good guest again and again; the bad one's calls end, however.
async fn others_are_undisturbed(bridge: &Running) {
    bridge.until_up("good").await;
    let before = resident();
    let bad = async {
        for _ in 0..10 {
            // It may fail in any way, but it ends (see `health`).
            let _ = bridge.health("bad").await;
        }
    };
    let good = async {
        let mut slowest = Duration::ZERO;
        for _ in 0..CALLS {
            let begin = Instant::now();
            bridge
                .health("good")
                .await
                .expect("another guest's call succeeds");
            slowest = slowest.max(begin.elapsed());
        }
        slowest
    };
    let ((), slowest) = tokio::join!(bad, good);
    assert!(slowest < Duration::from_secs(2), "a call took {slowest:?}");
    let grown = resident().saturating_sub(before);
    assert!(grown < GROWTH, "the process grew by {grown} bytes");
}

async fn against(script: impl FnOnce(&Running) -> Background) {
    let bridge = bridge(&["bad", "good"]).await;
    let _good = good_guest(&bridge.socket("good"));
    let _bad = script(&bridge);
    timeout(LIMIT * 3, others_are_undisturbed(&bridge))
        .await
        .expect("nothing hangs");
}

/// Writes the same bytes for ever, and reads nothing.
async fn pour(mut stream: impl tokio::io::AsyncWrite + Unpin, bytes: &[u8]) {
    while stream.write_all(bytes).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_garbage_instead_of_an_answer_disturbs_nobody() {
    against(|bridge| {
        fake_channel(&bridge.socket("bad"), |stream| async move {
            let garbage: Vec<u8> = (0..65_536_u32)
                .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
                .collect();
            pour(stream, &garbage).await;
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_ready_records_disturbs_nobody() {
    against(|bridge| {
        fake_channel(&bridge.socket("bad"), |stream| async move {
            let now = std::time::Instant::now();
            let mut end = GuestEnd::new(GuestConfig::default(), Random::system(), now);
            let ready = end.transmit().repeat(500);
            let (mut reader, writer) = stream.into_split();
            tokio::join!(pour(writer, &ready), async {
                let mut hellos = vec![0; 65_536];
                while reader.read(&mut hellos).await.is_ok_and(|len| len > 0) {}
            });
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_within_a_session_disturbs_nobody() {
    against(|bridge| {
        fake_guest(&bridge.socket("bad"), |session| async move {
            pour(session, &[0xa5; 16_384]).await
        })
    })
    .await;
}

/// HTTP/2 frames by hand.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Waits for the client's first call, then does `attack` for ever.
async fn after_a_call(mut session: Session, begin: &[u8], attack: &[u8]) {
    let mut buf = vec![0; 4096];
    // SETTINGS, and an acknowledgement.
    let settings = [frame(4, 0, 0, &[]), frame(4, 1, 0, &[])].concat();
    if session.write_all(&settings).await.is_err() {
        return;
    }
    // The preface is 24 bytes; what is behind it is at least the client's SETTINGS.
    let mut seen = 0;
    while seen < 150 {
        match session.read(&mut buf).await {
            Ok(len) if len > 0 => seen += len,
            _ => return,
        }
    }
    if session.write_all(begin).await.is_ok() {
        pour(session, attack).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_headers_disturb_nobody() {
    // HEADERS without END_HEADERS, then CONTINUATION for ever: a literal header each.
    let header = b"\x00\x01a\x01b".repeat(100);
    let begin = frame(1, 0, 1, b"\x88");
    let attack = frame(9, 0, 1, &header).repeat(20);
    against(move |bridge| {
        fake_guest(&bridge.socket("bad"), move |session| {
            let (begin, attack) = (begin.clone(), attack.clone());
            async move { after_a_call(session, &begin, &attack).await }
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_resets_and_pings_disturb_nobody() {
    let mut attack = Vec::new();
    for stream in (1..64).step_by(2) {
        attack.extend(frame(3, 0, stream, &8_u32.to_be_bytes()));
        attack.extend(frame(6, 0, 0, b"12345678"));
        attack.extend(frame(8, 0, 0, &1_u32.to_be_bytes()));
    }
    against(move |bridge| {
        fake_guest(&bridge.socket("bad"), move |session| {
            let attack = attack.clone();
            async move { after_a_call(session, &[], &attack).await }
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_opens_a_session_and_never_reads_again_disturbs_nobody() {
    against(|bridge| {
        fake_channel(&bridge.socket("bad"), |stream| async move {
            let stream = welcome(stream).await;
            std::future::pending::<()>().await;
            drop(stream);
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledgements_without_end_disturb_nobody() {
    against(|bridge| {
        fake_channel(&bridge.socket("bad"), |stream| async move {
            // One byte a block: each begins with a record.
            let (mut stream, mut end, id) = greeted(stream).await;
            loop {
                end.write(id, b"x");
                let block = end.transmit().to_vec();
                end.transmitted(block.len());
                if block.is_empty() || stream.write_all(&block).await.is_err() {
                    return;
                }
            }
        })
    })
    .await;
}

/// Answers the greeting and gives the stream back.
async fn welcome(stream: UnixStream) -> UnixStream {
    greeted(stream).await.0
}

async fn greeted(mut stream: UnixStream) -> (UnixStream, GuestEnd, SessionId) {
    let now = std::time::Instant::now();
    let mut end = GuestEnd::new(GuestConfig::default(), Random::system(), now);
    let mut buf = vec![0; 4096];
    loop {
        let len = stream.read(&mut buf).await.unwrap();
        assert!(len > 0, "the bridge greets");
        end.handle_input(now, &buf[..len]);
        end.handle_drained(now);
        let bytes = end.transmit().to_vec();
        stream.write_all(&bytes).await.unwrap();
        end.transmitted(bytes.len());
        while let Some(event) = end.poll_event() {
            if let GuestEvent::Opened { id, .. } = event {
                return (stream, end, id);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_to_a_guest_that_never_reads_fails_within_two_seconds() {
    let bridge = bridge(&["bad"]).await;
    let _bad = fake_channel(&bridge.socket("bad"), |stream| async move {
        let stream = welcome(stream).await;
        std::future::pending::<()>().await;
        drop(stream);
    });
    for _ in 0..3 {
        let begin = Instant::now();
        let status = bridge.health("bad").await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(
            begin.elapsed() < Duration::from_secs(2),
            "{:?}",
            begin.elapsed()
        );
    }
}
