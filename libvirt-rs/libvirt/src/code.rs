//! A number of libvirt's that may be newer than this crate.

use std::fmt;
use std::marker::PhantomData;

/// One of libvirt's enumerations, from the tables of [`raw::api`](crate::raw::api).
pub trait Enumeration: Copy + fmt::Debug {
    /// The member with this number, if this crate knows it.
    fn from_raw(raw: i32) -> Option<Self>;
    /// The member's number.
    fn as_raw(self) -> i32;
}

/// A member of an enumeration as the daemon sent it, known to this crate or not.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code<E> {
    raw: i32,
    of: PhantomData<E>,
}

// === impl Code ===

impl<E: Enumeration> Code<E> {
    /// A member by its number.
    pub fn new(raw: i32) -> Self {
        Self {
            raw,
            of: PhantomData,
        }
    }

    /// The member; `None` if it is newer than this crate.
    pub fn known(self) -> Option<E> {
        E::from_raw(self.raw)
    }

    /// The number.
    pub fn raw(self) -> i32 {
        self.raw
    }
}

impl<E: Enumeration> From<E> for Code<E> {
    fn from(member: E) -> Self {
        Self::new(member.as_raw())
    }
}

impl<E: Enumeration> PartialEq<E> for Code<E> {
    fn eq(&self, member: &E) -> bool {
        self.raw == member.as_raw()
    }
}

impl<E: Enumeration> fmt::Debug for Code<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.known() {
            Some(member) => member.fmt(f),
            None => write!(f, "unknown ({})", self.raw),
        }
    }
}

impl<E: Enumeration> fmt::Display for Code<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
