#!/usr/bin/env bash
# Builds for arm64, and tries it on Debian's arm64 kernels in QEMU: every program is loaded and attached, connections are
# captured, the agent's self-test gives the verdict that is expected, and streams go through the shortcut.
#   arm64.sh          all tests of decisions and 64 streams, on 6.1 and on 6.12
#   arm64.sh small    what `make test` has time for: the agent's own proof, its self-test, and few streams, on 6.12
# QEMU runs on x86_64, whose processors keep memory accesses in order: what needs a barrier on arm64 is not found here.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=aarch64-unknown-linux-gnu
if [ ! -e .parts/kernels/arm64-6.12.117/vmlinuz ] || [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ]; then
    echo "the smoke test on arm64 was skipped: \`make setup\` says what is missing" >&2
    [ "${CI:-}" != true ]
    exit
fi

echo "arm64: building"
what=(--kernel arm64-6.12.117=applications)
if [ "${1:-}" = small ]; then
    shift
    # Unoptimised it starts three times as slowly, and is built in half the time.
    profile=dev folder=debug programs=(-p sidestep-agent)
    what+=(--emulated 16)
else
    profile=release folder=release programs=(-p sidestep-agent -p sidestep -p sidestep-kit)
    mkdir -p .parts/reports
    what+=(--kernel arm64-6.1=applications --emulated 64 --json .parts/reports/arm64.json)
    tests=$(cargo test --profile $profile --target $target -p sidestep-tests --test conformance --no-run --quiet --message-format=json)
    conformance=$(sed -n 's/.*"reason":"compiler-artifact".*"name":"conformance".*"executable":"\([^"]*\)".*/\1/p' <<<"$tests")
    what+=(--suite "conformance=$conformance,sidestep,--skip,envoy")
fi
cargo build --quiet --profile $profile --target $target "${programs[@]}" --bins
# By itself: built together, the agent would get the switches of tests, too. The first runs there, the second starts it here.
cargo build --quiet --profile $profile --target $target -p sidestep-torture --bins
cargo build --quiet -p sidestep-torture --bins
exec target/debug/sidestep-kernels run --from "target/$target/$folder" "${what[@]}" "$@"
