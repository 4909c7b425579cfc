#!/bin/sh
# clang-tidy and cppcheck over the whole tree; what is switched off stands in .clang-tidy with its reason.
# One file at a time: with several, the analyzer of va_list takes what is good for uninitialized.
set -eu
cd "$(dirname "$0")/.."
files=$(find common master smtpd cleanup qmgr mover smtp drop local deliver child maps authd keyd pamd sts gssd gssc lease bounce pickup control config logd resolver cmd -name '*.c')
out=$(mktemp)
trap 'rm -f "$out"' EXIT
# shellcheck disable=SC2086
printf '%s\n' $files | xargs -P 2 -n 1 sh -c 'clang-tidy --quiet "$@" -- -std=c17 -D_GNU_SOURCE "-DPOSTHORN_VERSION=\"x\"" "-DPOSTHORN_LIBEXEC=\"x\"" -Icommon -I. -I/usr/include/libxml2 2>/dev/null' sh >"$out" || true
bad=0
if grep -E 'warning:|error:' "$out"; then bad=1; fi
cppcheck --quiet --error-exitcode=1 --enable=warning,portability --inline-suppr --suppress=missingIncludeSystem -D_GNU_SOURCE -Icommon -I. $files || bad=1
exit $bad
