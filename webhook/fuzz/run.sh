#!/usr/bin/env bash
# Fuzzes every target at the same time, each for so many seconds, from the fixtures and from what earlier runs found.
#   webhook/fuzz/run.sh [SECONDS]   60 if not given
# The corpus stays in .parts/fuzz. An input that breaks a check is kept there too, and the run fails.
set -euo pipefail
cd "$(dirname "$0")/../.."
duration=${1:-60}
home=.parts/fuzz
target=x86_64-unknown-linux-gnu
export PATH="$PWD/.parts/bin:$PATH"
# More optimisation takes minutes longer to build than it saves.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1

say() { printf 'fuzz: %s\n' "$*"; }

mkdir -p "$home/log"
say "building (minutes, the first time)"
cargo build --quiet -p sidestep-fuzz --example fuzz-seeds
# Without a sanitizer a stable compiler will do; there is no unsafe code of ours to watch.
cargo fuzz build --fuzz-dir webhook/fuzz --target "$target" --sanitizer none --features libfuzzer --codegen-units 16 --target-dir target/fuzz >"$home/log/build" 2>&1 ||
    { tail -20 "$home/log/build" >&2; exit 1; }
target/debug/examples/fuzz-seeds "$home/seeds"

names=(review policy file)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true' EXIT
for name in "${names[@]}"; do
    mkdir -p "$home/corpus/$name" "$home/found/$name"
    options=(-max_total_time="$duration" -timeout=20 -rss_limit_mb=1024 -max_len=40000 -len_control=0 -print_final_stats=1)
    [ ! -e "$home/seeds/$name.dict" ] || options+=(-dict="$home/seeds/$name.dict")
    "target/fuzz/$target/release/$name" "${options[@]}" -artifact_prefix="$home/found/$name/" "$home/corpus/$name" "$home/seeds/$name" \
        >"$home/log/$name" 2>&1 &
    pids+=($!)
done

failed=
for i in "${!names[@]}"; do
    name=${names[$i]} log=$home/log/${names[$i]}
    if wait "${pids[$i]}"; then verdict="nothing found"; else verdict="BROKEN"; failed=yes; fi
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    covered=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -1)
    say "$name: ${runs:-?} inputs in $duration s, ${covered:-?} edges covered: $verdict"
    [ "$verdict" != BROKEN ] || { grep -aE 'panicked|ERROR|Test unit' -A2 "$log" | head -20 >&2; }
done
pids=()
[ -z "$failed" ] || { say "inputs are in $home/found: copy them to webhook/fuzz/regressions/<target>, and cargo test -p sidestep-fuzz shows what is wrong"; exit 1; }
