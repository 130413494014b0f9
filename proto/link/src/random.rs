//! Where session ids and nonces come from: the system, or a seed in a simulation.

use std::fmt;

/// A source of random bytes.
pub struct Random(Fill);

type Fill = Box<dyn FnMut(&mut [u8]) + Send>;

impl Random {
    /// The operating system's.
    pub fn system() -> Self {
        // The system call fails only where it does not exist (Linux before 3.17) or is forbidden; without random
        // numbers no session can be told from another, so there is no way to go on.
        #[allow(clippy::expect_used)]
        Self::from_fn(|bytes| getrandom::fill(bytes).expect("the system gives random bytes"))
    }

    /// The caller's, for tests that must run the same way twice.
    pub fn from_fn(fill: impl FnMut(&mut [u8]) + Send + 'static) -> Self {
        Self(Box::new(fill))
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        (self.0)(&mut bytes);
        bytes
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Random(..)")
    }
}
