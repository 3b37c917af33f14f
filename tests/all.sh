#!/usr/bin/env bash
# Runs these targets of the Makefile, each whatever the one before it said. What is joined by a plus runs side by side, for targets
# that use one processor and tell no time; what the second prints comes after the first's. At the end: how long each took, and
# again what those printed last that failed, since that is far above by then.
set -uo pipefail
cd "$(dirname "$0")/.."
mkdir -p .parts/reports
failed=() took=()
for parts in "$@"; do
    part=${parts%%+*} beside= pid=
    began=$SECONDS
    if [ "$parts" != "$part" ]; then
        beside=${parts#*+}
        make --no-print-directory "$beside" >".parts/reports/$beside.log" 2>&1 &
        pid=$!
    fi
    make --no-print-directory "$part" 2>&1 | tee ".parts/reports/$part.log" || failed+=("$part")
    if [ -n "$pid" ]; then
        wait "$pid" || failed+=("$beside")
        cat ".parts/reports/$beside.log"
    fi
    took+=("$parts $((SECONDS - began)) s")
done
for part in ${failed[@]+"${failed[@]}"}; do
    printf '\nmake test: what %s printed last:\n' "$part"
    tail -n 25 ".parts/reports/$part.log"
done >&2
(IFS=, && printf 'make test: took %s\n' "${took[*]}")
[ ${#failed[@]} -eq 0 ] || { printf 'make test: failed: %s\n' "${failed[*]}" >&2; exit 1; }
