//! Ends that come too early.

use super::*;

#[tokio::test]
async fn a_reset_is_told_behind_what_has_come_before_it() {
    let world = World::new().await;
    let (mut tunnel, mut stream) = world.pair().await;
    stream.write_all(b"so far").await.unwrap();
    assert_eq!(tunnel.next().await.unwrap().unwrap(), b"so far");
    stream.set_zero_linger().unwrap();
    drop(stream);
    let status = tunnel.next().await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted);
    assert_eq!(reason(&status), "CONNECTION_RESET");
    assert!(status.message().contains("reset by peer"), "{status:?}");
}

#[tokio::test]
async fn a_tunnel_that_is_broken_off_is_reset_and_not_ended() {
    let world = World::new().await;
    let (tunnel, mut stream) = world.pair().await;
    tunnel.send(b"half of").await;
    tunnel
        .say(tunnel_connect_request::Message::Abort(true))
        .await;
    let mut half = [0; 7];
    // The reset may overtake what has not been read.
    if within(stream.read_exact(&mut half)).await.is_ok() {
        assert_eq!(&half, b"half of");
        assert!(was_reset(&mut stream).await);
    }
}

#[tokio::test]
async fn a_call_that_is_cancelled_is_reset_and_not_ended() {
    let agent = Running::start();
    let mut host = agent.host().await;
    let (client, connection) = within(h2::client::handshake(host.take_session()))
        .await
        .unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let request = http::Request::post("http://guest.test/vbridge.guest.v1.Tunnel/Connect")
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let mut client = within(client.ready()).await.unwrap();
    let (response, mut upload) = client.send_request(request, false).unwrap();
    let message = to(tcp(listener.local_addr().unwrap().port())).encode_to_vec();
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend(message);
    upload.send_data(Bytes::from(framed), false).unwrap();
    let (mut stream, _) = within(listener.accept()).await.unwrap();
    // The call's answer has come: the tunnel stands.
    let mut body = within(response).await.unwrap().into_body();
    within(body.data()).await.unwrap().unwrap();
    upload.send_reset(h2::Reason::CANCEL);
    assert!(
        was_reset(&mut stream).await,
        "half of it looks like all of it"
    );
}

#[tokio::test]
async fn a_lost_session_ends_its_tunnels() {
    let world = World::new().await;
    let (tunnel, mut stream) = world.pair().await;
    let World {
        agent,
        _host,
        channel,
    } = world;
    drop((tunnel, channel, _host));
    // Ended in either way: there is no call any more that could break it off.
    let _ = within(stream.read_to_end(&mut Vec::new())).await;
    agent.until_quiet().await;
}

#[tokio::test]
async fn an_agent_that_stops_ends_its_tunnels_at_once_and_says_so() {
    let mut world = World::new().await;
    let (mut tunnel, mut stream) = world.pair().await;
    let (mut calls, _) = world.listen(tcp(0)).await;
    world.agent.ask_to_stop();
    let status = tunnel.next().await.unwrap_err();
    assert_eq!(reason(&status), "AGENT_STOPPING");
    let status = within(calls.message()).await.unwrap_err();
    assert_eq!(reason(&status), "AGENT_STOPPING");
    assert!(was_reset(&mut stream).await);
}
