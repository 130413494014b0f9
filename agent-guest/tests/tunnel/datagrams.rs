//! Datagrams.

use super::*;

#[tokio::test]
async fn datagrams_keep_their_boundaries_both_ways() {
    let world = World::new().await;
    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = peer.local_addr().unwrap().port();
    let (mut tunnel, connected) = world.connect(udp(port)).await.unwrap();
    let mut buffer = vec![0; 65_536];
    for size in [1, 0, 1000, 65_507] {
        let datagram = content(size);
        tunnel.send(&datagram).await;
        let (len, from) = within(peer.recv_from(&mut buffer)).await.unwrap();
        assert_eq!(from.to_string(), connected.local);
        assert!(buffer[..len] == datagram[..], "{size}");
        peer.send_to(&buffer[..len], from).await.unwrap();
        assert!(tunnel.next().await.unwrap().unwrap() == datagram, "{size}");
    }
    tunnel.send(&vec![0; 65_508]).await;
    let status = tunnel.next().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("65507"), "{status:?}");
}

#[tokio::test]
async fn datagrams_that_nobody_takes_are_told() {
    let world = World::new().await;
    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = peer.local_addr().unwrap().port();
    drop(peer);
    let (mut tunnel, _) = world.connect(udp(port)).await.unwrap();
    tunnel.send(b"anybody?").await;
    let status = tunnel.next().await.unwrap_err();
    assert_eq!(reason(&status), "CONNECT_FAILED");
}

#[tokio::test]
async fn an_answer_comes_back_behind_a_half_closed_udp_call() {
    let world = World::new().await;
    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = peer.local_addr().unwrap().port();
    let (mut tunnel, _) = world.connect(udp(port)).await.unwrap();
    tunnel.send(b"question").await;
    tunnel.half_close();
    let mut buffer = [0; 100];
    let (_, from) = within(peer.recv_from(&mut buffer)).await.unwrap();
    peer.send_to(b"answer", from).await.unwrap();
    assert_eq!(tunnel.next().await.unwrap().unwrap(), b"answer");
}
