//! Sightings on their way to the agent's thread. They are hints, and a pod can make as many of them as it likes: only so many
//! wait, what comes on top is counted and made up for by a look at every pod that waits, and whatever else the thread is
//! told has its turn between them.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
};

use sidestep_ebpf_common::Sighting;
use tokio::{runtime::Handle, task::JoinHandle};

use crate::{
    dataplane::{Missed, Sightings},
    metrics::Metrics,
};

/// Most that wait.
const WAITING: usize = 1024;
/// Most that are taken at once.
const AT_ONCE: usize = 64;

/// The thread's end.
pub(crate) struct SightingQueue {
    sightings: Receiver<Sighting>,
    without_execs: Option<String>,
    missed: Missed,
    known_missed: u64,
    state: Arc<State>,
    metrics: Metrics,
    task: JoinHandle<()>,
}

/// What both ends know.
struct State {
    /// Tells the thread that something waits; whether there still is a thread.
    wake: Box<dyn Fn() -> bool + Send + Sync>,
    /// The thread was told, and has not looked yet.
    told: AtomicBool,
    lost: AtomicBool,
    /// Why there are no more sightings.
    ended: Mutex<Option<String>>,
}

/// The other end.
struct Sender {
    sightings: SyncSender<Sighting>,
    state: Arc<State>,
    metrics: Metrics,
}

/// Some of what waits.
pub(crate) struct Taken {
    pub(crate) sightings: Vec<Sighting>,
    /// Some were lost since the last time.
    pub(crate) lost: bool,
}

impl SightingQueue {
    /// Begins to read sightings. `wake` is called when there is something to take, and tells whether anybody still takes it.
    pub(crate) fn start(
        runtime: &Handle,
        sightings: Sightings,
        wake: impl Fn() -> bool + Send + Sync + 'static,
        metrics: Metrics,
    ) -> Self {
        let without_execs = sightings.without_execs().map(|error| {
            format!("sightings: no starts of programs ({error}): new pods are found when they use their network")
        });
        if let Some(why) = &without_execs {
            tracing::warn!(
                why,
                "starts of programs are not reported; pods are armed later"
            );
        }
        let missed = sightings.missed();
        let (sender, receiver) = queue(wake, metrics.clone());
        let state = Arc::clone(&sender.state);
        Self {
            sightings: receiver,
            without_execs,
            known_missed: missed.count(),
            missed,
            state,
            metrics,
            task: runtime.spawn(forward(sightings, sender)),
        }
    }

    /// Takes what waits, as much as is taken at once.
    pub(crate) fn take(&self) -> Taken {
        self.state.take(&self.sightings)
    }

    /// Whether sightings were lost in the kernel since the last time, or there are no more: to be asked now and then.
    pub(crate) fn lost_any(&mut self) -> bool {
        let missed = self.missed.count();
        let more = missed.saturating_sub(self.known_missed);
        self.known_missed = missed.max(self.known_missed);
        self.metrics.sightings_lost(more);
        more > 0 || self.ended().is_some()
    }

    /// Why there are no more, if that is so.
    fn ended(&self) -> Option<String> {
        let ended = self.state.ended.lock();
        ended.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is less than it should be, for people.
    pub(crate) fn weakness(&self) -> Option<String> {
        let ended = self.ended().map(|error| {
            format!(
                "sightings: they ended ({error}): new pods are found by a look every few seconds"
            )
        });
        ended.or_else(|| self.without_execs.clone())
    }
}

impl Drop for SightingQueue {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl State {
    fn take(&self, receiver: &Receiver<Sighting>) -> Taken {
        // First: of what comes from here on the thread is told again.
        self.told.store(false, Ordering::SeqCst);
        let sightings: Vec<_> = receiver.try_iter().take(AT_ONCE).collect();
        if sightings.len() == AT_ONCE {
            // There may be more: to be taken behind what else waits.
            self.tell();
        }
        Taken {
            lost: self.lost.swap(false, Ordering::SeqCst),
            sightings,
        }
    }

    /// Tells the thread that something waits, once until it looks; whether there still is a thread.
    fn tell(&self) -> bool {
        self.told.swap(true, Ordering::SeqCst) || (self.wake)()
    }
}

fn queue(
    wake: impl Fn() -> bool + Send + Sync + 'static,
    metrics: Metrics,
) -> (Sender, Receiver<Sighting>) {
    let (sender, receiver) = sync_channel(WAITING);
    metrics.hears(true);
    let state = State {
        wake: Box::new(wake),
        told: AtomicBool::default(),
        lost: AtomicBool::default(),
        ended: Mutex::default(),
    };
    let sender = Sender {
        sightings: sender,
        state: Arc::new(state),
        metrics,
    };
    (sender, receiver)
}

impl Sender {
    /// Whether anybody still takes sightings.
    fn send(&self, sighting: Sighting) -> bool {
        match self.sightings.try_send(sighting) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                self.metrics.sightings_lost(1);
                self.state.lost.store(true, Ordering::SeqCst);
            }
            Err(TrySendError::Disconnected(_)) => return false,
        }
        self.state.tell()
    }

    fn end(&self, error: &io::Error) {
        tracing::error!(%error, "sighting stream closed; polling for waiting pods");
        self.metrics.hears(false);
        let ended = self.state.ended.lock();
        *ended.unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
    }
}

/// Hands on what programs tell.
async fn forward(mut sightings: Sightings, sender: Sender) {
    loop {
        match sightings.next().await {
            Ok(sighting) if sender.send(sighting) => {}
            Ok(_) => return,
            Err(error) => return sender.end(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    fn sighting(cookie: u64) -> Sighting {
        Sighting {
            cookie,
            ..Sighting::default()
        }
    }

    fn queue() -> (Sender, Receiver<Sighting>, Receiver<()>) {
        let (messages, inbox) = channel();
        let wake = move || messages.send(()).is_ok();
        let (sender, receiver) = super::queue(wake, Metrics::default());
        (sender, receiver, inbox)
    }

    #[test]
    fn a_flood_is_one_message_and_what_does_not_fit_is_told_as_lost() {
        let (sender, receiver, inbox) = queue();
        let flood = u64::try_from(WAITING * 3).expect("a number");
        for cookie in 0..flood {
            assert!(sender.send(sighting(cookie)));
        }
        assert_eq!(inbox.try_iter().count(), 1);

        let (mut taken, mut rounds) = (0, 0);
        loop {
            let some = sender.state.take(&receiver);
            assert!(some.sightings.len() <= AT_ONCE);
            assert_eq!(some.lost, rounds == 0, "told once");
            taken += some.sightings.len();
            rounds += 1;
            if inbox.try_iter().count() == 0 {
                break;
            }
        }
        assert_eq!((taken, rounds), (WAITING, WAITING / AT_ONCE + 1));
    }

    #[test]
    fn what_comes_after_the_thread_has_looked_is_told_again() {
        let (sender, receiver, inbox) = queue();
        for cookie in 1..4 {
            sender.send(sighting(cookie));
            assert_eq!(inbox.try_iter().count(), 1);
            let taken = sender.state.take(&receiver);
            assert_eq!(taken.sightings, [sighting(cookie)]);
            assert!(!taken.lost);
            assert_eq!(inbox.try_iter().count(), 0);
        }
    }

    #[test]
    fn who_sends_to_nobody_stops() {
        let (sender, receiver, _inbox) = queue();
        drop(receiver);
        assert!(!sender.send(sighting(1)));
    }
}
