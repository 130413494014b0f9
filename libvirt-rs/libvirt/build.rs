//! Generates the protocol's types and methods from its interface files.

use libvirt_codegen::{Input, Options, compile};

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
        input("remote", Options::libvirt()),
        input("qemu", Options::libvirt()),
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
