//! The channel as a model: queues, and who is told what.

use std::collections::VecDeque;

/// How the parts of the channel behave.
#[derive(Debug, Clone)]
pub struct Behaviour {
    /// Bytes that one read of the guest brings at most: Linux hands out one virtqueue buffer of a page.
    pub read_size: usize,
    /// Bytes that one write of the guest takes at most: Linux copies 32 KiB.
    pub write_size: usize,
    /// Bytes that a socket holds that QEMU has not read.
    pub socket_size: usize,
    /// Bytes for the guest that its kernel holds: 128 buffers of a page.
    pub inbound_size: usize,
    /// Bytes from the guest that QEMU has not written to the socket: 128 elements of 32 KiB.
    pub outbound_size: usize,
    /// Every so many writes of the guest return 0 instead of taking bytes; 0 means never.
    pub zero_write_every: u32,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            read_size: 4096,
            write_size: 32 * 1024,
            socket_size: 208 * 1024,
            inbound_size: 512 * 1024,
            outbound_size: 4 * 1024 * 1024,
            zero_write_every: 0,
        }
    }
}

/// A connection to the channel's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientId(u64);

/// What a guest's read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestRead {
    /// So many bytes.
    Data(usize),
    /// `read` returned 0: no host is attached, as far as the kernel knows.
    Detached,
    /// EAGAIN: a host is attached, and there is nothing.
    WouldBlock,
}

/// What a guest's write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestWrite {
    /// So many bytes were taken; 0 is possible and means: again.
    Taken(usize),
    /// EAGAIN: no host is attached, as far as the kernel knows, or the queue is full.
    WouldBlock,
}

/// What a client's read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostRead {
    /// So many bytes.
    Data(usize),
    /// Nothing now.
    WouldBlock,
}

#[derive(Debug)]
struct Client {
    id: ClientId,
    /// Written by the client, not read by QEMU.
    to_guest: VecDeque<u8>,
    /// Written by QEMU, not read by the client.
    to_host: VecDeque<u8>,
    closed: bool,
}

/// A virtio-serial channel.
#[derive(Debug)]
pub struct EmulatedChannel {
    behaviour: Behaviour,
    clients: u64,
    /// The first is the one that QEMU serves; the others wait in the backlog.
    queue: VecDeque<Client>,
    /// The guest has the port open.
    open: bool,
    /// The guest's kernel believes that a host is attached.
    attached: bool,
    /// PORT_OPEN notices that the guest's kernel has not handled.
    notices: VecDeque<bool>,
    /// In the guest's kernel, for its reader.
    inbound: VecDeque<u8>,
    /// In the virtqueue, for QEMU.
    outbound: VecDeque<u8>,
    paused: bool,
    writes: u32,
}

impl EmulatedChannel {
    /// A channel with nobody at either end.
    pub fn new(behaviour: Behaviour) -> Self {
        Self {
            behaviour,
            clients: 0,
            queue: VecDeque::new(),
            open: false,
            attached: false,
            notices: VecDeque::new(),
            inbound: VecDeque::new(),
            outbound: VecDeque::new(),
            paused: false,
            writes: 0,
        }
    }

    // === The guest ===

    /// Opens the port; `false` means EBUSY: somebody has it open.
    pub fn guest_open(&mut self) -> bool {
        !std::mem::replace(&mut self.open, true)
    }

    /// Closes the port: what was not read is gone.
    pub fn guest_close(&mut self) {
        self.open = false;
        self.inbound.clear();
    }

    /// Reads as `read(2)` with O_NONBLOCK does.
    pub fn guest_read(&mut self, buf: &mut [u8]) -> GuestRead {
        let len = buf.len().min(self.behaviour.read_size);
        match take(&mut self.inbound, &mut buf[..len]) {
            0 if self.attached => GuestRead::WouldBlock,
            0 => GuestRead::Detached,
            len => GuestRead::Data(len),
        }
    }

    /// Writes as `write(2)` with O_NONBLOCK does.
    pub fn guest_write(&mut self, data: &[u8]) -> GuestWrite {
        let room = self
            .behaviour
            .outbound_size
            .saturating_sub(self.outbound.len());
        if !self.attached || room == 0 {
            return GuestWrite::WouldBlock;
        }
        self.writes = self.writes.wrapping_add(1);
        if self.behaviour.zero_write_every > 0
            && self.writes.is_multiple_of(self.behaviour.zero_write_every)
        {
            return GuestWrite::Taken(0);
        }
        let len = data.len().min(self.behaviour.write_size).min(room);
        self.outbound.extend(&data[..len]);
        GuestWrite::Taken(len)
    }

    /// Whether `poll(2)` says POLLHUP: no host is attached, as far as the kernel knows.
    pub fn guest_sees_hangup(&self) -> bool {
        !self.attached
    }

    // === The host ===

    /// Connects to the socket. It always works; but QEMU serves one client at a time.
    pub fn host_connect(&mut self) -> ClientId {
        self.clients += 1;
        let id = ClientId(self.clients);
        self.queue.push_back(Client {
            id,
            to_guest: VecDeque::new(),
            to_host: VecDeque::new(),
            closed: false,
        });
        if self.queue.len() == 1 {
            self.notices.push_back(true);
        }
        id
    }

    /// Closes a connection. What it wrote stays on its way.
    pub fn host_close(&mut self, id: ClientId) {
        if let Some(client) = self.client(id) {
            client.closed = true;
            client.to_host.clear();
        }
        self.next_client();
    }

    /// Reads from a connection.
    pub fn host_read(&mut self, id: ClientId, buf: &mut [u8]) -> HostRead {
        match self.client(id).map(|client| take(&mut client.to_host, buf)) {
            Some(len) if len > 0 => HostRead::Data(len),
            _ => HostRead::WouldBlock,
        }
    }

    /// Writes into a connection and says how many bytes its socket took; 0 means EAGAIN.
    pub fn host_write(&mut self, id: ClientId, data: &[u8]) -> usize {
        let size = self.behaviour.socket_size;
        let Some(client) = self.client(id) else {
            return 0;
        };
        let len = data.len().min(size.saturating_sub(client.to_guest.len()));
        client.to_guest.extend(&data[..len]);
        len
    }

    /// Whether a connection has bytes to read.
    pub fn host_is_readable(&self, id: ClientId) -> bool {
        self.queue
            .iter()
            .any(|client| client.id == id && !client.to_host.is_empty())
    }

    // === The hypervisor ===

    /// QEMU reads at most `max` bytes from its client's socket into the guest. It does not while the port is closed.
    pub fn move_to_guest(&mut self, max: usize) -> usize {
        let mut moved = 0;
        while !self.paused && self.open {
            let room = self
                .behaviour
                .inbound_size
                .saturating_sub(self.inbound.len());
            let Some(client) = self.queue.front_mut() else {
                break;
            };
            let len = client.to_guest.len().min(max - moved).min(room);
            self.inbound.extend(client.to_guest.drain(..len));
            moved += len;
            if !client.closed || !client.to_guest.is_empty() {
                break;
            }
            self.next_client();
        }
        moved
    }

    /// QEMU takes at most `max` bytes from the virtqueue: to its client, or, without one, to nowhere.
    pub fn move_to_host(&mut self, max: usize) -> usize {
        if self.paused {
            return 0;
        }
        let size = self.behaviour.socket_size;
        let len = self.outbound.len().min(max);
        match self.queue.front_mut() {
            Some(client) if !client.closed => {
                let len = len.min(size.saturating_sub(client.to_host.len()));
                client.to_host.extend(self.outbound.drain(..len));
                len
            }
            _ => {
                self.outbound.drain(..len);
                len
            }
        }
    }

    /// The guest's kernel handles one PORT_OPEN notice. Whether there was one.
    pub fn notify_guest(&mut self) -> bool {
        if self.paused {
            return false;
        }
        match self.notices.pop_front() {
            Some(attached) => {
                self.attached = attached;
                true
            }
            None => false,
        }
    }

    /// The notices on their way are merged into the last one: a host that went and came back was never away.
    pub fn merge_notices(&mut self) {
        if let Some(last) = self.notices.pop_back() {
            self.notices.clear();
            self.notices.push_back(last);
        }
    }

    /// Stops and starts the virtual machine's CPUs.
    pub fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Whether the virtual machine is paused.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// The guest reboots: its queues are gone, of what it wrote the last `lost` bytes. Who opens the port next starts
    /// with what the host had not yet handed over.
    pub fn guest_reset(&mut self, lost: usize) {
        self.guest_close();
        self.outbound
            .truncate(self.outbound.len().saturating_sub(lost));
        let host = self.queue.front().is_some_and(|client| !client.closed);
        self.attached = false;
        self.notices.clear();
        if host {
            self.notices.push_back(true);
        }
    }

    /// Everything that can move moves.
    pub fn settle(&mut self) {
        while self.notify_guest() {}
        while self.move_to_guest(usize::MAX) > 0 {}
        while self.move_to_host(usize::MAX) > 0 {}
    }

    /// QEMU turns to the next client when the one before has closed.
    ///
    /// What that one wrote is still read first if the guest has the port open; if not, it is gone with its socket.
    fn next_client(&mut self) {
        while let Some(client) = self.queue.front() {
            if !client.closed {
                return;
            }
            let stale = self.open && !client.to_guest.is_empty();
            if stale {
                // Its bytes go before those of the next client.
                let room = self
                    .behaviour
                    .inbound_size
                    .saturating_sub(self.inbound.len());
                if let Some(mut client) = self.queue.pop_front() {
                    client.to_guest.truncate(room);
                    self.inbound.extend(client.to_guest);
                }
            } else {
                self.queue.pop_front();
            }
            // What the guest had queued for the client that went is discarded.
            self.outbound.clear();
            self.notices.push_back(false);
            if !self.queue.is_empty() {
                self.notices.push_back(true);
            }
        }
    }

    fn client(&mut self, id: ClientId) -> Option<&mut Client> {
        self.queue
            .iter_mut()
            .find(|client| client.id == id && !client.closed)
    }
}

/// Moves bytes from a queue into a buffer.
fn take(queue: &mut VecDeque<u8>, buf: &mut [u8]) -> usize {
    let len = buf.len().min(queue.len());
    for (to, from) in buf.iter_mut().zip(queue.drain(..len)) {
        *to = from;
    }
    len
}
