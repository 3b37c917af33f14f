#!/bin/sh
# Everything that `make kernels` runs on one kernel: the survey, then each test binary, whatever those before it said.
#   suite.sh PROGRAM CONNECTIONS ['NAME BINARY ARGUMENT...']...
program=$1 connections=$2
shift 2
"$program" survey "$connections"
for suite; do
    # Words, by blanks.
    set -- $suite
    echo "suite: $1"
    shift
    # One test at a time: emulated processors are slow, and each has its deadline for itself.
    RUST_TEST_THREADS=1 "$@" 2>&1
done
