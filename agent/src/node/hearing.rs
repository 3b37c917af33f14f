//! Sightings on their way to the agent's thread. They are hints, and a pod can make as many of them as it likes: only so many
//! wait, what comes on top is counted and made up for by a look at every pod that waits, and whatever else the thread is
//! told has its turn between them.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, SyncSender, TrySendError, sync_channel},
    },
};

use sidestep_ebpf_common::Sighting;
use tokio::{runtime::Handle, task::JoinHandle};

use super::Message;
use crate::{
    dataplane::{Missed, Sightings},
    metrics::Metrics,
};

/// Most that wait.
const WAITING: usize = 1024;
/// Most that are taken at once.
const AT_ONCE: usize = 64;

/// The thread's end.
pub(super) struct Hearing {
    sightings: Receiver<Sighting>,
    without_execs: Option<String>,
    missed: Missed,
    known_missed: u64,
    state: Arc<State>,
    metrics: Metrics,
    task: JoinHandle<()>,
}

/// What both ends know.
#[derive(Debug, Default)]
struct State {
    /// The thread was told that something waits, and has not looked yet.
    told: AtomicBool,
    lost: AtomicBool,
    /// Why nothing is heard any more.
    ended: Mutex<Option<String>>,
}

/// The other end.
struct Ear {
    sightings: SyncSender<Sighting>,
    state: Arc<State>,
    messages: Sender<Message>,
    metrics: Metrics,
}

/// Some of what waits.
pub(super) struct Heard {
    pub(super) sightings: Vec<Sighting>,
    /// Some were lost since the last time.
    pub(super) lost: bool,
    /// There is more: to be asked for again, behind what else waits.
    pub(super) more: bool,
}

impl Hearing {
    /// Begins to listen. The thread gets a [`Message::Seen`] when there is something to take.
    pub(super) fn start(
        runtime: &Handle,
        sightings: Sightings,
        messages: Sender<Message>,
        metrics: Metrics,
    ) -> Self {
        let without_execs = sightings.without_execs().map(|error| {
            format!("sightings: no starts of programs ({error}): new pods are found when they use their network")
        });
        if let Some(why) = &without_execs {
            tracing::warn!(why, "pods are armed later than they could be");
        }
        let missed = sightings.missed();
        let (ear, receiver) = ear(messages, metrics.clone());
        let state = Arc::clone(&ear.state);
        Self {
            sightings: receiver,
            without_execs,
            known_missed: missed.count(),
            missed,
            state,
            metrics,
            task: runtime.spawn(listen(sightings, ear)),
        }
    }

    /// Takes what was heard, as much as is taken at once.
    pub(super) fn take(&self) -> Heard {
        self.state.take(&self.sightings)
    }

    /// Whether sightings were lost in the kernel since the last time, or none is heard any more: to be asked now and then.
    pub(super) fn is_hard_of(&mut self) -> bool {
        let missed = self.missed.count();
        let more = missed.saturating_sub(self.known_missed);
        self.known_missed = missed.max(self.known_missed);
        self.metrics.sightings_lost(more);
        more > 0 || self.ended().is_some()
    }

    /// Why nothing is heard any more, if that is so.
    fn ended(&self) -> Option<String> {
        let ended = self.state.ended.lock();
        ended.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is less than it should be, for people.
    pub(super) fn weakness(&self) -> Option<String> {
        let ended = self.ended().map(|error| {
            format!(
                "sightings: they ended ({error}): new pods are found by a look every few seconds"
            )
        });
        ended.or_else(|| self.without_execs.clone())
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl State {
    fn take(&self, receiver: &Receiver<Sighting>) -> Heard {
        // First: of what comes from here on the thread is told again.
        self.told.store(false, Ordering::SeqCst);
        let sightings: Vec<_> = receiver.try_iter().take(AT_ONCE).collect();
        let full = sightings.len() == AT_ONCE;
        Heard {
            lost: self.lost.swap(false, Ordering::SeqCst),
            more: full && !self.told.swap(true, Ordering::SeqCst),
            sightings,
        }
    }
}

fn ear(messages: Sender<Message>, metrics: Metrics) -> (Ear, Receiver<Sighting>) {
    let (sender, receiver) = sync_channel(WAITING);
    metrics.hears(true);
    let ear = Ear {
        sightings: sender,
        state: Arc::default(),
        messages,
        metrics,
    };
    (ear, receiver)
}

impl Ear {
    /// Whether anybody still listens.
    fn hear(&self, sighting: Sighting) -> bool {
        match self.sightings.try_send(sighting) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                self.metrics.sightings_lost(1);
                self.state.lost.store(true, Ordering::SeqCst);
            }
            Err(TrySendError::Disconnected(_)) => return false,
        }
        self.state.told.swap(true, Ordering::SeqCst) || self.messages.send(Message::Seen).is_ok()
    }

    fn end(&self, error: &io::Error) {
        tracing::error!(%error, "namespaces are no longer heard of; waiting pods are looked for at every check");
        self.metrics.hears(false);
        let ended = self.state.ended.lock();
        *ended.unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
    }
}

/// Hands on what programs tell.
async fn listen(mut sightings: Sightings, ear: Ear) {
    loop {
        match sightings.next().await {
            Ok(sighting) if ear.hear(sighting) => {}
            Ok(_) => return,
            Err(error) => return ear.end(&error),
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

    #[test]
    fn a_flood_is_one_message_and_what_does_not_fit_is_told_as_lost() {
        let (messages, inbox) = channel();
        let (ear, receiver) = ear(messages, Metrics::default());
        let flood = u64::try_from(WAITING * 3).expect("a number");
        for cookie in 0..flood {
            assert!(ear.hear(sighting(cookie)));
        }
        assert_eq!(inbox.try_iter().count(), 1);

        let (mut taken, mut rounds) = (0, 0);
        loop {
            let heard = ear.state.take(&receiver);
            assert!(heard.sightings.len() <= AT_ONCE);
            assert_eq!(heard.lost, rounds == 0, "told once");
            taken += heard.sightings.len();
            rounds += 1;
            if !heard.more {
                break;
            }
        }
        assert_eq!((taken, rounds), (WAITING, WAITING / AT_ONCE + 1));
        assert_eq!(inbox.try_iter().count(), 0);
    }

    #[test]
    fn what_comes_after_the_thread_has_looked_is_told_again() {
        let (messages, inbox) = channel();
        let (ear, receiver) = ear(messages, Metrics::default());
        for cookie in 1..4 {
            ear.hear(sighting(cookie));
            assert_eq!(inbox.try_iter().count(), 1);
            let heard = ear.state.take(&receiver);
            assert_eq!(heard.sightings, [sighting(cookie)]);
            assert!(!heard.more && !heard.lost);
        }
    }

    #[test]
    fn who_hears_for_nobody_stops() {
        let (messages, _inbox) = channel();
        let (ear, receiver) = ear(messages, Metrics::default());
        drop(receiver);
        assert!(!ear.hear(sighting(1)));
    }
}
