//! Messages larger than their service takes, to every method that there is: each is told so, and the session goes on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod common;

use agent_guest::limits;
use bytes::{BufMut as _, Bytes, BytesMut};
use common::{Host, Running, within};
use h2::client::SendRequest;
use http::HeaderMap;
use tonic::{Code, Status};
use vbridge_api::guest::v1::{GetInfoRequest, system_client::SystemClient};

/// The largest request of a service.
fn limit(service: &str) -> usize {
    match service.rsplit('.').next().unwrap() {
        "System" => limits::MAX_SYSTEM_REQUEST,
        "Exec" => limits::MAX_EXEC_REQUEST,
        "Files" => limits::MAX_FILES_REQUEST,
        "Accounts" => limits::MAX_ACCOUNTS_REQUEST,
        "Hardware" => limits::MAX_HARDWARE_REQUEST,
        "Services" => limits::MAX_SERVICES_REQUEST,
        "Storage" => limits::MAX_STORAGE_REQUEST,
        "Tunnel" => limits::MAX_TUNNEL_REQUEST,
        _ => limits::MAX_SMALL_REQUEST,
    }
}

/// A gRPC message of so many bytes: a field that no message has, with zeros.
fn message(size: usize) -> Bytes {
    const TAG: [u8; 2] = [0xfa, 0x7f];
    let mut message = BytesMut::with_capacity(size + 5);
    message.put_u8(0);
    message.put_u32(u32::try_from(size).unwrap());
    message.put_slice(&TAG);
    // The field's length, in four bytes that a varint may always have.
    let mut rest = size - TAG.len() - 4;
    for last in [false, false, false, true] {
        let byte = u8::try_from(rest & 0x7f).unwrap();
        message.put_u8(if last { byte } else { byte | 0x80 });
        rest >>= 7;
    }
    message.resize(size + 5, 0);
    message.freeze()
}

async fn http2(host: &mut Host) -> SendRequest<Bytes> {
    let session = host.take_session();
    let (client, connection) = within(h2::client::handshake(session)).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    client
}

/// Sends one message, and returns how the call ends. A stream that has not ended is left.
async fn call(client: &SendRequest<Bytes>, method: &str, message: Bytes) -> Option<Status> {
    let request = http::Request::post(format!("http://guest.test/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let mut client = within(client.clone().ready()).await.unwrap();
    let (response, mut stream) = client.send_request(request, false).unwrap();
    // As much as it takes; it may be told that it is too much before.
    let send = async move {
        let mut left = message;
        while !left.is_empty() {
            stream.reserve_capacity(left.len());
            let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else {
                break;
            };
            let part = left.split_to(room.min(left.len()));
            if stream.send_data(part, left.is_empty()).is_err() {
                break;
            }
        }
        // Held, or the call would be reset; how it ends is told by the answer.
        std::future::pending::<()>().await;
    };
    let receive = async {
        let response = response.await.ok()?;
        let told = |headers: &HeaderMap| Status::from_header_map(headers);
        if let Some(status) = told(response.headers()) {
            return Some(status);
        }
        let mut body = response.into_body();
        while let Some(data) = body.data().await {
            let data = data.ok()?;
            let _ = body.flow_control().release_capacity(data.len());
        }
        told(&body.trailers().await.ok()??)
    };
    tokio::select! {
        status = within(receive) => status,
        () = send => None,
    }
}

#[tokio::test]
async fn every_method_refuses_a_message_over_its_limit_and_the_session_goes_on() {
    let agent = Running::start();
    let mut host = agent.host().await;
    let mut system = SystemClient::new(host.channel().await);
    let info = within(system.get_info(GetInfoRequest {})).await.unwrap();
    drop(system);
    drop(host);
    let methods = info.into_inner().methods;
    assert!(methods.len() > 50, "{} methods", methods.len());
    let mut host = agent.host().await;
    let client = http2(&mut host).await;
    let mut wrong = Vec::new();
    for method in methods.iter().map(|method| method.name.as_str()) {
        let (service, _) = method.split_once('/').unwrap();
        let limit = limit(service);
        // The library that serves it ends such a call without a word.
        let is_silent = service.starts_with("grpc.reflection.");
        for size in [limit + 1, limit + 4 * 1024 * 1024] {
            let status = call(&client, method, message(size)).await;
            let is_right = status.as_ref().is_some_and(|status| match is_silent {
                true => status.code() == Code::Ok,
                false => {
                    status.code() == Code::InvalidArgument
                        && status.message().contains(&limit.to_string())
                }
            });
            if !is_right {
                wrong.push(format!("{method} with {size} bytes: {status:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let ping = call(
        &client,
        "vbridge.guest.v1.System/Ping",
        message(limits::MAX_SYSTEM_REQUEST),
    );
    assert_eq!(ping.await.unwrap().code(), Code::Ok, "as much as it takes");
}
