#!/bin/sh
# plant.sh BUILD: the control of the fuzzers: a missing bound is planted into a copy of the tree and must be found.
set -eu
cd "$(dirname "$0")/../.."
build=$(realpath "$1")
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r common tests pickup cmd "$copy"
# the check that a field is as long as it says: eight bytes too many pass
sed -i 's/^	if (from->n < n)$/	if (from->n + 8 < n)/' "$copy/common/base/buffer.c"
cmp -s common/base/buffer.c "$copy/common/base/buffer.c" && { echo "plant: nothing was planted" >&2; exit 1; }
"$copy/tests/fuzz/build.sh" "$copy/build"
mkdir "$copy/found"
if "$copy/build/fuzz/ipc" -max_total_time=60 -artifact_prefix="$copy/" "$copy/found" "$build/../tests/fuzz/corpus/ipc" >"$copy/log" 2>&1; then
    echo "plant: the planted overflow was NOT found" >&2
    exit 1
fi
grep -m1 -o 'AddressSanitizer: [a-z-]*overflow' "$copy/log"
