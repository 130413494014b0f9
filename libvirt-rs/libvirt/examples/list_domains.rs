//! Lists the domains of a hypervisor, with their states.
//!
//! ```text
//! cargo run -p libvirt --example list_domains -- test:///default
//! ```

use libvirt::Connect;
use libvirt::raw::api::ConnectListAllDomainsFlags;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), libvirt::Error> {
    // Without an argument: LIBVIRT_DEFAULT_URI, or whatever hypervisor the daemon finds.
    let uri = std::env::args().nth(1).unwrap_or_default();
    let connect = Connect::open(&uri).await?;
    println!(
        "{} is {} {}, served by libvirt {}",
        connect.uri(),
        connect.driver().await?,
        connect.hypervisor_version().await?,
        connect.libvirt_version().await?,
    );
    for domain in connect.domains(ConnectListAllDomainsFlags::empty()).await? {
        let info = domain.info().await?;
        println!(
            "{:>4}  {:<24} {:<10} {:>3} CPUs {:>8} MiB",
            domain.id().map_or("-".to_owned(), |id| id.to_string()),
            domain.name(),
            format!("{:?}", info.state),
            info.vcpus,
            info.memory / 1024,
        );
    }
    connect.close().await;
    Ok(())
}
