//! A guest with systemd, in which the agent is installed as a user does it, and what it is for: units and their logs, accounts,
//! ssh, clocks, a standstill under load, events, shutdown. Beside it runs the QEMU guest agent, to compare with.
//!
//! | module | what is tested |
//! |---|---|
//! | `world` | nothing: the guest that all share |
//! | `agent` | how the agent is started |
//! | `services` | units and the journal |
//! | `accounts` | passwords and keys |
//! | `ssh` | ssh without a network |
//! | `clock` | time and time zone |
//! | `freeze` | file systems that stand still |
//! | `events` | what happens is told |
//! | `peer` | both agents answer the same |
//! | `channels` | agents of other kinds, through the library |
//! | `power` | the guest's end |

mod accounts;
mod agent;
mod channels;
mod clock;
mod events;
mod freeze;
mod peer;
mod power;
mod services;
mod ssh;
mod world;

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use tokio::time::timeout;
use vbridge_tests::suite::Suite;

use world::World;

/// Far longer than any of these takes: a test that does not end must not keep all.
const LIMIT: Duration = Duration::from_secs(300);

async fn limited(test: impl Future<Output = Result<()>>) -> Result<()> {
    timeout(LIMIT, test).await.context("it takes for ever")?
}

/// Adds tests by name and function.
macro_rules! tests {
    ($suite:ident: $($name:literal => $test:path,)*) => {
        $($suite.test($name, |world: Arc<World>| limited($test(world)));)*
    };
}

fn main() -> ExitCode {
    let mut suite = Suite::new(World::start).telling(World::story);
    tests!(suite:
        "udev_and_systemd_start_the_agent_when_its_port_appears" => agent::started_by_udev,
        "an_agent_that_is_killed_comes_back_and_the_next_call_works" => agent::killed,
        "systemd_lets_the_agent_read_its_policy_anew" => agent::reloaded,
        "the_agent_goes_with_its_port_and_comes_back_with_it" => agent::port_goes_and_comes,
        "units_are_listed_as_systemctl_lists_them" => services::listed,
        "a_unit_is_started_restarted_enabled_disabled_and_stopped" => services::controlled,
        "vbridge_service_ends_with_the_status_of_systemctl" => services::statuses,
        "the_journal_is_read_by_unit_time_and_priority" => services::journal,
        "the_journal_is_followed" => services::followed,
        "vbridge_logs_shows_the_journal" => services::shown,
        "a_password_is_set_and_written_nowhere_else" => accounts::password,
        "keys_are_added_listed_and_removed" => accounts::keys,
        "ssh_comes_in_through_connect_with_a_key_that_was_added" => ssh::commands,
        "ssh_refuses_a_key_that_was_not_added" => ssh::strangers,
        "ssh_comes_in_through_a_forwarded_port" => ssh::forwarded,
        "who_is_logged_in_is_listed_until_they_go" => ssh::logins,
        "the_clocks_are_set_forward_and_back" => clock::set,
        "the_time_zone_is_the_one_that_was_set_last" => clock::zone,
    );
    for question in peer::questions() {
        let name = question.name;
        suite.test(name, |world| limited(peer::agree(world, question)));
    }
    tests!(suite:
        "the_clock_is_that_of_the_qemu_guest_agent" => peer::clocks,
        "commands_do_what_they_do_for_the_qemu_guest_agent" => peer::commands,
        "an_agent_in_python_is_talked_to_in_json" => channels::python,
        "an_agent_in_shell_is_talked_to_in_lines" => channels::shell,
        "the_qemu_guest_agent_never_gets_an_answer_mixed_up" => channels::qga,
        "a_guest_with_only_the_qemu_guest_agent_serves_what_that_can" => channels::adapted,
        "a_standstill_under_load_ends_by_itself_and_loses_nothing" => freeze::expires,
        "a_standstill_is_ended_and_told" => freeze::thawed,
        "what_a_killed_agent_has_frozen_is_thawed_by_the_next" => freeze::killed,
        "a_new_agent_is_told_as_the_first_event" => events::agent_started,
        "a_port_that_is_listened_on_is_told_and_its_end" => events::port,
        "a_process_killed_for_want_of_memory_is_told" => events::oom_kill,
        "the_guest_restarts_and_all_is_back" => power::reboot,
        "the_guest_powers_off_once_it_has_answered" => power::power_off,
    );
    suite.main()
}
