//! Authentication: who this client is, and proving it by SASL.
//!
//! | module | what it does |
//! |---|---|
//! | `credentials` | user name and password, from the caller or from auth.conf |
//! | `file` | reads auth.conf |
//! | [`sasl`] | the exchange of messages, without any I/O |
//! | [`limits`] | how much |

mod credentials;
mod error;
mod file;
pub mod limits;
pub mod sasl;

pub use credentials::Credentials;
pub use error::Error;
pub use sasl::Sasl;
