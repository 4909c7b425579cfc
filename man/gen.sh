#!/bin/sh
# gen.sh TEMPLATE BUILD: a manual page from its template.  @@PARAMS scope, @@EVENTS program and
# @@OPTIONS command stand for what is generated from the tables and from --help.
set -eu
template=$1 build=$2
export ASAN_OPTIONS=detect_leaks=0
while IFS= read -r line; do
    case $line in
    '@@PARAMS '*) "$build/tools/mangen" params "${line#@@PARAMS }" ;;
    '@@EVENTS '*) "$build/tools/mangen" events "${line#@@EVENTS }" ;;
    '@@OPTIONS '*)
        "$build/${line#@@OPTIONS }" --help | awk '
            /^  -/ { n = match(substr($0, 3), /  +[^ ]/)
                     flag = substr($0, 3, 24); sub(/ +$/, "", flag); text = substr($0, 27); sub(/^ +/, "", text)
                     gsub(/-/, "\\-", flag); printf ".TP\n.B %s\n%s\n", flag, text }'
        ;;
    *) printf '%s\n' "$line" ;;
    esac
done <"$template"
