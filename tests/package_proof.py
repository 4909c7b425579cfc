"""The Debian packages in a clean Debian 12 tree, made by mmdebstrap from the machine's own apt sources; evidence.py runs it (root, some
minutes, the packages' mirror)."""
import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from horn import TREE

INSIDE = r"""set -u
posthorn start; echo "start $?"
echo body | mail -s to-root root; echo "mail $?"
n=0
until [ -s /var/mail/root ] || [ $n = 40 ]; do sleep 0.5; n=$((n + 1)); done
hornqueue list | sed 's/^/queue /'
grep -c '^Subject: to-root' /var/mail/root | sed 's/^/root has /'
posthorn status | sed 's/^/status /'
exec 3<>/dev/tcp/127.0.0.1/25
read -r line <&3; echo "session ${line%%[ -]*}"
before=$(cat /run/posthorn/master.pid)
apt-get -q -y install /root/posthorn.deb >/tmp/upgrade 2>&1; echo "upgrade $?"
dpkg -s posthorn | sed -n 's/^Version: /upgrade /p'
[ "$before" = "$(cat /run/posthorn/master.pid)" ] && echo "upgrade the same master"
printf 'HELO a\r\n' >&3; read -r line <&3; echo "session ${line%%[ -]*}"
printf 'QUIT\r\n' >&3; read -r line <&3; echo "session ${line%%[ -]*}"
exec 3>&-
echo body | mail -s after root
n=0
until [ "$(grep -c '^Subject: ' /var/mail/root)" = 2 ] || [ $n = 40 ]; do sleep 0.5; n=$((n + 1)); done
grep -c '^Subject: ' /var/mail/root | sed 's/^/root has /'
posthorn stop; echo "stop $?"
export DEBIAN_FRONTEND=noninteractive
apt-get -q -y --reinstall install /root/posthorn.deb >/dev/null 2>&1; echo "again $?"
ls /etc/posthorn/servers | sed 's/^/kept /'
apt-get -q -y purge posthorn >/tmp/purge 2>&1; echo "purge $?"
find / -xdev \( -name '*posthorn*' -o -name 'horn*' \) -not -path '/proc/*' -not -path '/root/*' 2>/dev/null | sed 's/^/left /'
getent passwd | grep posthorn | sed 's/^/left /'
getent group | grep -e posthorn -e hornpost | sed 's/^/left /'
"""


def build(work):
    """The packages of this tree, and what lintian says of them."""
    shutil.copytree(TREE, work / "posthorn", ignore=shutil.ignore_patterns("build", "build-*", ".git"))
    subprocess.run(["dpkg-buildpackage", "-us", "-uc", "-b"], cwd=work / "posthorn", check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    said = subprocess.run(["lintian", "--allow-root", "--pedantic", *work.glob("*.changes")], capture_output=True, text=True).stdout
    deb, = work.glob("posthorn_*.deb")
    return deb, [line for line in said.splitlines() if re.match("[EWIP]:", line)]


def older(deb, work):
    """The same under a lower version."""
    subprocess.run(["dpkg-deb", "-R", deb, work / "older"], check=True)
    control = work / "older/DEBIAN/control"
    control.write_text(re.sub("(?m)^Version: .*", "Version: 0.0.9", control.read_text()))
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", work / "older", work / "older.deb"], check=True, stdout=subprocess.DEVNULL)


def run_inside(root, script):
    """What the script says in the tree, on a network of its own: a word, then a value."""
    (root / "root/inside.sh").write_text(script)
    done = subprocess.run(["unshare", "-mpnuf", "--kill-child", "sh", "-c",
                           f"ip link set lo up; mount --rbind /dev {root}/dev; mount -t proc proc {root}/proc; mount -t tmpfs -o mode=755 tmpfs {root}/run; hostname clean.example; chroot {root} bash /root/inside.sh"],
                          env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, capture_output=True, text=True, timeout=300)
    words = {}
    for line in done.stdout.splitlines():
        key, _, value = line.partition(" ")
        words.setdefault(key, []).append(value)
    return words


@contextlib.contextmanager
def workplace():
    """A directory with the package, the tree beside it, and what lintian says."""
    work = pathlib.Path(tempfile.mkdtemp(prefix="package-"))
    os.chmod(work, 0o755)
    try:
        deb, lintian = build(work)
        shutil.copy(deb, work / "posthorn.deb")
        yield work, deb, lintian
    finally:
        shutil.rmtree(work, ignore_errors=True)


def debootstrap(root, *more):
    subprocess.run(["mmdebstrap", "--quiet", "--variant=apt", *more[:1], "bookworm", root, *more[1:]], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                   env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})


def package():
    """Built, judged, installed by one command, used, upgraded from an older version under a session, installed again, purged."""
    with workplace() as (work, deb, lintian):
        root = work / "root"
        older(deb, work)
        debootstrap(root, "--include=apt", f"--customize-hook=copy-in {work}/posthorn.deb {work}/older.deb /root",
                    '--customize-hook=chroot "$1" apt-get -q -y --no-install-recommends install /root/older.deb bsd-mailx procps')
        words = run_inside(root, INSIDE)
        return {"lintian": lintian, **{k: words.get(k, []) for k in ("start", "mail", "root", "queue", "session", "upgrade", "stop", "again", "kept", "purge", "left")},
                "servers": [re.sub(r"\s+", " ", s.strip()) for s in words.get("status", [])[1:]]}


# Mail for local users waits in Postfix's queue (defer_transports), an alias leads to one of them; then Posthorn is installed.
REPLACED = r"""set -u
export DEBIAN_FRONTEND=noninteractive
useradd -m ann
printf 'team: ann\n' >>/etc/aliases
newaliases
postconf -e myhostname=old.example myorigin=old.example 'mydestination=$myhostname, localhost, shop.example' defer_transports=local inet_interfaces=loopback-only message_size_limit=5000000
postfix start >/dev/null 2>&1; echo "postfix $?"
for i in 1 2 3 4 5; do echo body | mail -s "waits-$i" team; done
echo body | mail -s to-ann ann@shop.example
n=0
until [ "$(find /var/spool/postfix/deferred -type f | wc -l)" = 6 ] || [ $n = 60 ]; do sleep 0.5; n=$((n + 1)); done
find /var/spool/postfix/deferred -type f | wc -l | sed 's/^/deferred /'
postfix stop >/dev/null 2>&1 # systemd does it elsewhere when the package is removed
apt-get -q -y install /root/posthorn.deb >/tmp/install 2>&1; echo "install $?"
dpkg -s postfix | sed -n 's/^Status: /was /p'
grep -c . /etc/posthorn/import-postfix.txt | sed 's/^/report /'
hornconf -h fqdn default_domain message_size_limit alias_maps | sed 's/^/conf /'
hornconf domain list | sed 's/^/domain /'
posthorn start; echo "start $?"
echo body | mail -s new team
n=0
until [ "$(grep -c '^Subject: ' /var/mail/ann)" = 7 ] || [ $n = 60 ]; do sleep 0.5; n=$((n + 1)); done
grep '^Subject: ' /var/mail/ann | sort | sed 's/^Subject: /ann /'
find /var/spool/postfix/posthorn -type f | wc -l | sed 's/^/kept /'
find /var/spool/postfix/deferred -type f | wc -l | sed 's/^/left /'
hornqueue list | sed 's/^/queue /'
posthorn stop; echo "stop $?"
"""


def replaced():
    """A Postfix with aliases and waiting mail, replaced by the package: one command, nothing answered."""
    with workplace() as (work, _, _):
        root = work / "root"
        depends = [line.split()[1] for line in (TREE / "packages.txt").read_text().splitlines() if line.startswith("runtime ")]
        # what the package needs is there already: the tree's network is its own and leads nowhere
        debootstrap(root, f"--include=postfix,bsd-mailx,procps,adduser,debconf,{','.join(depends)}", f"--customize-hook=copy-in {work}/posthorn.deb /root")
        words = run_inside(root, REPLACED)
        return {k: words.get(k, []) for k in ("postfix", "deferred", "install", "was", "report", "conf", "domain", "start", "ann", "kept", "left", "queue", "stop")}
