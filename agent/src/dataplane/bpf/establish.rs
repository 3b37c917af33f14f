//! How the dataplane comes about: from nothing, or from what an earlier agent left pinned. In doubt a pin stays: a link
//! without one ends with the agent, and then its pod's connections go around the proxy.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use sidestep_ebpf_common::{
    ABI_VERSION, COOKIE_PLACE, KernelOffsets, SockState,
    sighting::{EVERYBODY, QuietKey},
};
use sidestep_kernel::{
    hooks::Hooks,
    link::{Link, LinkError, pin_error, remove_file},
    netns::{Cookie, host_cookie},
    object::{Object, Pins},
    storage,
    template::Template,
};

use super::Bpf;
use crate::{
    dataplane::{
        Dataplane, DataplaneError,
        hooks::{HOOKS, INBOUND},
        maps::{self, Maps},
        others::Others,
        pins,
        sightings::Sightings,
    },
    preflight::PinFolder,
    shortcut::Established,
};

/// What `build.rs` compiled from `ebpf/`.
static OBJECT: &[u8] =
    sidestep_kernel::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sidestep-ebpf"));

/// Folders of one version's pins.
const FOLDERS: [&str; 3] = ["maps", "links", "pods"];
/// Where a rehearsal pins. Not a version's folder.
const REHEARSAL: &str = "rehearsal";

impl Bpf {
    /// Whether an earlier agent left anything there.
    pub fn is_pinned(pin: &Path) -> bool {
        version_folder(pin).exists()
    }

    /// Loads the programs and attaches them to the pods' cgroup, or takes over what an earlier agent left pinned under
    /// `pin`: the maps as they are, the links with this agent's programs. Pods that depend on programs of another version
    /// keep those.
    pub fn establish(
        mut pins: PinFolder,
        cgroup: &Path,
        offsets: KernelOffsets,
    ) -> Result<Self, DataplaneError> {
        pins.claim()?;
        let pin = pins.path();
        let folder = version_folder(pin);
        let others = Others::take(pin, &folder)?;
        let fresh = !folder.exists();
        let done = Self::load_and_attach(folder.clone(), cgroup, offsets);
        if done.is_err() && fresh {
            // Links and maps end with their pins: nothing of a start that failed may stay.
            let _best_effort = fs::remove_dir_all(&folder);
            let _not_ours_alone = fs::remove_dir(pin);
        }
        done.map(|bpf| Self {
            others,
            pins: Some(pins),
            ..bpf
        })
    }

    /// The same programs with maps of their own, on a cgroup where no pod is: they can be tried before running pods depend
    /// on them. To be taken away with [`Dataplane::remove`]; what an agent that was killed left of one goes with the next.
    pub fn rehearse(
        pins: &mut PinFolder,
        cgroup: &Path,
        offsets: KernelOffsets,
    ) -> Result<Self, DataplaneError> {
        pins.claim()?;
        let folder = pins.path().join(REHEARSAL);
        pins::remove_folder(&folder)?;
        let done = Self::load_and_attach(folder.clone(), cgroup, offsets);
        if done.is_err() {
            let _best_effort = fs::remove_dir_all(&folder);
        }
        done
    }

    fn load_and_attach(
        folder: PathBuf,
        cgroup: &Path,
        offsets: KernelOffsets,
    ) -> Result<Self, DataplaneError> {
        make_folders(&folder)?;
        let pins = Pins {
            folder: &folder.join("maps"),
            maps: &maps::NAMES,
        };
        let mut object = Object::open(OBJECT, ("KERNEL_OFFSETS", &offsets), Some(pins))?;
        let mut maps = Maps::take(&mut object)?;
        storage::check(&mut maps.socks, SockState::default())?;
        let mut last_rules_id = 0;
        for entry in maps.pods.iter() {
            let (_, record) = entry?;
            last_rules_id = last_rules_id.max(record.rules);
        }
        let inbound = Template::of(&object, INBOUND.program, COOKIE_PLACE)?;
        // All of them load before the first is attached.
        for hook in &HOOKS {
            object.load(hook.program)?;
        }
        let hooks = Hooks::attach(&object, &HOOKS, cgroup, Some(&folder.join("links")))?;
        let mut bpf = Self {
            folder,
            object,
            inbound,
            maps,
            hooks: Some(hooks),
            pods: HashMap::new(),
            last_rules_id,
            shortcut: Established::default(),
            others: Others::default(),
            pins: None,
        };
        bpf.adopt()?;
        Ok(bpf)
    }

    /// Takes what was established of the shortcut; from then on armed pods take part.
    pub fn take_shortcut(&mut self, mut shortcut: Established) {
        match self.armed() {
            Ok(armed) => shortcut.keep_only(&armed),
            Err(error) => {
                tracing::warn!(%error, "could not list armed pods; the shortcut keeps every pod of an earlier agent");
            }
        }
        self.shortcut = shortcut;
    }

    /// Lets the agent hear of namespaces. The host's own is never told of.
    pub fn sightings(&mut self) -> Result<Sightings, DataplaneError> {
        if let Some(host) = host_cookie() {
            let everybody = QuietKey {
                cookie: host,
                cgroup: EVERYBODY,
            };
            self.mute(everybody, Duration::MAX);
        }
        Ok(Sightings::take(&mut self.object)?)
    }

    /// Opens the inbound links that an earlier agent left. A pin is removed only where nobody is armed by it, or the kernel
    /// says that its namespace is gone.
    fn adopt(&mut self) -> Result<(), DataplaneError> {
        let armed: HashSet<Cookie> = self.armed()?.into_iter().collect();
        for path in pins::entries(&self.folder.join("pods"))? {
            let Some(cookie) = pins::cookie(&path).filter(|cookie| armed.contains(cookie)) else {
                remove_file(&path)?;
                continue;
            };
            if let Some(link) = Link::open(&path)? {
                if link.target()?.is_some() {
                    self.pods.insert(cookie, link);
                } else {
                    link.remove()?;
                }
            }
        }
        // What a pod had that was being armed when the agent died.
        let states: Vec<_> = self.maps.counts.keys().flatten().collect();
        for cookie in states.into_iter().filter(|cookie| !armed.contains(cookie)) {
            self.disarm(cookie)?;
        }
        // Connections of pods that were being let go.
        self.maps.forget_all(|pod| !armed.contains(&pod))?;
        // Rules of a policy that was being written when the agent died.
        self.sweep_rules()
    }
}

/// Two layouts of the maps never share a folder.
fn version_folder(pin: &Path) -> PathBuf {
    pin.join(format!("v{ABI_VERSION}"))
}

/// Makes the folders of pins that are not there.
pub(super) fn make_folders(folder: &Path) -> Result<(), LinkError> {
    for path in FOLDERS.map(|sub| folder.join(sub)) {
        fs::create_dir_all(&path).map_err(|error| pin_error(&path, error))?;
    }
    Ok(())
}

/// Removes the folders of pins, which must be empty. Somebody may have removed them before.
pub(super) fn remove_folders(folder: &Path) -> Result<(), LinkError> {
    let below = FOLDERS.map(|sub| folder.join(sub));
    for path in below.iter().map(PathBuf::as_path).chain([folder]) {
        match fs::remove_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(pin_error(path, error));
            }
            _ => {}
        }
    }
    // The folder may hold another version's state; then it stays.
    let _kept = folder.parent().map(fs::remove_dir);
    Ok(())
}
