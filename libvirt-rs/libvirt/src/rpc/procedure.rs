//! What is known of a procedure beside its arguments.

/// One procedure of one of libvirt's programs.
///
/// The tables of all procedures are generated: [`raw::remote::PROCEDURES`](crate::raw::remote::PROCEDURES) and its
/// siblings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Procedure {
    /// The program's number, such as 0x20008086 for `remote`.
    pub program: u32,
    /// The program's version.
    pub version: u32,
    /// The procedure's number within the program.
    pub number: i32,
    /// Its name on the wire's side, such as `REMOTE_PROC_DOMAIN_CREATE`.
    pub name: &'static str,
    /// Which of the daemon's workers serve it.
    pub priority: Priority,
    /// The access rights that the daemon checks, as `object:permission`.
    pub access: &'static [&'static str],
    /// Whether a stream follows the call, and who sends in it.
    pub stream: Option<StreamDirection>,
    /// The flag with which a caller asks for holes in the stream.
    pub sparse_flag: Option<&'static str>,
    /// Where file descriptors travel.
    pub fds: Fds,
    /// Whether the daemon sends it unasked.
    pub event: bool,
    /// The version of libvirt whose API had its function first, or which had a procedure without a function first; `None`
    /// for one that is called by its number.
    pub since: Option<&'static str>,
}

/// Which of the daemon's workers serve a procedure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Also those workers that are kept free of calls which may wait for a guest.
    High,
    /// The ordinary ones.
    Low,
}

/// Who sends data in the stream that follows a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamDirection {
    /// The daemon: a download.
    Read,
    /// The caller: an upload.
    Write,
    /// Both, as on a console.
    Both,
}

/// Where file descriptors travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fds {
    /// Nowhere.
    None,
    /// With the call.
    Call,
    /// With the reply.
    Reply,
    /// With both.
    Both,
}

// === impl Procedure ===

impl Procedure {
    /// A procedure of which only the numbers are known, to be called with
    /// [`Client::call`](crate::rpc::Client::call).
    pub const fn unlisted(program: u32, version: u32, number: i32) -> Self {
        Self {
            program,
            version,
            number,
            name: "unlisted procedure",
            priority: Priority::Low,
            access: &[],
            stream: None,
            sparse_flag: None,
            fds: Fds::None,
            event: false,
            since: None,
        }
    }
}
