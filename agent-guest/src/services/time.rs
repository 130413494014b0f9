//! `vbridge.guest.v1.Time`: the guest's wall clock.
//!
//! A guest that was paused, or set back to a snapshot, has a clock that is behind. Whoever has resumed it sets it right.

use std::sync::Arc;

use prost_types::Timestamp;
use tokio::sync::Mutex;
use tonic::{Request, Response, Status};
use vbridge_api::guest::v1::{
    TimeGetOffsetRequest, TimeGetOffsetResponse, TimeGetRequest, TimeGetResponse, TimeSetRequest,
    TimeSetResponse, time_server,
};

use super::aside;
use crate::{
    error::{self, Reason},
    source::{Reader, clock, program},
};

/// Sets the hardware clock from the wall clock (hwclock(8), of util-linux and of busybox).
const HWCLOCK: [&str; 2] = ["hwclock", "-w"];

/// What may be set. Others set nothing.
pub(crate) trait Clocks: Send + Sync + 'static {
    /// Sets the wall clock.
    fn set(&self, time: &Timestamp) -> Result<(), rustix::io::Errno>;

    /// Sets the hardware clock from the wall clock.
    fn set_hardware(&self) -> Result<(), String>;
}

/// The guest's own.
#[derive(Debug)]
pub(crate) struct System;

impl Clocks for System {
    fn set(&self, time: &Timestamp) -> Result<(), rustix::io::Errno> {
        clock::set(time)
    }

    fn set_hardware(&self) -> Result<(), String> {
        let [hwclock, option] = HWCLOCK;
        program::run_alone(hwclock, [option])
    }
}

/// The service.
pub(crate) struct Time {
    clocks: Arc<dyn Clocks>,
    /// The hardware clock is read and set by one call at a time each: at most two threads wait for a driver that does not
    /// answer.
    reading: Arc<Mutex<()>>,
    setting: Arc<Mutex<()>>,
}

impl Time {
    pub(crate) fn new(clocks: impl Clocks) -> Self {
        Self {
            clocks: Arc::new(clocks),
            reading: Arc::default(),
            setting: Arc::default(),
        }
    }

    /// What the hardware clock shows. Its driver may take its time.
    async fn hardware(&self) -> Result<Option<Timestamp>, Status> {
        let turn = Arc::clone(&self.reading).lock_owned().await;
        aside(move || {
            // Until it is done, even if the caller has gone.
            let _turn = turn;
            clock::hardware(&mut Reader::new())
        })
        .await
    }

    /// Sets the hardware clock from the wall clock.
    async fn set_hardware(&self) -> Result<Result<(), String>, Status> {
        let turn = Arc::clone(&self.setting).lock_owned().await;
        let clocks = Arc::clone(&self.clocks);
        aside(move || {
            let _turn = turn;
            clocks.set_hardware()
        })
        .await
    }
}

#[tonic::async_trait]
impl time_server::Time for Time {
    async fn get(&self, _: Request<TimeGetRequest>) -> Result<Response<TimeGetResponse>, Status> {
        let hardware_time = self.hardware().await?;
        Ok(Response::new(TimeGetResponse {
            time: Some(clock::now()),
            hardware_time,
            uptime: Some(clock::uptime()),
        }))
    }

    async fn set(
        &self,
        request: Request<TimeSetRequest>,
    ) -> Result<Response<TimeSetResponse>, Status> {
        let request = request.into_inner();
        let time = match request.time {
            Some(time) if clock::is_valid(&time) => time,
            Some(_) => {
                let description =
                    "must lie between 1970 and 9999, with 0 to 999,999,999 nanoseconds";
                return Err(error::invalid_field("time", description));
            }
            None => self.hardware().await?.ok_or_else(no_hardware)?,
        };
        // The hardware clock is where the time has come from.
        let keep = request.keep_hardware_clock || request.time.is_none();
        // At once: after a wait the time would not be right any more.
        let before = clock::now();
        self.clocks.set(&time).map_err(refused)?;
        let after = clock::now();
        let hardware = match keep {
            true => None,
            false => Some(self.set_hardware().await?),
        };
        Ok(Response::new(TimeSetResponse {
            before: Some(before),
            after: Some(after),
            hardware_clock_set: matches!(hardware, Some(Ok(()))),
            hardware_clock_error: hardware.and_then(Result::err).unwrap_or_default(),
        }))
    }

    async fn get_offset(
        &self,
        request: Request<TimeGetOffsetRequest>,
    ) -> Result<Response<TimeGetOffsetResponse>, Status> {
        let guest = clock::now();
        let caller = request.into_inner().caller_time;
        let caller = caller
            .filter(clock::is_valid)
            .ok_or_else(|| error::invalid_field("caller_time", "must be the caller's time"))?;
        Ok(Response::new(TimeGetOffsetResponse {
            guest_time: Some(guest),
            offset: Some(clock::difference(&guest, &caller)),
        }))
    }
}

fn refused(error: rustix::io::Errno) -> Status {
    let reason = match error {
        rustix::io::Errno::PERM => Reason::PermissionDenied,
        _ => Reason::KernelRefused,
    };
    error::failure(
        reason,
        format!("the kernel refuses to set the clock: {error}"),
    )
}

fn no_hardware() -> Status {
    error::failure(
        Reason::Unsupported,
        "the guest has no hardware clock to take the time from: say which time it is",
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use rustix::io::Errno;
    use time_server::Time as _;
    use tonic::Code;

    use super::*;

    /// Clocks that only remember what they were told.
    struct Told(Arc<Mutex<Vec<String>>>, Result<(), Errno>);

    impl Clocks for Told {
        fn set(&self, time: &Timestamp) -> Result<(), Errno> {
            let told = format!("wall {}.{:09}", time.seconds, time.nanos);
            self.0.lock().unwrap().push(told);
            self.1
        }

        fn set_hardware(&self) -> Result<(), String> {
            self.0.lock().unwrap().push("hardware".to_owned());
            Err("there is none".to_owned())
        }
    }

    fn service(answer: Result<(), Errno>) -> (Time, Arc<Mutex<Vec<String>>>) {
        let told = Arc::default();
        (Time::new(Told(Arc::clone(&told), answer)), told)
    }

    fn at(seconds: i64, nanos: i32) -> TimeSetRequest {
        TimeSetRequest {
            time: Some(Timestamp { seconds, nanos }),
            keep_hardware_clock: false,
        }
    }

    #[tokio::test]
    async fn both_clocks_are_set_and_the_one_that_was_not_is_told() {
        let (service, told) = service(Ok(()));
        let request = Request::new(at(1_700_000_000, 5));
        let answer = service.set(request).await.unwrap().into_inner();
        assert!(!answer.hardware_clock_set);
        assert_eq!(answer.hardware_clock_error, "there is none");
        let keep = TimeSetRequest {
            keep_hardware_clock: true,
            ..at(1_700_000_001, 0)
        };
        let answer = service.set(Request::new(keep)).await.unwrap().into_inner();
        assert_eq!(answer.hardware_clock_error, "");
        let told = told.lock().unwrap();
        assert_eq!(
            *told,
            [
                "wall 1700000000.000000005",
                "hardware",
                "wall 1700000001.000000000"
            ]
        );
    }

    #[tokio::test]
    async fn a_time_that_is_none_sets_nothing() {
        let (service, told) = service(Ok(()));
        for (seconds, nanos) in [(-1, 0), (0, -1), (0, 1_000_000_000), (i64::MAX, 0)] {
            let status = service.set(Request::new(at(seconds, nanos))).await;
            assert_eq!(status.unwrap_err().code(), Code::InvalidArgument);
        }
        assert!(told.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_kernel_that_refuses_is_quoted() {
        let (service, _) = service(Err(Errno::PERM));
        let status = service.set(Request::new(at(0, 0))).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
        assert!(status.message().contains("not permitted"), "{status}");
    }

    #[tokio::test]
    async fn the_offset_is_positive_where_the_guest_is_ahead() {
        let (service, _) = service(Ok(()));
        let mut caller_time = clock::now();
        caller_time.seconds -= 100;
        let request = TimeGetOffsetRequest {
            caller_time: Some(caller_time),
        };
        let answer = service.get_offset(Request::new(request)).await.unwrap();
        let offset = answer.into_inner().offset.unwrap();
        assert!((100..110).contains(&offset.seconds), "{offset:?}");
        let status = service
            .get_offset(Request::new(TimeGetOffsetRequest::default()))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }
}
