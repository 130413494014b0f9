//! A domain's XML: which channels it has, and how it gets another (libvirt's formatdomain, "Channel").
//!
//! ```xml
//! <channel type='unix'>
//!   <source mode='bind' path='/run/libvirt/qemu/channel/3-web/org.vbridge.agent.0'/>
//!   <target type='virtio' name='org.vbridge.agent.0' state='connected'/>
//! </channel>
//! ```
//!
//! libvirt makes up the path when the domain starts, unless it is given.

use std::path::PathBuf;

use roxmltree::{Document, Node};

/// What a domain's XML says of one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Channel {
    /// There is none of that name.
    Absent,
    /// There is one, but no socket yet.
    Defined,
    /// Its socket, which the hypervisor listens on.
    Socket(PathBuf),
    /// There is one of another kind (`pty`, `spicevmc` …), which can't be connected.
    Other(String),
}

/// Looks for the virtio channel of that name.
pub(crate) fn channel(xml: &str, name: &str) -> Result<Channel, roxmltree::Error> {
    let document = Document::parse(xml)?;
    let is_it = |channel: &Node<'_, '_>| {
        channel.children().any(|child| {
            child.has_tag_name("target")
                && child.attribute("type") == Some("virtio")
                && child.attribute("name") == Some(name)
        })
    };
    let devices = document.root_element().children();
    let devices = devices.filter(|child| child.has_tag_name("devices"));
    let mut channels = devices.flat_map(|devices| devices.children());
    let channel = channels.find(|child| child.has_tag_name("channel") && is_it(child));
    let Some(channel) = channel else {
        return Ok(Channel::Absent);
    };
    match channel.attribute("type") {
        Some("unix") => {}
        other => return Ok(Channel::Other(other.unwrap_or_default().to_owned())),
    }
    let source = channel
        .children()
        .find(|child| child.has_tag_name("source"));
    // With "connect" it is QEMU that connects, to somebody else's socket.
    let mode = source.and_then(|source| source.attribute("mode"));
    if let Some(mode) = mode.filter(|mode| *mode != "bind") {
        return Ok(Channel::Other(format!("unix, mode {mode}")));
    }
    Ok(match source.and_then(|source| source.attribute("path")) {
        Some(path) => Channel::Socket(path.into()),
        None => Channel::Defined,
    })
}

/// Whether a running domain's virtio-serial controllers have a port left: it gets no other controller while it runs.
///
/// Port 0 is a console's; a controller has 31 ports unless it says otherwise (libvirt's formatdomain, "Controllers").
pub(super) fn has_free_port(xml: &str) -> Result<bool, roxmltree::Error> {
    const PORTS: usize = 31;
    let document = Document::parse(xml)?;
    let is_serial = |node: &Node<'_, '_>| node.attribute("type") == Some("virtio-serial");
    let nodes = || document.descendants().filter(is_serial);
    let mut controllers = nodes().filter(|node| node.has_tag_name("controller"));
    Ok(controllers.any(|controller| {
        let index = controller.attribute("index");
        let ports = controller
            .attribute("ports")
            .and_then(|ports| ports.parse().ok());
        let used = nodes().filter(|node| {
            node.has_tag_name("address")
                && node.attribute("controller") == index
                && node.attribute("port") != Some("0")
        });
        used.count() + 1 < ports.unwrap_or(PORTS)
    }))
}

/// The XML of such a channel. libvirt finds a path for its socket, and a place on a controller.
pub(super) fn new_channel(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '\'' => escaped.push_str("&apos;"),
            c => escaped.push(c),
        }
    }
    format!("<channel type='unix'><target type='virtio' name='{escaped}'/></channel>")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(channels: &str) -> Channel {
        let xml = format!("<domain type='qemu'><devices>{channels}</devices></domain>");
        channel(&xml, "org.vbridge.agent.0").unwrap()
    }

    #[test]
    fn the_channel_of_that_name_is_found_among_others() {
        let other = "<channel type='unix'><source mode='bind' path='/qga'/>\
                     <target type='virtio' name='org.qemu.guest_agent.0'/></channel>";
        assert_eq!(found(other), Channel::Absent);
        let ours = "<channel type='unix'><source mode='bind' path='/run/&lt;a&gt;'/>\
                    <target type='virtio' name='org.vbridge.agent.0' state='connected'/></channel>";
        let both = format!("{other}{ours}");
        assert_eq!(found(&both), Channel::Socket("/run/<a>".into()));
    }

    #[test]
    fn a_channel_without_a_socket_is_defined_and_one_of_another_kind_says_which() {
        let target = "<target type='virtio' name='org.vbridge.agent.0'/>";
        let defined = format!("<channel type='unix'>{target}</channel>");
        assert_eq!(found(&defined), Channel::Defined);
        let defined = format!("<channel type='unix'><source mode='bind'/>{target}</channel>");
        assert_eq!(found(&defined), Channel::Defined);
        let other = format!("<channel type='pty'>{target}</channel>");
        assert_eq!(found(&other), Channel::Other("pty".to_owned()));
        let source = "<source mode='connect' path='/theirs'/>";
        let other = format!("<channel type='unix'>{source}{target}</channel>");
        assert_eq!(
            found(&other),
            Channel::Other("unix, mode connect".to_owned())
        );
        let guest_forward =
            "<channel type='unix'><target type='guestfwd' name='org.vbridge.agent.0'/></channel>";
        assert_eq!(found(guest_forward), Channel::Absent);
    }

    #[test]
    fn a_port_is_free_where_a_controller_has_more_than_are_used() {
        let free = |controllers: &str, ports: &[(u32, u32)]| {
            let mut xml = format!("<domain><devices>{controllers}");
            for (controller, port) in ports {
                xml += &format!(
                    "<channel type='unix'><address type='virtio-serial' controller='{controller}' \
                     bus='0' port='{port}'/></channel>"
                );
            }
            has_free_port(&(xml + "</devices></domain>")).unwrap()
        };
        let two = "<controller type='virtio-serial' index='0' ports='2'/>\
                   <controller type='virtio-serial' index='1' ports='3'/>";
        assert!(!free("", &[]));
        assert!(free(two, &[(0, 1), (1, 1)]));
        assert!(!free(two, &[(0, 1), (1, 1), (1, 2)]));
        assert!(free(
            "<controller type='virtio-serial' index='0'/>",
            &[(0, 1), (0, 2)]
        ));
        assert!(!free("<controller type='usb' index='0' ports='9'/>", &[]));
    }

    #[test]
    fn a_new_channel_is_found_by_its_name_whatever_that_is() {
        for name in ["org.vbridge.agent.0", "a<b>'c'&amp;\"d\""] {
            let xml = format!("<domain><devices>{}</devices></domain>", new_channel(name));
            assert_eq!(channel(&xml, name).unwrap(), Channel::Defined, "{xml}");
        }
    }

    #[test]
    fn what_is_no_xml_is_an_error() {
        assert!(channel("<domain>", "a").is_err());
        assert_eq!(channel("<domain/>", "a").unwrap(), Channel::Absent);
    }
}
