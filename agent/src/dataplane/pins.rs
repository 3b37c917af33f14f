//! What is pinned for pods: an inbound link each, in a folder of each version.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sidestep_kernel::{
    link::{Link, LinkError, pin_error},
    netns::Cookie,
};

/// The namespaces that live and have an inbound link pinned, whatever version of the agent pinned it.
pub fn pinned_pods(pin: &Path) -> Result<Vec<Cookie>, LinkError> {
    let mut living = Vec::new();
    for version in entries(pin)? {
        let pods = living_pods(&version)?.into_iter();
        living.extend(pods.map(|(cookie, _)| cookie));
    }
    living.sort_unstable();
    Ok(living)
}

/// The same with their links, of one version's folder.
pub(super) fn living_pods(version: &Path) -> Result<Vec<(Cookie, Link)>, LinkError> {
    let mut living = Vec::new();
    for path in entries(&version.join("pods"))? {
        if let Some(cookie) = cookie(&path)
            && let Some(link) = Link::open(&path)?
            && link.target()?.is_some()
        {
            living.push((cookie, link));
        }
    }
    Ok(living)
}

/// The namespace that an inbound link's pin is named after.
pub(super) fn cookie(path: &Path) -> Option<Cookie> {
    path.file_name()?.to_str()?.parse().ok()
}

/// What is in a folder; nothing where there is none.
pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>, LinkError> {
    let failed = |error| pin_error(folder, error);
    match fs::read_dir(folder) {
        Err(error)
            if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(failed(error)),
        Ok(entries) => entries
            .map(|entry| entry.map(|entry| entry.path()).map_err(failed))
            .collect(),
    }
}

/// Removes a folder and what is pinned in it, if it is there.
pub(super) fn remove_folder(folder: &Path) -> Result<(), LinkError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(pin_error(folder, error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_holds_nothing_and_one_that_cannot_be_read_is_an_error() {
        assert!(entries(Path::new("/nowhere/pods")).is_ok_and(|all| all.is_empty()));
        assert!(entries(Path::new("/proc/self/exe/\0")).is_err());
    }
}
