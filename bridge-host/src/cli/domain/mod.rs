//! `vbridge domain`: the virtual machines of the bridge's hypervisors, as users of virsh(1) know them.
//!
//! | module | what it does |
//! |---|---|
//! | this one | finds, shows and changes one domain |
//! | `show` | tables, facts and JSON |
//! | `events` | what happens, as it happens |
//!
//! Everything that can't be done or seen is exit status 1, as with virsh.

mod events;
mod show;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use vbridge_api::host::v1::{
    DestroyDomainRequest, Domain, DomainSelection, DomainShutdownMode, GetDomainRequest,
    GetDomainXmlRequest, ListDomainsRequest, ResumeDomainRequest, ShutdownDomainRequest,
    StartDomainRequest, SuspendDomainRequest, domains_client::DomainsClient,
};

use super::{
    client::{Client, ClientOptions, Wire},
    failure::Failure,
    output::{Output, print, print_pretty, printable, printable_sentence},
    say,
};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the domains that run or stand still, as `virsh list` does
    List(ListOptions),
    /// Show what a domain is, has and uses
    Info(DomainOptions),
    /// Start a domain that is defined
    Start(StartOptions),
    /// Ask a domain's guest to shut down, without waiting for it
    Shutdown(ShutdownOptions),
    /// Stop a domain at once, as pulling the plug would
    Destroy(DestroyOptions),
    /// Let a domain stand still
    Suspend(DomainOptions),
    /// Let a domain that stands still go on
    Resume(DomainOptions),
    /// Write a domain's XML, without passwords
    Xml(XmlOptions),
    /// Show what happens to domains, until Ctrl-C
    Events(events::Options),
}

/// Whose domains are meant.
#[derive(Debug, Args)]
struct At {
    /// Only at this hypervisor, by its URI as the bridge was given it
    #[arg(
        long,
        value_name = "URI",
        default_value = "",
        hide_default_value = true
    )]
    hypervisor: String,
}

/// Which domain is meant.
#[derive(Debug, Args)]
struct DomainOptions {
    /// The domain: its guest's name, its own, NAME@HOST or its UUID
    #[arg(value_name = "DOMAIN")]
    domain: String,
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    client: ClientOptions,
}

#[derive(Debug, Args)]
struct ListOptions {
    /// Those, too, that do not run
    #[arg(long, conflicts_with = "inactive")]
    all: bool,
    /// Those alone that do not run
    #[arg(long)]
    inactive: bool,
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    client: ClientOptions,
}

#[derive(Debug, Args)]
struct StartOptions {
    #[command(flatten)]
    domain: DomainOptions,
    /// Let it stand still at first
    #[arg(long)]
    paused: bool,
}

#[derive(Debug, Args)]
struct ShutdownOptions {
    #[command(flatten)]
    domain: DomainOptions,
    /// How the guest is asked
    #[arg(long, value_enum, default_value = "default")]
    mode: Mode,
}

/// How a guest is asked to shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    // As the hypervisor chooses.
    Default,
    // By its power button.
    Acpi,
    // By QEMU's guest agent.
    Agent,
}

#[derive(Debug, Args)]
struct DestroyOptions {
    #[command(flatten)]
    domain: DomainOptions,
    /// Fail rather than kill a hypervisor's process that does not end by itself
    #[arg(long)]
    graceful: bool,
}

#[derive(Debug, Args)]
struct XmlOptions {
    #[command(flatten)]
    domain: DomainOptions,
    /// The definition, which counts from the next start on
    #[arg(long)]
    inactive: bool,
}

/// Runs the command.
pub(super) async fn run(options: &Options) -> Result<(), Failure> {
    match &options.command {
        Command::List(options) => list(options).await,
        Command::Info(options) => info(options).await,
        Command::Start(options) => start(options).await,
        Command::Shutdown(options) => shutdown(options).await,
        Command::Destroy(options) => destroy(options).await,
        Command::Suspend(options) => suspend(options).await,
        Command::Resume(options) => resume(options).await,
        Command::Xml(options) => xml(options).await,
        Command::Events(options) => events::run(options).await,
    }
}

async fn connect(options: &ClientOptions) -> Result<(Client, DomainsClient<Wire>), Failure> {
    let client = Client::bridge(options).await?;
    let domains = DomainsClient::new(client.channel());
    Ok((client, domains))
}

async fn list(options: &ListOptions) -> Result<(), Failure> {
    let (client, mut domains) = connect(&options.client).await?;
    let selection = match (options.all, options.inactive) {
        (true, _) => DomainSelection::Unspecified,
        (_, true) => DomainSelection::Inactive,
        _ => DomainSelection::Active,
    };
    let wanted = ListDomainsRequest {
        hypervisor: options.at.hypervisor.clone(),
        selection: selection.into(),
    };
    let asked = client.ask(wanted, async |request| domains.list_domains(request).await);
    let answer = asked.await?;
    match options.client.output {
        Output::Table => print(show::table(&answer))?,
        Output::Json => print_pretty(&show::json_list(&answer))?,
    }
    if answer.hypervisors.is_empty() {
        say("the bridge follows no hypervisor; start it with --libvirt URI");
    }
    let away = answer
        .hypervisors
        .iter()
        .filter(|hypervisor| !hypervisor.unreachable.is_empty());
    let sentences: Vec<String> = away.map(show::unreachable).collect();
    for sentence in &sentences {
        say(sentence);
    }
    match sentences.is_empty() {
        true => Ok(()),
        false => Err(Failure::Told),
    }
}

async fn info(options: &DomainOptions) -> Result<(), Failure> {
    let (client, mut domains) = connect(&options.client).await?;
    let wanted = GetDomainRequest {
        domain: options.domain.clone(),
        hypervisor: options.at.hypervisor.clone(),
    };
    let asked = client.ask(wanted, async |request| domains.get_domain(request).await);
    let answer = asked.await?;
    match options.client.output {
        Output::Table => print(show::facts_of(&answer)),
        Output::Json => print_pretty(&show::json_info(&answer)),
    }
}

async fn start(options: &StartOptions) -> Result<(), Failure> {
    let (client, mut domains) = connect(&options.domain.client).await?;
    let wanted = StartDomainRequest {
        domain: options.domain.domain.clone(),
        hypervisor: options.domain.at.hypervisor.clone(),
        paused: options.paused,
    };
    let ordered = client.order(wanted, async |request| domains.start_domain(request).await);
    let answer = ordered.await?;
    let what = match options.paused {
        true => "was started, and stands still",
        false => "was started",
    };
    done(&options.domain, what, answer.domain.as_ref())
}

async fn shutdown(options: &ShutdownOptions) -> Result<(), Failure> {
    let (client, mut domains) = connect(&options.domain.client).await?;
    let mode = match options.mode {
        Mode::Default => DomainShutdownMode::Unspecified,
        Mode::Acpi => DomainShutdownMode::Acpi,
        Mode::Agent => DomainShutdownMode::Agent,
    };
    let wanted = ShutdownDomainRequest {
        domain: options.domain.domain.clone(),
        hypervisor: options.domain.at.hypervisor.clone(),
        mode: mode.into(),
    };
    let ordered = client.order(wanted, async |request| {
        domains.shutdown_domain(request).await
    });
    let answer = ordered.await?;
    let what = "was asked to shut down";
    done(&options.domain, what, answer.domain.as_ref())
}

async fn destroy(options: &DestroyOptions) -> Result<(), Failure> {
    let (client, mut domains) = connect(&options.domain.client).await?;
    let wanted = DestroyDomainRequest {
        domain: options.domain.domain.clone(),
        hypervisor: options.domain.at.hypervisor.clone(),
        graceful: options.graceful,
    };
    let ordered = client.order(wanted, async |request| {
        domains.destroy_domain(request).await
    });
    let answer = ordered.await?;
    let what = match &answer.domain {
        Some(_) => "was stopped",
        None => "was stopped, and is forgotten",
    };
    done(&options.domain, what, answer.domain.as_ref())
}

async fn suspend(options: &DomainOptions) -> Result<(), Failure> {
    let (client, mut domains) = connect(&options.client).await?;
    let wanted = SuspendDomainRequest {
        domain: options.domain.clone(),
        hypervisor: options.at.hypervisor.clone(),
    };
    let ordered = client.order(wanted, async |request| {
        domains.suspend_domain(request).await
    });
    let answer = ordered.await?;
    done(options, "stands still", answer.domain.as_ref())
}

async fn resume(options: &DomainOptions) -> Result<(), Failure> {
    let (client, mut domains) = connect(&options.client).await?;
    let wanted = ResumeDomainRequest {
        domain: options.domain.clone(),
        hypervisor: options.at.hypervisor.clone(),
    };
    let ordered = client.order(wanted, async |request| domains.resume_domain(request).await);
    let answer = ordered.await?;
    done(options, "goes on", answer.domain.as_ref())
}

async fn xml(options: &XmlOptions) -> Result<(), Failure> {
    let (client, mut domains) = connect(&options.domain.client).await?;
    let wanted = GetDomainXmlRequest {
        domain: options.domain.domain.clone(),
        hypervisor: options.domain.at.hypervisor.clone(),
        inactive: options.inactive,
    };
    let asked = client.ask(wanted, async |request| {
        domains.get_domain_xml(request).await
    });
    let answer = asked.await?;
    match options.domain.client.output {
        // As it is, for files and other programs: it is the hypervisor's text, not a guest's.
        Output::Table => print(answer.xml.trim_end()),
        Output::Json => print_pretty(&json!({
            "domain": answer.domain.as_ref().map(show::json_domain),
            "xml": answer.xml,
        })),
    }
}

/// What was done, to whom.
fn done(options: &DomainOptions, what: &str, domain: Option<&Domain>) -> Result<(), Failure> {
    match options.client.output {
        Output::Table => {
            let name = domain.map_or(&options.domain, |domain| &domain.name);
            print(format_args!("domain {} {what}", printable(name)))
        }
        Output::Json => print_pretty(&json!({ "domain": domain.map(show::json_domain) })),
    }
}
