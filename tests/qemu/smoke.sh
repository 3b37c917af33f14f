#!/usr/bin/env bash
# Runs the conformance tests on the oldest kernel supported, so that nothing newer slips into the BPF programs unnoticed, and
# the agent in a container as an ordinary node would have it, and a hardened one, on the newest 6.12.
# Arguments go to the conformance tests alone, as after `cargo test --`; without any, those of our own redirection are run.
set -euo pipefail
cd "$(dirname "$0")/../.."

OLDEST=6.1
NODES=$(cd .parts/kernels && ls -d 6.12* | sort -V | tail -1) || true
for kernel in "$OLDEST" "${NODES:-6.12}"; do
    [ ! -e ".parts/kernels/$kernel/vmlinuz" ] || continue
    echo "the smoke test was skipped: no $kernel kernel in .parts" >&2
    [ "${CI:-}" != true ] || exit 1
    exit 0
done

# Unoptimised, as other tests use them: that makes each test half as long again, and saves a build of minutes.
echo "smoke: building"
cargo build --quiet -p sidestep-agent -p sidestep -p sidestep-webhook -p sidestep-kit --bins
tests=$(cargo test -p sidestep-tests --test conformance --test container --no-run --quiet --message-format=json)
path() { sed -n 's/.*"reason":"compiler-artifact".*"name":"'"$1"'".*"executable":"\([^"]*\)".*/\1/p' <<<"$tests"; }
conformance=$(path conformance)
with=()
for program in sidestep-agent sidestep sidestep-actor; do with+=(--with "${conformance%/deps/*}/$program"); done
cd tests
# Emulated processors are slow: one test at a time, so that each has its deadline for itself.
oldest() {
    qemu/run.sh "$OLDEST" "${with[@]}" --with fixtures --seconds 900 "$conformance" --test-threads=1 "$@"
}
if [ $# -gt 0 ]; then
    oldest "$@"
    exit
fi
# The other is run, whatever the first said.
failed=
# What is read from the policy alone is the same on every kernel; `make kernels` tries that, too.
oldest sidestep --skip envoy --skip identity:: --skip inbound:: --skip policy:: || failed=1
container() {
    qemu/run.sh "$NODES" "${with[@]}" --with ../.parts/runc/runc --with ../.parts/runc/seccomp.json --with ../manifests/install.yaml \
        "$(path container)" --test-threads=1 --nocapture "$@"
}
container --skip hardened || failed=1
SIDESTEP_QEMU_APPEND='ipv6.disable=1 lockdown=confidentiality' container hardened || failed=1
[ -z "$failed" ]
