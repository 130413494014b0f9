//! Where our programs are. They are built once for each test program, which costs cargo's check where nothing has
//! changed; `cargo xtask test` builds all of them before, and says so with `VBRIDGE_PREBUILT`.

use std::{env, path::PathBuf};

use anyhow::{Context as _, Result};
use tokio::sync::OnceCell;
use xtask::{
    build::{self, BRIDGE, Binary, Profile},
    image::Image,
};

/// The agent with the exercise service.
pub const TEST_AGENT: Binary = Binary {
    package: "vbridge-tests",
    name: "vbridge-test-agent",
};

/// The bare channel's peer.
pub const RAW: Binary = Binary {
    package: "vbridge-tests",
    name: "vbridge-raw",
};

/// Our programs on the host.
#[derive(Debug)]
pub struct Programs {
    /// `vbridge`; the variable `VBRIDGE_BIN` names another.
    pub bridge: PathBuf,
    /// `vbridge-test-agent`.
    pub agent: PathBuf,
}

/// Builds or finds the programs of the host.
///
/// # Errors
/// cargo fails.
pub async fn host() -> Result<&'static Programs> {
    static PROGRAMS: OnceCell<Programs> = OnceCell::const_new();
    PROGRAMS
        .get_or_try_init(|| async {
            let built =
                tokio::task::spawn_blocking(|| build::host(Profile::Dev, &[BRIDGE, TEST_AGENT]))
                    .await??;
            let find = |binary: Binary| {
                let found = built
                    .iter()
                    .find(|(built, _)| *built == binary)
                    .map(|(_, path)| path.clone());
                found.with_context(|| format!("{} was not built", binary.name))
            };
            let bridge = match env::var_os("VBRIDGE_BIN") {
                Some(path) => path.into(),
                None => find(BRIDGE)?,
            };
            Ok(Programs {
                bridge,
                agent: find(TEST_AGENT)?,
            })
        })
        .await
}

/// Builds or finds the guest's image: with the test agent and the bare channel's peer.
///
/// # Errors
/// cargo fails, or the image can't be built.
pub async fn image() -> Result<&'static Image> {
    static IMAGE: OnceCell<Image> = OnceCell::const_new();
    IMAGE
        .get_or_try_init(|| async {
            tokio::task::spawn_blocking(|| {
                let mut image = Image::builder();
                for (binary, path) in build::guest(&[TEST_AGENT, RAW])? {
                    image = image.binary(format!("/bin/{}", binary.name), path);
                }
                image.build()
            })
            .await?
        })
        .await
}
