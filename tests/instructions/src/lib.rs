//! A plugin of QEMU that counts what an emulated x86-64 machine executes: `tests/qemu/run.sh --count FILE`.
//!
//! Whenever the machine comes to the mark, an instruction that does nothing and that only a benchmark has, a line goes to the
//! file `out`: the instructions so far of programs and of the kernel. With `profile`, a folder, each mark also leaves a file there:
//! the addresses of the kernel's blocks and the instructions that ran in each since the mark before.
//!
//! A block that a page fault ends early counts as a whole; nothing else is inexact.

mod qemu;

use std::{
    collections::HashMap,
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    fs::File,
    io::{BufWriter, Write},
    path::PathBuf,
    sync::{Mutex, OnceLock},
};

use qemu::{Block, Counters, Id, RawBlock};

/// Where the kernel's half of the addresses begins.
const KERNEL: u64 = 1 << 63;
/// Places of the counters of each half; those of the profile follow.
const PROGRAMS: usize = 0;
const IN_KERNEL: usize = 1;
const FIRST: usize = 2;
/// Blocks of the kernel that a profile tells apart.
const BLOCKS: usize = 1 << 18;

static PLUGIN: OnceLock<Plugin> = OnceLock::new();

struct Plugin {
    mark: Vec<u8>,
    counters: Counters,
    out: Mutex<File>,
    profile: Option<Mutex<Profile>>,
}

struct Profile {
    folder: PathBuf,
    marks: usize,
    places: HashMap<u64, usize>,
    before: Vec<u64>,
}

/// QEMU calls this when it has loaded the plugin; `0` is success.
///
/// # Safety
/// QEMU gives `count` strings in `arguments`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: Id,
    _info: *const c_void,
    count: c_int,
    arguments: *const *const c_char,
) -> c_int {
    let count = usize::try_from(count).unwrap_or_default();
    let arguments = (0..count).map(|at| {
        // SAFETY: there are as many, and each is a string.
        unsafe { CStr::from_ptr(*arguments.add(at)) }
            .to_string_lossy()
            .into_owned()
    });
    match Plugin::new(arguments) {
        Ok(plugin) => {
            PLUGIN.get_or_init(|| plugin);
            qemu::on_translation(id, translated);
            0
        }
        Err(error) => {
            eprintln!("instructions: {error}");
            1
        }
    }
}

extern "C" fn translated(_id: Id, raw: *mut RawBlock) {
    // SAFETY: it is what QEMU told, and ends with this call.
    let block = unsafe { Block::new(raw) };
    if let Some(plugin) = PLUGIN.get() {
        plugin.translated(&block);
    }
}

extern "C" fn marked(_processor: c_uint, _data: *mut c_void) {
    if let Some(Err(error)) = PLUGIN.get().map(Plugin::marked) {
        eprintln!("instructions: {error}");
    }
}

impl Plugin {
    fn new(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let arguments: HashMap<String, String> = arguments
            .filter_map(|argument| {
                let (name, value) = argument.split_once('=')?;
                Some((name.to_owned(), value.to_owned()))
            })
            .collect();
        let get = |name: &str| arguments.get(name).ok_or(format!("{name}= is missing"));
        let out = get("out")?;
        let profile = arguments.get("profile");
        Ok(Self {
            mark: bytes(get("mark")?)?,
            counters: Counters::new(FIRST + profile.map_or(0, |_| BLOCKS)),
            out: Mutex::new(File::create(out).map_err(|error| format!("{out}: {error}"))?),
            profile: profile.map(|folder| {
                Mutex::new(Profile {
                    folder: folder.into(),
                    marks: 0,
                    places: HashMap::new(),
                    before: Vec::new(),
                })
            }),
        })
    }

    fn translated(&self, block: &Block) {
        if block.address() < KERNEL {
            block.count(&self.counters, PROGRAMS);
            block.on(&self.mark, marked);
            return;
        }
        block.count(&self.counters, IN_KERNEL);
        if let Some(profile) = &self.profile {
            let mut profile = profile.lock().expect("no panic");
            let next = profile.places.len();
            let place = *profile.places.entry(block.address()).or_insert(next);
            if place < BLOCKS {
                block.count(&self.counters, FIRST + place);
            }
        }
    }

    fn marked(&self) -> std::io::Result<()> {
        let mut out = self.out.lock().expect("no panic");
        let [programs, kernel] = [PROGRAMS, IN_KERNEL].map(|at| self.counters.get(at));
        writeln!(out, "{programs} {kernel}")?;
        let profile = self.profile.as_ref();
        profile.map_or(Ok(()), |profile| {
            profile.lock().expect("no panic").write(&self.counters)
        })
    }
}

impl Profile {
    fn write(&mut self, counters: &Counters) -> std::io::Result<()> {
        let file = File::create(self.folder.join(self.marks.to_string()))?;
        let mut file = BufWriter::new(file);
        self.marks += 1;
        self.before.resize(self.places.len().min(BLOCKS), 0);
        for (address, place) in &self.places {
            let Some(before) = self.before.get_mut(*place) else {
                continue;
            };
            let now = counters.get(FIRST + *place);
            if now > *before {
                writeln!(file, "{address:x} {}", now - *before)?;
            }
            *before = now;
        }
        file.flush()
    }
}

fn bytes(hexadecimal: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<char> = hexadecimal.chars().collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16);
    let bytes: Result<_, _> = digits.chunks(2).map(byte).collect();
    bytes.map_err(|_| format!("mark={hexadecimal}: no hexadecimal bytes"))
}
