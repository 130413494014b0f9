//! The messages that wait for one subscriber, bounded by their number and by their bytes.

use std::collections::VecDeque;
use std::task::Waker;

use super::connection::{Message, weight};
use super::limits::{MESSAGE_BYTES, MESSAGES};
use super::procedure::Procedure;
use super::state::wake;

#[derive(Debug)]
pub(crate) struct Subscription {
    wanted: Vec<Wanted>,
    queue: VecDeque<Message>,
    /// What `queue` weighs.
    held: usize,
    capacity: usize,
    missed: u64,
    pub(crate) waker: Option<Waker>,
}

/// Messages that a subscriber wants.
#[derive(Debug)]
struct Wanted {
    program: u32,
    procedure: i32,
    /// The number that the daemon has given to the registration; it is the first word of the payload.
    callback: Option<i32>,
}

/// What a subscriber gets next.
#[derive(Debug)]
pub(crate) enum Next {
    /// So many messages were lost since the last one.
    Missed(u64),
    Message(Message),
    /// Nothing waits.
    Nothing,
}

// === impl Subscription ===

impl Subscription {
    /// Wants the messages of these procedures; at most `capacity` of them wait.
    pub(crate) fn new(procedures: &[Procedure], capacity: Option<usize>) -> Self {
        let wanted = procedures.iter().map(|procedure| Wanted {
            program: procedure.program,
            procedure: procedure.number,
            callback: None,
        });
        Self {
            wanted: wanted.collect(),
            queue: VecDeque::new(),
            held: 0,
            capacity: capacity.unwrap_or(MESSAGES).max(1),
            missed: 0,
            waker: None,
        }
    }

    /// Of this procedure's messages only those of one callback, also among those that wait.
    pub(crate) fn only(&mut self, procedure: &Procedure, callback: i32) {
        for wanted in &mut self.wanted {
            if (wanted.program, wanted.procedure) == (procedure.program, procedure.number) {
                wanted.callback = Some(callback);
            }
        }
        let mut queue = std::mem::take(&mut self.queue);
        queue.retain(|message| self.wants(message));
        self.held = queue.iter().map(of).sum();
        self.queue = queue;
    }

    /// Keeps the message if it is wanted. The oldest make room for it.
    pub(crate) fn offer(&mut self, message: &Message) {
        if !self.wants(message) {
            return;
        }
        while self.is_full_for(message) && self.pop().is_some() {
            self.missed += 1;
        }
        self.held += of(message);
        self.queue.push_back(message.clone());
        wake(&mut self.waker);
    }

    /// Takes what comes next.
    pub(crate) fn next(&mut self) -> Next {
        if self.missed > 0 {
            return Next::Missed(std::mem::take(&mut self.missed));
        }
        self.pop().map_or(Next::Nothing, Next::Message)
    }

    fn wants(&self, message: &Message) -> bool {
        self.wanted.iter().any(|wanted| {
            wanted.program == message.program
                && wanted.procedure == message.procedure
                && wanted.callback.is_none_or(|callback| {
                    message.payload.first_chunk::<4>() == Some(&callback.to_be_bytes())
                })
        })
    }

    fn is_full_for(&self, message: &Message) -> bool {
        self.queue.len() >= self.capacity || self.held + of(message) > MESSAGE_BYTES
    }

    fn pop(&mut self) -> Option<Message> {
        let message = self.queue.pop_front()?;
        self.held -= of(&message);
        Some(message)
    }
}

/// What a message weighs in its queue.
fn of(message: &Message) -> usize {
    weight(message.payload.len())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const EVENT: Procedure = Procedure::unlisted(1, 1, 318);
    const MIB: usize = 1 << 20;

    fn message(callback: i32, length: usize) -> Message {
        let mut payload = vec![0; length];
        payload[..4].copy_from_slice(&callback.to_be_bytes());
        Message {
            program: EVENT.program,
            procedure: EVENT.number,
            payload: Bytes::from(payload),
        }
    }

    fn taken(subscription: &mut Subscription) -> (u64, Vec<usize>) {
        let (mut missed, mut lengths) = (0, Vec::new());
        loop {
            match subscription.next() {
                Next::Missed(count) => missed += count,
                Next::Message(message) => lengths.push(message.payload.len()),
                Next::Nothing => return (missed, lengths),
            }
        }
    }

    #[test]
    fn large_messages_make_room_by_their_bytes_and_are_counted() {
        let mut subscription = Subscription::new(&[EVENT], Some(usize::MAX));
        for length in 1..=40 {
            subscription.offer(&message(0, length * MIB));
            assert!(subscription.held <= MESSAGE_BYTES.max(length * MIB));
        }
        // The last is larger than all that may wait, and stays alone.
        assert_eq!(taken(&mut subscription), (39, vec![40 * MIB]));
        assert_eq!(subscription.held, 0);
        // What was taken has made room.
        let lengths = [10 * MIB, 20 * MIB, MIB, 2 * MIB];
        for length in lengths {
            subscription.offer(&message(0, length));
        }
        assert_eq!(taken(&mut subscription), (1, lengths[1..].to_vec()));
    }

    #[test]
    fn small_messages_are_bounded_however_many_were_asked_for() {
        let mut subscription = Subscription::new(&[EVENT], Some(usize::MAX));
        let most = MESSAGE_BYTES / weight(4);
        let small = message(0, 4);
        for _ in 0..most + 3 {
            subscription.offer(&small);
        }
        let (missed, kept) = taken(&mut subscription);
        assert_eq!((missed, kept.len()), (3, most));
    }

    #[test]
    fn messages_of_other_callbacks_give_their_room_back() {
        let mut subscription = Subscription::new(&[EVENT], None);
        for callback in [1, 2, 1] {
            subscription.offer(&message(callback, MIB));
        }
        subscription.only(&EVENT, 2);
        assert_eq!(subscription.held, MIB);
        subscription.offer(&message(1, MIB));
        assert_eq!(taken(&mut subscription), (0, vec![MIB]));
        assert_eq!(subscription.held, 0);
    }
}
