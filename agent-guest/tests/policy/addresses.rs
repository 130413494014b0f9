//! Where tunnels lead.

use std::os::unix::fs::symlink;

use agent_guest::{AddressRule, AddressUse, Profile, Rule};
use tokio::net::{TcpListener, UnixListener};
use vbridge_api::guest::v1::{
    SocketAddress, TunnelAddress, TunnelConnectRequest, TunnelListenRequest,
    tunnel_address::Address, tunnel_client::TunnelClient, tunnel_connect_request::Message,
};

use super::*;

async fn scene(dir: tempfile::TempDir, rule: AddressRule) -> Scene {
    let rules = Rules::new(Profile::Observe)
        .rule(Rule::allow("tunnels", ["*.Tunnel/*"]))
        .address(rule);
    Scene::at(dir, rules).await
}

fn tcp(host: &str, port: u16) -> TunnelAddress {
    let host = host.to_owned();
    let port = port.into();
    TunnelAddress {
        address: Some(Address::Tcp(SocketAddress { host, port })),
    }
}

fn unix(path: String) -> TunnelAddress {
    TunnelAddress {
        address: Some(Address::Unix(path)),
    }
}

impl Scene {
    async fn connect(&self, address: TunnelAddress) -> Result<(), Status> {
        let first = TunnelConnectRequest {
            message: Some(Message::Connect(address)),
        };
        let mut tunnels = TunnelClient::new(self.channel.clone());
        let call = within(tunnels.connect(tokio_stream::iter([first]))).await?;
        within(call.into_inner().message()).await.map(drop)
    }

    async fn listen(&self, address: TunnelAddress) -> Result<(), Status> {
        let address = Some(address);
        let mut tunnels = TunnelClient::new(self.channel.clone());
        let call = within(tunnels.listen(TunnelListenRequest { address })).await?;
        within(call.into_inner().message()).await.map(drop)
    }
}

#[tokio::test]
async fn only_allowed_ports_of_this_machine_are_reached_under_whatever_name() {
    let allowed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = allowed.local_addr().unwrap().port();
    let rule = AddressRule::allow("web", [format!("tcp:127.0.0.0/8:{port}")]).unwrap();
    let rule = rule.only(AddressUse::Connect);
    let scene = scene(tempfile::tempdir().unwrap(), rule).await;
    for host in ["", "localhost", "127.0.0.1", "0.0.0.0"] {
        scene.connect(tcp(host, port)).await.unwrap();
        let other = tcp(host, other.local_addr().unwrap().port());
        refused(scene.connect(other).await, "profile observe");
    }
    refused(scene.connect(tcp("::1", port)).await, "profile observe");
    refused(
        scene.listen(tcp("127.0.0.1", port)).await,
        "profile observe",
    );
    let udp = TunnelAddress {
        address: Some(Address::Udp(SocketAddress {
            host: String::new(),
            port: port.into(),
        })),
    };
    refused(scene.connect(udp).await, "profile observe");
}

#[tokio::test]
async fn a_unix_socket_is_reached_where_it_lies_and_by_no_link() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("run")).unwrap();
    let _app = UnixListener::bind(at("run/app.sock")).unwrap();
    let _secret = UnixListener::bind(at("secret.sock")).unwrap();
    symlink(at("secret.sock"), at("run/link.sock")).unwrap();
    let pattern = format!("unix:{}/*.sock", at("run").display());
    let scene = scene(dir, AddressRule::allow("app", [pattern]).unwrap()).await;
    scene
        .connect(unix(scene.path("run/app.sock")))
        .await
        .unwrap();
    for name in ["secret.sock", "run/link.sock", "run/../secret.sock"] {
        refused(
            scene.connect(unix(scene.path(name))).await,
            "profile observe",
        );
    }
    refused(
        scene.connect(unix("@name".to_owned())).await,
        "profile observe",
    );
    scene
        .listen(unix(scene.path("run/new.sock")))
        .await
        .unwrap();
    refused(
        scene.listen(unix(scene.path("new.sock"))).await,
        "profile observe",
    );
    assert!(!scene.place("new.sock").exists());
}
