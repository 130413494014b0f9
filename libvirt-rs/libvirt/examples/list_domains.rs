//! Lists the domains of a hypervisor, with their states.
//!
//! ```text
//! cargo run -p libvirt --example list_domains -- test:///default
//! ```

use anyhow::Result;
use clap::Parser;
use futures_util::future::join_all;
use libvirt::raw::api::{ConnectListAllDomainsFlags, ErrorNumber};
use libvirt::{Connect, Domain};

#[derive(Debug, Parser)]
struct Arguments {
    /// The hypervisor; without one: LIBVIRT_DEFAULT_URI, or whatever the daemon finds.
    #[arg(default_value = "", hide_default_value = true)]
    uri: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let connect = Connect::builder(&arguments.uri)
        .read_only(true)
        .open()
        .await?;
    println!(
        "{} is {} {}, served by libvirt {}",
        connect.uri(),
        connect.driver().await?,
        connect.hypervisor_version().await?,
        connect.libvirt_version().await?,
    );
    let domains = connect.domains(ConnectListAllDomainsFlags::empty()).await?;
    // All are asked at once: calls share the connection, and none waits for another's reply.
    let infos = join_all(domains.iter().map(Domain::info)).await;
    for (domain, info) in domains.iter().zip(infos) {
        let info = match info {
            // It went between the two questions.
            Err(error) if error.is(ErrorNumber::NoDomain) => continue,
            info => info?,
        };
        println!(
            "{:>4}  {:<24} {:<10} {:>3} CPUs {:>8} MiB",
            domain.id().map_or("-".to_owned(), |id| id.to_string()),
            domain.name(),
            info.state.to_string(),
            info.vcpus,
            info.memory / 1024,
        );
    }
    connect.close().await;
    Ok(())
}
