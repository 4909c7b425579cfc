"""The Debian packages in a clean Debian 12 tree, made by mmdebstrap from the machine's own apt sources; evidence.py runs it (root, some
minutes, the packages' mirror)."""
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


def package():
    """Built, judged, installed by one command, used, installed again, purged."""
    work = pathlib.Path(tempfile.mkdtemp(prefix="package-"))
    root = work / "root"
    os.chmod(work, 0o755)
    try:
        deb, lintian = build(work)
        shutil.copy(deb, work / "posthorn.deb")
        subprocess.run(["mmdebstrap", "--quiet", "--variant=apt", "bookworm", root, f"--customize-hook=copy-in {work}/posthorn.deb /root",
                        '--customize-hook=chroot "$1" apt-get -q -y --no-install-recommends install /root/posthorn.deb bsd-mailx procps'],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
        (root / "root/inside.sh").write_text(INSIDE)
        done = subprocess.run(["unshare", "-mpnuf", "--kill-child", "sh", "-c",
                               f"ip link set lo up; mount --rbind /dev {root}/dev; mount -t proc proc {root}/proc; mount -t tmpfs -o mode=755 tmpfs {root}/run; hostname clean.example; chroot {root} sh /root/inside.sh"],
                              env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, capture_output=True, text=True, timeout=300)
        words = {}
        for line in done.stdout.splitlines():
            key, _, value = line.partition(" ")
            words.setdefault(key, []).append(value)
        return {"lintian": lintian, **{k: words.get(k, []) for k in ("start", "mail", "root", "queue", "stop", "again", "kept", "purge", "left")},
                "servers": [re.sub(r"\s+", " ", s.strip()) for s in words.get("status", [])[1:]]}
    finally:
        shutil.rmtree(work, ignore_errors=True)
