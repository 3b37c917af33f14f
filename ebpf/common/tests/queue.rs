//! How many messages may be unread is told from bytes alone: never too few.

use std::collections::VecDeque;

use proptest::prelude::*;
use sidestep_ebpf_common::shortcut::Queue;

/// What happens: a message of so many bytes is redirected, or so many bytes are read.
#[derive(Clone, Debug)]
enum Event {
    Message(u32),
    Read(u32),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (1..2000_u32).prop_map(Event::Message),
        Just(Event::Message(1)),
        (1..4000_u32).prop_map(Event::Read),
    ]
}

proptest! {
    #[test]
    fn never_too_few_and_none_once_all_is_read(
        events in prop::collection::vec(event(), 1..400),
        start in any::<u32>(),
    ) {
        let mut queue = Queue::EMPTY;
        (queue.bytes, queue.mark_bytes) = (start, start); // they wrap around
        let mut unread: VecDeque<u32> = VecDeque::new();
        for event in events {
            match event {
                Event::Message(bytes) => {
                    let all: u32 = unread.iter().sum();
                    let told = queue.unread(all) as usize;
                    prop_assert!(told >= unread.len(), "{told} of {}", unread.len());
                    prop_assert!(all > 0 || told == 0);
                    queue.push(bytes);
                    unread.push_back(bytes);
                }
                Event::Read(mut bytes) => {
                    while let Some(first) = unread.front_mut() {
                        if *first > bytes {
                            *first -= bytes;
                            break;
                        }
                        bytes -= *first;
                        unread.pop_front();
                    }
                }
            }
        }
    }
}

/// Four bytes count to 4 GiB; what goes beyond is counted, too.
#[test]
fn the_sum_of_what_was_redirected_is_larger_than_a_word() {
    let mut queue = Queue::EMPTY;
    let mut sum = 0_u64;
    for size in [1, u32::MAX, 7, 1 << 31, 1 << 31, u32::MAX] {
        queue.push(size);
        sum += u64::from(size);
        assert_eq!(queue.total(), sum);
    }
}

/// A reader who is always a little behind is never taken for one that is far behind.
#[test]
fn a_reader_who_follows_keeps_the_count_low() {
    let mut queue = Queue::EMPTY;
    for _ in 0..100_000 {
        // Twenty messages of a hundred bytes are always unread.
        assert!(queue.unread(2000) <= 2 * 20 + 2);
        queue.push(100);
    }
}
