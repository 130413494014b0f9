//! Readers that do not read.

use super::*;

#[tokio::test]
async fn a_reader_that_does_not_read_stops_its_sender_and_nobody_else() {
    let world = World::new().await;
    let (_stalled, mut flood) = world.pair().await;
    let (mut other, stream) = world.pair().await;
    // It goes on until all buffers are full; 64 MiB would never fit.
    let flooded = tokio::spawn(async move {
        let piece = vec![7; 64 * 1024];
        let mut sent = 0;
        while sent < 64 * 1024 * 1024 {
            match tokio::time::timeout(Duration::from_millis(300), flood.write_all(&piece)).await {
                Ok(written) => written.unwrap(),
                Err(_) => return (sent, flood),
            }
            sent += piece.len();
        }
        (sent, flood)
    });
    let (sent, _flood) = within(flooded).await.unwrap();
    assert!(sent < 64 * 1024 * 1024, "nothing stops the sender");
    tokio::spawn(echo(stream));
    other.send(b"quick").await;
    other.half_close();
    assert_eq!(other.all().await.unwrap(), b"quick");
    other.ends().await;
}

#[tokio::test]
async fn a_caller_that_does_not_read_still_sends() {
    let world = World::new().await;
    let (tunnel, stream) = world.pair().await;
    let (mut read, mut write) = stream.into_split();
    tokio::spawn(async move {
        let piece = vec![7; 64 * 1024];
        // Its end is the test's.
        while write.write_all(&piece).await.is_ok() {}
    });
    let sent = content(1024 * 1024);
    let upload = async {
        for piece in sent.chunks(64 * 1024) {
            tunnel.send(piece).await;
        }
    };
    let mut received = vec![0; sent.len()];
    let (arrived, ()) =
        within(async { tokio::join!(read.read_exact(&mut received), upload) }).await;
    arrived.unwrap();
    assert!(received == sent, "other bytes have arrived");
}
