//! Connections out of the guest.

use super::*;

async fn incoming(calls: &mut Streaming<TunnelListenResponse>) -> TunnelIncoming {
    match within(calls.message()).await.unwrap().unwrap().message {
        Some(tunnel_listen_response::Message::Incoming(incoming)) => incoming,
        other => panic!("{other:?}"),
    }
}

fn piece(data: &[u8]) -> TunnelAcceptRequest {
    TunnelAcceptRequest {
        message: Some(tunnel_accept_request::Message::Data(data.to_vec())),
    }
}

async fn received(answers: &mut Streaming<TunnelAcceptResponse>) -> Option<Vec<u8>> {
    match within(answers.message()).await.unwrap().unwrap().message {
        Some(tunnel_accept_response::Message::Data(data)) => Some(data),
        Some(tunnel_accept_response::Message::Closed(true)) => None,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn connections_that_come_are_told_and_taken_in_any_order() {
    let world = World::new().await;
    let (mut calls, address) = world.listen(tcp(0)).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let client = within(TcpStream::connect(&address)).await.unwrap();
        let told = incoming(&mut calls).await;
        assert_eq!(told.peer, client.local_addr().unwrap().to_string());
        clients.push((client, told.id));
    }
    clients.reverse();
    for (number, (mut client, id)) in (0..).zip(clients) {
        let (requests, mut answers) = world.accept(&id).await.unwrap();
        let taken_twice = world.accept(&id).await.err().unwrap();
        assert_eq!(taken_twice.code(), Code::NotFound);
        client.write_all(&[number]).await.unwrap();
        assert_eq!(received(&mut answers).await.unwrap(), [number]);
        client.shutdown().await.unwrap();
        assert_eq!(received(&mut answers).await, None);
        requests.send(piece(&[number, 1])).await.unwrap();
        drop(requests);
        let mut answer = Vec::new();
        within(client.read_to_end(&mut answer)).await.unwrap();
        assert_eq!(answer, [number, 1]);
        assert!(within(answers.message()).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_connection_that_nobody_takes_in_time_is_reset() {
    let world = World::with(|limits| limits.accept_timeout = Duration::from_millis(50)).await;
    let (mut calls, address) = world.listen(tcp(0)).await;
    let mut client = within(TcpStream::connect(&address)).await.unwrap();
    let told = incoming(&mut calls).await;
    assert!(was_reset(&mut client).await);
    let status = world.accept(&told.id).await.err().unwrap();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::NotFound, "NOT_FOUND")
    );
    // It listens on.
    let _client = within(TcpStream::connect(&address)).await.unwrap();
    assert_ne!(incoming(&mut calls).await.id, told.id);
}

#[tokio::test]
async fn a_full_backlog_waits_in_the_kernel_until_one_is_taken() {
    let world = World::with(|limits| limits.backlog = 1).await;
    let (mut calls, address) = world.listen(tcp(0)).await;
    let _first = within(TcpStream::connect(&address)).await.unwrap();
    let told = incoming(&mut calls).await;
    let mut second = within(TcpStream::connect(&address)).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(100), calls.message()).await;
    assert!(waited.is_err(), "{waited:?}");
    let _taken = world.accept(&told.id).await.unwrap();
    let told = incoming(&mut calls).await;
    let (requests, _answers) = world.accept(&told.id).await.unwrap();
    requests.send(piece(b"x")).await.unwrap();
    assert_eq!(within(second.read_u8()).await.unwrap(), b'x');
}

#[tokio::test]
async fn the_listener_and_what_waits_there_end_with_the_call() {
    let world = World::new().await;
    let (mut calls, address) = world.listen(tcp(0)).await;
    let mut client = within(TcpStream::connect(&address)).await.unwrap();
    incoming(&mut calls).await;
    drop(calls);
    assert!(was_reset(&mut client).await);
    within(async {
        while TcpStream::connect(&address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_unix_socket_is_listened_on_for_its_owner_alone_and_its_file_goes_with_the_call() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("listen.sock");
    let text = path.to_str().unwrap();
    let (mut calls, address) = world.listen(unix(text)).await;
    assert_eq!(address, text);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let mut client = within(UnixStream::connect(&path)).await.unwrap();
    let told = incoming(&mut calls).await;
    let (requests, _answers) = world.accept(&told.id).await.unwrap();
    requests.send(piece(b"x")).await.unwrap();
    assert_eq!(within(client.read_u8()).await.unwrap(), b'x');

    let request = TunnelListenRequest {
        address: Some(unix(text)),
    };
    let mut again = within(world.client().listen(request))
        .await
        .unwrap()
        .into_inner();
    let status = within(again.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    assert!(path.exists(), "a socket that is in use was removed");

    drop(calls);
    until(|| !path.exists()).await;
}
