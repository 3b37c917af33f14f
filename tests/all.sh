#!/usr/bin/env bash
# Runs these targets of the Makefile, each whatever the one before it said. At the end: how long each took, and again what
# those printed last that failed, since that is far above by then.
set -uo pipefail
cd "$(dirname "$0")/.."
mkdir -p .parts/reports
failed=() took=()
for part in "$@"; do
    began=$SECONDS
    make --no-print-directory "$part" 2>&1 | tee ".parts/reports/$part.log" || failed+=("$part")
    took+=("$part $((SECONDS - began)) s")
done
for part in ${failed[@]+"${failed[@]}"}; do
    printf '\nmake test: what %s printed last:\n' "$part"
    tail -n 25 ".parts/reports/$part.log"
done >&2
(IFS=, && printf 'make test: took %s\n' "${took[*]}")
[ ${#failed[@]} -eq 0 ] || { printf 'make test: failed: %s\n' "${failed[*]}" >&2; exit 1; }
