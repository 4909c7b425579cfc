#!/bin/sh
# clang-tidy and cppcheck over the whole tree; what is switched off stands in .clang-tidy with its reason.
set -eu
cd "$(dirname "$0")/.."
files=$(find common master smtpd cleanup qmgr mover smtp drop bounce pickup control config logd resolver cmd -name '*.c')
flags='-std=c17 -D_GNU_SOURCE -DPOSTHORN_VERSION="x" -DPOSTHORN_LIBEXEC="x" -Icommon -I.'
# shellcheck disable=SC2086
printf '%s\n' $files | xargs -P 2 -n 8 sh -c 'clang-tidy --quiet "$@" -- '"'$flags'"' 2>/dev/null' sh | grep -E 'warning:|error:' && exit 1
cppcheck --quiet --error-exitcode=1 --enable=warning,portability --inline-suppr --suppress=missingIncludeSystem \
    --suppress=preprocessorErrorDirective -D_GNU_SOURCE -Icommon -I. $files
