//! Where our programs are. They are built once for each test program, which costs cargo's check where nothing has
//! changed; `cargo xtask test` builds all of them before, and says so with `VBRIDGE_PREBUILT`.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use tokio::sync::OnceCell;
use xtask::{
    build::{self, AGENT, BRIDGE, Binary, EMBEDDED, Profile, RAW, TEST_AGENT},
    image::{Image, ImageBuilder},
};

/// Our programs on the host.
#[derive(Debug)]
pub struct Programs {
    /// `vbridge`; the variable `VBRIDGE_BIN` names another.
    pub bridge: PathBuf,
    /// `vbridge-test-agent`; the variable `VBRIDGE_TEST_AGENT_BIN` names another.
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
            let given = |name| env::var_os(name).map(PathBuf::from);
            let agent = given("VBRIDGE_TEST_AGENT_BIN");
            let bridge = given("VBRIDGE_BIN");
            let mut wanted = Vec::new();
            wanted.extend(agent.is_none().then_some(TEST_AGENT));
            wanted.extend(bridge.is_none().then_some(BRIDGE));
            let build = move || build::host(Profile::Dev, &wanted);
            let mut built = tokio::task::spawn_blocking(build).await??.into_iter();
            let mut next = || Some(built.next()?.1);
            let agent = agent.or_else(&mut next);
            let agent = agent.context("the agent was not built")?;
            let bridge = bridge.or_else(next).context("the bridge was not built")?;
            Ok(Programs { bridge, agent })
        })
        .await
}

/// Builds or finds the agent as it is shipped, but for this machine.
///
/// # Errors
/// cargo fails.
pub async fn agent() -> Result<&'static Path> {
    static PROGRAM: OnceCell<PathBuf> = OnceCell::const_new();
    one(&PROGRAM, AGENT).await
}

/// Builds or finds the example that embeds the agent.
///
/// # Errors
/// cargo fails.
pub async fn embedded() -> Result<&'static Path> {
    static PROGRAM: OnceCell<PathBuf> = OnceCell::const_new();
    one(&PROGRAM, EMBEDDED).await
}

async fn one(known: &'static OnceCell<PathBuf>, binary: Binary) -> Result<&'static Path> {
    let build = || async {
        let build = move || build::host(Profile::Dev, &[binary]);
        let built = tokio::task::spawn_blocking(build).await??;
        let (_, path) = built.into_iter().next().context("it was not built")?;
        Ok(path)
    };
    known.get_or_try_init(build).await.map(PathBuf::as_path)
}

/// Builds or finds the guest's image: with the test agent and the bare channel's peer.
///
/// # Errors
/// cargo fails, or the image can't be built.
pub async fn image() -> Result<&'static Image> {
    static IMAGE: OnceCell<Image> = OnceCell::const_new();
    IMAGE.get_or_try_init(|| image_with(Ok)).await
}

/// The same with more in it. What adds it may block.
///
/// # Errors
/// As [`image`], or what adds something fails.
pub async fn image_with(
    add: impl FnOnce(ImageBuilder) -> Result<ImageBuilder> + Send + 'static,
) -> Result<Image> {
    tokio::task::spawn_blocking(|| {
        let mut image = Image::builder();
        for (binary, path) in build::guest_for_tests(&[TEST_AGENT, RAW])? {
            image = image.binary(format!("/bin/{}", binary.name), path);
        }
        add(image)?.build()
    })
    .await?
}

/// Builds or finds the image of the guest with systemd, which has the agent that is shipped.
///
/// # Errors
/// cargo fails, or the image can't be built.
pub async fn system_image() -> Result<&'static Image> {
    static IMAGE: OnceCell<Image> = OnceCell::const_new();
    IMAGE
        .get_or_try_init(|| async { tokio::task::spawn_blocking(Image::system).await? })
        .await
}
