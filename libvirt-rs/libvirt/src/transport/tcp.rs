//! TCP to a host: its addresses, and the first of them that answers.

use std::{io, net::SocketAddr};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use rustix::net::sockopt;
use tokio::{
    net::{TcpStream, lookup_host},
    time::{sleep, timeout},
};

use super::{
    Deadline, Error,
    limits::{ADDRESS, ADDRESS_HEAD_START, MAX_ADDRESSES, SILENCE},
};

pub(super) async fn connect(
    host: &str,
    port: u16,
    deadline: &Deadline,
) -> Result<TcpStream, Error> {
    let resolved = deadline.within("looking up the address of", lookup_host((host, port)));
    let addresses: Vec<_> = match resolved.await? {
        Ok(addresses) => addresses.collect(),
        Err(error) => return Err(unresolved(host, error.to_string())),
    };
    if addresses.is_empty() {
        return Err(unresolved(host, "it has none".to_owned()));
    }
    let race = race(in_turns(addresses));
    let stream = deadline.within("connecting to", race).await?;
    let stream = stream.map_err(|(kind, why)| Error::Tcp {
        host: host.to_owned(),
        port,
        kind,
        why,
        remedy: remedy(kind),
    })?;
    tune(&stream);
    Ok(stream)
}

/// What a connection works without, only worse.
fn tune(stream: &TcpStream) {
    // Calls are small and wait for their answers.
    let _ = stream.set_nodelay(true);
    // A host that loses its power says nothing. Where nobody reads the connection, keepalive's pings find that out only
    // when the kernel gives up what we send.
    let silence = u32::try_from(SILENCE.as_millis()).unwrap_or(u32::MAX);
    let _ = sockopt::set_tcp_user_timeout(stream, silence);
    let _ = sockopt::set_tcp_keepidle(stream, SILENCE);
    let _ = sockopt::set_socket_keepalive(stream, true);
}

fn unresolved(host: &str, why: String) -> Error {
    let host = host.to_owned();
    Error::Resolve { host, why }
}

fn remedy(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::ConnectionRefused => {
            "start virtproxyd-tcp.socket or virtproxyd-tls.socket there, or libvirtd with its like, or correct the port"
        }
        _ => "check the route to the host and the firewalls on it",
    }
}

/// The families in turns, beginning with the first address: where one of them leads nowhere, the other is next.
fn in_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut same, mut other): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first);
    same.reverse();
    other.reverse();
    let mut turns = Vec::new();
    while let Some(address) = same.pop().or_else(|| other.pop()) {
        turns.push(address);
        turns.extend(other.pop());
    }
    turns.truncate(MAX_ADDRESSES);
    turns
}

/// Tries the addresses one after the other, each with a head start before the next; the first that answers wins and
/// the others are dropped (RFC 8305). If none does: the last one's kind of failure, and what each of them said.
async fn race(addresses: Vec<SocketAddr>) -> Result<TcpStream, (io::ErrorKind, String)> {
    let mut waiting = addresses.into_iter();
    let mut under_way = FuturesUnordered::new();
    let mut failed = Vec::new();
    let mut kind = io::ErrorKind::NotFound;
    loop {
        if let Some(address) = waiting.next() {
            under_way.push(async move { (address, attempt(address).await) });
        } else if under_way.is_empty() {
            return Err((kind, failed.join(", ")));
        }
        let head_start = async {
            match waiting.len() {
                0 => std::future::pending().await,
                _ => sleep(ADDRESS_HEAD_START).await,
            }
        };
        tokio::select! {
            Some((address, result)) = under_way.next() => match result {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    kind = error.kind();
                    failed.push(format!("{} said \"{error}\"", address.ip()));
                }
            },
            () = head_start => {}
        }
    }
}

async fn attempt(address: SocketAddr) -> io::Result<TcpStream> {
    match timeout(ADDRESS, TcpStream::connect(address)).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {ADDRESS:?}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    /// A port that refuses. It is held, or else another test could come to listen there.
    fn refusing() -> (TcpSocket, SocketAddr) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    #[test]
    fn the_families_take_turns() {
        let parse = |list: &[&str]| -> Vec<SocketAddr> {
            list.iter().map(|text| text.parse().unwrap()).collect()
        };
        let order = in_turns(parse(&[
            "[::1]:1",
            "[::2]:1",
            "[::3]:1",
            "1.1.1.1:1",
            "2.2.2.2:1",
        ]));
        assert_eq!(
            order,
            parse(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"])
        );
        let order = in_turns(parse(&["1.1.1.1:1", "[::1]:1", "[::2]:1"]));
        assert_eq!(order, parse(&["1.1.1.1:1", "[::1]:1", "[::2]:1"]));
        assert_eq!(
            in_turns(vec![parse(&["[::1]:1"])[0]; 99]).len(),
            MAX_ADDRESSES
        );
    }

    #[tokio::test]
    async fn an_address_that_refuses_makes_room_for_the_next() {
        let (_held, refused) = refusing();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = race(vec![refused, address]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), address);
        let (kind, why) = race(vec![refused, refused]).await.unwrap_err();
        assert_eq!(kind, io::ErrorKind::ConnectionRefused);
        assert_eq!(why.matches("127.0.0.1 said").count(), 2, "{why}");
    }

    #[tokio::test]
    async fn a_refusal_names_host_port_and_what_to_start() {
        let (_held, address) = refusing();
        let deadline = Deadline::new(Duration::from_secs(60), String::new());
        let error = connect("127.0.0.1", address.port(), &deadline)
            .await
            .unwrap_err();
        let text = error.to_string();
        for part in [
            "127.0.0.1, port",
            &address.port().to_string(),
            "virtproxyd-tcp.socket",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[tokio::test]
    async fn a_host_without_an_address_says_so() {
        let deadline = Deadline::new(Duration::from_secs(60), String::new());
        // No name has an empty label in its middle, so nobody is asked.
        let error = connect("a..b", 1, &deadline).await.unwrap_err();
        assert!(matches!(error, Error::Resolve { .. }), "{error}");
    }
}
