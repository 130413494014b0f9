//! TLS on the link, from the bridge's file to the agent's flags: who is served, who is refused, and what callers learn of it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, ensure};
use rustix::process::Signal;
use tempfile::TempDir;
use tonic::{Code, Status};
use vbridge_api::{
    guest::v1::{PingRequest, system_client::SystemClient},
    host::v1::GuestState,
};
use vbridge_tests::{
    fixture::{Bridge, LocalAgent, eventually, story},
    libvirt::certificates::Authority,
};

/// A folder with the files of both ends.
struct Files(TempDir);

impl Files {
    /// The agent's certificate is for `name`; the bridge's is from the authority that the agent trusts, or from another one.
    fn new(name: &str, is_expired: bool) -> Result<Self> {
        let files = Self(tempfile::tempdir()?);
        let (agents, hosts, strangers) = (
            Authority::new("agents")?,
            Authority::new("hosts")?,
            Authority::new("strangers")?,
        );
        files.write("agents-ca.pem", agents.pem())?;
        files.write("hosts-ca.pem", hosts.pem())?;
        files.write("strangers-ca.pem", strangers.pem())?;
        files.pair("agent", agents.server(name, is_expired)?)?;
        files.pair("bridge", hosts.client("bridge")?)?;
        files.pair("stranger", strangers.client("bridge")?)?;
        Ok(files)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.path(name), text)?)
    }

    fn pair(&self, name: &str, (certificate, key): (String, String)) -> Result<()> {
        self.write(&format!("{name}.pem"), &certificate)?;
        self.write(&format!("{name}.key"), &key)
    }

    /// The agent that is shipped; with TLS, and with the authority of bridges if there is to be one.
    async fn agent(&self, hosts: bool) -> Result<LocalAgent> {
        let (certificate, key, ca) = (
            self.text("agent.pem"),
            self.text("agent.key"),
            self.text("hosts-ca.pem"),
        );
        let mut arguments = vec!["--tls-certificate", &certificate, "--tls-key", &key];
        if hosts {
            arguments.extend(["--tls-host-ca", &ca]);
        }
        LocalAgent::shipped(&arguments).await
    }

    /// A bridge with the guest `safe`, whose `[link]` is this.
    async fn bridge(
        &self,
        agent: &LocalAgent,
        options: &str,
        link: &[(&str, &str)],
    ) -> Result<Bridge> {
        let mut text = String::from("[link]\n");
        for (key, file) in link {
            text += &format!("{key} = {:?}\n", self.path(file));
        }
        self.write("bridge.toml", &text)?;
        let guest = format!("{}{options}", guest(agent.channel()));
        let arguments = ["--config", &self.text("bridge.toml"), "--guest", &guest];
        Bridge::start_with(Vec::new(), arguments.map(str::to_owned).to_vec()).await
    }
}

fn guest(channel: &Path) -> String {
    format!("safe=unix:{}", channel.display())
}

/// Tells the whole way there and back.
async fn ping(bridge: &Bridge) -> Result<(), Status> {
    let place = bridge.place("safe");
    let channel = place.channel().await.expect("the bridge listens");
    let mut system = SystemClient::new(channel);
    let answer = system.ping(PingRequest::default()).await;
    answer.map(drop)
}

/// The guest is refused, and its callers learn why.
async fn refused(bridge: &Bridge, words: &[&str]) -> Result<()> {
    bridge.reaches("safe", GuestState::Rejected).await?;
    let status = ping(bridge).await.unwrap_err();
    ensure!(status.code() == Code::Unavailable, "{status:?}");
    let details = String::from_utf8_lossy(status.details()).into_owned();
    ensure!(details.contains("GUEST_REJECTED"), "{status:?}");
    for word in words {
        ensure!(
            status.message().contains(word),
            "no {word:?}: {}",
            status.message()
        );
    }
    Ok(())
}

const AGENTS: (&str, &str) = ("tls_ca", "agents-ca.pem");
const BRIDGE: [(&str, &str); 2] = [("tls_certificate", "bridge.pem"), ("tls_key", "bridge.key")];

#[test]
fn both_ends_prove_themselves_by_certificates_and_calls_go_through() {
    story(async {
        let files = Files::new("safe", false)?;
        for hosts in [false, true] {
            let agent = files.agent(hosts).await?;
            let bridge = files
                .bridge(&agent, "", &[AGENTS, BRIDGE[0], BRIDGE[1]])
                .await?;
            bridge.ready("safe").await?;
            ping(&bridge).await?;
        }
        Ok(())
    });
}

#[test]
fn sessions_follow_one_another_with_tls_as_without_whichever_end_is_killed() {
    story(async {
        let files = Files::new("safe", false)?;
        let mut agent = files.agent(true).await?;
        let mut bridge = files
            .bridge(&agent, "", &[AGENTS, BRIDGE[0], BRIDGE[1]])
            .await?;
        for _ in 0..10 {
            bridge.ready("safe").await?;
            ping(&bridge).await?;
            agent.kill9().await?;
            agent.start_again().await?;
            bridge.ready("safe").await?;
            ping(&bridge).await?;
            bridge.kill9().await?;
            bridge.start_again().await?;
        }
        Ok(())
    });
}

#[test]
fn an_agent_whose_certificate_does_not_hold_is_refused_and_callers_learn_why() {
    story(async {
        for (name, is_expired, ca, words) in [
            (
                "other",
                false,
                "agents-ca.pem",
                &["certificate is not taken", "name"][..],
            ),
            (
                "safe",
                true,
                "agents-ca.pem",
                &["certificate is not taken", "xpired"],
            ),
            (
                "safe",
                false,
                "strangers-ca.pem",
                &["certificate is not taken", "UnknownIssuer"],
            ),
        ] {
            let files = Files::new(name, is_expired)?;
            let agent = files.agent(false).await?;
            let bridge = files.bridge(&agent, "", &[("tls_ca", ca)]).await?;
            refused(&bridge, words).await?;
        }
        // The name may be told.
        let files = Files::new("other", false)?;
        let agent = files.agent(false).await?;
        let bridge = files.bridge(&agent, ",tls-name=other", &[AGENTS]).await?;
        bridge.ready("safe").await?;
        ping(&bridge).await.map_err(Into::into)
    });
}

#[test]
fn a_bridge_whose_certificate_the_agent_does_not_take_learns_that() {
    story(async {
        let files = Files::new("safe", false)?;
        let agent = files.agent(true).await?;
        let stranger = [
            AGENTS,
            ("tls_certificate", "stranger.pem"),
            ("tls_key", "stranger.key"),
        ];
        for link in [&stranger[..], &[AGENTS]] {
            let bridge = files.bridge(&agent, "", link).await?;
            refused(&bridge, &["does not take the bridge's certificate"]).await?;
        }
        Ok(())
    });
}

#[test]
fn an_agent_without_tls_is_refused_by_a_bridge_that_wants_it() {
    story(async {
        let files = Files::new("safe", false)?;
        let agent = LocalAgent::shipped(&[]).await?;
        let bridge = files.bridge(&agent, "", &[AGENTS]).await?;
        refused(&bridge, &["does not encrypt"]).await
    });
}

#[test]
fn a_bridge_without_tls_is_sent_away_by_an_agent_that_wants_it_and_says_why() {
    story(async {
        let files = Files::new("safe", false)?;
        let agent = files.agent(false).await?;
        let bridge = files.bridge(&agent, "", &[]).await?;
        let told = "takes nothing but TLS";
        eventually("the reason", Duration::from_secs(20), async || {
            Ok(bridge.guest("safe").await?.reason.contains(told))
        })
        .await?;
        ensure!(ping(&bridge).await.is_err(), "it was served in plain text");
        Ok(())
    });
}

#[test]
fn a_certificate_that_was_renewed_holds_for_the_next_session_without_a_restart() {
    story(async {
        let files = Files::new("other", false)?;
        let mut agent = files.agent(false).await?;
        let mut bridge = files.bridge(&agent, "", &[AGENTS]).await?;
        refused(&bridge, &["certificate is not taken"]).await?;
        let agents = Authority::new("agents, again")?;
        files.write("agents-ca.pem", agents.pem())?;
        files.pair("agent", agents.server("safe", false)?)?;
        agent.process().signal(Signal::HUP)?;
        bridge.process().signal(Signal::HUP)?;
        bridge.ready("safe").await?;
        ping(&bridge).await.map_err(Into::into)
    });
}
