#!/bin/sh
# build.sh BUILD: a libFuzzer program for each target, with ASan and UBSan.
set -eu
cd "$(dirname "$0")/../.."
out=$1/fuzz
mkdir -p "$out"
cover=${COVER:+-fprofile-instr-generate -fcoverage-mapping}
flags="-std=c17 -D_GNU_SOURCE -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -Icommon -I. $cover"
# a header or a table may be in any of them: when one is newer, all are built again
stale() { [ ! -e "$1" ] || [ "$2" -nt "$1" ] || [ -n "$(find common pickup cmd/import -name '*.h' -newer "$1" -o -name '*.def' -newer "$1")" ]; }
for lib in base smtp message params dns sts lease queuefile lookup route; do
    for f in common/$lib/*.c; do
        [ "$f" != common/dns/context.c ] || continue # libunbound
        o=$out/$(echo "$f" | tr / _).o
        ! stale "$o" "$f" || clang $flags -c "$f" -o "$o"
    done
done
for f in common/ipc/messages.c common/gss/challenge.c pickup/draft.c common/map/alias.c common/map/text.c cmd/import/postfix_record.c; do
    o=$out/common_$(basename "$f").o
    ! stale "$o" "$f" || clang $flags -c "$f" -o "$o"
done
for t in $(cat tests/fuzz/targets); do
    [ "$out/$t" -nt tests/fuzz/targets.c ] && [ -z "$(find "$out" -name 'common_*.o' -newer "$out/$t")" ] ||
        clang $flags -fsanitize=fuzzer,address,undefined -DTARGET=fuzz_$t tests/fuzz/targets.c "$out"/common_*.o -lidn2 -o "$out/$t"
done
