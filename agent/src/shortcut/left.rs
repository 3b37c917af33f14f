//! What agents left pinned, of whatever version: turned off by writing its maps alone, and taken away once nobody's bytes are
//! in it. No program of another version is loaded, and no type of this one describes its maps.
//!
//! Every version keeps to this: an element of `SWITCHES` that is all zero allows nothing; what is not in `MEMBERS` does not
//! take part; the keys of `RECEIVERS` are socket cookies, 8 bytes; a value of `ENDS` begins with the address of a socket and
//! its cookie, 8 bytes each; the link `setsockopt` refuses what does harm to a socket in a sockhash, and so outlives its maps.

use std::{
    cell::OnceCell,
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use sidestep_ebpf_common::shortcut::SHORTCUT_ABI_VERSION;
use sidestep_kernel::any_map::AnyMap;

use super::{ShortcutError, error::file, object::Peek};

/// Between looks.
const LOOK: Duration = Duration::from_millis(5);
/// A sender that was told to redirect before the switches were off waits for the receiver's lock, or for a processor: a CPU quota
/// may keep it from one for a second. This long after they are off its message has arrived.
const IN_FLIGHT: Duration = Duration::from_secs(3);

/// The link that stays for as long as a socket may be in a sockhash.
pub(super) const GUARD: &str = "setsockopt";

/// Where the shortcut is pinned: beside interception, of which it is no part.
pub fn pins(pin: &Path) -> PathBuf {
    beside(pin, &format!("{SHORTCUT_ABI_VERSION}"))
}

fn beside(pin: &Path, version: &str) -> PathBuf {
    let mut name = pin.file_name().unwrap_or_default().to_owned();
    name.push(format!("-shortcut-v{version}"));
    pin.with_file_name(name)
}

/// Every folder in which an agent with this pin folder pinned a shortcut, of whatever version.
pub fn folders(pin: &Path) -> io::Result<Vec<PathBuf>> {
    let prefix = beside(pin, "");
    let (Some(parent), Some(prefix)) = (prefix.parent(), prefix.file_name()) else {
        return Ok(Vec::new());
    };
    let entries = match fs::read_dir(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let ours = name
            .as_encoded_bytes()
            .starts_with(prefix.as_encoded_bytes());
        if ours && entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Turns off what is pinned in a folder, at once and for every connection. Then takes it away, unless a socket still has
/// bytes that it has not read after this long, or some may be on their way to it: those would be lost. Whether nothing is left.
pub fn retire(folder: &Path, patience: Duration) -> Result<bool, ShortcutError> {
    retire_off_since(folder, Instant::now(), patience)
}

/// The same, where it was turned off at that time already.
pub(super) fn retire_off_since(
    folder: &Path,
    off: Instant,
    patience: Duration,
) -> Result<bool, ShortcutError> {
    let own = OnceCell::new();
    let peek = |sock| {
        // Without it there is something, in doubt.
        let peek = own.get_or_init(|| Peek::load().ok()).as_ref()?;
        peek.unread(sock).ok()
    };
    retire_with(folder, off, patience, &peek)
}

/// The same, with somebody who knows how many bytes the socket at an address has not read.
pub(super) fn retire_with(
    folder: &Path,
    off: Instant,
    patience: Duration,
    peek: &dyn Fn(u64) -> Option<u32>,
) -> Result<bool, ShortcutError> {
    if !folder.exists() {
        return Ok(true);
    }
    switch_off(folder).map_err(|error| file(folder, error))?;
    let began = Instant::now();
    loop {
        // Whoever was just about to be put into a sockhash is in it after this.
        thread::sleep(LOOK);
        let is_free = match sockets(folder, peek).map_err(|error| file(folder, error))? {
            Sockets::None => true,
            Sockets::Read => off.elapsed() >= IN_FLIGHT,
            Sockets::Unread => false,
        };
        if is_free {
            break;
        }
        if began.elapsed() >= patience {
            return Ok(false);
        }
    }
    let guard = folder.join(GUARD);
    let removed = pinned(folder).and_then(|mut paths| {
        paths.sort_by_key(|path| *path == guard);
        paths.iter().try_for_each(fs::remove_file)?;
        fs::remove_dir(folder)
    });
    removed.map_err(|error| file(folder, error))?;
    Ok(true)
}

/// Puts a folder out of the way of a new one, where it is found again; or takes it away.
pub(super) fn set_aside(folder: &Path) -> Result<(), ShortcutError> {
    if retire(folder, Duration::ZERO)? {
        return Ok(());
    }
    let name = |number: u32| {
        let mut name = folder.as_os_str().to_owned();
        name.push(format!("-left-{number}"));
        PathBuf::from(name)
    };
    let free = (1..=u32::MAX).map(name).find(|path| !path.exists());
    let Some(free) = free else { return Ok(()) };
    fs::rename(folder, free).map_err(|error| file(folder, error))
}

/// Whatever else of it fails, first nothing is redirected any more.
fn switch_off(folder: &Path) -> io::Result<()> {
    if let Some(switches) = map(folder, "SWITCHES")? {
        switches.zero()?;
    }
    for name in ["MEMBERS", "ADDRESSES"] {
        if let Some(map) = map(folder, name)? {
            map.clear()?;
        }
    }
    // A link ends with its pin.
    for path in pinned(folder)? {
        if !path.ends_with(GUARD) && AnyMap::open(&path)?.is_none() {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// The sockets into which bytes may have been put.
enum Sockets {
    /// There are none.
    None,
    /// They have read everything.
    Read,
    /// One has not, or nobody knows.
    Unread,
}

/// Looks at all. A socket without a record is closed on the way, but not by its owner, who may read to the end.
fn sockets(folder: &Path, peek: &dyn Fn(u64) -> Option<u32>) -> io::Result<Sockets> {
    let receivers = match map(folder, "RECEIVERS")? {
        Some(receivers) => receivers.keys()?,
        None => return Ok(Sockets::None),
    };
    if receivers.is_empty() {
        return Ok(Sockets::None);
    }
    let known = addresses(folder)?;
    let has_unread = |key: &Vec<u8>| {
        let sock = number(key, 0).and_then(|id| known.get(&id));
        sock.is_none_or(|sock| peek(*sock) != Some(0))
    };
    Ok(if receivers.iter().any(has_unread) {
        Sockets::Unread
    } else {
        Sockets::Read
    })
}

/// The addresses of the sockets that have a record, by cookie.
fn addresses(folder: &Path) -> io::Result<HashMap<u64, u64>> {
    let mut found = HashMap::new();
    if let Some(ends) = map(folder, "ENDS")? {
        for key in ends.keys()? {
            let record = ends.get(&key)?.unwrap_or_default();
            if let (Some(sock), Some(id)) = (number(&record, 0), number(&record, 1)) {
                found.insert(id, sock);
            }
        }
    }
    Ok(found)
}

/// The n-th word of 8 bytes.
fn number(bytes: &[u8], n: usize) -> Option<u64> {
    let (words, _) = bytes.as_chunks();
    words.get(n).copied().map(u64::from_ne_bytes)
}

fn map(folder: &Path, name: &str) -> io::Result<Option<AnyMap>> {
    match AnyMap::open(&folder.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        map => map,
    }
}

fn pinned(folder: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_beside_the_pin_folder_is_found() {
        let node = tempfile::tempdir().expect("a folder");
        let at = |name: &str| node.path().join(name);
        let own = format!("sidestep-shortcut-v{SHORTCUT_ABI_VERSION}");
        let left = format!("{own}-left-1");
        let want = ["sidestep-shortcut-v1", &own, &left];
        for name in want.iter().chain(&["sidestep", "sidestep2-shortcut-v1"]) {
            fs::create_dir(at(name)).expect("a new folder");
        }
        let found = folders(&at("sidestep")).expect("a folder that can be read");
        assert_eq!(found, want.map(at));
        assert!(found.contains(&pins(&at("sidestep"))));
        assert_eq!(
            folders(&at("none/sidestep")).expect("nothing"),
            [""; 0].map(at)
        );
    }
}
