//! Files and directories of the guest, as `vbridge.guest.v1.Files` offers them.
//!
//! ```text
//!    a call                                     services::files: messages in, messages out
//!      │  path                                        │  a step at a time
//!    path, walk: the root and all opening       work: threads where a step may block
//!      │  descriptors                                 │
//!    info  list  read  write  change  remove  tree  watch: each a state that is moved on by steps
//! ```
//!
//! Two rules keep this safe and small. A path is looked up once, by `openat2` below a root (and name by name if the policy
//! has closed something there: [`walk`]); all that follows is done
//! with descriptors, so that nobody in the guest can exchange a directory for a link in between. And what takes long is
//! a state with a step ([`work::Work`]), which does a bounded piece of it: a caller who does not take the pieces holds a
//! buffer and no thread, and one who is gone is noticed after a step.

pub(crate) mod change;
pub(crate) mod digest;
pub(crate) mod failure;
pub(crate) mod info;
pub(crate) mod list;
pub(crate) mod path;
pub(crate) mod read;
pub(crate) mod remove;
pub(crate) mod replace;
pub(crate) mod start;
pub(crate) mod tree;
pub(crate) mod walk;
pub(crate) mod watch;
pub(crate) mod work;
pub(crate) mod write;
