//! Tests of [`super`].

use super::{
    Output::{Stderr, Stdout},
    *,
};

const ALL: usize = usize::MAX;

fn piece(output: Output, offset: u64, data: &[u8], dropped: u64) -> Option<Piece> {
    Some(Piece {
        output,
        offset,
        data: data.to_vec(),
        dropped,
    })
}

#[test]
fn each_reader_gets_every_byte_once() {
    let mut ring = Ring::new(8, Full::Hold);
    ring.push(Stdout, b"abc");
    let one = ring.attach([None, None]).unwrap();
    let two = ring.attach([Some(2), None]).unwrap();
    assert_eq!(ring.next(one, 2), piece(Stdout, 0, b"ab", 0));
    assert_eq!(ring.next(one, ALL), piece(Stdout, 2, b"c", 0));
    assert_eq!(ring.next(one, ALL), None);
    assert_eq!(ring.next(two, ALL), piece(Stdout, 2, b"c", 0));
}

#[test]
fn a_full_ring_holds_until_every_reader_has_taken_bytes() {
    let mut ring = Ring::new(4, Full::Hold);
    ring.push(Stdout, b"abcd");
    assert_eq!(ring.room(), 0, "nobody has taken anything");
    let fast = ring.attach([None, None]).unwrap();
    let slow = ring.attach([None, None]).unwrap();
    ring.next(fast, ALL);
    assert_eq!(ring.room(), 0, "one has not");
    ring.next(slow, 3);
    assert_eq!(ring.room(), 3);
    ring.push(Stdout, b"ef");
    assert_eq!((ring.kept_from(Stdout), ring.written(Stdout)), (2, 6));
    assert_eq!(ring.next(slow, ALL), piece(Stdout, 3, b"def", 0));
    assert_eq!(ring.next(fast, ALL), piece(Stdout, 4, b"ef", 0));
}

#[test]
fn both_outputs_share_the_bound_and_a_reader_has_them_in_turns() {
    let mut ring = Ring::new(8, Full::Hold);
    let reader = ring.attach([None, None]).unwrap();
    ring.push(Stdout, b"abcd");
    ring.push(Stderr, b"1234");
    assert_eq!(ring.room(), 0);
    assert_eq!(ring.next(reader, 2), piece(Stdout, 0, b"ab", 0));
    assert_eq!(ring.next(reader, 3), piece(Stderr, 0, b"123", 0));
    assert_eq!(ring.next(reader, 2), piece(Stdout, 2, b"cd", 0));
    assert_eq!(ring.room(), 7);
    ring.push(Stderr, b"5678xy");
    assert_eq!((ring.kept_from(Stdout), ring.kept_from(Stderr)), (4, 2));
}

#[test]
fn what_the_last_call_was_handed_last_counts_as_not_taken_when_it_leaves() {
    let mut ring = Ring::new(8, Full::Hold);
    let reader = ring.attach([None, None]).unwrap();
    ring.push(Stdout, b"abcdefgh");
    ring.next(reader, ALL);
    assert_eq!(ring.room(), 8);
    ring.detach(reader, false);
    assert_eq!(ring.room(), 4, "half of the bound is unsure");
    ring.push(Stdout, b"ijkl");
    assert_eq!(ring.room(), 0);
    let reader = ring.attach([Some(4), None]).unwrap();
    assert_eq!(ring.next(reader, ALL), piece(Stdout, 4, b"efghijkl", 0));
    ring.detach(reader, true);
    assert_eq!(ring.room(), 8);
}

#[test]
fn the_oldest_bytes_go_if_asked_for_and_who_is_behind_is_told() {
    let mut ring = Ring::new(4, Full::DropOldest);
    let reader = ring.attach([None, None]).unwrap();
    ring.push(Stdout, b"abcd");
    assert_eq!(ring.next(reader, 1), piece(Stdout, 0, b"a", 0));
    ring.push(Stdout, b"efg");
    assert_eq!(ring.next(reader, ALL), piece(Stdout, 3, b"defg", 2));
    ring.push(Stderr, b"1234");
    assert_eq!(ring.kept_from(Stdout), 7);
    assert_eq!(ring.next(reader, ALL), piece(Stderr, 0, b"1234", 0));
}

#[test]
fn the_first_bytes_stay_if_asked_for_and_the_others_are_counted() {
    let mut ring = Ring::new(4, Full::DropNewest);
    let reader = ring.attach([None, None]).unwrap();
    ring.push(Stdout, b"abc");
    ring.push(Stdout, b"def");
    ring.push(Stdout, b"ghi");
    ring.push(Stderr, b"1234");
    assert_eq!(ring.next(reader, ALL), piece(Stdout, 0, b"abcd", 0));
    assert_eq!(ring.next(reader, ALL), piece(Stderr, 0, b"1234", 0));
    assert_eq!(ring.next(reader, ALL), None);
    assert_eq!(ring.next_cut(reader), piece(Stdout, 9, b"", 5));
    assert_eq!(ring.next_cut(reader), None);
    assert_eq!(ring.contents(Stdout), (b"abcd".to_vec(), 5));
}

#[test]
fn nobody_reads_what_is_gone_or_was_never_written() {
    let mut ring = Ring::new(4, Full::DropOldest);
    ring.push(Stderr, b"abcd");
    ring.push(Stderr, b"ef");
    let lost = AttachError::Lost(Stderr, 2);
    assert_eq!(ring.attach([None, Some(1)]), Err(lost));
    let ahead = AttachError::Ahead(Stderr, 6);
    assert_eq!(ring.attach([None, Some(7)]), Err(ahead));
    assert!(ring.attach([Some(0), Some(6)]).is_ok());
    assert_eq!(ring.readers(), 1);
}

#[test]
fn what_comes_after_the_end_may_go_beyond_the_bound() {
    let mut ring = Ring::new(4, Full::Hold);
    ring.push(Stdout, b"abcd");
    ring.push(Stdout, b"ef");
    let reader = ring.attach([Some(0), None]).unwrap();
    assert_eq!(ring.next(reader, ALL), piece(Stdout, 0, b"abcdef", 0));
}

proptest::proptest! {
    #[test]
    fn no_order_of_writes_and_reads_loses_doubles_or_exceeds(
        steps in proptest::collection::vec((0..3_u8, 0..40_usize), 1..200)
    ) {
        let mut ring = Ring::new(64, Full::Hold);
        let mut reader = ring.attach([None, None]).unwrap();
        let (mut written, mut read) = (Vec::new(), Vec::new());
        for (step, size) in steps {
            match step {
                0 => {
                    let size = size.min(ring.room());
                    let from = written.len();
                    let bytes: Vec<u8> = (from..from + size).map(|n| n.to_le_bytes()[0]).collect();
                    ring.push(Stdout, &bytes);
                    written.extend(bytes);
                }
                1 => if let Some(piece) = ring.next(reader, size) {
                    assert_eq!((piece.offset, piece.dropped), (len(&read), 0));
                    read.extend(piece.data);
                },
                // The link is lost, and the caller comes back for what it has not had.
                _ => {
                    ring.detach(reader, false);
                    reader = ring.attach([Some(len(&read)), None]).unwrap();
                }
            }
            assert!(ring.len() <= 64);
        }
        while let Some(piece) = ring.next(reader, ALL) {
            read.extend(piece.data);
        }
        assert!(written == read);
    }
}
