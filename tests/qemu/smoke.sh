#!/usr/bin/env bash
# Runs the conformance tests on the oldest kernel supported, so that nothing newer slips into the BPF programs unnoticed.
# Arguments go to the test binary, as after `cargo test --`; without any, the tests of our own redirection are run.
set -euo pipefail
cd "$(dirname "$0")/../.."

KERNEL=6.1
if [ ! -e ".parts/kernels/$KERNEL/vmlinuz" ]; then
    echo "the smoke test was skipped: no $KERNEL kernel in .parts" >&2
    [ "${CI:-}" != true ] || exit 1
    exit 0
fi
[ $# -gt 0 ] || set -- sidestep --skip envoy

# Optimised: unoptimised, the emulated agent takes three times as long to start, which every test does.
echo "smoke: building"
cargo build --quiet --release -p sidestep-agent -p sidestep -p sidestep-kit --bins
binary=$(cargo test --release -p sidestep-tests --test conformance --no-run --quiet --message-format=json |
    sed -n 's/.*"reason":"compiler-artifact".*"name":"conformance".*"executable":"\([^"]*\)".*/\1/p')
programs=${binary%/deps/*}
with=()
for program in sidestep-agent sidestep sidestep-actor; do with+=(--with "$programs/$program"); done
# Emulated processors are slow: one test at a time, so that each has its deadline for itself.
cd tests
exec qemu/run.sh "$KERNEL" "${with[@]}" --with fixtures --seconds 900 "$binary" --test-threads=1 "$@"
