#!/usr/bin/env bash
# Builds the images of the webhook and of the agent, as OCI archives, without a container engine:
#   manifests/images/build.sh                                     release builds, to .parts/images/{webhook,agent}.tar
#   manifests/images/build.sh --profile dev --output DIR [NAME…]  debug builds, for tests; only these images
#   manifests/images/build.sh --profile optimised …               the same of optimised builds, for emulated machines
# An image holds its programs, a passwd and nothing else. Release programs are linked statically; programs for tests come with the
# libraries that they name. The same programs give the same archive.
set -euo pipefail
cd "$(dirname "$0")/../.."

profile=release output=.parts/images
while [ $# -gt 0 ]; do
    case $1 in
    --profile) profile=$2; shift 2 ;;
    --output) output=$2; shift 2 ;;
    --*) echo "images: unknown option $1 (--profile release|dev|optimised, --output DIR)" >&2; exit 1 ;;
    *) break ;;
    esac
done
[ $# -gt 0 ] || set -- webhook agent

target=x86_64-unknown-linux-gnu
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)

packages=()
for image; do
    case $image in
    webhook) packages+=(-p sidestep-webhook) ;;
    agent) packages+=(-p sidestep-agent -p sidestep) ;;
    *) echo "images: there is no image $image (webhook, agent)" >&2; exit 1 ;;
    esac
done
case $profile in
release)
    RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --release --target "$target" --bins "${packages[@]}"
    built=${CARGO_TARGET_DIR:-target}/$target/release ;;
dev)
    cargo build --bins "${packages[@]}"
    built=${CARGO_TARGET_DIR:-target}/debug ;;
optimised)
    # With the kit, as tests/qemu/kernels.sh builds them: without it, all of it would be built once more, with other features.
    cargo build --release --bins "${packages[@]}" -p sidestep-kit
    built=${CARGO_TARGET_DIR:-target}/release ;;
*) echo "images: unknown profile $profile (release, dev, optimised)" >&2; exit 1 ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$output"

# program ROOT NAME: a program with the libraries it needs, without debugging symbols.
program() {
    local root=$1 at=$1/usr/bin/$2 library
    install -m 755 "$built/$2" "$at"
    strip "$at"
    # Nothing to print for a static program.
    for library in $(ldd "$at" 2>/dev/null | sed -n 's|^[^/]*\(/[^ ]*\) (0x.*|\1|p' | sort -u); do
        install -D -m 755 "$library" "$root$library"
    done
}

for image; do
    root=$work/$image
    mkdir -p "$root/etc" "$root/usr/bin"
    printf 'root:x:0:0::/:/nonexistent\nnonroot:x:65532:65532::/:/nonexistent\n' >"$root/etc/passwd"
    printf 'root:x:0:\nnonroot:x:65532:\n' >"$root/etc/group"
    case $image in
    webhook) user=65532:65532; program "$root" sidestep-webhook ;;
    agent) user=0:0; program "$root" sidestep-agent; program "$root" sidestep ;;
    esac
    chmod -R u=rwX,go=rX "$root"
    python3 manifests/images/oci.py --name "sidestep.invalid/$image:$version" --root "$root" --output "$output/$image.tar" --config \
        "{\"Entrypoint\": [\"/usr/bin/sidestep-$image\"], \"Env\": [\"PATH=/usr/bin\"], \"User\": \"$user\", \"WorkingDir\": \"/\"}"
    echo "images: $output/$image.tar holds sidestep.invalid/$image:$version"
done
