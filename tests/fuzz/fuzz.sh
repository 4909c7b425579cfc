#!/bin/sh
# fuzz.sh BUILD [SECONDS]: fuzzes each target for a while (300 s), starting from its corpus.
set -eu
cd "$(dirname "$0")/../.."
build=$1 seconds=${2:-300}
tests/fuzz/build.sh "$build"
for t in $(cat tests/fuzz/targets); do
    mkdir -p "$build/fuzz/found/$t"
    echo "fuzzing $t for $seconds s"
    "$build/fuzz/$t" -max_total_time="$seconds" -max_len=4096 -print_final_stats=0 -artifact_prefix="$build/fuzz/" "$build/fuzz/found/$t" "tests/fuzz/corpus/$t" 2>&1 | tail -2
done
