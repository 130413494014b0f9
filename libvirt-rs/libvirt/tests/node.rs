//! Calls about the host, of a daemon that is as strict as libvirt's QEMU driver.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use libvirt::{Connect, raw::api::ErrorNumber};
use support::{Packet, Place, error_payload, text, words};

const CONNECT_GET_URI: u32 = 110;
const AUTH_LIST: u32 = 66;
const NODE_GET_CPU_STATS: u32 = 227;
const NODE_GET_MEMORY_STATS: u32 = 228;

/// What the daemon counts.
const COUNTERS: [(&str, u64); 3] = [("kernel", 1), ("user", 2), ("idle", 1 << 40)];

/// An answer: only nothing or everything can be asked for.
fn counters(asked: u32) -> Result<Vec<u8>, Vec<u8>> {
    let count = u32::try_from(COUNTERS.len()).unwrap();
    match asked {
        0 => Ok(words(&[0, count])),
        asked if asked == count => {
            let mut answer = words(&[count]);
            for (name, value) in COUNTERS {
                answer.extend(text(name));
                answer.extend(value.to_be_bytes());
            }
            answer.extend(words(&[count]));
            Ok(answer)
        }
        _ => Err(error_payload(ErrorNumber::InvalidArg.as_raw(), 0, "strict")),
    }
}

fn answer(call: &Packet) -> Result<Vec<u8>, Vec<u8>> {
    let argument = |index: usize| {
        let word = call.payload.chunks_exact(4).nth(index).unwrap();
        u32::from_be_bytes(word.try_into().unwrap())
    };
    match call.procedure {
        // One way: nobody has to say who they are.
        AUTH_LIST => Ok(words(&[1, 0])),
        CONNECT_GET_URI => Ok(text("test:///default")),
        NODE_GET_CPU_STATS => counters(argument(1)),
        NODE_GET_MEMORY_STATS => counters(argument(0)),
        _ => Ok(Vec::new()),
    }
}

#[tokio::test]
async fn the_host_is_asked_for_as_many_counters_as_it_has() {
    let place = Place::new();
    let serving = async { place.daemon().await.serve(answer).await };
    let asking = async {
        let connecting = Connect::builder(&place.uri()).keepalive(None).open();
        let connect = connecting.await.unwrap();
        let cpu = connect.cpu_stats(-1).await.unwrap();
        let memory = connect.memory_stats(-1).await.unwrap();
        connect.close().await;
        [cpu, memory]
    };
    let (stats, ()) = tokio::join!(asking, serving);
    for stats in stats {
        let found: Vec<_> = COUNTERS.map(|(name, _)| stats.number(name)).into();
        assert_eq!(found, COUNTERS.map(|(_, value)| Some(value)));
        assert_eq!(stats.len(), COUNTERS.len());
    }
}
