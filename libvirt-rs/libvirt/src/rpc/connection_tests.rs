//! The state machine, packet by packet.

use super::*;
use crate::rpc::procedure::StreamDirection;

const PLAIN: Procedure = Procedure::unlisted(0x2000_8086, 1, 4);
const STREAM: Procedure = Procedure {
    stream: Some(StreamDirection::Both),
    ..Procedure::unlisted(0x2000_8086, 1, 296)
};

struct Daemon {
    connection: Connection,
}

impl Daemon {
    fn new() -> Self {
        Self {
            connection: Connection::new(Config::default()),
        }
    }

    fn call(&mut self, procedure: &Procedure) -> u32 {
        let serial = self.connection.call(procedure, b"", Vec::new());
        assert!(self.connection.poll_transmit().is_some());
        serial
    }

    fn says(
        &mut self,
        procedure: &Procedure,
        kind: Kind,
        serial: u32,
        status: Status,
        payload: &[u8],
    ) -> Option<Event> {
        let header = Header {
            program: procedure.program,
            version: procedure.version,
            procedure: procedure.number,
            kind,
            serial,
            status,
        };
        let mut input = BytesMut::from(&header.packet(0, payload)[..]);
        let event = self.connection.handle_input(&mut input).unwrap();
        assert!(input.is_empty());
        event
    }

    fn opened(&mut self) -> u32 {
        let serial = self.call(&STREAM);
        let event = self.says(&STREAM, Kind::Reply, serial, Status::Ok, b"");
        assert!(matches!(event, Some(Event::Reply { .. })));
        serial
    }

    /// What is sent next, as header.
    fn sent(&mut self) -> Option<Header> {
        let transmit = self.connection.poll_transmit()?;
        let mut bytes = BytesMut::from(&transmit.bytes[..]);
        Some(Packet::take(&mut bytes).unwrap().unwrap().header)
    }
}

#[test]
fn an_event_numbered_one_is_not_the_reply_to_call_one() {
    let mut daemon = Daemon::new();
    assert_eq!(daemon.call(&PLAIN), 1);
    let event = daemon.says(&PLAIN, Kind::Message, 1, Status::Ok, b"event");
    assert!(matches!(event, Some(Event::Message(message)) if &message.payload[..] == b"event"));
    let event = daemon.says(&PLAIN, Kind::Reply, 1, Status::Ok, b"reply");
    assert!(matches!(
        event,
        Some(Event::Reply {
            serial: 1,
            reply: Ok(_)
        })
    ));
}

#[test]
fn a_second_reply_and_one_to_nobody_are_counted_and_dropped() {
    let mut daemon = Daemon::new();
    let serial = daemon.call(&PLAIN);
    assert!(
        daemon
            .says(&PLAIN, Kind::Reply, serial, Status::Ok, b"")
            .is_some()
    );
    assert!(
        daemon
            .says(&PLAIN, Kind::Reply, serial, Status::Ok, b"")
            .is_none()
    );
    assert!(
        daemon
            .says(&PLAIN, Kind::Reply, 77, Status::Error, b"")
            .is_none()
    );
    assert!(
        daemon
            .says(&PLAIN, Kind::Stream, 77, Status::Continue, b"x")
            .is_none()
    );
    assert_eq!(daemon.connection.ignored(), 3);
}

#[test]
fn a_reply_of_another_program_is_not_taken_for_ours() {
    let mut daemon = Daemon::new();
    let serial = daemon.call(&PLAIN);
    let other = Procedure::unlisted(0x2000_8087, 1, 4);
    assert!(
        daemon
            .says(&other, Kind::Reply, serial, Status::Ok, b"")
            .is_none()
    );
    assert!(
        daemon
            .says(&PLAIN, Kind::Reply, serial, Status::Ok, b"")
            .is_some()
    );
}

#[test]
fn a_call_that_has_not_left_is_taken_back() {
    let mut daemon = Daemon::new();
    let serial = daemon.connection.call(&PLAIN, b"", Vec::new());
    assert_eq!(daemon.connection.abandon(serial), Abandoned::Unsent);
    assert!(daemon.connection.poll_transmit().is_none());
    assert_eq!(daemon.connection.unfinished(), 0);
}

#[test]
fn an_abandoned_call_keeps_its_serial_until_the_reply() {
    let mut daemon = Daemon::new();
    let serial = daemon.call(&PLAIN);
    assert_eq!(daemon.connection.abandon(serial), Abandoned::Sent);
    daemon.connection.next_serial = serial;
    assert_ne!(daemon.call(&PLAIN), serial);
    assert!(
        daemon
            .says(&PLAIN, Kind::Reply, serial, Status::Ok, b"")
            .is_some()
    );
    daemon.connection.next_serial = serial;
    assert_eq!(daemon.call(&PLAIN), serial);
    assert_eq!(daemon.connection.ignored(), 0);
}

#[test]
fn serials_wrap_without_using_zero() {
    let mut daemon = Daemon::new();
    daemon.connection.next_serial = u32::MAX;
    assert_eq!(daemon.call(&PLAIN), u32::MAX);
    assert_eq!(daemon.call(&PLAIN), 1);
}

#[test]
fn a_stream_that_nobody_waits_for_is_aborted_when_it_opens() {
    let mut daemon = Daemon::new();
    let serial = daemon.call(&STREAM);
    daemon.connection.abandon(serial);
    assert!(
        daemon
            .says(&STREAM, Kind::Stream, serial, Status::Continue, b"early")
            .is_none()
    );
    daemon.says(&STREAM, Kind::Reply, serial, Status::Ok, b"");
    let abort = daemon.sent().unwrap();
    assert_eq!(
        (abort.kind, abort.serial, abort.status),
        (Kind::Stream, serial, Status::Error)
    );
    assert!(
        daemon
            .says(&STREAM, Kind::Stream, serial, Status::Continue, b"late")
            .is_none()
    );
    let event = daemon.says(&STREAM, Kind::Stream, serial, Status::Ok, b"");
    assert!(matches!(event, Some(Event::StreamClosed { .. })));
    assert_eq!(daemon.connection.unfinished(), 0);
    assert_eq!(daemon.connection.ignored(), 0);
}

#[test]
fn data_may_come_before_the_reply_that_opens_its_stream() {
    let mut daemon = Daemon::new();
    let serial = daemon.call(&STREAM);
    let event = daemon.says(&STREAM, Kind::Stream, serial, Status::Continue, b"first");
    assert!(matches!(event, Some(Event::Data { .. })));
    daemon.says(&STREAM, Kind::Reply, serial, Status::Ok, b"");
    assert!(daemon.connection.send_data(serial, b"x"));
}

#[test]
fn an_abort_takes_back_what_has_not_left() {
    let mut daemon = Daemon::new();
    let serial = daemon.opened();
    assert!(daemon.connection.send_data(serial, b"one"));
    assert!(daemon.connection.send_data(serial, b"two"));
    daemon.connection.abort_stream(serial);
    assert_eq!(daemon.sent().unwrap().status, Status::Error);
    assert!(daemon.sent().is_none());
    assert!(!daemon.connection.send_data(serial, b"three"));
}

#[test]
fn a_finished_stream_sends_no_second_end_when_it_is_aborted() {
    let mut daemon = Daemon::new();
    let serial = daemon.opened();
    assert!(daemon.connection.finish_stream(serial));
    daemon.connection.abort_stream(serial);
    assert_eq!(daemon.sent().unwrap().status, Status::Ok);
    assert!(daemon.sent().is_none());
    assert!(
        daemon
            .says(&STREAM, Kind::Stream, serial, Status::Continue, b"late")
            .is_none()
    );
    daemon.says(&STREAM, Kind::Stream, serial, Status::Ok, b"");
    assert_eq!(daemon.connection.unfinished(), 0);
}

#[test]
fn a_streams_error_ends_it_without_an_answer() {
    let mut daemon = Daemon::new();
    let serial = daemon.opened();
    let event = daemon.says(&STREAM, Kind::Stream, serial, Status::Error, b"why");
    assert!(matches!(event, Some(Event::StreamFailed { .. })));
    assert!(daemon.sent().is_none());
    assert_eq!(daemon.connection.unfinished(), 0);
}

#[test]
fn holes_go_both_ways_and_a_wrong_one_ends_the_connection() {
    let mut daemon = Daemon::new();
    let serial = daemon.opened();
    assert!(daemon.connection.send_hole(serial, 1 << 40));
    assert_eq!(daemon.sent().unwrap().kind, Kind::StreamHole);
    let mut hole = [0; 12];
    hole[6] = 1;
    let event = daemon.says(&STREAM, Kind::StreamHole, serial, Status::Continue, &hole);
    assert!(matches!(event, Some(Event::Hole { length: 256, .. })));
    for wrong in [&[0xff; 12][..], &[0; 8], &[]] {
        let header = Header {
            program: STREAM.program,
            version: 1,
            procedure: STREAM.number,
            kind: Kind::StreamHole,
            serial,
            status: Status::Continue,
        };
        let mut input = BytesMut::from(&header.packet(0, wrong)[..]);
        assert_eq!(
            daemon.connection.handle_input(&mut input).unwrap_err(),
            ProtocolError::Hole
        );
    }
}

#[test]
fn pings_are_answered_once_however_many_wait() {
    let mut daemon = Daemon::new();
    let ping = Procedure::unlisted(keepalive::PROGRAM, 1, keepalive::PING);
    for _ in 0..3 {
        assert!(
            daemon
                .says(&ping, Kind::Message, 0, Status::Ok, b"")
                .is_none()
        );
    }
    let pong = daemon.sent().unwrap();
    assert_eq!(
        (pong.program, pong.procedure, pong.serial),
        (keepalive::PROGRAM, keepalive::PONG, 0)
    );
    assert!(daemon.sent().is_none());
}

#[test]
fn a_call_from_the_daemon_is_refused() {
    let mut daemon = Daemon::new();
    let header = Header {
        program: PLAIN.program,
        version: 1,
        procedure: 1,
        kind: Kind::Call,
        serial: 1,
        status: Status::Ok,
    };
    let mut input = BytesMut::from(&header.packet(0, b"")[..]);
    assert_eq!(
        daemon.connection.handle_input(&mut input).unwrap_err(),
        ProtocolError::Call
    );
}

#[test]
fn descriptors_wait_for_their_packet_and_their_carrier_bytes() {
    let mut daemon = Daemon::new();
    let serial = daemon.call(&PLAIN);
    let header = Header {
        program: PLAIN.program,
        version: 1,
        procedure: PLAIN.number,
        kind: Kind::ReplyWithDescriptors,
        serial,
        status: Status::Ok,
    };
    let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let mut input = BytesMut::from(&header.packet(2, b"")[..]);
    daemon.connection.handle_descriptor(null()).unwrap();
    input.extend_from_slice(&[0]);
    assert!(
        daemon
            .connection
            .handle_input(&mut input)
            .unwrap()
            .is_none()
    );
    daemon.connection.handle_descriptor(null()).unwrap();
    input.extend_from_slice(&[0]);
    let event = daemon.connection.handle_input(&mut input).unwrap();
    assert!(
        matches!(event, Some(Event::Reply { reply: Ok(reply), .. }) if reply.descriptors.len() == 2)
    );

    let serial = daemon.call(&PLAIN);
    let header = Header { serial, ..header };
    let mut input = BytesMut::from(&header.packet(1, b"")[..]);
    input.extend_from_slice(&[0]);
    assert_eq!(
        daemon.connection.handle_input(&mut input).unwrap_err(),
        ProtocolError::DescriptorsMissing
    );
}

#[test]
fn descriptors_that_nobody_announced_are_bounded() {
    let mut daemon = Daemon::new();
    let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    for _ in 0..DESCRIPTORS_WAITING {
        daemon.connection.handle_descriptor(null()).unwrap();
    }
    assert_eq!(
        daemon.connection.handle_descriptor(null()).unwrap_err(),
        ProtocolError::DescriptorsUnannounced
    );
}

#[test]
fn nothing_is_kept_when_the_connection_ends() {
    let mut daemon = Daemon::new();
    let serial = daemon.call(&PLAIN);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let end = || OwnedFd::from(writer.try_clone().unwrap());
    for _ in 0..4 {
        // The last of them waits for a reply to another.
        daemon.connection.call(&PLAIN, b"", vec![end()]);
    }
    let header = Header {
        program: PLAIN.program,
        version: PLAIN.version,
        procedure: PLAIN.number,
        kind: Kind::ReplyWithDescriptors,
        serial,
        status: Status::Ok,
    };
    let mut input = BytesMut::from(&header.packet(2, b"")[..]);
    daemon.connection.handle_descriptor(end()).unwrap();
    assert!(
        daemon
            .connection
            .handle_input(&mut input)
            .unwrap()
            .is_none()
    );
    drop(writer);
    daemon.connection.end();
    assert_eq!(std::io::Read::read(&mut reader, &mut [0]).unwrap(), 0);
    assert!(daemon.connection.poll_transmit().is_none());
    assert!(daemon.connection.incomplete.is_none());
    assert_eq!(daemon.connection.unfinished(), 0);
}

#[test]
fn the_daemon_has_so_many_calls_at_a_time_and_the_next_one_with_each_reply() {
    let mut daemon = Daemon::new();
    let serials: Vec<u32> = (0..6)
        .map(|_| daemon.connection.call(&PLAIN, b"", Vec::new()))
        .collect();
    for serial in &serials[..4] {
        assert_eq!(daemon.sent().unwrap().serial, *serial);
    }
    assert!(daemon.sent().is_none());
    daemon.says(&PLAIN, Kind::Reply, serials[2], Status::Ok, b"");
    assert_eq!(daemon.sent().unwrap().serial, serials[4]);
    assert!(daemon.sent().is_none());
    daemon.says(&PLAIN, Kind::Reply, serials[0], Status::Error, b"");
    assert_eq!(daemon.sent().unwrap().serial, serials[5]);
    assert!(daemon.sent().is_none());
}

#[test]
fn a_call_that_is_given_up_makes_room_only_when_the_daemon_does_not_have_it() {
    let mut daemon = Daemon::new();
    let sent: Vec<u32> = (0..3).map(|_| daemon.call(&PLAIN)).collect();
    let queued = daemon.connection.call(&PLAIN, b"", Vec::new());
    let held: Vec<u32> = (0..2)
        .map(|_| daemon.connection.call(&PLAIN, b"", Vec::new()))
        .collect();
    assert_eq!(daemon.connection.abandon(sent[0]), Abandoned::Sent);
    assert_eq!(daemon.connection.abandon(held[0]), Abandoned::Unsent);
    assert_eq!(daemon.sent().unwrap().serial, queued);
    assert!(daemon.sent().is_none(), "the abandoned call still counts");
    daemon.says(&PLAIN, Kind::Reply, sent[0], Status::Ok, b"");
    assert_eq!(daemon.sent().unwrap().serial, held[1]);
    assert!(daemon.sent().is_none());
}

#[test]
fn a_farewell_passes_calls_that_are_held_back() {
    let mut daemon = Daemon::new();
    for _ in 0..4 {
        daemon.call(&PLAIN);
    }
    let held = daemon.connection.call(&PLAIN, b"", Vec::new());
    daemon.connection.call_past_others(&PLAIN);
    assert_eq!(daemon.sent().unwrap().serial, held + 1);
    assert!(daemon.sent().is_none());
}

#[test]
fn calls_that_cancel_others_pass_them_one_at_a_time() {
    static CANCELLING: [Procedure; 1] = [Procedure::unlisted(0x2000_8086, 1, 164)];
    let cancel = &CANCELLING[0];
    let mut daemon = Daemon::new();
    daemon.connection.let_pass(&CANCELLING);
    let sent: Vec<u32> = (0..4).map(|_| daemon.call(&PLAIN)).collect();
    let held = daemon.connection.call(&PLAIN, b"", Vec::new());
    let cancels: Vec<u32> = (0..3)
        .map(|_| daemon.connection.call(cancel, b"", Vec::new()))
        .collect();
    assert_eq!(daemon.sent().unwrap().serial, cancels[0]);
    assert!(daemon.sent().is_none(), "one at a time");
    // One that waits can be taken back; one that the daemon has holds up the next until its reply.
    assert_eq!(daemon.connection.abandon(cancels[1]), Abandoned::Unsent);
    assert_eq!(daemon.connection.abandon(cancels[0]), Abandoned::Sent);
    assert!(daemon.sent().is_none());
    daemon.says(cancel, Kind::Reply, cancels[0], Status::Ok, b"");
    assert_eq!(daemon.sent().unwrap().serial, cancels[2]);
    assert!(daemon.sent().is_none());
    // It has taken a place, which the others get back with its reply.
    daemon.says(&PLAIN, Kind::Reply, sent[0], Status::Ok, b"");
    assert!(daemon.sent().is_none());
    daemon.says(cancel, Kind::Reply, cancels[2], Status::Ok, b"");
    assert_eq!(daemon.sent().unwrap().serial, held);
}

#[test]
fn a_hole_that_is_refused_ends_its_stream() {
    let mut daemon = Daemon::new();
    let serial = daemon.opened();
    assert!(daemon.connection.send_hole(serial, 1));
    // The refusal is a reply, since a hole is no data.
    let event = daemon.says(&STREAM, Kind::Reply, serial, Status::Error, b"no");
    assert!(
        matches!(event, Some(Event::StreamFailed { serial: of, error }) if of == serial && &error[..] == b"no")
    );
    assert!(!daemon.connection.send_data(serial, b"more"));
    assert_eq!(daemon.connection.unfinished(), 0);
    assert_eq!(daemon.connection.ignored(), 0);
}

#[test]
fn a_stream_may_fail_before_the_reply_that_opens_it() {
    let mut daemon = Daemon::new();
    let serial = daemon.call(&STREAM);
    let event = daemon.says(&STREAM, Kind::Stream, serial, Status::Error, b"no");
    assert!(matches!(event, Some(Event::StreamFailed { .. })));
    let event = daemon.says(&STREAM, Kind::Reply, serial, Status::Ok, b"");
    assert!(matches!(event, Some(Event::Reply { reply: Ok(_), .. })));
    assert!(!daemon.connection.send_data(serial, b"more"));
    assert!(!daemon.connection.finish_stream(serial));
    assert_eq!(daemon.connection.unfinished(), 0);
}
