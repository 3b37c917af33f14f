//! Room for connections. Whoever reaches a port can hold as many open as he likes, so a new one is never kept waiting: where
//! there would be too many, the oldest ends. Each has the time for itself that as many others need to come, whatever they do. A
//! client that loses one makes another.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use tokio::sync::oneshot::{self, Receiver, Sender};

/// The connections that are open.
#[derive(Debug)]
pub struct Slots {
    most: usize,
    /// Each is told by being dropped; the oldest is first.
    open: Mutex<VecDeque<Sender<()>>>,
}

impl Slots {
    /// At most this many.
    pub const fn new(most: usize) -> Self {
        Self {
            most,
            open: Mutex::new(VecDeque::new()),
        }
    }

    /// Makes room for another connection. What is returned is done when that has to make room itself.
    pub fn open(&self) -> Receiver<()> {
        let (end, ended) = oneshot::channel();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|connection| !connection.is_closed());
        while open.len() >= self.most && open.pop_front().is_some() {}
        open.push_back(end);
        ended
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    #[test]
    fn the_oldest_makes_room_unless_another_is_gone() {
        let slots = Slots::new(2);
        let is_open = |ended: &mut Receiver<()>| ended.try_recv() == Err(TryRecvError::Empty);
        let (mut first, mut second) = (slots.open(), slots.open());
        assert!(is_open(&mut first) && is_open(&mut second));
        let third = slots.open();
        assert!(!is_open(&mut first) && is_open(&mut second));
        drop(third);
        let mut fourth = slots.open();
        assert!(is_open(&mut second) && is_open(&mut fourth));
    }
}
