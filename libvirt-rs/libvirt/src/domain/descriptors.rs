//! What passes file descriptors: files that a domain is given, its displays, its namespaces.
//!
//! Descriptors travel over Unix sockets alone, so only to and from a daemon of this host, and 32 in a call at most. What is
//! given is closed here when the call has left.

use std::os::fd::OwnedFd;

use super::Domain;
use crate::connect::Connect;
use crate::error::Error;
use crate::raw::api::{
    DomainCreateFlags, DomainFdAssociateFlags, DomainOpenGraphicsFlags,
    DomainQemuMonitorCommandFlags,
};
use crate::raw::lxc::{DomainOpenNamespaceArgs, Lxc};
use crate::raw::qemu::DomainMonitorCommandWithFilesArgs;
use crate::raw::remote::{
    DOMAIN_OPEN_GRAPHICS_FD, DomainCreateWithFilesArgs, DomainCreateXmlWithFilesArgs,
    DomainFdAssociateArgs, DomainOpenGraphicsArgs, DomainOpenGraphicsFdArgs,
};

impl Connect {
    /// Starts a domain that is forgotten when it stops, and gives its first process these files, from descriptor 3 on. Only
    /// containers take any. Since libvirt 1.1.1.
    ///
    /// # Errors
    /// The connection carries no descriptors, or there are too many; what the daemon reports, or the end of the connection.
    pub async fn create_domain_with_files(
        &self,
        xml: &str,
        files: Vec<OwnedFd>,
        flags: DomainCreateFlags,
    ) -> Result<Domain, Error> {
        let args = DomainCreateXmlWithFilesArgs {
            xml_desc: xml.to_owned(),
            flags: flags.bits(),
        };
        let remote = self.raw()?;
        let created = remote.domain_create_xml_with_files(&args, files).await?;
        Ok(Domain::new(self, created.dom))
    }
}

impl Domain {
    /// Starts it, and gives its first process these files, from descriptor 3 on. Only containers take any. Since
    /// libvirt 1.1.1.
    ///
    /// # Errors
    /// The connection carries no descriptors, or there are too many; what the daemon reports, or the end of the connection.
    pub async fn start_with_files(
        &self,
        files: Vec<OwnedFd>,
        flags: DomainCreateFlags,
    ) -> Result<(), Error> {
        let args = DomainCreateWithFilesArgs {
            dom: self.raw.clone(),
            flags: flags.bits(),
        };
        self.remote()?
            .domain_create_with_files(&args, files)
            .await?;
        Ok(())
    }

    /// Names files that we have opened, so that a definition can use them: `<source file='…' fdgroup='NAME'/>`. They are
    /// known as long as this connection is open, and lost when it is opened again. Since libvirt 9.0.
    ///
    /// # Errors
    /// The connection carries no descriptors, or there are too many; what the daemon reports, or the end of the connection.
    pub async fn associate_files(
        &self,
        name: &str,
        files: Vec<OwnedFd>,
        flags: DomainFdAssociateFlags,
    ) -> Result<(), Error> {
        let args = DomainFdAssociateArgs {
            dom: self.raw.clone(),
            name: name.to_owned(),
            flags: flags.bits(),
        };
        self.remote()?.domain_fd_associate(&args, files).await
    }

    /// Opens a display by its number, VNC or SPICE: gives a socket on which the server waits for its client. Since
    /// libvirt 1.2.8.
    ///
    /// # Errors
    /// It has no such display; the connection carries no descriptors; the daemon or the connection.
    pub async fn open_graphics(
        &self,
        display: u32,
        flags: DomainOpenGraphicsFlags,
    ) -> Result<OwnedFd, Error> {
        let args = DomainOpenGraphicsFdArgs {
            dom: self.raw.clone(),
            idx: display,
            flags: flags.bits(),
        };
        let sockets = self.remote()?.domain_open_graphics_fd(&args).await?;
        sockets.into_iter().next().ok_or(Error::NoDescriptor {
            procedure: DOMAIN_OPEN_GRAPHICS_FD.name,
        })
    }

    /// As [`open_graphics`](Self::open_graphics), with a socket of ours: one end of a connected pair. Since libvirt 0.9.7.
    ///
    /// # Errors
    /// It has no such display; the connection carries no descriptors; the daemon or the connection.
    pub async fn open_graphics_on(
        &self,
        display: u32,
        socket: impl Into<OwnedFd>,
        flags: DomainOpenGraphicsFlags,
    ) -> Result<(), Error> {
        let args = DomainOpenGraphicsArgs {
            dom: self.raw.clone(),
            idx: display,
            flags: flags.bits(),
        };
        let socket = vec![socket.into()];
        self.remote()?.domain_open_graphics(&args, socket).await
    }

    /// As [`qemu_monitor_command`](Self::qemu_monitor_command), for a command that takes files, such as `add-fd`; gives the
    /// answer, and the files that come with it. Since libvirt 8.2.
    ///
    /// # Errors
    /// The connection carries no descriptors, or there are too many; what the daemon reports, or the end of the connection.
    pub async fn qemu_monitor_command_with_files(
        &self,
        command: &str,
        files: Vec<OwnedFd>,
        flags: DomainQemuMonitorCommandFlags,
    ) -> Result<(String, Vec<OwnedFd>), Error> {
        let args = DomainMonitorCommandWithFilesArgs {
            dom: self.raw.clone(),
            cmd: command.to_owned(),
            flags: flags.bits(),
        };
        let qemu = self.connect.qemu()?;
        let (answer, files) = qemu.domain_monitor_command_with_files(&args, files).await?;
        Ok((answer.result, files))
    }

    /// The namespaces of a container, which setns(2) enters. Since libvirt 1.0.2.
    ///
    /// # Errors
    /// It is none of LXC, or does not run; the connection carries no descriptors; the daemon or the connection.
    pub async fn lxc_open_namespaces(&self) -> Result<Vec<OwnedFd>, Error> {
        let args = DomainOpenNamespaceArgs {
            dom: self.raw.clone(),
            flags: 0,
        };
        let lxc = Lxc::new(self.connect.client()?);
        lxc.domain_open_namespace(&args).await
    }
}
