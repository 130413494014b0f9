//! A real guest that is set back to a state of its past, in the midst of a session: nothing tells either end.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tokio::time::{Instant, timeout};
use vbridge_tests::{
    exercise::v1::UnaryRequest,
    fixture::{Bridge, Guest},
    place,
    snapshot::Snapshots,
    suite::Suite,
};

const NAME: &str = "guest";

/// Within this time of the guest's going on, a call succeeds.
const RECOVERY: Duration = Duration::from_secs(2);

/// One call, with bytes that only it has.
async fn call(bridge: &Bridge, number: u32) -> Result<()> {
    let payload = number.to_be_bytes().repeat(100);
    let mut client = place::exercise(bridge.place(NAME).channel().await?);
    let request = UnaryRequest {
        payload: payload.clone().into(),
        answer: None,
    };
    let answer = client.unary(request).await?.into_inner();
    ensure!(
        answer.payload == payload,
        "call {number} got an answer that is not its own"
    );
    Ok(())
}

/// Calls until one succeeds; what was sent into the session that has just lost its other half may fail.
async fn recovers(bridge: &Bridge, number: u32) -> Result<()> {
    let started = Instant::now();
    let mut failures = Vec::new();
    loop {
        match timeout(RECOVERY, call(bridge, number)).await {
            Ok(Ok(())) => break,
            Ok(Err(error)) => failures.push(format!("{error:#}")),
            Err(_) => failures.push("no answer".to_owned()),
        }
        ensure!(
            started.elapsed() < RECOVERY,
            "no call succeeds within {RECOVERY:?}: {failures:?}"
        );
    }
    let took = started.elapsed();
    ensure!(took < RECOVERY, "it took {took:?}: {failures:?}");
    eprintln!("the next call succeeded after {took:?}; before it: {failures:?}");
    Ok(())
}

async fn set_back_within_a_session(guest: &Guest, bridge: &Bridge) -> Result<()> {
    let states = Snapshots::of(guest).await?;
    for number in 0..20 {
        call(bridge, number).await?;
    }
    states.save("early").await?;
    // What the guest is about to forget.
    for number in 20..40 {
        call(bridge, number).await?;
    }
    states.set_back("early").await?;
    recovers(bridge, 40).await.context("after the first time")?;
    // The same state again, which knows neither of the sessions since.
    for number in 41..60 {
        call(bridge, number).await?;
    }
    states.set_back("early").await?;
    recovers(bridge, 60)
        .await
        .context("after the second time")?;
    for number in 61..80 {
        call(bridge, number).await?;
    }
    Ok(())
}

async fn set_back_into_another_bridges_session() -> Result<()> {
    let guest = Guest::boot(1).await?;
    let states = Snapshots::of(&guest).await?;
    let mut bridge = Bridge::start([guest.seat(NAME)]).await?;
    bridge.ready(NAME).await?;
    call(&bridge, 0).await?;
    states.save("first").await?;
    bridge.kill9().await?;
    bridge.start_again().await?;
    recovers(&bridge, 1).await?;
    // The guest believes itself in the session with the first bridge again.
    states.set_back("first").await?;
    recovers(&bridge, 2).await
}

fn main() -> ExitCode {
    let mut suite = Suite::new(|| async { Ok(()) });
    suite.test(
        "a_guest_that_is_set_back_within_a_session_starts_anew",
        |_: Arc<()>| async {
            let guest = Guest::boot(1).await?;
            let bridge = Bridge::start([guest.seat(NAME)]).await?;
            bridge.ready(NAME).await?;
            set_back_within_a_session(&guest, &bridge).await
        },
    );
    suite.test(
        "a_guest_that_is_set_back_into_another_bridges_session_starts_anew",
        |_: Arc<()>| set_back_into_another_bridges_session(),
    );
    suite.main()
}
