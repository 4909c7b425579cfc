#!/bin/sh
# make run: a private instance on 127.0.0.1:2525, and how to send it a first message.
set -eu
build=$(realpath "$1")
dir=$build/run
if [ ! -e "$dir/posthorn.conf" ]; then
    "$build/hornconf" -c "$dir" init listen=127.0.0.1:2525 default_domain=posthorn.example
fi
"$build/posthorn" -c "$dir" start
cat <<TXT
Posthorn runs on 127.0.0.1:2525; its configuration is in $dir.  A first message:

  swaks --server 127.0.0.1:2525 --from me@example.org --to you@posthorn.example

It lands in $dir/spool/default/Drop.  To look on, and to stop:

  $build/posthorn -c $dir status
  $build/hornqueue -c $dir list
  $build/posthorn -c $dir stop
TXT
