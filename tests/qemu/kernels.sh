#!/usr/bin/env bash
# Builds, and runs the suite on every kernel of .parts/kernels and on the running one. Arguments go to `sidestep-kernels run`.
set -euo pipefail
cd "$(dirname "$0")/../.."

echo "kernels: building"
# Optimised: unoptimised, the emulated agent takes three times as long to start, which every test does.
cargo build --quiet --release -p sidestep-agent -p sidestep -p sidestep-tests --bins
binaries=$(cargo test --release -p sidestep-tests --test conformance --test shortcut --no-run --quiet --message-format=json)
path() { sed -n 's/.*"reason":"compiler-artifact".*"name":"'"$1"'".*"executable":"\([^"]*\)".*/\1/p' <<<"$binaries"; }
kernels=()
for kernel in .parts/kernels/*/vmlinuz; do
    kernel=${kernel%/vmlinuz}
    kernels+=(--kernel "${kernel##*/}")
done
mkdir -p .parts/reports
exec target/release/sidestep-kernels run "${kernels[@]}" --here --json .parts/reports/kernels.json \
    --suite "conformance=$(path conformance),sidestep,--skip,envoy" --suite "shortcut=$(path shortcut),agent::" "$@"
