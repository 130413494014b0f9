//! What the bridge and its guests measure, for Prometheus: `GET /metrics`, in the OpenMetrics text format.
//!
//! ```text
//!   front ── every call's method, status, time ──▶ calls ──┐
//!   guests ── states, sessions, bytes ─────────────────────┼──▶ exporter ──▶ text
//!   each ready guest ── one Metrics.Get, shared ──▶ sample ┘
//! ```
//!
//! What guests measure has the names of Prometheus' node exporter and a label `guest`; what the bridge measures begins with
//! `vbridge_`. The number of series is bounded for each guest, whatever it claims to have.
//!
//! | module | what it is |
//! |---|---|
//! | `calls` | how many calls there were, how they ended, how long they took |
//! | `exporter` | everything as text |
//! | `sample` | a guest's own metrics, asked for at most once a second |

mod calls;
mod exporter;
mod sample;

pub(crate) use calls::{Calls, Codes, name as code_name};
pub(crate) use exporter::{CONTENT_TYPE, Exporter, PATH};
pub(crate) use sample::Shared;
