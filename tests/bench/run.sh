#!/bin/sh
# make bench: Posthorn beside Postfix, as root, confined, logging, on the disk that BENCH_TMP lies on.
#   BENCH_ARGS="e2e --rounds 5" make bench      another choice of commands and options
set -eu
cd "$(dirname "$0")"
[ "$(id -u)" = 0 ] || { echo "make bench: Postfix and the counting of CPU time need root" >&2; exit 77; }
export POSTHORN="${POSTHORN:-$(realpath ../..)}"
made=
[ -n "${BENCH_TMP:-}" ] || { BENCH_TMP=$(mktemp -d /var/tmp/posthorn-bench.XXXXXX); made=1; }
export BENCH_TMP
trap '[ -z "$made" ] || rm -rf "$BENCH_TMP"' EXIT
# shellcheck disable=SC2086
python3 bench.py ${BENCH_ARGS:-e2e idle bigmsg --rounds 3 --trace} --server postfix --server posthorn
