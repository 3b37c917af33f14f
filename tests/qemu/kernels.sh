#!/usr/bin/env bash
# Builds, and tries everything on every kernel of .parts/kernels and on the running one.
#   kernels.sh          all tests of decisions, of the shortcut and of real programs, 20,000 streams of torture on the running
#                       kernel, and 400 on each emulated one; on those with a known fault only what the agent says of it
#   kernels.sh small    what `make test` has time for: no test binaries, few streams, no running kernel
set -euo pipefail
cd "$(dirname "$0")/../.."

echo "kernels: building"
profile=release folder=release
[ "${1:-}" != small ] || profile=dev folder=debug
cargo build --quiet --profile $profile -p sidestep-agent -p sidestep -p sidestep-webhook -p sidestep-kit --bins
# By itself: built together, the agent would get the switches of tests, too.
cargo build --quiet --profile $profile -p sidestep-torture --bins
# What is to be on: on the regressed one (FIONREAD, mended in 6.12.114) applications keep to TCP, and the one before 6.17.10
# may crash by MPTCP; both only show that the agent finds it, so that the small form leaves them out.
what=(--kernel 6.1=applications --kernel 6.12.117=applications --kernel 7.3=applications)
if [ "${1:-}" = small ]; then
    shift
    what+=(--emulated 64)
else
    echo "kernels: 7.3 on a processor without cmpxchg16b, where the agent must say so and not start"
    said=$(SIDESTEP_QEMU_CPU=max,-cx16 tests/qemu/run.sh 7.3 target/release/sidestep-agent --cgroup /sys/fs/cgroup --pods /tmp 2>&1 || true)
    grep -q 'socket storage.*cmpxchg16b' <<<"$said" || { printf '%s\n' "$said" >&2; exit 1; }
    binaries=$(cargo test --release -p sidestep-tests --test conformance --test shortcut --test programs --no-run --quiet --message-format=json)
    path() { sed -n 's/.*"reason":"compiler-artifact".*"name":"'"$1"'".*"executable":"\([^"]*\)".*/\1/p' <<<"$binaries"; }
    mkdir -p .parts/reports
    # Of each of curl's files: emulated, all of them are sent 36 times, a MiB in a quarter of a second.
    export SIDESTEP_TEST_MIB=${SIDESTEP_TEST_MIB:-4}
    what+=(--kernel 6.12.95=sidecars --kernel 6.17.8=nothing)
    what+=(--here --json .parts/reports/kernels.json)
    what+=(--suite "conformance=$(path conformance),sidestep,--skip,envoy" --suite "shortcut=$(path shortcut),--skip,torture::")
    what+=(--programs --suite "programs=$(path programs)")
fi
exec target/$folder/sidestep-kernels run "${what[@]}" "$@"
