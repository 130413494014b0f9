//! `vbridge.guest.v1.Power`: the end of the guest's run, and its sleep.
//!
//! ```text
//!    call ── checked ──▶ answer ── POWER_DELAY ──▶ act, which has nobody left to tell but the log
//! ```

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::Mutex;
use tonic::{Request, Response, Status};
use vbridge_api::guest::v1::{
    PowerShutdownRequest, PowerShutdownResponse, PowerSuspendRequest, PowerSuspendResponse,
    ShutdownMode, SuspendMode, events_subscribe_response::Event, power_server,
};

use super::aside;
use crate::{
    error::{self, Reason},
    events::Bus,
    limits::POWER_DELAY,
    source::power::{Plan, Power as Source},
};

/// What may be done to the machine. Others do nothing to it.
pub(crate) trait Machine: Send + Sync + 'static {
    /// How the machine ends in this way; else why it can't.
    fn plan_shutdown(&self, mode: ShutdownMode, force: bool) -> Result<Plan, String>;

    /// How the machine goes to sleep in this way; else why it can't.
    fn plan_suspend(&self, mode: SuspendMode) -> Result<Plan, String>;

    /// Does it. An order returns soon, an act perhaps never, and sleep when it is over.
    fn carry_out(&self, plan: &Plan) -> Result<(), String>;
}

/// The guest's own. Nothing but an agent has one.
#[derive(Debug)]
pub(crate) struct System(Source);

impl System {
    pub(crate) fn new() -> Self {
        Self(Source::below("/"))
    }
}

impl Machine for System {
    fn plan_shutdown(&self, mode: ShutdownMode, force: bool) -> Result<Plan, String> {
        self.0.plan_shutdown(mode, force)
    }

    fn plan_suspend(&self, mode: SuspendMode) -> Result<Plan, String> {
        self.0.plan_suspend(mode)
    }

    fn carry_out(&self, plan: &Plan) -> Result<(), String> {
        self.0.carry_out(plan)
    }
}

/// The service.
pub(crate) struct Power {
    machine: Arc<dyn Machine>,
    events: Bus,
    /// Something is going to happen.
    is_due: Arc<AtomicBool>,
    /// One call at a time makes a plan: at most one thread waits for files that do not answer.
    planning: Arc<Mutex<()>>,
    /// What is forced is carried out one at a time, too. What is not has [`Self::is_due`].
    forcing: Arc<Mutex<()>>,
}

impl Power {
    pub(crate) fn new(machine: impl Machine, events: Bus) -> Self {
        Self {
            events,
            machine: Arc::new(machine),
            is_due: Arc::default(),
            planning: Arc::default(),
            forcing: Arc::default(),
        }
    }

    /// Makes it happen after the answer, and tells when. `what` is for those who have subscribed to events.
    async fn arrange(
        &self,
        what: &str,
        is_urgent: bool,
        plan: impl FnOnce(&dyn Machine) -> Result<Plan, String> + Send + 'static,
    ) -> Result<prost_types::Duration, Status> {
        let machine = Arc::clone(&self.machine);
        // What is forced looks at no files, and waits for nobody who does.
        let turn = match is_urgent {
            true => None,
            false => Some(Arc::clone(&self.planning).lock_owned().await),
        };
        let plan = aside(move || {
            // Until it is done, even if the caller has gone.
            let _turn = turn;
            plan(&*machine)
        });
        let plan = plan.await?;
        let plan = plan.map_err(|why| error::failure(Reason::Unsupported, why))?;
        let was_due = self.is_due.swap(true, Ordering::Relaxed);
        // What is forced comes first: the one before may be what does not get on.
        if was_due && !is_urgent {
            return Err(error::failure(
                Reason::TooMany,
                "the guest is about to shut down or to sleep already",
            ));
        }
        self.events.publish(Event::Power(what.to_owned()));
        let (machine, is_due) = (Arc::clone(&self.machine), Arc::clone(&self.is_due));
        let forcing = Arc::clone(&self.forcing);
        // Not for this call: it goes on when the caller has gone.
        tokio::spawn(async move {
            tokio::time::sleep(POWER_DELAY).await;
            let _turn = match is_urgent {
                true => Some(forcing.lock_owned().await),
                false => None,
            };
            tracing::info!("on request: {plan}");
            let done = aside(move || machine.carry_out(&plan).map_err(|why| (plan, why))).await;
            if let Ok(Err((plan, why))) = done {
                tracing::error!("failed: {plan}: {}", why.escape_debug());
            }
            is_due.store(false, Ordering::Relaxed);
        });
        // It is far below what the message can hold.
        Ok(POWER_DELAY.try_into().unwrap_or_default())
    }
}

#[tonic::async_trait]
impl power_server::Power for Power {
    async fn shutdown(
        &self,
        request: Request<PowerShutdownRequest>,
    ) -> Result<Response<PowerShutdownResponse>, Status> {
        let PowerShutdownRequest { mode, force } = request.into_inner();
        let mode = ShutdownMode::try_from(mode)
            .map_err(|_| error::invalid_field("mode", format!("{mode} is no mode of ending")))?;
        let planned = self.arrange(shutdown_name(mode), force, move |machine| {
            machine.plan_shutdown(mode, force)
        });
        let delay = Some(planned.await?);
        Ok(Response::new(PowerShutdownResponse { delay }))
    }

    async fn suspend(
        &self,
        request: Request<PowerSuspendRequest>,
    ) -> Result<Response<PowerSuspendResponse>, Status> {
        let mode = request.into_inner().mode;
        let mode = SuspendMode::try_from(mode)
            .map_err(|_| error::invalid_field("mode", format!("{mode} is no mode of sleep")))?;
        let planned = self.arrange(suspend_name(mode), false, move |machine| {
            machine.plan_suspend(mode)
        });
        let delay = Some(planned.await?);
        Ok(Response::new(PowerSuspendResponse { delay }))
    }
}

/// What those who have subscribed to events are told.
fn shutdown_name(mode: ShutdownMode) -> &'static str {
    match mode {
        ShutdownMode::Unspecified | ShutdownMode::PowerOff => "power off",
        ShutdownMode::Reboot => "reboot",
        ShutdownMode::Halt => "halt",
    }
}

/// The same of sleep.
fn suspend_name(mode: SuspendMode) -> &'static str {
    match mode {
        SuspendMode::Unspecified | SuspendMode::Ram => "suspend to ram",
        SuspendMode::Disk => "suspend to disk",
        SuspendMode::Hybrid => "suspend to ram and disk",
    }
}

#[cfg(test)]
mod tests {
    use power_server::Power as _;
    use tokio::{sync::mpsc, time::Instant};
    use tonic::Code;

    use super::*;

    /// A machine that only tells what it would do.
    struct Fake(mpsc::UnboundedSender<String>);

    impl Machine for Fake {
        fn plan_shutdown(&self, mode: ShutdownMode, force: bool) -> Result<Plan, String> {
            Ok(match force {
                true => Plan::End(mode),
                false => Plan::Run(["end", mode.as_str_name()].map(str::to_owned).to_vec()),
            })
        }

        fn plan_suspend(&self, _: SuspendMode) -> Result<Plan, String> {
            Err("there is no sleep".to_owned())
        }

        fn carry_out(&self, plan: &Plan) -> Result<(), String> {
            self.0.send(plan.to_string()).unwrap();
            Err("it does nothing".to_owned())
        }
    }

    fn service() -> (Power, mpsc::UnboundedReceiver<String>) {
        let (told, hear) = mpsc::unbounded_channel();
        (Power::new(Fake(told), Bus::new()), hear)
    }

    fn end(mode: ShutdownMode, force: bool) -> Request<PowerShutdownRequest> {
        let mode = mode.into();
        Request::new(PowerShutdownRequest { mode, force })
    }

    #[tokio::test(start_paused = true)]
    async fn it_answers_before_it_acts_and_says_by_how_much() {
        let (service, mut hear) = service();
        let start = Instant::now();
        let answer = service.shutdown(end(ShutdownMode::Reboot, false)).await;
        let delay = answer.unwrap().into_inner().delay.unwrap();
        assert_eq!(delay.nanos, 500_000_000);
        assert!(hear.try_recv().is_err() && start.elapsed() < POWER_DELAY);
        assert_eq!(hear.recv().await.unwrap(), "end SHUTDOWN_MODE_REBOOT");
        assert!(start.elapsed() >= POWER_DELAY);
    }

    #[tokio::test(start_paused = true)]
    async fn only_force_comes_before_what_is_due_already() {
        let (service, mut hear) = service();
        service
            .shutdown(end(ShutdownMode::PowerOff, false))
            .await
            .unwrap();
        let status = service.shutdown(end(ShutdownMode::Halt, false)).await;
        assert_eq!(status.unwrap_err().code(), Code::ResourceExhausted);
        service
            .shutdown(end(ShutdownMode::PowerOff, true))
            .await
            .unwrap();
        assert_eq!(hear.recv().await.unwrap(), "end SHUTDOWN_MODE_POWER_OFF");
        assert_eq!(hear.recv().await.unwrap(), "power off by the kernel alone");
        // What has failed can be asked for again.
        while service.is_due.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
        service
            .shutdown(end(ShutdownMode::Halt, false))
            .await
            .unwrap();
        assert_eq!(hear.recv().await.unwrap(), "end SHUTDOWN_MODE_HALT");
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_guest_can_not_do_is_refused_before_anything_happens() {
        let (service, mut hear) = service();
        let request = PowerSuspendRequest::default();
        let status = service.suspend(Request::new(request)).await.unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::Unimplemented, "there is no sleep")
        );
        let request = PowerShutdownRequest {
            mode: 9,
            force: true,
        };
        let status = service.shutdown(Request::new(request)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        let request = PowerSuspendRequest { mode: -1 };
        let status = service.suspend(Request::new(request)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        tokio::time::sleep(POWER_DELAY * 2).await;
        assert!(hear.try_recv().is_err());
    }
}
