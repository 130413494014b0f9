//! Everything that can go wrong with a bridge, an agent and a guest goes wrong, often, under traffic.
//!
//! How often is set by the variables of `chaos::Counts`; `VBRIDGE_CHAOS_SEED` repeats the moments of a failure.

use std::{process::ExitCode, sync::Arc};

use anyhow::Result;
use tokio::sync::Mutex;
use vbridge_tests::{
    chaos::{Counts, Story},
    suite::Suite,
};

const ONE_CPU: Counts = Counts {
    bridge_kills: 200,
    agent_kills: 50,
    stream_kills: 500,
    reboots: 5,
    pause_seconds: 60,
    garbage: 20,
    paused_reconnects: 10,
};

/// The same again, less often: what two CPUs can do differently, they do soon.
const TWO_CPUS: Counts = Counts {
    bridge_kills: 40,
    agent_kills: 10,
    stream_kills: 20,
    reboots: 1,
    pause_seconds: 35,
    garbage: 10,
    paused_reconnects: 4,
};

/// The story that is being told, with its number of CPUs. There is one guest at a time.
#[derive(Default)]
struct World {
    story: Mutex<Option<(u32, Story)>>,
}

impl World {
    async fn tell(
        &self,
        cpus: u32,
        counts: Counts,
        scene: impl AsyncFnOnce(&mut Story) -> Result<()>,
    ) -> Result<()> {
        let mut current = self.story.lock().await;
        let (_, mut story) = match current.take() {
            Some(story) if story.0 == cpus => story,
            other => {
                conclude(other);
                (cpus, Story::begin(cpus, counts.or_environment()).await?)
            }
        };
        // After a failure the next scene begins with a guest of its own.
        if let Err(error) = scene(&mut story).await {
            return Err(error.context(format!("with {cpus} CPU\n{}", story.aftermath().await)));
        }
        *current = Some((cpus, story));
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        conclude(self.story.get_mut().take());
    }
}

fn conclude(story: Option<(u32, Story)>) {
    if let Some((cpus, story)) = story {
        println!(
            "\nwith {cpus} CPU, time until the next call succeeded:\n{}",
            story.table()
        );
    }
}

fn main() -> ExitCode {
    let mut suite = Suite::new(|| async { Ok(World::default()) });
    macro_rules! scenes {
        ($($scene:ident,)*) => {
            $(suite.test(concat!("with_one_cpu_", stringify!($scene)), |world: Arc<World>| async move {
                world.tell(1, ONE_CPU, Story::$scene).await
            });)*
            $(suite.test(concat!("with_two_cpus_", stringify!($scene)), |world: Arc<World>| async move {
                world.tell(2, TWO_CPUS, Story::$scene).await
            });)*
        };
    }
    scenes! {
        the_bridge_is_killed,
        qemu_loses_the_buffers_of_the_port,
        the_agent_is_killed,
        the_guest_reboots,
        garbage_is_written_to_the_channel,
        the_bridge_reconnects_while_the_guest_is_paused,
        the_guest_pauses_and_the_bridge_knows,
        the_guest_pauses_and_nobody_tells,
    }
    suite.main()
}
