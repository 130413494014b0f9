//! Ports that somebody listens on: `/proc/net/{tcp,tcp6,udp,udp6}` (proc_pid_net(5)).

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use vbridge_api::guest::v1::{ListeningPort, PortProtocol};

use super::Reader;
use crate::limits::{MAX_LISTENING_PORTS, MAX_OWNER_LINKS};

/// The state of a TCP socket that listens.
pub(super) const LISTENING_TCP: &str = "0A";

/// The state of a UDP socket that is not connected.
const UNCONNECTED_UDP: &str = "07";

/// The files. Listeners come first in those of TCP, so that a file that is too long to be read in full loses none.
const FILES: [(&str, PortProtocol, &str); 4] = [
    ("proc/net/tcp", PortProtocol::Tcp, LISTENING_TCP),
    ("proc/net/tcp6", PortProtocol::Tcp, LISTENING_TCP),
    ("proc/net/udp", PortProtocol::Udp, UNCONNECTED_UDP),
    ("proc/net/udp6", PortProtocol::Udp, UNCONNECTED_UDP),
];

/// The ports, as they were when they were looked at last.
#[derive(Debug)]
pub(crate) struct Listening {
    reader: Reader,
    /// `None` before the first look.
    known: Option<BTreeMap<Port, Owner>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    protocol: i32,
    address: IpAddr,
    port: u16,
}

#[derive(Debug, Clone, Default)]
struct Owner {
    pid: u32,
    program: String,
}

impl Listening {
    pub(crate) fn below(root: impl Into<PathBuf>) -> Self {
        Self {
            reader: Reader::below(root),
            known: None,
        }
    }

    /// What has changed since the last look; at the first, nothing. It may block.
    pub(crate) fn changes(&mut self) -> Vec<ListeningPort> {
        let now = self.look();
        let Some(before) = self.known.take() else {
            let nobody = now.into_keys().map(|port| (port, Owner::default()));
            self.known = Some(nobody.collect());
            return Vec::new();
        };
        let new: Vec<u64> = now
            .iter()
            .filter(|(port, _)| !before.contains_key(port))
            .map(|(_, inode)| *inode)
            .collect();
        let mut owners = self.owners(&new);
        let mut changes: Vec<_> = before
            .iter()
            .filter(|(port, _)| !now.contains_key(port))
            .map(|(port, owner)| describe(port, owner, false))
            .collect();
        let mut known = BTreeMap::new();
        for (port, inode) in now {
            let owner = match before.get(&port) {
                Some(owner) => owner.clone(),
                None => {
                    let owner = owners.remove(&inode).unwrap_or_default();
                    changes.push(describe(&port, &owner, true));
                    owner
                }
            };
            known.insert(port, owner);
        }
        self.known = Some(known);
        changes
    }

    /// The ports and the sockets' inodes.
    fn look(&mut self) -> BTreeMap<Port, u64> {
        let mut found = BTreeMap::new();
        for (file, protocol, state) in FILES {
            // A guest may have no IPv6.
            let Ok(text) = self.reader.read(file) else {
                continue;
            };
            for (address, port, inode) in parse(&text, state) {
                let port = Port {
                    protocol: protocol.into(),
                    address,
                    port,
                };
                if found.len() == MAX_LISTENING_PORTS {
                    return found;
                }
                found.entry(port).or_insert(inode);
            }
        }
        found
    }

    /// Who has these sockets, as far as that can be seen.
    fn owners(&mut self, inodes: &[u64]) -> HashMap<u64, Owner> {
        let mut owners = HashMap::new();
        if inodes.is_empty() {
            return owners;
        }
        let mut left = MAX_OWNER_LINKS;
        let Ok(processes) = fs::read_dir(self.reader.root.join("proc")) else {
            return owners;
        };
        for process in processes.flatten() {
            let name = process.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            // Another user's are not shown to an agent that is not root.
            let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else {
                continue;
            };
            for descriptor in descriptors.flatten() {
                if left == 0 || owners.len() == inodes.len() {
                    return owners;
                }
                left -= 1;
                let inode = fs::read_link(descriptor.path()).ok();
                let inode = inode.and_then(|target| socket(target.to_str()?));
                if let Some(inode) = inode.filter(|inode| inodes.contains(inode)) {
                    let program = self.reader.line(&format!("proc/{pid}/comm"));
                    owners.insert(inode, Owner { pid, program });
                }
            }
        }
        owners
    }
}

fn describe(port: &Port, owner: &Owner, listening: bool) -> ListeningPort {
    ListeningPort {
        address: port.address.to_string(),
        port: port.port.into(),
        listening,
        pid: owner.pid,
        program: owner.program.clone(),
        protocol: port.protocol,
    }
}

fn socket(target: &str) -> Option<u64> {
    let inode = target.strip_prefix("socket:[")?.strip_suffix(']')?;
    inode.parse().ok()
}

/// Local address, port and inode of the sockets in this state.
pub(super) fn parse<'a>(
    text: &'a str,
    state: &'a str,
) -> impl Iterator<Item = (IpAddr, u16, u64)> + 'a {
    text.lines().filter_map(move |line| {
        let mut fields = line.split_ascii_whitespace();
        let local = fields.nth(1)?;
        let (_remote, found) = (fields.next()?, fields.next()?);
        if found != state {
            return None;
        }
        let inode = fields.nth(5)?.parse().ok()?;
        let (address, port) = local.split_once(':')?;
        Some((
            parse_address(address)?,
            u16::from_str_radix(port, 16).ok()?,
            inode,
        ))
    })
}

/// An address as the kernel writes it: words of 32 bits in the machine's own order.
fn parse_address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = text.get(at * 8..at * 8 + 8)?;
        u32::from_str_radix(word, 16).ok().map(u32::to_ne_bytes)
    };
    match text.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let mut bytes = [0; 16];
            for (at, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(at)?);
            }
            Some(IpAddr::V6(Ipv6Addr::from(bytes)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn line(address: &str, port: u16, state: &str, inode: u64) -> String {
        format!(
            "   0: {address}:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000   101        0 {inode} 1 0 100 0\n"
        )
    }

    /// 127.0.0.1, as this machine writes it.
    fn loopback() -> String {
        format!("{:08X}", u32::from_ne_bytes([127, 0, 0, 1]))
    }

    fn write(root: &Path, file: &str, lines: &str) {
        fs::create_dir_all(root.join("proc/net")).unwrap();
        fs::write(root.join("proc/net").join(file), format!("{HEAD}{lines}")).unwrap();
    }

    #[test]
    fn what_begins_and_ends_after_the_first_look_is_told_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let old = line(&loopback(), 22, "0A", 1);
        write(root, "tcp", &old);
        let mut listening = Listening::below(root);
        assert_eq!(listening.changes(), []);
        assert_eq!(listening.changes(), []);

        let connected = line(&loopback(), 5000, "01", 3);
        let new = line("00000000", 8080, "0A", 7);
        write(root, "tcp", &format!("{old}{new}{connected}"));
        write(root, "udp6", &line(&"0".repeat(32), 53, "07", 8));
        let fd = root.join("proc/42/fd");
        fs::create_dir_all(&fd).unwrap();
        fs::write(root.join("proc/42/comm"), "server\n").unwrap();
        std::os::unix::fs::symlink("socket:[7]", fd.join("3")).unwrap();
        let expected = ListeningPort {
            address: "0.0.0.0".to_owned(),
            port: 8080,
            listening: true,
            pid: 42,
            program: "server".to_owned(),
            protocol: PortProtocol::Tcp.into(),
        };
        let changes = listening.changes();
        assert_eq!(changes[0], expected);
        let udp = (changes[1].address.as_str(), changes[1].port, changes[1].pid);
        assert_eq!((udp, changes.len()), (("::", 53, 0), 2));

        write(root, "tcp", &new);
        let changes = listening.changes();
        let gone = (
            changes[0].address.as_str(),
            changes[0].port,
            changes[0].listening,
        );
        assert_eq!((gone, changes.len()), (("127.0.0.1", 22, false), 1));
    }

    #[test]
    fn what_is_no_socket_is_skipped() {
        for text in [HEAD, "", "0: x 0 0A", "0: zz:1 0 0A 0 0 0 0 0 5"] {
            assert_eq!(parse(text, LISTENING_TCP).count(), 0, "{text}");
        }
    }
}
