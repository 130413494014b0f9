//! A guest that has only the QEMU guest agent: what of the guest's API its commands can serve.
//!
//! ```text
//!   a call ──▶ serve ──▶ methods: is there a command for it, and is it allowed? ── no ─▶ UNIMPLEMENTED, and why
//!                            │ yes
//!                            ▼
//!              system, exec, files …: what is asked ──▶ commands ──▶ channel (its own) or libvirt ──▶ qemu-ga
//!                            ▲                                                                          │
//!                            └── checked, bounded, in the API's form ◀── JSON ─────────────────────────-┘
//! ```
//!
//! **What a request asks for is done or refused.** A field that this agent can't fulfil is UNIMPLEMENTED (`AGENT_CANNOT`) with the
//! field's name, never left out silently. **What the agent does not tell stays empty.** It is believed nothing: its answers are
//! from the guest, and one that makes no sense is INTERNAL (`AGENT_GARBLED`), never a panic. The agent does one thing at a time,
//! so calls wait for each other.
//!
//! These promises of the API it can't keep, and nobody asks for them in a field:
//!
//! | method | promise | instead |
//! |---|---|---|
//! | `Exec.Run` | a command whose time is over, or whose caller has gone, is killed | it runs on; `timed_out` is told without `how`, and the header `x-vbridge-note` says so |
//! | `Files.Write` | the old file stays until the new one is there | it is overwritten in its place; what was written stays in any case |
//! | `Files.Write` | it is on the disk | it is with the guest's kernel |
//! | `Files.Read`, `Write` | links are refused, and so are devices and pipes | links are followed; a pipe may hold the agent up |
//! | `Storage.Freeze` | thaws after the agent was killed | the bridge thaws at the limit; if the bridge is killed, nobody does |
//! | `Power` | what the kernel does not offer is refused | the agent does not tell |
//!
//! Policies of the guest's agent do not exist here: what the agent's own configuration blocks, and what the bridge's rules allow
//! to callers, is all there is.
//!
//! | module | what it decides |
//! |---|---|
//! | `commands` | who carries out a command |
//! | `failure` | how what went wrong looks to a caller |
//! | `refusal` | the reasons that the guest's API has |
//! | `methods` | which method needs which commands, and who serves it |
//! | `serve` | what becomes of a call |
//! | `agent` | what all share: what the agent allows, what is under way |
//! | `health` | which services are well |
//! | `system`, `time`, `power`, `network`, `hardware`, `accounts`, `storage` | what their services ask and answer |
//! | `freeze` | standstills, and that they end |
//! | `exec` | a command from its start to its end |
//! | `files` | files, and that none stays open |

mod accounts;
mod agent;
mod commands;
mod exec;
mod failure;
mod files;
mod freeze;
mod hardware;
mod health;
mod methods;
mod network;
mod power;
mod refusal;
#[cfg(test)]
mod script;
mod serve;
mod storage;
mod system;
mod time;

pub(crate) use commands::Commands;
pub(crate) use serve::services;
