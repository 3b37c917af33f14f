#!/usr/bin/env bash
# Runs these targets of the Makefile, each whatever the one before it said. Beside the first of several that are joined by a plus run
# the others, one after the other: the first uses one processor, and none of them tells the time. What they print comes after the
# first's. At the end: how long each took, and again what those printed last that failed, since that is far above by then.
set -uo pipefail
cd "$(dirname "$0")/.."
reports=.parts/reports
mkdir -p "$reports"
failed=() took=()

# run TARGET: makes it, keeps what it prints, and notes how it ended, how long it took and for how long it used a processor.
run() {
    local target=$1 code=0 TIMEFORMAT='%0R %0U %0S'
    { time make --no-print-directory "$target" 2>&3 3>&-; } 3>&1 2>"$reports/$target.took" | tee "$reports/$target.log" || code=1
    echo "$code" >"$reports/$target.end"
}

note() {
    local target=$1 code seconds user system
    read -r code <"$reports/$target.end"
    read -r seconds user system <"$reports/$target.took"
    took+=("$target $seconds s (of a processor $((user + system)) s)")
    [ "$code" = 0 ] || failed+=("$target")
}

for parts in "$@"; do
    IFS=+ read -ra parts <<<"$parts"
    part=${parts[0]} beside=("${parts[@]:1}")
    for other in ${beside[@]+"${beside[@]}"}; do
        run "$other" >/dev/null
    done &
    run "$part"
    wait
    note "$part"
    for other in ${beside[@]+"${beside[@]}"}; do
        cat "$reports/$other.log"
        note "$other"
    done
done
for part in ${failed[@]+"${failed[@]}"}; do
    printf '\nmake test: what %s printed last:\n' "$part"
    tail -n 25 "$reports/$part.log"
done >&2
(IFS=, && printf 'make test: took %s, in all %s s\n' "${took[*]}" $SECONDS)
[ ${#failed[@]} -eq 0 ] || { printf 'make test: failed: %s\n' "${failed[*]}" >&2; exit 1; }
