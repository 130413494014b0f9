//! Packets: what a daemon may send while calls wait and streams are open.
//!
//! The input is a story of both sides: what we call, send and give up, what the daemon writes, and when it
//! arrives. A model of the protocol says after each step what must have happened, to the byte: what leaves, what the
//! user is told, what is dropped, what ends the connection. The story is played twice, with the bytes of each delivery at
//! once and in small pieces, and both must come to the same.

mod model;
mod player;
mod story;
mod watch;
mod wire;

use libvirt::rpc::limits::READ;

use crate::{
    limits::{BASE, MOVED, STEP},
    memory,
};

use player::Player;

/// Plays the input, and says whether the connection has lived to its end.
///
/// # Panics
/// A promise was broken.
pub fn run(input: &[u8]) -> bool {
    let start = std::time::Instant::now();
    let whole = play(input, Player::new(start, usize::MAX));
    let piece = 1 + input.len() % 7;
    let pieces = play(input, Player::new(start, piece));
    assert!(
        whole == pieces,
        "in pieces of {piece} bytes: {pieces:?}\nat once: {whole:?}"
    );
    whole.survived()
}

/// Plays a story to its end, within the memory that it may take.
fn play(input: &[u8], mut player: Player) -> player::Outcome {
    let (outcome, used) = memory::used(|| {
        let mut story = story::Story::new(input);
        player.play(story::PROLOGUE.iter().copied());
        player.play(&mut story);
        player.end()
    });
    let player::Outcome { moved, steps, .. } = outcome;
    let limit = BASE + 2 * READ + MOVED * moved + STEP * steps;
    assert!(
        used <= limit,
        "{used} bytes of memory were used for {moved} bytes in {steps} steps, {limit} are allowed"
    );
    outcome
}
