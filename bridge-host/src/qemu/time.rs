//! `Time`: the guest's clock. The agent sets the hardware clock whenever it is given a time.

use std::sync::Arc;

use prost_types::{Duration, Timestamp};
use serde_json::{Value, json};
use tonic::Status;
use vbridge_api::guest::v1 as api;

use super::{
    agent::Agent,
    refusal::{cannot_field, invalid},
};

const NANOS: i64 = 1_000_000_000;

/// How far the clock may be from what it was set to, in seconds, and yet have been set: the agent answers only when the
/// hardware clock's program has ended.
const SET: i64 = 30;

pub(super) async fn get(
    agent: Arc<Agent>,
    _: api::TimeGetRequest,
) -> Result<api::TimeGetResponse, Status> {
    Ok(api::TimeGetResponse {
        time: Some(timestamp(now(&agent).await?)),
        ..api::TimeGetResponse::default()
    })
}

pub(super) async fn get_offset(
    agent: Arc<Agent>,
    request: api::TimeGetOffsetRequest,
) -> Result<api::TimeGetOffsetResponse, Status> {
    let caller = nanos("caller_time", request.caller_time)?
        .ok_or_else(|| invalid("caller_time", "must be set"))?;
    let guest = now(&agent).await?;
    // Both are numbers of 64 bits whose difference may be one more.
    let offset = i128::from(guest) - i128::from(caller);
    let part = |part: i128| i64::try_from(part).unwrap_or(i64::MAX);
    Ok(api::TimeGetOffsetResponse {
        guest_time: Some(timestamp(guest)),
        offset: Some(Duration {
            seconds: part(offset / i128::from(NANOS)),
            nanos: i32::try_from(offset % i128::from(NANOS)).unwrap_or(0),
        }),
    })
}

pub(super) async fn set(
    agent: Arc<Agent>,
    request: api::TimeSetRequest,
) -> Result<api::TimeSetResponse, Status> {
    let wanted = nanos("time", request.time)?;
    if wanted.is_some_and(|wanted| wanted < 0) {
        return Err(invalid("time", "must not be before 1970"));
    }
    if request.keep_hardware_clock && wanted.is_some() {
        let why = "always sets the hardware clock as well";
        return Err(cannot_field("keep_hardware_clock", why));
    }
    let before = now(&agent).await?;
    let arguments = match wanted {
        Some(time) => json!({ "time": time }),
        None => Value::Null,
    };
    let set = agent.tell("guest-set-time", arguments).await;
    let (hardware_clock_set, hardware_clock_error) = match &set {
        Ok(()) => (wanted.is_some(), String::new()),
        // The clock comes first, and then the hardware clock, whose failure alone is told.
        Err(failure) => match failure.said() {
            Some(said) if wanted.is_some() && said.contains("hwclock") => (false, said.to_owned()),
            _ => return Err(failure.status()),
        },
    };
    let after = now(&agent).await?;
    if let (Err(failure), Some(wanted)) = (&set, wanted)
        && (i128::from(after) - i128::from(wanted)).abs() > i128::from(SET * NANOS)
    {
        return Err(failure.status());
    }
    Ok(api::TimeSetResponse {
        before: Some(timestamp(before)),
        after: Some(timestamp(after)),
        hardware_clock_set,
        hardware_clock_error,
    })
}

/// What the clock shows, in nanoseconds since 1970.
async fn now(agent: &Agent) -> Result<i64, Status> {
    Ok(agent.ask("guest-get-time", Value::Null).await?)
}

fn timestamp(nanos: i64) -> Timestamp {
    Timestamp {
        seconds: nanos.div_euclid(NANOS),
        nanos: i32::try_from(nanos.rem_euclid(NANOS)).unwrap_or(0),
    }
}

/// A caller's time, in the field `field`.
fn nanos(field: &str, time: Option<Timestamp>) -> Result<Option<i64>, Status> {
    let Some(time) = time else {
        return Ok(None);
    };
    let is_valid = (0..1_000_000_000).contains(&time.nanos);
    let nanos = time.seconds.checked_mul(NANOS);
    let nanos = nanos.and_then(|nanos| nanos.checked_add(time.nanos.into()));
    match nanos.filter(|_| is_valid) {
        Some(nanos) => Ok(Some(nanos)),
        None => Err(invalid(
            field,
            "must be a time that 64 bits of nanoseconds since 1970 can say, with nanos of 0 to 999,999,999",
        )),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use vbridge_api::guest::v1::time_client::TimeClient;

    use super::*;
    use crate::qemu::script::{Script, no};

    fn at(seconds: i64, nanos: i32) -> Option<Timestamp> {
        Some(Timestamp { seconds, nanos })
    }

    #[tokio::test]
    async fn the_clock_is_read_with_its_nanoseconds() {
        for (nanos, expected) in [
            (json!(1_500_000_000), at(1, 500_000_000)),
            (json!(-1), at(-1, 999_999_999)),
            (json!(i64::MAX), at(9_223_372_036, 854_775_807)),
        ] {
            let script = Script::fixed([("guest-get-time", nanos)]);
            let mut client = TimeClient::new(script.serve());
            let time = client.get(api::TimeGetRequest {}).await.unwrap();
            assert_eq!(time.into_inner().time, expected);
        }
        for wrong in [json!("now"), json!(1.5), json!(u64::MAX), json!(null)] {
            let script = Script::fixed([("guest-get-time", wrong)]);
            let mut client = TimeClient::new(script.serve());
            let status = client.get(api::TimeGetRequest {}).await.unwrap_err();
            assert_eq!(status.code(), Code::Internal);
        }
    }

    #[tokio::test]
    async fn the_offset_has_one_sign_and_no_bound_that_breaks_it() {
        for (guest, caller, seconds, nanos) in [
            (500_000_000, at(1, 0), 0, -500_000_000),
            (3_500_000_000, at(1, 0), 2, 500_000_000),
            (i64::MAX, at(-9_223_372_036, 0), 18_446_744_072, 854_775_807),
        ] {
            let script = Script::fixed([("guest-get-time", json!(guest))]);
            let mut client = TimeClient::new(script.serve());
            let request = api::TimeGetOffsetRequest {
                caller_time: caller,
            };
            let answer = client.get_offset(request).await.unwrap().into_inner();
            assert_eq!(answer.offset, Some(Duration { seconds, nanos }));
        }
        let script = Script::fixed([]);
        let mut client = TimeClient::new(script.serve());
        for caller_time in [None, at(i64::MAX, 0), at(0, -1), at(0, 1_000_000_000)] {
            let request = api::TimeGetOffsetRequest { caller_time };
            let status = client.get_offset(request).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument);
        }
    }

    #[tokio::test]
    async fn a_time_is_set_and_what_the_agent_can_not_keep_is_refused() {
        let script = Script::fixed([("guest-get-time", json!(7)), ("guest-set-time", json!({}))]);
        let mut client = TimeClient::new(script.serve());
        let mut request = api::TimeSetRequest {
            time: at(2, 1),
            keep_hardware_clock: false,
        };
        let answer = client.set(request).await.unwrap().into_inner();
        assert_eq!((answer.before, answer.hardware_clock_set), (at(0, 7), true));
        assert_eq!(
            script.last("guest-set-time"),
            json!({ "time": 2_000_000_001 })
        );
        request.keep_hardware_clock = true;
        let status = client.set(request).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
        assert!(
            status.message().starts_with("keep_hardware_clock: "),
            "{status}"
        );
        request = api::TimeSetRequest::default();
        let answer = client.set(request).await.unwrap().into_inner();
        assert!(!answer.hardware_clock_set);
        assert_eq!(script.last("guest-set-time"), Value::Null);
        request.time = at(-1, 0);
        let status = client.set(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }

    #[tokio::test]
    async fn a_hardware_clock_that_was_not_set_is_told_and_a_clock_that_was_not_is_an_error() {
        for (now, expected) in [(5_000_000_000_i64, Code::Ok), (0, Code::FailedPrecondition)] {
            let script = Script::new(move |command, _| match command {
                "guest-get-time" => Ok(json!(now)),
                _ => Err(no(command, "hwclock failed to set hardware clock")),
            });
            let mut client = TimeClient::new(script.serve());
            let request = api::TimeSetRequest {
                time: at(100 + now / NANOS - if now == 0 { 0 } else { 100 }, 0),
                keep_hardware_clock: false,
            };
            match client.set(request).await {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    assert_eq!(expected, Code::Ok);
                    assert!(answer.hardware_clock_error.contains("hwclock"));
                    assert!(!answer.hardware_clock_set);
                }
                Err(status) => assert_eq!(status.code(), expected),
            }
        }
    }
}
