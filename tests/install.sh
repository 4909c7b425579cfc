#!/bin/sh
# install.sh BUILD DESTDIR PREFIX LIBEXEC SYSCONFDIR
set -eu
build=$1 root=$2 prefix=$3 libexec=$4 etc=$5
install -d "$root$prefix/sbin" "$root$prefix/bin" "$root$libexec" "$root$etc/posthorn" "$root$prefix/lib/sysusers.d" \
    "$root$prefix/share/man/man1" "$root$prefix/share/man/man5" "$root$prefix/share/man/man8" "$root$prefix/share/doc/posthorn"
install -m 755 "$build/posthorn" "$build/hornconf" "$build/hornqueue" "$build/hornmap" "$build/hornpasswd" "$build/horncert" "$build/horn-import-postfix" "$build/horn-import-iis" "$root$prefix/sbin/"
# setgid to hornpost where the group exists: whoever calls it may write into maildrop and nowhere else
install -m 755 "$build/sendmail" "$root$prefix/sbin/sendmail"
if [ "$(id -u)" = 0 ] && getent group hornpost >/dev/null; then
    chgrp hornpost "$root$prefix/sbin/sendmail"
    chmod 2755 "$root$prefix/sbin/sendmail"
fi
ln -sf ../sbin/sendmail "$root$prefix/bin/mailq"
ln -sf ../sbin/sendmail "$root$prefix/bin/newaliases"
install -m 755 "$build"/libexec/* "$root$libexec/"
install -d "$root$etc/pam.d"
install -m 644 conf/posthorn.pam "$root$etc/pam.d/posthorn"
install -m 644 conf/posthorn.sysusers "$root$prefix/lib/sysusers.d/posthorn.conf"
install -d "$root$prefix/lib/systemd/system" "$root$prefix/lib/tmpfiles.d" "$root$etc/logrotate.d" "$root$prefix/share/bash-completion/completions" \
    "$root$prefix/share/zsh/vendor-completions" "$root$prefix/lib"
sed "s#/usr/sbin/#$prefix/sbin/#" conf/posthorn.service >"$root$prefix/lib/systemd/system/posthorn.service"
install -m 644 conf/posthorn.tmpfiles "$root$prefix/lib/tmpfiles.d/posthorn.conf"
install -d "$root$prefix/lib/ocf/resource.d/posthorn"
sed "s#/usr/sbin/posthorn#$prefix/sbin/posthorn#" conf/ocf/posthorn-server >"$root$prefix/lib/ocf/resource.d/posthorn/server"
chmod 755 "$root$prefix/lib/ocf/resource.d/posthorn/server"
install -m 644 conf/posthorn.logrotate "$root$etc/logrotate.d/posthorn"
install -m 644 conf/posthorn.bash "$root$prefix/share/bash-completion/completions/posthorn"
for name in hornconf hornqueue hornmap horncert hornpasswd; do
    ln -sf posthorn "$root$prefix/share/bash-completion/completions/$name"
done
install -m 644 conf/posthorn.zsh "$root$prefix/share/zsh/vendor-completions/_posthorn"
ln -sf ../sbin/sendmail "$root$prefix/lib/sendmail"
for page in "$build"/man/*; do
    install -m 644 "$page" "$root$prefix/share/man/man${page##*.}/"
done
install -m 644 README.md CHANGELOG.md LICENSE "$root$prefix/share/doc/posthorn/"
