#!/bin/sh
# corpora.sh BUILD: every input of each corpus once, under ASan and UBSan.
set -eu
cd "$(dirname "$0")/../.."
build=$1
tests/fuzz/build.sh "$build"
for t in $(cat tests/fuzz/targets); do
    "$build/fuzz/$t" -runs=0 "tests/fuzz/corpus/$t"
done
