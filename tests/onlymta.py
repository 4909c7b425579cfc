"""Posthorn as the only MTA of a Debian 12 tree, made by mmdebstrap from the machine's own apt sources; evidence.py runs it
(root, some minutes, the packages' mirror)."""
import os
import pathlib
import shutil
import subprocess
import tempfile

from horn import BUILD, TREE, wait_for

PACKAGES = "cron bsd-mailx mutt dovecot-lmtpd procps util-linux python3-minimal"
CONTROL = """Package: posthorn
Version: 0.1.0
Architecture: amd64
Maintainer: Posthorn <founders@posthorn.example>
Provides: mail-transport-agent
Conflicts: mail-transport-agent
Depends: {depends}
Description: mail transfer agent (made for this proof)
"""
POSTINST = """#!/bin/sh
set -e
awk '$1 == "u" { print $2 }' /usr/lib/sysusers.d/posthorn.conf | while read -r u; do
    getent passwd "$u" >/dev/null || useradd --system --user-group --no-create-home --shell /usr/sbin/nologin "$u"
done
getent group hornpost >/dev/null || groupadd --system hornpost
chgrp hornpost /usr/sbin/sendmail
chmod 2755 /usr/sbin/sendmail
"""
DOVECOT = """protocols = lmtp
ssl = no
log_path = /var/log/dovecot.log
mail_location = maildir:/var/dove/%n
first_valid_uid = 1
passdb {
  driver = static
  args = nopassword=y
}
userdb {
  driver = static
  args = uid=dovemail gid=dovemail home=/var/dove/%n
}
service lmtp {
  unix_listener lmtp {
    mode = 0666
  }
}
"""
# what runs inside: what a new administrator does, then each way in which mail comes
INSIDE = r"""#!/bin/sh
set -eu
for u in alice bob carol dovemail; do useradd -m -s /bin/sh $u; done
install -d -o dovemail /var/dove
printf 'postmaster: root\nroot: alice\n' >/etc/aliases
hostname only.example
hornconf init listen=127.0.0.1:25 fqdn=only.example default_domain=only.example local_delivery=maildir
hornconf domain add mbox.example type=local local_delivery=mbox
hornconf domain add dove.example type=local local_delivery=lmtp:unix:/run/dovecot/lmtp
newaliases
printf '%s' "$DOVECOT" >/etc/dovecot/dovecot.conf
dovecot
chmod 755 /run/dovecot
posthorn start
printf '"|(id -un; cat) >/home/bob/piped"\n' >/home/bob/.forward
chown bob /home/bob/.forward
printf '* * * * * echo said by cron\n' | crontab -u alice -
cron
echo body | mail -s by-mailx alice
printf 'To: alice\nSubject: by-sendmail-t\n\nbody\n' | sendmail -t
echo body | mail -s to-root root
echo body | mail -s to-bob bob
echo body | mail -s to-carol carol@mbox.example
echo body | mail -s to-dove someone@dove.example
python3 - <<'END'
import socket
s = socket.create_connection(("127.0.0.1", 25))
f = s.makefile("rb")
def hear():
    while True:
        line = f.readline()
        if line[3:4] == b" ":
            return line
hear()
for word in (b"EHLO only.example", b"MAIL FROM:<>", b"RCPT TO:<postmaster>", b"DATA", b"Subject: to-postmaster\r\n\r\nbody\r\n.", b"QUIT"):
    s.sendall(word + b"\r\n")
    print(hear())
END
"""


def make_deb(work):
    tree = work / "deb"
    subprocess.run(["make", "-s", "-C", TREE, "install", f"B={BUILD}", f"DESTDIR={tree}"], check=True, stdout=subprocess.DEVNULL)
    (tree / "DEBIAN").mkdir()
    depends = [line.split()[1] for line in (TREE / "packages.txt").read_text().splitlines() if line.startswith("runtime ")]
    (tree / "DEBIAN/control").write_text(CONTROL.format(depends=", ".join(depends)))
    (tree / "DEBIAN/postinst").write_text(POSTINST)
    os.chmod(tree / "DEBIAN/postinst", 0o755)
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", tree, work / "posthorn.deb"], check=True, stdout=subprocess.DEVNULL)


def read(path):
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def maildir(path):
    """Subject: owner and text of each message there."""
    found = {}
    for f in path.glob("new/*"):
        text = read(f)
        subject = next((line.split(": ", 1)[1] for line in text.splitlines() if line.startswith("Subject: ")), "")
        found[subject] = (f.stat().st_uid, text)
    return found


def onlymta():
    """Each way in which mail comes on a system with no other MTA, and each in which it is delivered, as whom."""
    work = pathlib.Path(tempfile.mkdtemp(prefix="only-"))
    root = work / "root"
    inside = None
    os.chmod(work, 0o755)
    try:
        make_deb(work)
        subprocess.run(["mmdebstrap", "--quiet", "--variant=apt", "bookworm", root, f"--customize-hook=copy-in {work}/posthorn.deb /root",
                        f'--customize-hook=chroot "$1" apt-get -q -y --no-install-recommends install /root/posthorn.deb {PACKAGES}'],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
        packages = subprocess.run(["chroot", root, "dpkg-query", "-W", "-f", "${Package}: ${Provides}\n"], capture_output=True, text=True, check=True).stdout
        out = {"MTAs": [line.split(":")[0] for line in packages.splitlines() if "mail-transport-agent" in line]}
        (root / "root/inside.sh").write_text(INSIDE)
        inside = subprocess.Popen(["unshare", "-mpnuf", "--kill-child", "sh", "-c",
                                   f"ip link set lo up; mount --rbind /dev {root}/dev; mount -t proc proc {root}/proc; mount -t tmpfs -o mode=755 tmpfs {root}/run; "
                                   f"chroot {root} sh /root/inside.sh >{work}/out 2>&1; echo $? >{work}/rc; until [ -e {work}/go ]; do sleep 0.2; done; "
                                   f"sleep 10 | chroot {root} su carol -c \"timeout 20 script -qec 'sh /tmp/mutt.sh' /dev/null\" >{work}/mutt 2>&1; touch {work}/done; exec sleep 100000"],
                                  env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DOVECOT": DOVECOT})
        wait_for("the inside has run", lambda: read(work / "rc"), 120)
        uid = {line.split(":")[0]: int(line.split(":")[2]) for line in read(root / "etc/passwd").splitlines()}
        alice, out["script's status"] = root / "home/alice/Maildir", int(read(work / "rc"))

        def settled():
            mail = maildir(alice)
            return (any("cron" in s.lower() for s in mail) and {"by-mailx", "by-sendmail-t", "to-root", "to-postmaster"} <= set(mail) and
                    read(root / "home/bob/piped") and read(root / "var/mail/carol") and maildir(root / "var/dove/someone"))
        try:
            wait_for("all of it", settled, 100)
        except AssertionError:
            print(read(work / "out")[-1500:], read(root / "var/log/posthorn/mail.log")[-3000:], subprocess.run(["find", root / "home", root / "var/mail", root / "var/spool/posthorn"], capture_output=True, text=True).stdout[-3000:])
        mail = maildir(alice)
        out["cron's mail, as alice"] = any("cron" in s.lower() and m[0] == uid["alice"] and "said by cron" in m[1] for s, m in mail.items())
        for name, subject in (("mail -s", "by-mailx"), ("sendmail -t", "by-sendmail-t"), ("root's alias", "to-root"), ("postmaster without domain", "to-postmaster")):
            out[f"{name}, as alice"] = subject in mail and mail[subject][0] == uid["alice"]
        piped = read(root / "home/bob/piped")
        out[".forward to a pipe, as bob"] = piped.startswith("bob\n") and "Subject: to-bob" in piped
        carol = root / "var/mail/carol"
        out["mbox, as carol"] = carol.exists() and carol.stat().st_uid == uid["carol"]
        (root / "tmp/mutt.sh").write_text("export TERM=xterm\ncd /tmp\nmutt -n -F /dev/null -e 'set wait_key=no folder=/tmp' -f /var/mail/carol -e 'push \"<pipe-message>cat >/tmp/seen<enter><quit>y\"'\n")
        (work / "go").touch()
        wait_for("mutt has ended", lambda: (work / "done").exists(), 60)
        out["mutt reads the mbox"] = "to-carol" in read(root / "tmp/seen")
        dove = maildir(root / "var/dove/someone")
        out["LMTP into Dovecot, as its user"] = "to-dove" in dove and dove["to-dove"][0] == uid["dovemail"]
        return out
    finally:
        if inside is not None:
            inside.kill() # what runs in its namespace of processes goes with it
            inside.wait()
        shutil.rmtree(work, ignore_errors=True)
