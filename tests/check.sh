#!/bin/sh
# make check: every test, and at the end one line of how many passed and failed.
set -u
build=$(realpath "$1")
cd "$(dirname "$0")/.."
# memory of a program that ends is not given back singly: what asan looks for here are real errors
export ASAN_OPTIONS=detect_leaks=0
passed=0 failed=0
log=$build/tests/check.log
: >"$log"

count() { # name passed failed
    passed=$((passed + $2)) failed=$((failed + $3))
    printf '%-28s %4d passed, %d failed\n' "$1" "$2" "$3"
}

step() { # name command...: one check that passes or fails as a whole
    name=$1
    shift
    if "$@" >>"$log" 2>&1; then count "$name" 1 0; else count "$name" 0 1; fi
}

unit() {
    out=$("$build/tests/unit" 2>&1)
    printf '%s\n' "$out" >>"$log"
    line=$(printf '%s\n' "$out" | grep -o 'Checks: [0-9]*, Failures: [0-9]*, Errors: [0-9]*')
    checks=$(printf '%s' "$line" | sed 's/[^0-9]/ /g' | awk '{ print $1 + 0 }')
    bad=$(printf '%s' "$line" | sed 's/[^0-9]/ /g' | awk '{ print $2 + $3 }')
    [ -n "$line" ] || { checks=1 bad=1; }
    count unit $((checks - bad)) "$bad"
    [ "$bad" = 0 ] || printf '%s\n' "$out" | grep -E ':[FE]:'
}

system() { # module
    out=$(cd tests/system && POSTHORN_BUILD=$build timeout 600 python3 -W ignore -m unittest "$1" 2>&1)
    printf '%s\n' "$out" >>"$log"
    ran=$(printf '%s\n' "$out" | sed -n 's/^Ran \([0-9]*\) test.*/\1/p')
    bad=$(printf '%s\n' "$out" | sed -n 's/^FAILED (\(.*\))/\1/p' | grep -oE '(failures|errors)=[0-9]+' | awk -F= '{ n += $2 } END { print n + 0 }')
    [ -n "$ran" ] || { ran=1 bad=1; }
    bad=${bad:-0}
    skipped=$(printf '%s\n' "$out" | grep -oE 'skipped=[0-9]+' | tail -1 | cut -d= -f2)
    ran=$((ran - ${skipped:-0})) # what was left out has not passed
    [ "$bad" -le "$ran" ] || bad=$ran
    count "system $1" $((ran - bad)) "$bad"
    [ "$bad" = 0 ] || printf '%s\n' "$out" | tail -40
}

replay() { # side option
    out=$("$build/tests/replay-$1" "$2" tests/replay/"$1"/*.rpl 2>&1)
    printf '%s\n' "$out" >>"$log"
    ran=$(printf '%s\n' "$out" | sed -n 's/^\([0-9]*\) scripts, .*/\1/p')
    bad=$(printf '%s\n' "$out" | sed -n 's/^[0-9]* scripts, \([0-9]*\) failed/\1/p')
    [ -n "$ran" ] || { ran=1 bad=1; }
    count "replay $1 $2" $((ran > bad ? ran - bad : 0)) "$bad"
    [ "$bad" = 0 ] || printf '%s\n' "$out"
}

step includes tests/check/includes.py
step events tests/check/events.py
step security tests/check/security.py
step style python3 tests/check/style_measure.py --check -x 'tests/bench/*' -x 'build*/*' .
step "man pages" tests/check/man.py "$build"
step "fuzz corpora" tests/fuzz/corpora.sh "$build"
unit
for side in smtpd smtp; do
    replay $side --all-rows
    replay $side --no-memory
done
for t in tests/system/test_*.py; do
    system "$(basename "$t" .py)"
done
echo "Everything that was printed is in $log"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
