//! Calls about the host, of a daemon that is as strict as libvirt's QEMU driver.

use libvirt::Connect;

use crate::script::{Answer, Scripted, as_words, text, words};

const NODE_GET_CPU_STATS: u32 = 227;
const NODE_GET_MEMORY_STATS: u32 = 228;

/// What the daemon counts.
const COUNTERS: [(&str, u64); 3] = [("kernel", 1), ("user", 2), ("idle", 1 << 40)];

/// Only nothing or everything can be asked for.
fn counters(asked: u32) -> Answer {
    let count = u32::try_from(COUNTERS.len()).unwrap();
    match asked {
        0 => Answer::Say(words(&[0, count])),
        asked if asked == count => {
            let mut answer = words(&[count]);
            for (name, value) in COUNTERS {
                answer.extend(text(name));
                answer.extend(value.to_be_bytes());
            }
            answer.extend(words(&[count]));
            Answer::Say(answer)
        }
        _ => Answer::Refuse,
    }
}

#[tokio::test]
async fn the_host_is_asked_for_as_many_counters_as_it_has() {
    let daemon = Scripted::unix(|procedure, arguments| match procedure {
        NODE_GET_CPU_STATS => counters(as_words(arguments)[1]),
        NODE_GET_MEMORY_STATS => counters(as_words(arguments)[0]),
        _ => Answer::Usual,
    });
    let builder = Connect::builder(&daemon.uri).keepalive(None);
    let connect = builder.open().await.unwrap();
    let cpu = connect.cpu_stats(-1).await.unwrap();
    let memory = connect.memory_stats(-1).await.unwrap();
    for stats in [cpu, memory] {
        let found: Vec<_> = COUNTERS.map(|(name, _)| stats.number(name)).into();
        assert_eq!(found, COUNTERS.map(|(_, value)| Some(value)));
        assert_eq!(stats.len(), COUNTERS.len());
    }
    connect.close().await;
}
