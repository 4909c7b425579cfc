#!/bin/sh
# build.sh BUILD: a libFuzzer program for each target, with ASan and UBSan.
set -eu
cd "$(dirname "$0")/../.."
out=$1/fuzz
mkdir -p "$out"
flags="-std=c17 -D_GNU_SOURCE -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -Icommon -I."
for lib in base smtp message params dns queuefile; do
    for f in common/$lib/*.c; do
        o=$out/$(echo "$f" | tr / _).o
        [ "$o" -nt "$f" ] || clang $flags ${COVER:+-fprofile-instr-generate -fcoverage-mapping} -c "$f" -o "$o"
    done
done
[ "$out/messages.o" -nt common/ipc/messages.c ] || clang $flags -c common/ipc/messages.c -o "$out/messages.o"
for t in command address reply data header ipc record config dns; do
    [ "$out/$t" -nt tests/fuzz/targets.c ] ||
        clang $flags -fsanitize=fuzzer,address,undefined -DTARGET=fuzz_$t tests/fuzz/targets.c "$out"/common_*.o "$out/messages.o" -o "$out/$t"
done
