//! Background tasks that work for as long as the program does: one that ends by itself is a failure, which the program must
//! not outlive.

use std::{collections::HashMap, fmt, future::pending};

use tokio::task::{Id, JoinSet};

/// The tasks of a program, each under a name. They are aborted when this is dropped.
#[derive(Debug, Default)]
pub struct Tasks {
    running: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

/// A task that ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its name.
    pub name: &'static str,
    /// Whether it panicked.
    pub panicked: bool,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, panicked } = self;
        let how = if *panicked {
            "panicked"
        } else {
            "ended by itself"
        };
        write!(f, "the task {name:?} {how}")
    }
}

impl std::error::Error for Ended {}

impl Tasks {
    /// Starts a task. To be called in a runtime.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let id = self.running.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Waits until a task ends; for ever, where there is none.
    pub async fn ended(&mut self) -> Ended {
        let (id, panicked) = match self.running.join_next_with_id().await {
            None => pending().await,
            Some(Ok((id, ()))) => (id, false),
            Some(Err(error)) => (error.id(), error.is_panic()),
        };
        Ended {
            name: self.names.remove(&id).unwrap_or("unknown"),
            panicked,
        }
    }

    /// Aborts all of them, and waits until they are gone.
    pub async fn shutdown(mut self) {
        self.running.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_is_named_and_those_that_work_on_are_not() {
        let mut tasks = Tasks::default();
        let soon = Duration::from_millis(20);
        assert!(timeout(soon, tasks.ended()).await.is_err(), "there is none");
        tasks.spawn("works on", pending());
        assert!(timeout(soon, tasks.ended()).await.is_err(), "it works");
        tasks.spawn("gives up", async {});
        let ended = tasks.ended().await;
        assert_eq!(ended.to_string(), "the task \"gives up\" ended by itself");
        tasks.spawn("has a bug", async { panic!("a bug") });
        let ended = tasks.ended().await;
        assert_eq!(ended.to_string(), "the task \"has a bug\" panicked");
        tasks.shutdown().await;
    }
}
