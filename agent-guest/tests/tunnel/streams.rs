//! Streams: what arrives, and who is not there.

use super::*;

#[tokio::test]
async fn bytes_go_both_ways_at_once_and_arrive_as_they_were_sent() {
    let world = World::new().await;
    let (tunnel, stream) = world.pair().await;
    tokio::spawn(echo(stream));
    goes_there_and_back(tunnel).await;
}

#[tokio::test]
async fn unix_sockets_are_reached_by_path_and_by_name() {
    let world = World::new().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("echo.sock");
    let name = format!("vbridge-test-{}", std::process::id());
    let by_name = format!("\0{name}");
    for (bound, address) in [
        (path.clone(), path.to_str().unwrap().to_owned()),
        (by_name.into(), format!("@{name}")),
    ] {
        let listener = UnixListener::bind(bound).unwrap();
        let (tunnel, connected) = world.connect(unix(&address)).await.unwrap();
        assert_eq!((connected.peer, connected.local), (address, String::new()));
        tokio::spawn(async move { echo(listener.accept().await.unwrap().0).await });
        goes_there_and_back(tunnel).await;
    }
}

#[tokio::test]
async fn a_caller_that_has_no_more_to_say_is_still_answered() {
    let world = World::new().await;
    let (mut tunnel, mut stream) = world.pair().await;
    tunnel.send(b"question").await;
    tunnel.half_close();
    let mut question = Vec::new();
    within(stream.read_to_end(&mut question)).await.unwrap();
    assert_eq!(question, b"question");
    stream.write_all(b"answer").await.unwrap();
    drop(stream);
    assert_eq!(tunnel.all().await.unwrap(), b"answer");
    tunnel.ends().await;
}

#[tokio::test]
async fn an_other_end_that_has_no_more_to_say_still_listens() {
    let world = World::new().await;
    let (mut tunnel, mut stream) = world.pair().await;
    stream.write_all(b"banner").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(tunnel.all().await.unwrap(), b"banner");
    tunnel.send(b"and").await;
    tunnel.send(b" so on").await;
    tunnel.half_close();
    let mut rest = String::new();
    within(stream.read_to_string(&mut rest)).await.unwrap();
    assert_eq!(rest, "and so on");
    tunnel.ends().await;
}

#[tokio::test]
async fn nobody_there_is_told_with_address_and_reason() {
    let world = World::new().await;
    // A port that nobody listens on: taken and given back.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.sock");
    let missing = missing.to_str().unwrap();
    let literal = tunnel_address::Address::Tcp(socket("127.0.0.1", address.port().into()));
    let literal = TunnelAddress {
        address: Some(literal),
    };
    let unknown = tunnel_address::Address::Tcp(socket("no-such-host.invalid", 80));
    let unknown = TunnelAddress {
        address: Some(unknown),
    };
    for (to, words) in [
        (
            tcp(address.port()),
            vec![
                format!("port {}", address.port()),
                "Connection refused".into(),
            ],
        ),
        (
            literal,
            vec![address.to_string(), "Connection refused".into()],
        ),
        (
            unix(missing),
            vec![missing.to_owned(), "No such file".into()],
        ),
        (unknown, vec!["no-such-host.invalid:80".into()]),
    ] {
        let status = world.connect(to).await.err().unwrap();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert_eq!(reason(&status), "CONNECT_FAILED");
        for word in words {
            assert!(status.message().contains(&word), "{}", status.message());
        }
    }
}

#[tokio::test]
async fn a_name_is_looked_up_in_the_guest() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let address = tunnel_address::Address::Tcp(socket("localhost", port.into()));
    let address = Some(address);
    let (_tunnel, connected) = world.connect(TunnelAddress { address }).await.unwrap();
    assert_eq!(connected.peer, format!("127.0.0.1:{port}"));
}

#[tokio::test]
async fn what_is_no_address_is_refused_by_its_field() {
    let world = World::new().await;
    let of = |address| TunnelAddress {
        address: Some(address),
    };
    for (address, field) in [
        (TunnelAddress::default(), "connect"),
        (tcp(0), "connect.tcp.port"),
        (udp(0), "connect.udp.port"),
        (
            of(tunnel_address::Address::Tcp(socket("h", 65_536))),
            "connect.tcp.port",
        ),
        (
            of(tunnel_address::Address::Tcp(socket(" ", 80))),
            "connect.tcp.host",
        ),
        (
            of(tunnel_address::Address::Tcp(socket("a\0", 80))),
            "connect.tcp.host",
        ),
        (
            of(tunnel_address::Address::Tcp(socket(&"h".repeat(254), 80))),
            "connect.tcp.host",
        ),
        (unix(""), "connect.unix"),
        (unix("relative"), "connect.unix"),
        (unix("/nul\0"), "connect.unix"),
        (unix(&format!("/{}", "x".repeat(107))), "connect.unix"),
    ] {
        let status = world.connect(address).await.err().unwrap();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        let details = status.get_error_details();
        let violations = &details
            .bad_request()
            .expect("it names the field")
            .field_violations;
        assert_eq!(violations[0].field, field);
    }
}

#[tokio::test]
async fn messages_that_make_no_sense_are_refused() {
    let world = World::new().await;
    let data = |len| TunnelConnectRequest {
        message: Some(tunnel_connect_request::Message::Data(vec![0; len])),
    };
    let requests = tokio_stream::iter([data(1)]);
    let answers = within(world.client().connect(requests)).await.unwrap();
    let status = within(answers.into_inner().message()).await.unwrap_err();
    assert!(status.message().contains("first message"), "{status:?}");

    let empty = TunnelConnectRequest { message: None };
    for (wrong, why) in [
        (to(tcp(1)), "INVALID_FIELD"),
        (empty, "INVALID_FIELD"),
        (data(64 * 1024 + 1), "INVALID_FIELD"),
        (data(1024 * 1024), "REQUEST_TOO_LARGE"),
    ] {
        let (mut tunnel, mut stream) = world.pair().await;
        within(tunnel.requests.as_ref().unwrap().send(wrong))
            .await
            .unwrap();
        let status = tunnel.next().await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert_eq!(reason(&status), why);
        assert!(
            was_reset(&mut stream).await,
            "half of it looks like all of it"
        );
    }
}
