//! Pods wanted, from a folder of Pod files.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use sidestep_contract::{Leave, Policy, RawSockets, file, istio_init, keys};
use thiserror::Error;

use crate::{
    pods::{
        Source, Step,
        wanted::{Entry, Place, PodName, PodUid, Wanted, name_servers},
    },
    rules::Allowed,
};

/// How long a file may take to be written, from its first byte to its last.
const HALF_WRITTEN: Duration = Duration::from_millis(200);

/// Why a file cannot be used.
#[derive(Debug, Error)]
pub enum SourceError {
    /// It cannot be read.
    #[error("{path}: {error}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It does not parse.
    #[error("{path}: {error}")]
    Parse {
        /// Which.
        path: PathBuf,
        /// Where and why.
        error: file::FileError,
    },
    /// It holds nothing. Most likely somebody is writing it.
    #[error("{0}: holds no Pod; remove the file if none is wanted")]
    Empty(PathBuf),
    /// A field that the agent needs is missing.
    #[error("{path}: pod {pod}: {field} is missing: {hint}")]
    Missing {
        /// Which file.
        path: PathBuf,
        /// Which pod.
        pod: String,
        /// Which field.
        field: String,
        /// What it is for.
        hint: &'static str,
    },
    /// A field has an impossible value.
    #[error("{path}: pod {pod}: {reason}")]
    Policy {
        /// Which file.
        path: PathBuf,
        /// Which pod.
        pod: PodName,
        /// What the contract says: flag and value.
        reason: Box<Leave>,
    },
    /// Two files, or two documents of one, say different things about one pod.
    #[error("{path}: pod {pod} is also in {other}")]
    Twice {
        /// The second.
        path: PathBuf,
        /// Which pod.
        pod: PodName,
        /// The first.
        other: PathBuf,
    },
}

/// The pods of a folder, and what is wrong with its files. Files that cannot be used leave the others alone.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Every pod, with its file.
    pub pods: BTreeMap<PodName, (PathBuf, Entry)>,
    /// Every file with an error.
    pub errors: Vec<(PathBuf, SourceError)>,
}

/// Reads a folder. Only the folder itself failing is an error; files are judged one by one.
pub fn read(folder: &Path) -> Result<Snapshot, SourceError> {
    let io = |error| SourceError::Io {
        path: folder.to_owned(),
        error,
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let known = path.extension().and_then(|e| e.to_str());
        if known.is_some_and(|e| matches!(e, "yaml" | "yml" | "json")) {
            paths.push(path);
        }
    }
    paths.sort();
    let mut snapshot = Snapshot::default();
    for path in paths {
        if let Err(error) = snapshot.add(&path) {
            snapshot.errors.push((path, error));
        }
    }
    Ok(snapshot)
}

impl Snapshot {
    /// Every pod and what is said of it.
    pub fn entries(&self) -> impl Iterator<Item = (&PodName, &Entry)> {
        self.pods.iter().map(|(name, (_, entry))| (name, entry))
    }

    /// Adds a file's pods, all or none.
    fn add(&mut self, path: &Path) -> Result<(), SourceError> {
        let text = fs::read_to_string(path).map_err(|error| SourceError::Io {
            path: path.to_owned(),
            error,
        })?;
        let pods = file::pods_from_str(&text).map_err(|error| SourceError::Parse {
            path: path.to_owned(),
            error,
        })?;
        if pods.is_empty() {
            return Err(SourceError::Empty(path.to_owned()));
        }
        let mut new = BTreeMap::new();
        for pod in &pods {
            let (name, entry) = entry(path, pod)?;
            let first = self.pods.get(&name).map(|(other, _)| other.as_path());
            let twice = new.contains_key(&name).then_some(path);
            if let Some(other) = first.or(twice) {
                return Err(SourceError::Twice {
                    path: path.to_owned(),
                    pod: name,
                    other: other.to_owned(),
                });
            }
            new.insert(name, (path.to_owned(), entry));
        }
        self.pods.append(&mut new);
        Ok(())
    }
}

fn entry(path: &Path, pod: &Pod) -> Result<(PodName, Entry), SourceError> {
    let missing = |pod: &str, field: &str, hint| SourceError::Missing {
        path: path.to_owned(),
        pod: pod.to_owned(),
        field: field.to_owned(),
        hint,
    };
    let name = pod
        .metadata
        .name
        .clone()
        .ok_or_else(|| missing("(without a name)", "metadata.name", "it tells pods apart"))?;
    let namespace = pod.metadata.namespace.clone();
    let name = PodName {
        namespace: namespace.unwrap_or_else(|| "default".to_owned()),
        name,
    };
    let policy = match Policy::from_pod(pod) {
        // Who writes the file knows the pod, and it may be armed already: nothing else redirects it then.
        Err(Leave::MayForward { .. }) => istio_init(pod).and_then(|init| init.policy),
        policy => policy,
    };
    let policy = match policy {
        Ok(policy) => policy,
        // Istio itself would fail the pod: a mistake to be shown, not a choice to be respected.
        Err(reason) if is_mistake(&reason) => {
            return Err(SourceError::Policy {
                path: path.to_owned(),
                pod: name,
                reason: Box::new(reason),
            });
        }
        Err(leave) => return Ok((name, Err(leave.into()))),
    };
    let annotations = pod.metadata.annotations.as_ref();
    let netns = annotations.and_then(|a| a.get(keys::NETNS)).cloned();
    let netns = netns.filter(|n| !n.is_empty()).ok_or_else(|| {
        let field = format!("annotation {}", keys::NETNS);
        missing(
            &name.to_string(),
            &field,
            "the name of its network namespace under /run/netns, or a path",
        )
    })?;
    Ok((
        name,
        Ok(Wanted {
            place: Place::Named(netns),
            policy,
            allowed: Allowed::of(pod),
            raw_sockets: RawSockets::of(pod),
            name_servers: name_servers(pod),
            addresses: Vec::new(),
            ended: false,
        }),
    ))
}

/// Whether Istio itself would fail on it, rather than the pod being one that Sidestep does not take.
fn is_mistake(reason: &Leave) -> bool {
    matches!(
        reason,
        Leave::UnknownFlag { .. }
            | Leave::BadSyntax { .. }
            | Leave::MissingValue { .. }
            | Leave::BadValue { .. }
    )
}

/// A folder of Pod files, and the pods that they told of last.
pub(crate) struct Folder {
    path: PathBuf,
    /// Of a file that cannot be used any more, what it said before.
    last_good: Snapshot,
    errors: Vec<String>,
}

impl Folder {
    pub(crate) const fn new(path: PathBuf, first: Snapshot) -> Self {
        Self {
            path,
            last_good: first,
            errors: Vec::new(),
        }
    }

    fn read(&self) -> Result<Snapshot, SourceError> {
        let first = read(&self.path)?;
        let mut known = self.last_good.pods.keys();
        if known.all(|name| first.pods.contains_key(name)) {
            return Ok(first);
        }
        // A pod that is not there may be in a file that is half written: disarming is not to be done by mistake.
        thread::sleep(HALF_WRITTEN);
        read(&self.path)
    }
}

impl Source for Folder {
    type Change = ();

    /// Reads the folder again. A file that cannot be used any more leaves its pods as they were.
    fn take(&mut self, (): ()) -> Step {
        let mut snapshot = match self.read() {
            Ok(snapshot) => snapshot,
            Err(error) => {
                self.errors = vec![error.to_string()];
                return Step::Nothing;
            }
        };
        self.errors = snapshot.errors.iter().map(|(_, e)| e.to_string()).collect();
        for error in &self.errors {
            tracing::warn!(%error, "could not read a Pod file; its pods stay as they were");
        }
        for (path, _) in &snapshot.errors {
            for (name, pod) in &self.last_good.pods {
                if pod.0 == *path && !snapshot.pods.contains_key(name) {
                    snapshot.pods.insert(name.clone(), pod.clone());
                }
            }
        }
        self.last_good = snapshot;
        Step::Everything
    }

    fn entries(&self) -> impl Iterator<Item = (&PodName, &Entry)> {
        self.last_good.entries()
    }

    fn entry(&self, name: &PodName) -> Option<&Entry> {
        self.last_good.pods.get(name).map(|(_, entry)| entry)
    }

    fn uid(&self, _: &PodName) -> Option<&PodUid> {
        None
    }

    fn errors(&self) -> Vec<String> {
        self.errors.clone()
    }
}
