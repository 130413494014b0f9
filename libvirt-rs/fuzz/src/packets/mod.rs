//! Packets: what a daemon may send while calls wait and streams are open.
//!
//! The input is a [story](story) of both sides: calls and streams on ours, bytes and packets on the daemon's, and where
//! the bytes are cut. It is played twice, with the bytes of each delivery at once and in small pieces. Both times a
//! [model] of the protocol says what may happen; and what happens must be the same.

mod model;
mod player;
mod story;

use crate::{
    limits::{BASE, RECEIVED},
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
    // Pieces of one byte to seven, as long as the story is short.
    let piece = 1 + input.len() % 7;
    let pieces = play(input, Player::new(start, piece));
    assert!(
        whole == pieces,
        "in pieces of {piece} bytes: {pieces:#?}\nat once: {whole:#?}"
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
    let moved = outcome.received + outcome.sent + input.len();
    let limit = BASE + 2 * libvirt::rpc::limits::READ + RECEIVED * moved;
    assert!(
        used <= limit,
        "{used} bytes of memory were used for {moved} bytes, {limit} are allowed"
    );
    outcome
}
