//! `vbridge service` and `vbridge logs`: a guest's systemd.
//!
//! | module | what it does |
//! |---|---|
//! | [`mod@unit`] | shows units, starts and stops them |
//! | [`logs`] | shows the journal |

pub(super) mod logs;
pub(super) mod unit;
