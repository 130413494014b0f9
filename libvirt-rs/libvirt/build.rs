//! Generates the protocol's types and methods from its interface files.

use libvirt_codegen::{Input, Options, compile};

/// Types of the main program that hold passwords, keys, or what leads to them: PLAIN's message is a password, and SCRAM's
/// let guesses be tried; keys that are pressed may be a password's.
const SECRETS: [&str; 9] = [
    "remote_auth_sasl_start_args",
    "remote_auth_sasl_start_ret",
    "remote_auth_sasl_step_args",
    "remote_auth_sasl_step_ret",
    "remote_domain_send_key_args",
    "remote_domain_set_launch_security_state_args",
    "remote_domain_set_user_password_args",
    "remote_secret_get_value_ret",
    "remote_secret_set_value_args",
];

/// The same of QEMU's: what is said to its monitor and to the guest's agent may hold a password, and what is answered
/// the content of a file.
const QEMU_SECRETS: [&str; 6] = [
    "qemu_domain_agent_command_args",
    "qemu_domain_agent_command_ret",
    "qemu_domain_monitor_command_args",
    "qemu_domain_monitor_command_ret",
    "qemu_domain_monitor_command_with_files_args",
    "qemu_domain_monitor_command_with_files_ret",
];

fn main() -> Result<(), libvirt_codegen::Error> {
    let input = |name: &str, options: Options| {
        Input::new(
            format!("../proto/{name}.x"),
            format!("crate::raw::{name}"),
            options,
        )
    };
    compile(&[
        input("virnet", Options::libvirt()),
        input("remote", hiding(&SECRETS)),
        input("qemu", hiding(&QEMU_SECRETS)),
        input("lxc", Options::libvirt()),
        input("admin", Options::libvirt()),
        input(
            "api",
            Options::libvirt()
                .wire(false)
                .enumeration("crate::Enumeration"),
        ),
    ])
}

fn hiding(secrets: &[&str]) -> Options {
    secrets
        .iter()
        .fold(Options::libvirt(), |options, name| options.secret(*name))
}
