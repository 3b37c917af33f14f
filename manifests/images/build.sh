#!/usr/bin/env bash
# Builds the images of the webhook and of the agent, as OCI archives, without a container engine:
#   manifests/images/build.sh                                     release builds, to .parts/images/{webhook,agent}.tar
#   manifests/images/build.sh --architecture amd64                only for this architecture; may be repeated
#   manifests/images/build.sh --programs DIR                      the command line besides, to DIR/sidestep-linux-ARCHITECTURE
#   manifests/images/build.sh --profile dev --output DIR [NAME…]  debug builds, for tests; only these images, for this machine
#   manifests/images/build.sh --profile optimised …               the same of optimised builds, for emulated machines
#   manifests/images/build.sh --profile next … agent              of the agent with another layout of its maps (tests/next), with the tag next
# An image holds its programs, a passwd and nothing else. Release programs are for amd64 and arm64, linked statically; programs for tests
# come with the libraries that they name. The same programs give the same archive.
set -euo pipefail
cd "$(dirname "$0")/../.."

# Architectures, and what compilers call them.
declare -A machines=([amd64]=x86_64 [arm64]=aarch64)
profile=release output=.parts/images programs= architectures=()
while [ $# -gt 0 ]; do
    case $1 in
    --profile) profile=$2; shift 2 ;;
    --output) output=$2; shift 2 ;;
    --programs) programs=$2; shift 2 ;;
    --architecture)
        [ -n "${machines[$2]-}" ] || { echo "images: there is no architecture $2 (${!machines[*]})" >&2; exit 1; }
        architectures+=("$2"); shift 2 ;;
    --*) echo "images: unknown option $1 (--profile release|dev|optimised|next, --output DIR, --programs DIR, --architecture NAME)" >&2; exit 1 ;;
    *) break ;;
    esac
done
[ $# -gt 0 ] || set -- webhook agent

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)

packages=()
for image; do
    case $image in
    webhook) packages+=(-p sidestep-webhook) ;;
    agent) packages+=(-p sidestep-agent -p sidestep) ;;
    *) echo "images: there is no image $image (webhook, agent)" >&2; exit 1 ;;
    esac
done
target=${CARGO_TARGET_DIR:-target}
for_this_machine() {
    [ ${#architectures[@]} -eq 0 ] || { echo "images: a build for tests is for this machine alone: leave --architecture out" >&2; exit 1; }
    architectures=(amd64)
}
case $profile in
release)
    [ ${#architectures[@]} -gt 0 ] || architectures=(amd64 arm64)
    targets=()
    for architecture in "${architectures[@]}"; do targets+=(--target "${machines[$architecture]}-unknown-linux-gnu"); done
    # Panics name source files: by paths that are the same wherever it is built.
    flags="-C target-feature=+crt-static --remap-path-prefix=$PWD=/sidestep --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
    flags+=" --remap-path-prefix=$(rustc --print sysroot)=/rust"
    RUSTFLAGS=$flags cargo build --locked --release "${targets[@]}" --bins "${packages[@]}" ;;
dev)
    for_this_machine
    # All that tests build, as PROGRAMS of the Makefile: fewer packages would be another build.
    cargo build -p sidestep-agent -p sidestep -p sidestep-webhook -p sidestep-kit --bins ;;
optimised)
    for_this_machine
    # With the kit, as the demo builds them: without it, all of it would be built once more, with other features.
    cargo build --profile quick --bins "${packages[@]}" -p sidestep-kit ;;
next)
    for_this_machine
    cargo build --profile quick --bins -p sidestep-agent -p sidestep -p sidestep-kit
    # By itself: built together, both agents would get its layout.
    cargo build --profile quick --bins -p sidestep-next
    version=next ;;
*) echo "images: unknown profile $profile (release, dev, optimised, next)" >&2; exit 1 ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$output"

# program ARCHITECTURE ROOT NAME: a program with the libraries it needs, without debugging symbols.
program() {
    local machine=${machines[$1]} built root=$2 at=$2/usr/bin/$3 library
    case $profile/$3 in
    dev/*) built=$target/debug/$3 ;;
    next/sidestep-agent) built=$target/quick/sidestep-agent-next ;;
    optimised/* | next/*) built=$target/quick/$3 ;;
    release/*) built=$target/$machine-unknown-linux-gnu/release/$3 ;;
    esac
    install -m 755 "$built" "$at"
    "$machine-linux-gnu-strip" "$at"
    # Nothing to print for a static program.
    for library in $(ldd "$at" 2>/dev/null | sed -n 's|^[^/]*\(/[^ ]*\) (0x.*|\1|p' | sort -u); do
        install -D -m 755 "$library" "$root$library"
    done
}

for image; do
    roots=()
    for architecture in "${architectures[@]}"; do
        root=$work/$image/$architecture
        mkdir -p "$root/etc" "$root/usr/bin"
        printf 'root:x:0:0::/:/nonexistent\nnonroot:x:65532:65532::/:/nonexistent\n' >"$root/etc/passwd"
        printf 'root:x:0:\nnonroot:x:65532:\n' >"$root/etc/group"
        case $image in
        webhook) user=65532:65532; program "$architecture" "$root" sidestep-webhook ;;
        agent) user=0:0; program "$architecture" "$root" sidestep-agent; program "$architecture" "$root" sidestep ;;
        esac
        chmod -R u=rwX,go=rX "$root"
        roots+=(--root "$architecture=$root")
    done
    python3 manifests/images/oci.py --name "sidestep.invalid/$image:$version" "${roots[@]}" --output "$output/$image.tar" --config \
        "{\"Entrypoint\": [\"/usr/bin/sidestep-$image\"], \"Env\": [\"PATH=/usr/bin\"], \"User\": \"$user\", \"WorkingDir\": \"/\"}"
    if [ -n "$programs" ] && [ "$image" = agent ]; then
        for architecture in "${architectures[@]}"; do
            install -D -m 755 "$work/agent/$architecture/usr/bin/sidestep" "$programs/sidestep-linux-$architecture"
        done
    fi
    echo "images: $output/$image.tar holds sidestep.invalid/$image:$version for ${architectures[*]}"
done
