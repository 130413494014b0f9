//! The QEMU guest agent's answers are never mixed up.

use bridge_host::channel::ProtocolError;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::agent::{Agent, SHORT, hasty, patient};

#[tokio::test]
async fn stale_bytes_are_dropped_up_to_the_answer_to_the_sync() {
    let agent = Agent::new();
    let qga = agent.qga(patient());
    let play = async {
        let mut peer = agent.accept().await;
        peer.says("turn\": \"half\"}\n{\"return\": 1}\n").await;
        // An earlier client's sync, and a line that is too long.
        peer.answers(b"\xff", json!({ "return": 77 })).await;
        peer.says([&b"\xff"[..], &vec![b'x'; 2 << 20], b"\n"].concat())
            .await;
        peer.synced().await;
        assert_eq!(peer.command().await, json!({"execute": "guest-ping"}));
        peer.answers(b"", json!({"return": {}})).await;
        let command = peer.command().await;
        assert_eq!(command["arguments"], json!({"path": "/nothing"}));
        let error = json!({"class": "GenericError", "desc": "no such file"});
        peer.answers(b"", json!({ "error": error })).await;
    };
    let ask = async {
        qga.connect().await.unwrap();
        qga.ping().await.unwrap();
        let error = qga
            .execute("guest-file-open", json!({"path": "/nothing"}))
            .await;
        let error = error.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the agent answers with an error (GenericError): no such file"
        );
    };
    tokio::join!(play, ask);
}

#[tokio::test]
async fn a_late_answer_of_the_guest_agent_is_never_taken_for_the_next_commands() {
    let agent = Agent::new();
    let qga = agent.qga(patient());
    let (connected, mut peer) = tokio::join!(qga.connect(), async {
        let mut peer = agent.accept().await;
        peer.synced().await;
        peer
    });
    connected.unwrap();
    let slow = timeout(SHORT, qga.execute("guest-slow", Value::Null)).await;
    assert!(slow.is_err(), "{slow:?}");
    let play = async {
        assert_eq!(peer.command().await["execute"], "guest-slow");
        let id = peer.sync().await;
        peer.answers(b"", json!({"return": "slow"})).await;
        peer.answers(b"\xff", json!({ "return": id })).await;
        assert_eq!(peer.command().await["execute"], "guest-fast");
        peer.answers(b"", json!({"return": "fast"})).await;
        // It is in order: no other sync.
        assert_eq!(peer.command().await["execute"], "guest-again");
        peer.answers(b"", json!({"return": "again"})).await;
        peer
    };
    let ask = async {
        for command in ["fast", "again"] {
            let answer = qga.execute(&format!("guest-{command}"), Value::Null).await;
            assert_eq!(answer.unwrap(), command);
        }
    };
    let (mut peer, ()) = tokio::join!(play, ask);
    // One that is dropped, and one that does not answer, are followed by a sync as well.
    tokio::select! {
        biased;
        _ = qga.execute("guest-dropped", Value::Null) => unreachable!(),
        line = peer.command() => assert_eq!(line["execute"], "guest-dropped"),
    }
    let play = async {
        peer.answers(b"", json!({"return": "dropped"})).await;
        peer.synced().await;
        assert_eq!(peer.command().await["arguments"], json!({"mode": "reboot"}));
        peer.answers(
            b"",
            json!({"error": {"class": "GenericError", "desc": "no"}}),
        )
        .await;
        peer.synced().await;
        peer.command().await;
        peer.answers(b"", json!({"return": "last"})).await;
    };
    let ask = async {
        let arguments = json!({"mode": "reboot"});
        qga.execute_unanswered("guest-shutdown", arguments)
            .await
            .unwrap();
        let answer = qga.execute("guest-last", Value::Null).await.unwrap();
        assert_eq!(answer, "last");
    };
    tokio::join!(play, ask);
}

#[tokio::test]
async fn the_guest_agents_commands_are_listed_by_whether_they_may_be_used() {
    let agent = Agent::new();
    let qga = agent.qga(patient());
    let play = async {
        let mut peer = agent.accept().await;
        peer.synced().await;
        peer.command().await;
        let commands = json!([
            {"name": "guest-ping", "enabled": true, "success-response": true},
            {"name": "guest-exec", "enabled": false, "success-response": true},
            {"name": "guest-shutdown", "enabled": true, "success-response": false},
            {"name": "guest-info", "enabled": true},
        ]);
        let info = json!({"version": "7.2.0", "supported_commands": commands});
        peer.answers(b"", json!({ "return": info })).await;
    };
    let ask = async {
        qga.connect().await.unwrap();
        let info = qga.info().await.unwrap();
        assert_eq!(info.version, "7.2.0");
        let enabled: Vec<_> = info.enabled().collect();
        assert_eq!(enabled, ["guest-ping", "guest-shutdown", "guest-info"]);
        assert!(!info.commands[2].success_response && info.commands[3].success_response);
    };
    tokio::join!(play, ask);
}

#[tokio::test]
async fn a_guest_agent_that_answers_nonsense_is_synced_anew() {
    let agent = Agent::new();
    let qga = agent.qga(patient());
    let play = async {
        let mut peer = agent.accept().await;
        peer.synced().await;
        peer.command().await;
        peer.says("{\"result\": 1}\n").await;
        peer.synced().await;
        peer.command().await;
        peer.answers(b"", json!({"return": 2})).await;
    };
    let ask = async {
        qga.connect().await.unwrap();
        let error = qga.execute("guest-one", Value::Null).await.unwrap_err();
        assert!(matches!(error, ProtocolError::ParseError(_)), "{error}");
        assert_eq!(qga.execute("guest-two", Value::Null).await.unwrap(), 2);
    };
    tokio::join!(play, ask);
}

#[tokio::test]
async fn a_guest_agent_that_does_not_answer_is_told_as_such() {
    let agent = Agent::new();
    let qga = agent.qga(hasty());
    let (connected, peer) = tokio::join!(qga.connect(), agent.accept());
    let error = connected.unwrap_err().to_string();
    assert!(error.contains("its agent may not run"), "{error}");
    drop(peer);
    let error = qga.ping().await.unwrap_err();
    assert!(!matches!(error, ProtocolError::Timeout { .. }), "{error}");
}
