//! Which calls are made again when they fail.
//!
//! | call | made again |
//! |---|---|
//! | [`Client::ask`], [`Client::asked`], [`Client::watch`]: what changes nothing | as the [table](bridge_host::retry) has it |
//! | [`Client::order`]: what changes something | likewise, but only if [nothing of it was done](bridge_host::retry::is_undone) |
//! | any other | never |
//!
//! With `--wait` the bridge has waited for a guest that is not there: it is not asked for again. Each attempt has the whole time of
//! an answer, and metadata of its own.

use std::time::Duration;

use bridge_host::retry::{Attempts, Failed, is_absent, is_undone};
use tokio::time::{sleep, timeout};
use tonic::{Request, Response, Status};

use super::{
    super::{failure::Failure, say, units::long_time},
    Client,
};

/// What may become of a call that is made twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Twice {
    /// It does no harm.
    Harmless,
    /// It may be done twice.
    Harmful,
}

impl Client {
    /// Asks what changes nothing.
    pub(in crate::cli) async fn ask<M: Clone, T>(
        &self,
        message: M,
        call: impl AsyncFnMut(Request<M>) -> Result<Response<T>, Status>,
    ) -> Result<T, Failure> {
        let asked = self.asked(message, call).await;
        asked.map_err(|status| self.failure(&status))
    }

    /// The same, for those who make something of the status.
    pub(in crate::cli) async fn asked<M: Clone, T>(
        &self,
        message: M,
        mut call: impl AsyncFnMut(Request<M>) -> Result<Response<T>, Status>,
    ) -> Result<T, Status> {
        self.again(Twice::Harmless, async || {
            let request = self.request_in_time(message.clone());
            self.in_time(call(request)).await
        })
        .await
    }

    /// Asks for a stream, whose beginning has a time limit.
    pub(in crate::cli) async fn watch<M: Clone, T>(
        &self,
        message: M,
        mut call: impl AsyncFnMut(Request<M>) -> Result<Response<T>, Status>,
    ) -> Result<T, Failure> {
        let asked = self
            .again(Twice::Harmless, async || {
                let request = self.request(message.clone());
                self.in_time(call(request)).await
            })
            .await;
        asked.map_err(|status| self.failure(&status))
    }

    /// Has something done that must not be done twice.
    pub(in crate::cli) async fn order<M: Clone, T>(
        &self,
        message: M,
        mut call: impl AsyncFnMut(Request<M>) -> Result<Response<T>, Status>,
    ) -> Result<T, Failure> {
        let done = self
            .again(Twice::Harmful, async || {
                let request = self.request_in_time(message.clone());
                self.in_time(call(request)).await
            })
            .await;
        done.map_err(|status| self.failure(&status))
    }

    /// Makes a call until there is an answer, or a failure after which it is not made again.
    pub(in crate::cli) async fn again<T>(
        &self,
        twice: Twice,
        mut attempt: impl AsyncFnMut() -> Result<T, Status>,
    ) -> Result<T, Status> {
        let mut attempts = self.attempts();
        loop {
            let status = match attempt().await {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            match self.delay(&mut attempts, twice, &status) {
                Some(delay) => sleep(delay).await,
                None => return Err(status),
            }
        }
    }

    /// The attempts of one call.
    pub(in crate::cli) fn attempts(&self) -> Attempts {
        self.policy.attempts()
    }

    /// How long to wait after this failure before the next attempt, which it tells; none if there is none.
    pub(in crate::cli) fn delay(
        &self,
        attempts: &mut Attempts,
        twice: Twice,
        status: &Status,
    ) -> Option<Duration> {
        if twice == Twice::Harmful && !is_undone(status) || self.wait.is_some() && is_absent(status)
        {
            return None;
        }
        next(attempts, Failed::of_status(status), self.tells, || {
            self.sentence(status)
        })
    }

    /// Waits for an answer, within the time limit.
    pub(in crate::cli) async fn in_time<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Status> {
        match timeout(self.limit, call).await {
            Ok(answer) => answer.map(Response::into_inner),
            // Without a message of its own: the sentence for it says how long it was.
            Err(_) => Err(Status::deadline_exceeded("")),
        }
    }
}

/// Tells of the next attempt, if there is one; how long to wait before it.
pub(super) fn next(
    attempts: &mut Attempts,
    failed: Failed,
    tells: bool,
    sentence: impl FnOnce() -> String,
) -> Option<Duration> {
    let again = attempts.again(failed)?;
    if tells {
        say(&format!(
            "{}; trying again in {} ({} of {})",
            sentence(),
            long(again.delay),
            again.number,
            again.of
        ));
    }
    Some(again.delay)
}

/// `2s`, and `500ms` where seconds would say nothing.
fn long(delay: Duration) -> String {
    match delay.as_secs() {
        0 => humantime::format_duration(Duration::from_millis(delay.subsec_millis().into()))
            .to_string(),
        _ => long_time(delay),
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use bridge_host::retry::Policy;
    use tokio::time::Instant;
    use tonic::transport::Endpoint;

    use super::{super::Wire, *};

    /// A client whose calls are made up.
    fn client() -> Client {
        let channel = Endpoint::from_static("http://localhost").connect_lazy();
        Client {
            wire: Wire::new(channel, None),
            bridge: "127.0.0.1:7411".into(),
            guest: None,
            wait: None,
            token: None,
            name: "web".into(),
            whom: "guest \"web\"".into(),
            limit: Duration::from_secs(30),
            policy: Policy::default(),
            tells: false,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_attempt_has_the_whole_time_of_an_answer_and_the_last_failure_is_told() {
        let (client, begun) = (client(), Instant::now());
        let mut times = Vec::new();
        let asked = client.ask((), async |request: Request<()>| {
            let wanted = request.metadata().get("grpc-timeout");
            assert!(wanted.is_some(), "the other end knows how long it has");
            times.push(begun.elapsed().as_secs());
            pending::<Result<Response<()>, Status>>().await
        });
        let failure = asked.await.unwrap_err();
        assert_eq!(times, [0, 35, 70]);
        assert_eq!(begun.elapsed().as_secs(), 100);
        let sentence = failure.sentence().unwrap();
        assert!(sentence.contains("no answer within 30s"), "{sentence}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_harm_twice_has_one_attempt_when_its_time_is_over() {
        let (client, begun) = (client(), Instant::now());
        let ordered = client.order((), async |_| {
            pending::<Result<Response<()>, Status>>().await
        });
        assert!(ordered.await.is_err());
        assert_eq!(begun.elapsed().as_secs(), 30);
    }

    #[test]
    fn a_wait_is_told_in_seconds_and_a_short_one_in_less() {
        for (wait, text) in [(2_000, "2s"), (10, "10ms"), (90_000, "1m 30s"), (0, "0s")] {
            assert_eq!(long(Duration::from_millis(wait)), text);
        }
    }
}
