//! Compiles the BPF programs of `ebpf/` and `ebpf/shortcut/`, and leaves each object under its package's name in
//! `$OUT_DIR`, where the agent embeds it with `sidestep_kernel::include_bytes_aligned!`.
//!
//! aya-build does the same, but only with a rustup nightly. Here any compiler serves that brings the source of `core` and
//! the LLVM that bpf-linker was built for, so a plain Debian can build the project.

use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, exit},
};

/// Each is an object of its own: the second may be refused by the kernel without harm to the first.
const PACKAGES: [&str; 2] = ["sidestep-ebpf", "sidestep-ebpf-shortcut"];
/// What tests want of the programs and nobody else: the agent's feature, the programs', and the folder of that build, which has
/// other code under the same names.
const FOR_TESTS: [(&str, &str, &str); 2] = [
    (
        "CARGO_FEATURE_TEST_SWITCHES",
        "sidestep-ebpf-shortcut/test-switches",
        "bpf-tests",
    ),
    (
        "CARGO_FEATURE_NEXT_LAYOUT",
        "sidestep-ebpf/next-layout,sidestep-ebpf-shortcut/next-layout",
        "bpf-next",
    ),
];
const TARGET: &str = "bpfel-unknown-none";
/// bpf-linker 0.10 reads bitcode with this LLVM; a compiler with a newer one writes what it cannot read.
const LLVM: &str = "22";

fn main() {
    if let Err(message) = build() {
        for line in message.lines() {
            println!("cargo::error={line}");
        }
        exit(1);
    }
}

fn build() -> Result<(), String> {
    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let root = manifest.parent().ok_or("the agent is not in a workspace")?;
    let linker = find_linker(root)?;
    let compiler = Compiler::find()?;
    // Relative to the package, so that a target folder that was copied to another checkout watches that one's files.
    for path in ["../ebpf", "../Cargo.toml", "../Cargo.lock"] {
        println!("cargo::rerun-if-changed={path}");
    }
    println!("cargo::rerun-if-changed={}", linker.display());

    // One folder for all of the agent's profiles: `core` is then compiled once. It is not the outer build's own folder,
    // whose lock the outer cargo holds while it waits for this script.
    let mut for_tests = FOR_TESTS.iter();
    let for_tests = for_tests.find(|(feature, ..)| env::var_os(feature).is_some());
    let target_dir = out_dir
        .ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").exists())
        .unwrap_or(&out_dir)
        .join(for_tests.map_or("bpf", |(_, _, folder)| folder));
    let llvm = out_dir.join("llvm");
    folder_of_one(&compiler.llvm, &llvm).map_err(|error| format!("{}: {error}", llvm.display()))?;
    let features = for_tests.map_or("", |(_, features, _)| features);
    compile(root, &compiler.path, &linker, &llvm, &target_dir, features)?;

    for package in PACKAGES {
        let object = target_dir.join(TARGET).join("release").join(package);
        let bytes = fs::read(&object).map_err(|error| format!("{}: {error}", object.display()))?;
        if !bytes.starts_with(b"\x7fELF") {
            return Err(format!("{} is not an ELF object", object.display()));
        }
        fs::write(out_dir.join(package), bytes)
            .map_err(|error| format!("{}: {error}", out_dir.display()))?;
    }
    Ok(())
}

fn compile(
    root: &Path,
    compiler: &Path,
    linker: &Path,
    llvm: &Path,
    target_dir: &Path,
    features: &str,
) -> Result<(), String> {
    let flags = [
        // Whatever the agent's own is, so that all agents have the same objects: only what kprobes see depends on it.
        "--cfg=bpf_target_arch=\"x86_64\"".to_owned(),
        format!("-Clinker={}", linker.display()),
        // BTF comes from debug information; the kernel wants it for socket storage and for named types.
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // bpf-linker's default makes every memset a call, whatever its size, and the verifier refuses that call.
        "-Clink-arg=--disable-expand-memcpy-in-order".to_owned(),
    ];
    let mut cargo = Command::new(variable("CARGO")?);
    cargo
        .current_dir(root)
        .args([
            "build",
            "--quiet",
            "--locked",
            "--release",
            "-Zbuild-std=core",
        ])
        .args(PACKAGES.iter().flat_map(|package| ["--package", package]))
        .args(["--features", features])
        .args(["--target", TARGET, "--target-dir"])
        .arg(target_dir);
    // The outer cargo, rustup and `cargo clippy` describe the host build in the environment, which would change this one.
    for (key, _) in env::vars_os() {
        let name = key.to_string_lossy();
        let profile = name.starts_with("CARGO_PROFILE_") || name.starts_with("CARGO_BUILD_");
        if profile
            || name.starts_with("RUSTC")
            || name.starts_with("RUSTUP_TOOLCHAIN")
            || name == "RUSTFLAGS"
        {
            cargo.env_remove(key);
        }
    }
    let output = cargo
        .env("RUSTC", compiler)
        // `build-std` is unstable; this makes a released compiler accept it.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_LTO", "off") // bpf-linker does it, over the whole program
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("LD_LIBRARY_PATH", llvm)
        .output()
        .map_err(|error| format!("cargo: {error}"))?;
    let messages = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("the BPF programs do not compile\n{messages}"));
    }
    for line in messages.lines() {
        println!("cargo::warning={line}");
    }
    Ok(())
}

/// A compiler that can build `core` for the BPF target.
struct Compiler {
    path: PathBuf,
    /// The library that is its LLVM.
    llvm: PathBuf,
}

impl Compiler {
    fn find() -> Result<Self, String> {
        let mut candidates: Vec<PathBuf> = vec![variable("RUSTC")?.into()];
        candidates.extend(rustup_nightly());
        candidates.push("/usr/bin/rustc".into());
        candidates.into_iter().find_map(Self::usable).ok_or_else(|| {
            format!("no Rust compiler with LLVM {LLVM} and the source of core for the BPF programs: run `make setup`")
        })
    }

    fn usable(path: PathBuf) -> Option<Self> {
        let version = output(Command::new(&path).arg("-vV"))?;
        if !version.contains(&format!("LLVM version: {LLVM}.")) {
            return None;
        }
        let sysroot =
            PathBuf::from(output(Command::new(&path).args(["--print", "sysroot"]))?.trim());
        if !sysroot.join("lib/rustlib/src/rust/library/core").exists() {
            return None;
        }
        // rustup's compilers carry their LLVM; Debian's use the system's.
        let llvm = [
            "lib".to_owned(),
            format!("lib/{}-linux-gnu", env::consts::ARCH),
        ]
        .iter()
        .find_map(|dir| llvm_in(&sysroot.join(dir)))?;
        Some(Self { path, llvm })
    }
}

fn rustup_nightly() -> Option<PathBuf> {
    let path = output(Command::new("rustup").args(["which", "--toolchain", "nightly", "rustc"]))?;
    Some(path.trim().into())
}

fn find_linker(root: &Path) -> Result<PathBuf, String> {
    let ours = root.join(".parts/bin");
    let path = env::var_os("PATH").unwrap_or_default();
    [ours]
        .into_iter()
        .chain(env::split_paths(&path))
        .map(|dir| dir.join("bpf-linker"))
        .find(|file| file.exists())
        .ok_or_else(|| "bpf-linker is missing: run `make setup`".to_owned())
}

fn llvm_in(dir: &Path) -> Option<PathBuf> {
    let name = format!("libLLVM.so.{LLVM}");
    dir.read_dir()
        .ok()?
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with(&name))
        .map(|entry| entry.path())
}

/// bpf-linker opens the first file named like an LLVM in the folders of `LD_LIBRARY_PATH`, of whatever version: so it gets
/// a folder with only the right one.
fn folder_of_one(llvm: &Path, folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let link = folder.join("libLLVM.so");
    if link.is_symlink() {
        fs::remove_file(&link)?;
    }
    symlink(llvm, link)
}

/// What a command prints, if it is there and succeeds.
fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("{name} is not set: this is run by cargo"))
}
