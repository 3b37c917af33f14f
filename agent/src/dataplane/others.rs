//! Versions of Sidestep whose maps have another layout, and that were here before this one or after it. Each keeps the network
//! namespaces that its agent armed, until they end: its programs and this version's are attached beside each other, and each
//! returns early for a namespace that is not in its own maps. What is pinned of it is held, pinned again where that is lost,
//! and taken away when the last of its namespaces is gone.
//!
//! Every version keeps to this: a folder `v` and a number, in it `links`, `maps` and `pods`; in `pods` a namespace's inbound
//! link by its cookie; a namespace is armed if `PODS` has a record of it, whose key begins with the cookie, 8 bytes.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

use sidestep_kernel::{
    any_map::AnyMap,
    link::{Link, LinkError, pin_error},
    netns::Cookie,
};

use super::{Repairs, pins};

/// All of them that have namespaces.
#[derive(Debug, Default)]
pub(super) struct Others {
    versions: Vec<Version>,
}

#[derive(Debug)]
struct Version {
    folder: PathBuf,
    /// Links to the pods' cgroup, and maps: held by a descriptor, they outlive their pins.
    shared: Vec<Link>,
    /// Inbound links of armed namespaces that live.
    pods: HashMap<Cookie, Link>,
    /// Namespaces that have a record and no such link. Whether they live nobody can tell: they are nobody else's as long as the
    /// version is there.
    doubtful: HashSet<Cookie>,
}

impl Others {
    /// Takes those in the folder of pins that are not `own`. One without namespaces goes at once.
    pub(super) fn take(pin: &Path, own: &Path) -> Result<Self, LinkError> {
        let mut versions = Vec::new();
        for folder in pins::entries(pin)? {
            if folder == own || !is_version(&folder) {
                continue;
            }
            let version = Version::take(folder)?;
            if version.pods.is_empty() {
                version.remove()?;
            } else {
                tracing::info!(
                    folder = %version.folder.display(), pods = version.pods.len(),
                    "another version keeps the pods that it captures until they end"
                );
                versions.push(version);
            }
        }
        Ok(Self { versions })
    }

    /// The version that captures a namespace, by its folder's name, and what is wrong with that.
    pub(super) fn keeper(&self, pod: Cookie) -> Option<String> {
        let mut versions = self.versions.iter();
        versions.find_map(|version| version.keeps(pod))
    }

    /// How many namespaces each captures.
    pub(super) fn count(&self) -> impl Iterator<Item = (&str, usize)> {
        let versions = self.versions.iter();
        versions.map(|version| (version.name(), version.pods.len()))
    }

    /// Pins what lost its pin, and lets go of namespaces that have ended.
    pub(super) fn look_after(&mut self, done: &mut Repairs) {
        for version in &mut self.versions {
            version.look_after(done);
        }
        for ended in self.versions.extract_if(.., |it| it.pods.is_empty()) {
            done.note(ended.remove().map_err(Into::into));
        }
    }
}

impl Version {
    fn take(folder: PathBuf) -> Result<Self, LinkError> {
        let records = armed(&folder.join("maps/PODS"));
        let mut pods = HashMap::new();
        for (cookie, link) in pins::living_pods(&folder)? {
            // An agent that died before it wrote the record has armed nothing. In doubt it has.
            if records.as_ref().is_none_or(|all| all.contains(&cookie)) {
                pods.insert(cookie, link);
            } else {
                link.remove()?;
            }
        }
        let doubtful = records.unwrap_or_default().into_iter();
        let doubtful = doubtful.filter(|cookie| !pods.contains_key(cookie));
        let mut shared = Vec::new();
        for sub in ["links", "maps"] {
            for path in pins::entries(&folder.join(sub))? {
                shared.extend(Link::open(&path)?);
            }
        }
        Ok(Self {
            doubtful: doubtful.collect(),
            folder,
            shared,
            pods,
        })
    }

    fn keeps(&self, pod: Cookie) -> Option<String> {
        if self.pods.contains_key(&pod) {
            Some(self.name().to_owned())
        } else if self.doubtful.contains(&pod) {
            Some(format!(
                "{}, whose inbound link is gone: replace the pod",
                self.name()
            ))
        } else {
            None
        }
    }

    fn name(&self) -> &str {
        let name = self.folder.file_name().and_then(|name| name.to_str());
        name.unwrap_or_default()
    }

    fn look_after(&mut self, done: &mut Repairs) {
        let mut ended = HashSet::new();
        for (pod, link) in &self.pods {
            match link.target() {
                Ok(None) => drop(ended.insert(*pod)),
                Ok(Some(_)) => {}
                Err(error) => done.errors.push(error.into()),
            }
        }
        self.pods.retain(|pod, _| !ended.contains(pod));
        if self.pods.is_empty() {
            return;
        }
        for link in self.shared.iter().chain(self.pods.values()) {
            let folder = link.path().parent().unwrap_or(link.path());
            let made = fs::create_dir_all(folder).map_err(|error| pin_error(folder, error));
            match made.and_then(|()| link.repin()) {
                Ok(true) => done
                    .restored
                    .push(format!("pin {} of another version", link.path().display())),
                Ok(false) => {}
                Err(error) => done.errors.push(error.into()),
            }
        }
    }

    /// Links and maps end with their pins and descriptors.
    fn remove(self) -> Result<(), LinkError> {
        pins::remove_folder(&self.folder)?;
        tracing::info!(folder = %self.folder.display(), "removed another version's programs; no pod depends on them");
        Ok(())
    }
}

/// The namespaces that have a record; `None` where that cannot be read.
fn armed(records: &Path) -> Option<HashSet<Cookie>> {
    let keys = AnyMap::open(records).ok()??.keys().ok()?;
    let cookies = keys.iter().filter_map(|key| key.first_chunk());
    Some(cookies.copied().map(Cookie::from_ne_bytes).collect())
}

/// Whether a folder is a version's: `v` and a number.
fn is_version(folder: &Path) -> bool {
    let name = folder.file_name().and_then(|name| name.to_str());
    let number = name.and_then(|name| name.strip_prefix('v'));
    number.is_some_and(|number| number.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_versions_folder_is_told_from_others() {
        for version in ["/pins/v1", "/pins/v999"] {
            assert!(is_version(Path::new(version)), "{version}");
        }
        for other in ["rehearsal", "v", "vx", "1", "v1-shortcut"] {
            assert!(!is_version(&Path::new("/pins").join(other)), "{other}");
        }
    }
}
