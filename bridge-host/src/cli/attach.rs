//! `vbridge attach`: gives a domain the channel that makes it a guest.

use bridge_host::{
    config::ChannelName,
    discovery::{self, Attached, CHANNEL_NAME, Part},
};
use clap::Args;

use super::{
    failure::Failure,
    output::{self, printable},
};

/// Adds the channel to the running domain and to its definition. What is there already stays as it is.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The domain: its name or its UUID
    domain: String,
    /// The hypervisor's libvirt URI [default: what libvirt's other programs take]
    #[arg(
        long,
        value_name = "URI",
        default_value = "",
        hide_default_value = true
    )]
    libvirt: String,
    /// The channel's name [default: org.vbridge.agent.0]
    #[arg(long, value_name = "NAME")]
    channel: Option<ChannelName>,
}

/// Runs the command.
pub(super) async fn run(options: &Options) -> Result<(), Failure> {
    let channel = match &options.channel {
        Some(ChannelName(name)) => name,
        None => CHANNEL_NAME,
    };
    let attached = discovery::attach(&options.libvirt, &options.domain, channel).await;
    let attached = attached.map_err(|error| Failure::new(printable(&error.to_string())))?;
    output::print(sentence(&attached, channel))
}

/// What was done, and what is left to do.
fn sentence(attached: &Attached, channel: &str) -> String {
    let domain = printable(&attached.domain);
    let done = match (attached.running, attached.definition) {
        (Some(Part::Added), Some(Part::Added)) => {
            format!(
                "domain {domain} has the channel {channel} now, and keeps it when it is restarted"
            )
        }
        (Some(Part::Added), Some(Part::Present)) => {
            format!("domain {domain} has the channel {channel} now; its definition had it already")
        }
        (Some(Part::Added), None) => {
            format!(
                "domain {domain} has the channel {channel} now, until it stops and is forgotten"
            )
        }
        (Some(Part::Present), Some(Part::Added)) => {
            format!(
                "domain {domain} had the channel {channel} already, and keeps it now when it is restarted"
            )
        }
        (None, Some(Part::Added)) => {
            format!("domain {domain} has the channel {channel} from its next start on")
        }
        (Some(Part::NoPort), _) => {
            format!(
                "domain {domain} has no free port on its virtio-serial controllers while it runs; it has the channel {channel} from its next start on"
            )
        }
        (None, None) => format!("domain {domain} has stopped, and is forgotten"),
        (Some(Part::Present), _) | (_, Some(Part::Present | Part::NoPort)) => {
            format!("domain {domain} had the channel {channel} already")
        }
    };
    format!("{done}; in the guest, vbridge-agent must run")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_says_what_was_done_and_what_the_guest_needs() {
        let said = |running, definition| {
            let domain = "web".to_owned();
            let attached = Attached {
                domain,
                running,
                definition,
            };
            sentence(&attached, "org.a.0")
        };
        for (running, definition, what) in [
            (Some(Part::Added), Some(Part::Added), "keeps it when"),
            (Some(Part::Added), None, "until it stops"),
            (None, Some(Part::Added), "next start"),
            (Some(Part::NoPort), Some(Part::Added), "no free port"),
            (Some(Part::Present), Some(Part::Present), "already"),
        ] {
            let text = said(running, definition);
            assert!(
                text.contains(what) && text.contains("vbridge-agent must run"),
                "{text}"
            );
        }
    }
}
