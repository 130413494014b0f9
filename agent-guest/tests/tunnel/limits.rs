//! As many and as long as there may be.

use super::*;

#[tokio::test]
async fn more_than_the_most_are_refused_until_one_ends() {
    let world = World::with(|limits| {
        limits.connections = 1;
        limits.listeners = 1;
    })
    .await;
    let (mut tunnel, stream) = world.pair().await;
    let (calls, _) = world.listen(tcp(0)).await;
    let status = world.connect(tcp(1)).await.err().unwrap();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::ResourceExhausted, "TOO_MANY")
    );
    let request = TunnelListenRequest {
        address: Some(tcp(0)),
    };
    let mut more = within(world.client().listen(request.clone()))
        .await
        .unwrap()
        .into_inner();
    let status = within(more.message()).await.unwrap_err();
    assert_eq!(reason(&status), "TOO_MANY");
    drop(stream);
    tunnel.half_close();
    tunnel.all().await.unwrap();
    tunnel.ends().await;
    drop(calls);
    within(async {
        loop {
            let status = world.connect(tcp(1)).await.err().unwrap();
            let mut calls = world
                .client()
                .listen(request.clone())
                .await
                .unwrap()
                .into_inner();
            if reason(&status) != "TOO_MANY" && calls.message().await.is_ok() {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn connecting_takes_no_longer_than_it_may() {
    let world = World::with(|limits| limits.connect_timeout = Duration::from_millis(50)).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("full.sock");
    // Its backlog is full, and stays so.
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let _first = UnixStream::connect(&path).await.unwrap();
    let begin = tokio::time::Instant::now();
    let status = world
        .connect(unix(path.to_str().unwrap()))
        .await
        .err()
        .unwrap();
    assert_eq!(reason(&status), "CONNECT_FAILED");
    assert!(status.message().contains("50ms"), "{status:?}");
    assert!(begin.elapsed() < PATIENCE);
}
