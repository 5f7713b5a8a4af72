//! Values that are sent from where they lie.

use larder_runtime::output_queue::LINK_BYTES_MIN;

use super::*;

/// The pieces that were sent since the last call, and where each lies.
fn pieces(bench: &mut Bench) -> Vec<(Vec<u8>, *const u8)> {
    let out = std::mem::take(&mut bench.out);
    out.pieces(0).map(|piece| (piece.to_vec(), piece.as_ptr())).collect()
}

#[test]
fn a_large_value_that_a_task_brings_is_not_copied_and_a_small_one_is() {
    let mut bench = Bench::new();
    bench.receive("get w1 w2 w3\r\n");
    let mut place = std::ptr::null();
    for (sequence, len) in [(0, 10), (1, LINK_BYTES_MIN), (2, LINK_BYTES_MIN - 1)] {
        let arrival = arrival(&vec![b'v'; len]);
        if let (1, Answered::Item(answer)) = (sequence, &arrival.answered) {
            place = answer.as_answer().value.as_ptr();
        }
        bench.connection.complete(sequence, arrival);
    }
    bench.resume();
    let sent = pieces(&mut bench);
    let lengths: Vec<usize> = sent.iter().map(|(piece, _)| piece.len()).collect();
    assert_eq!(lengths, [10, LINK_BYTES_MIN, LINK_BYTES_MIN - 1 + "END\r\n".len()]);
    assert_eq!(sent[1].1, place);
    assert!(bench.connection.is_answered());
    assert_eq!(bench.connection.load(), Load::default());
}

#[test]
fn a_large_value_of_another_core_goes_straight_to_the_output() {
    let mut bench = Bench::new();
    bench.receive("get w1\r\n");
    let value = vec![b'v'; 100_000];
    let place = value.as_ptr();
    let mut output = Output::new(&mut bench.out, 0, Some(OUTPUT_HIGH_WATER));
    let is_passed = bench.connection.complete_now(0, Ok(carried(value)), 1, 0, &mut output);
    assert!(is_passed);
    bench.resume();
    let sent = pieces(&mut bench);
    assert_eq!((sent[0].0.len(), sent[0].1), (100_000, place));
    assert_eq!(sent[1].0, b"END\r\n");
}

#[test]
fn a_value_of_a_group_that_was_cut_is_taken_back() {
    let mut bench = Bench::new();
    bench.receive("get e w1\r\nmn\r\n");
    assert_eq!(bench.sent(), format!("{DAMAGED}\r\n"));
    bench.connection.complete(0, arrival(&vec![b'v'; LINK_BYTES_MIN]));
    bench.resume();
    let sent = pieces(&mut bench);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].0, b"MN\r\n");
}
