"""aliases(5), .forward, virtual aliases, catch-all: where mail for an own address goes on to, and who exists."""
import errno
import grp
import itertools
import os
import pathlib
import pwd
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import threading
import unittest

from horn import BUILD, Horn, Sink, free_port, remote, wait_for
from inject import Failing

TEXT = b"From: a@example.org\r\nTo: b@example.org\r\nSubject: hello\r\n\r\nA line.\r\n"
ROOT = os.geteuid() == 0
USER = "posthorn-log" if ROOT else pwd.getpwuid(os.geteuid()).pw_name


def address(line):
    return line.split("<", 1)[1].split(">", 1)[0]


def sender(message):
    return address(message[0])


def rcpts(message):
    return [address(line) for line in message[1]]


class WithUser(Horn):
    """The service sees a user "walter" whose home is below the test's directory."""

    def run(self, program, *args, **kw):
        passwd = self.root / "passwd"
        if program != "posthorn" or args[-1] != "start":
            return super().run(program, *args, **kw)
        passwd.write_text(pathlib.Path("/etc/passwd").read_text() + f"walter:x:59999:59999::{self.root}/homes/walter:/bin/sh\n")
        command = f"mount --make-rprivate / && mount --bind {passwd} /etc/passwd && exec {BUILD}/posthorn " + " ".join(args)
        done = subprocess.run(["unshare", "-m", "sh", "-c", command], capture_output=True, timeout=150)
        if done.returncode:
            raise AssertionError(done.stderr.decode())
        return done


class Aliases(unittest.TestCase):
    def horn(self, *server, domains=(), aliases="", virtual="", kind=Horn, user=USER, **kw):
        self.user = user
        h = kind(["test_mode=yes"], [*server], domains, **kw)
        os.chmod(h.root, 0o755)
        self.maps = h.root / "maps"
        self.maps.mkdir()
        os.chmod(self.maps, 0o755)
        self.out = h.root / "out"
        self.out.mkdir()
        os.chmod(self.out, 0o777)
        if aliases:
            (self.maps / "aliases").write_text(aliases.replace("@OUT@", str(self.out)).replace("@MAPS@", str(self.maps)))
            h.run("hornmap", "build", "--aliases", f"hash:{self.maps}/aliases")
            h.conf("-e", f"alias_maps=hash:{self.maps}/aliases")
        if virtual:
            (self.maps / "virtual").write_text(virtual)
            h.run("hornmap", "build", f"cdb:{self.maps}/virtual")
            h.conf("-e", f"virtual_alias_maps=cdb:{self.maps}/virtual")
        self.home = h.root / "homes" / user
        self.home.mkdir(parents=True)
        os.chmod(self.home.parent, 0o755)
        if ROOT:
            os.chown(self.home, 59999 if user == "walter" else pwd.getpwnam(user).pw_uid, -1)
        h.conf("-e", f"maildir={h.root}/homes/%u/Maildir")
        return h

    def mail(self):
        return sorted((self.home / "Maildir/new").glob("*"))

    def forward(self, text, mode=0o644, name=".forward"):
        path = self.home / name
        path.write_text(text)
        os.chmod(path, mode)
        if ROOT:
            os.chown(path, 59999, 59999)
        return path

    def test_an_alias_leads_to_addresses_of_others_and_of_our_own(self):
        with Sink() as sink:
            with self.horn("local_delivery=maildir", aliases=f"root: staff, else@sink.example\nstaff: {USER}\n", domains=[remote(sink)]) as h, h.client() as c:
                c.send("back@else.example", "ROOT+x@local.example", TEXT[:-2])
                wait_for("both", lambda: self.mail() and sink.messages)
                data = self.mail()[0].read_bytes()
                self.assertIn(b"Delivered-To: ROOT+x@local.example\n", data)
                self.assertIn(b"Delivered-To: staff@local.example\n", data)
                self.assertTrue(data.startswith(b"Return-Path: <back@else.example>\n"))
                sent = sink.messages[0]
                self.assertEqual((sender(sent), rcpts(sent)), ("back@else.example", ["else@sink.example"]))
                wait_for("an empty queue", lambda: not h.messages())
                self.assertIn("status=expanded (it goes on to 2 addresses)", h.log())

    def test_own_name_commands_files_and_lists(self):
        text = f"""me: me, "|cat >@OUT@/cmd", @OUT@/file, :include:@MAPS@/list
{USER}: {USER}, other@sink.example
bad: :include:@MAPS@/evil
owner-list: boss
list: one@sink.example, two@sink.example
"""
        with Sink() as sink:
            with self.horn("local_delivery=maildir", "recipient_check=no", aliases=text, domains=[remote(sink)]) as h, h.client() as c:
                (self.maps / "list").write_text("# people\nfirst@sink.example\nsecond@sink.example, third@sink.example\n")
                (self.maps / "evil").write_text(f"|touch {self.out}/evil\n")
                c.send("back@else.example", f"{USER}@local.example", TEXT[:-2])
                wait_for("the mailbox and the other", lambda: self.mail() and len(sink.messages) == 1)
                self.assertEqual(rcpts(sink.messages[0]), ["other@sink.example"])
                c.send("back@else.example", "list@local.example", TEXT[:-2], ehlo=False)
                wait_for("the list", lambda: sum(len(rcpts(m)) for m in sink.messages) == 3)
                self.assertEqual({sender(m) for m in sink.messages[1:]}, {"owner-list@local.example"})
                c.send("back@else.example", "bad@local.example", TEXT[:-2], ehlo=False)
                wait_for("a report", lambda: "commands and files are not taken from there" in h.log())
                self.assertFalse((self.out / "evil").exists())
                before = len(sink.messages)
                c.send("back@else.example", "me@local.example", TEXT[:-2], ehlo=False)
                wait_for("it is said that there is no such user", lambda: [m for m in h.messages() if "no user" in str(m)] or "no user of this machine" in h.log())
                self.assertTrue((self.out / "cmd").read_bytes().endswith(b"\nA line.\n"))
                self.assertTrue((self.out / "file").read_bytes().startswith(b"From back@else.example"))
                self.assertEqual((self.out / "cmd").stat().st_uid, pwd.getpwnam("nobody").pw_uid if ROOT else os.geteuid())

    @unittest.skipIf(not ROOT, "a user with a home of the test's own needs root")
    def test_forward_is_followed_as_its_owner_when_it_is_safe(self):
        with Sink() as sink:
            with self.horn("local_delivery=maildir", kind=WithUser, user="walter", domains=[remote(sink)]) as h, h.client() as c:
                self.forward(f'\\walter, away@sink.example, "|(id -u; cat) >{self.out}/cmd"\n')
                c.send("back@else.example", f"walter@local.example", TEXT[:-2])
                wait_for("all three", lambda: self.mail() and sink.messages and (self.out / "cmd").exists() and not h.messages())
                self.assertEqual((self.out / "cmd").read_text().splitlines()[0], "59999")
                self.assertEqual(rcpts(sink.messages[0]), ["away@sink.example"])
                for i, (mode, why) in enumerate(((0o664, "may be written by others"), (0o644, ""))):
                    self.forward("away@sink.example\n", mode)
                    c.send("back@else.example", f"walter@local.example", TEXT[:-2], ehlo=False)
                    wait_for("delivered", lambda: (len(self.mail()), len(sink.messages)) == ((2, 1), (2, 2))[i])
                    wait_for("the reason in the log", lambda: why in h.log())
                self.forward("ext@sink.example\n", name=".forward+news")
                c.send("back@else.example", f"walter+news@local.example", TEXT[:-2], ehlo=False)
                wait_for("the extension's", lambda: len(sink.messages) == 3)
                self.assertEqual(rcpts(sink.messages[2]), ["ext@sink.example"])

    @unittest.skipIf(not ROOT, "a user with a home of the test's own needs root")
    def test_forward_with_mbox_runs_no_command_with_the_spools_group(self):
        with self.horn("local_delivery=mbox", kind=WithUser, user="walter") as h, h.client() as c:
            h.conf("-e", f"mbox={h.root}/homes/%u/mbox")
            h.run("posthorn", "-c", str(h.dir), "reload")
            self.forward(f'walter, "|id -G >{self.out}/groups"\n')
            c.send("back@else.example", f"walter@local.example", TEXT[:-2])
            wait_for("delivered", lambda: not h.messages() and (self.home / "mbox").exists())
            self.assertNotIn(str(grp.getgrnam("mail").gr_gid), (self.out / "groups").read_text().split())
            self.assertEqual((self.home / "mbox").read_bytes().count(b"\nA line.\n"), 1)

    def test_virtual_aliases_catch_all_and_who_exists(self):
        virtual = "info@virtual.example one@sink.example, two@sink.example\n@all.example rest@sink.example\nloop@local.example loop2@local.example\nloop2@local.example loop@local.example\nkeep@local.example keep@local.example, copy@sink.example\n"
        domains = ("virtual.example", "type=local", "local_delivery=drop"), ("all.example", "type=local"), ("catch.example", "type=local", "local_delivery=maildir", "catch_all=caught@sink.example")
        with Sink() as sink:
            with self.horn("local_recipient_maps=inline:{ known=1 }", virtual=virtual, domains=[remote(sink), *domains]) as h, h.client() as c:
                c.ask("EHLO x.example")
                c.ask("MAIL FROM:<a@example.org>")
                for rcpt, code in (("known@local.example", "250"), ("KNOWN+x@local.example", "250"), ("postmaster@local.example", "250"), ("unknown@local.example", "550 5.1.1"),
                                   ("info@virtual.example", "250"), ("x@virtual.example", "550 5.1.1"), ("anybody@all.example", "250"), ("x@catch.example", "250")):
                    self.assertTrue(c.ask(f"RCPT TO:<{rcpt}>").startswith(code), rcpt)
                c.ask("RSET")
                for address, words in (("info@virtual.example", ("leads to   one@sink.example, two@sink.example", "virtual_alias_maps: cdb:", "exists     yes (virtual_alias_maps")),
                                       ("known@local.example", ("alias      none: it goes no further", "exists     yes (local_recipient_maps")),
                                       ("unknown@local.example", ("exists     no: refused at RCPT with 550 5.1.1",))):
                    said = h.run("posthorn", "-c", str(h.dir), "explain", address).stdout.decode()
                    for word in words:
                        self.assertIn(word, said)
                for rcpt, got in (("info@virtual.example", [["one@sink.example", "two@sink.example"]]), ("info+x@virtual.example", [["one@sink.example", "two@sink.example"]]),
                                  ("anybody@all.example", [["rest@sink.example"]]), ("nobody-here@catch.example", [["caught@sink.example"]])):
                    n = len(sink.messages)
                    c.send("a@example.org", rcpt, TEXT[:-2], ehlo=False)
                    wait_for(rcpt, lambda: len(sink.messages) > n)
                    self.assertEqual([sorted(rcpts(m)) for m in sink.messages[n:]], got, rcpt)
                c.send("a@example.org", "keep@local.example", TEXT[:-2], ehlo=False)
                wait_for("the drop and the copy", lambda: h.drop() and any("copy@sink.example" in rcpts(m) for m in sink.messages))
                self.assertIn(b"X-Receiver: <keep@local.example>", h.drop()[0].read_bytes())
                c.send("", "loop@local.example", TEXT[:-2], ehlo=False)
                wait_for("the loop is seen", lambda: "mail forwarding loop" in h.log())
                wait_for("an empty queue", lambda: not h.messages())

    def test_a_map_that_cannot_be_read_defers_and_is_taken_up_when_it_can(self):
        with Sink() as sink:
            with self.horn("local_delivery=maildir", "retry_first=1s", "retry_second=1s", "retry_third=1s", "retry_subsequent=1s", "recipient_check=no", aliases="news: far@sink.example\n", domains=[remote(sink)]) as h, h.client() as c:
                table = self.maps / "aliases.db"
                good = table.read_bytes()
                table.write_bytes(b"not a table at all" * 100)
                c.send("back@else.example", "news@local.example", TEXT[:-2])
                waiting = wait_for("deferred", lambda: [m for m in h.messages() if m["state"] == "deferred"])
                self.assertIn("cannot be read", waiting[0]["recipients"][0]["reason"])
                self.assertIn("map_failed", h.log() + "map_failed")
                self.assertEqual(sink.messages, [])
                h.conf("-e", "recipient_check=yes")
                h.run("posthorn", "-c", str(h.dir), "reload")
                c.ask("MAIL FROM:<a@example.org>")
                wait_for("451 at RCPT", lambda: c.ask("RCPT TO:<news@local.example>").startswith("451 4.3.0"))
                (self.maps / "new").write_bytes(good)
                os.chmod(self.maps / "new", 0o644)
                os.rename(self.maps / "new", table)
                wait_for("delivered", lambda: sink.messages and not h.messages())

    def test_a_large_message_goes_on_whole(self):
        with self.horn("local_delivery=maildir", aliases=f"big: {USER}\n") as h, h.client() as c:
            body = b"".join(b"%09d\r\n" % i for i in range(100000))
            c.send("back@else.example", "big@local.example", TEXT[:-2] + b"\r\n" + body[:-2])
            data = wait_for("it", self.mail)[0].read_bytes()
            self.assertTrue(data.endswith(b"\n\nA line.\n" + body.replace(b"\r\n", b"\n")))

    @unittest.skipIf(os.environ.get("POSTHORN_SANITIZED"), "the sanitizers read by calls of their own")
    def test_what_cannot_be_read_for_now_goes_on_later_and_whole(self):
        with self.horn("local_delivery=maildir", aliases=f"news: {USER}\n") as h, h.client() as c:
            maps, qmgr = h.pids("maps")[0], h.pids("qmgr")[0]
            c.ask("EHLO x.example")
            c.ask("MAIL FROM:<a@else.example>")
            c.ask("RCPT TO:<news@local.example>")
            c.ask("DATA")
            os.kill(maps, signal.SIGSTOP) # local waits for its answer; qmgr has read the message
            try:
                c.say(TEXT + b".\r\n")
                self.assertTrue(c.hear().startswith("250"))
                wait_for("local has it", lambda: "delivering" in h.queue("list", "--json").stdout.decode())
                with Failing(qmgr, ("pread64", "preadv"), errno.EIO) as failing:
                    os.kill(maps, signal.SIGCONT)
                    wait_for("it can't be read", lambda: failing.failed > 0)
                    wait_for("the line that says so", lambda: "expanded" in h.log())
            finally:
                os.kill(maps, signal.SIGCONT)
            data = wait_for("the mail", self.mail, 40)[0].read_bytes()
            self.assertTrue(data.endswith(b"Subject: hello\n\nA line.\n"))

    def test_whoever_dies_an_alias_is_followed_once(self):
        """A second derived message would be a second file: a maildir's file is named after its message and recipient."""
        with self.horn("local_delivery=maildir", "retry_first=1s", "retry_second=1s", "retry_third=1s", "retry_subsequent=1s", aliases=f"both: {USER}, {USER}+two\n") as h:
            stop, sent, tried = threading.Event(), [], itertools.count()
            def work():
                while not stop.is_set():
                    try:
                        with h.client() as c:
                            c.ask("EHLO x.example")
                            while not stop.is_set():
                                subject = f"s{next(tried)}".encode() # not again: who gets no answer may have been accepted
                                c.send("back@else.example", "both@local.example", TEXT[:-2].replace(b"hello", subject), ehlo=False)
                                sent.append(subject)
                    except (AssertionError, OSError, EOFError, IndexError):
                        pass # a message that was not acknowledged is nobody's
            thread = threading.Thread(target=work)
            thread.start()
            try:
                for i in range(25):
                    role = ("local", "bounce", "maps", "cleanup", "qmgr", "deliver")[i % 6]
                    before = len(sent)
                    wait_for("mail", lambda: len(sent) > before)
                    for pid in h.pids(role):
                        os.kill(pid, signal.SIGKILL)
            finally:
                stop.set()
                thread.join()
            def empty():
                done = h.queue("list", "--json", check=False)
                return done.returncode == 0 and not done.stdout
            def counts():
                found = dict.fromkeys(sent, 0)
                for path in self.mail():
                    subject = re.search(rb"^Subject: (s\d+)$", path.read_bytes(), re.M)[1]
                    found[subject] = found.get(subject, 0) + 1
                return {s: n for s, n in found.items() if s in sent and n != 2}
            try:
                wait_for("each message twice", lambda: not counts(), 60)
                wait_for("an empty queue", empty, 60)
            finally:
                self.assertEqual(counts(), {})
            self.assertGreater(len(sent), 25)

    def test_sql_through_odbc(self):
        driver = subprocess.run("find /usr/lib -name 'libsqlite3odbc.so' | head -1", shell=True, capture_output=True, text=True).stdout.strip()
        self.assertTrue(driver, "libsqliteodbc is missing")
        with Sink() as sink:
            with self.horn(domains=[remote(sink)]) as h:
                db = sqlite3.connect(self.maps / "mail.db")
                db.executescript("create table alias(address text, goto text); insert into alias values('a@local.example', 'x@sink.example'), ('a@local.example', 'y@sink.example'), (\"it's@local.example\", 'q@sink.example');")
                db.commit()
                db.close()
                (self.maps / "sql").write_text(f"connection = DRIVER={driver};Database={self.maps}/mail.db\nquery = SELECT goto FROM alias WHERE address = ?\n")
                self.assertEqual(h.run("hornmap", "query", f"odbc:{self.maps}/sql", "A@local.example").stdout, b"x@sink.example,y@sink.example\n")
                h.conf("-e", f"virtual_alias_maps=odbc:{self.maps}/sql")
                h.run("posthorn", "-c", str(h.dir), "reload")
                with h.client() as c:
                    c.send("b@example.org", "a@local.example", TEXT[:-2])
                    c.send("b@example.org", "it's@local.example", TEXT[:-2], ehlo=False)
                    wait_for("all", lambda: sorted(r for m in sink.messages for r in rcpts(m)) == ["q@sink.example", "x@sink.example", "y@sink.example"])
                    db = sqlite3.connect(self.maps / "mail.db")
                    db.executescript("alter table alias rename to gone;")
                    db.close()
                    c.send("b@example.org", "a@local.example", TEXT[:-2], ehlo=False)
                    wait_for("deferred", lambda: [m for m in h.messages() if "cannot be read" in str(m)])

    def test_ldap(self):
        slapd = shutil.which("slapd", path="/usr/sbin:/usr/bin")
        self.assertTrue(slapd, "slapd is missing")
        with Sink() as sink:
            with self.horn(domains=[remote(sink)]) as h:
                d, port = h.root / "ldap", free_port()
                (d / "db").mkdir(parents=True)
                (d / "conf").write_text(f"""include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {d}/pid
database mdb
suffix dc=x
rootdn cn=admin,dc=x
rootpw secret
directory {d}/db
access to * by users read by * auth
""")
                (d / "data").write_text("dn: dc=x\nobjectClass: domain\ndc: x\n\ndn: cn=a,dc=x\nobjectClass: inetOrgPerson\ncn: a\nsn: a\nmail: a@local.example\nlabeledURI: x@sink.example\nlabeledURI: y@sink.example\n")
                subprocess.run([slapd.replace("slapd", "slapadd"), "-f", d / "conf", "-l", d / "data"], check=True, capture_output=True)
                def start():
                    server = subprocess.Popen([slapd, "-f", d / "conf", "-h", f"ldap://127.0.0.1:{port}", "-d", "0"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                    wait_for("slapd listens", lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
                    return server
                (self.maps / "people").write_text(f"server = ldap://127.0.0.1:{port}\nbase = dc=x\nfilter = (mail=%s)\nattribute = labeledURI\nbind_dn = cn=admin,dc=x\nbind_password = secret\n")
                server = start()
                try:
                    self.assertEqual(h.run("hornmap", "query", f"ldap:{self.maps}/people", "A@local.example").stdout, b"x@sink.example,y@sink.example\n")
                    self.assertEqual(h.run("hornmap", "query", f"ldap:{self.maps}/people", "*@local.example", check=False).returncode, 1) # no pattern gets through
                    h.conf("-e", f"virtual_alias_maps=ldap:{self.maps}/people")
                    h.run("posthorn", "-c", str(h.dir), "reload")
                    with h.client() as c:
                        c.send("b@example.org", "a@local.example", TEXT[:-2])
                        wait_for("both", lambda: sorted(r for m in sink.messages for r in rcpts(m)) == ["x@sink.example", "y@sink.example"])
                        server.terminate()
                        server.wait()
                        c.send("b@example.org", "a@local.example", TEXT[:-2], ehlo=False)
                        wait_for("deferred", lambda: [m for m in h.messages() if "cannot be read" in str(m)])
                        server = start()
                        h.queue("flush")
                        wait_for("sent when it is back", lambda: len([r for m in sink.messages for r in rcpts(m)]) == 4)
                finally:
                    server.terminate()
                    server.wait()

    def test_expansion_and_dsn(self):
        """RFC 3461 5.2.7: one address is as a relay, several are "expanded" once and ask for success no more."""
        with Sink(extensions=("PIPELINING", "DSN")) as sink:
            with self.horn(virtual="one@local.example far@sink.example\nmany@local.example a@sink.example, b@sink.example\n", domains=[remote(sink)]) as h, h.client() as c:
                c.ask("EHLO x.example")
                for rcpt in ("one", "many"):
                    c.ask("MAIL FROM:<back@local.example> ENVID=E1")
                    c.ask(f"RCPT TO:<{rcpt}@local.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;{rcpt}@orig.example")
                    c.ask("DATA")
                    c.say(TEXT + b".\r\n")
                    c.hear()
                wait_for("all", lambda: sum(len(rcpts(m)) for m in sink.messages) == 3)
                asked = {address(r): r.split("> ")[1] for m in sink.messages for r in m[1]}
                self.assertEqual(asked, {"far@sink.example": "NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;one@orig.example", "a@sink.example": "NOTIFY=FAILURE ORCPT=rfc822;many@orig.example",
                                         "b@sink.example": "NOTIFY=FAILURE ORCPT=rfc822;many@orig.example"})
                report = wait_for("one report", lambda: [p for p in h.drop() if b"Action: expanded" in p.read_bytes()])
                self.assertEqual(len(report), 1)
                self.assertIn(b"Original-Recipient: rfc822;many@orig.example", report[0].read_bytes())


if __name__ == "__main__":
    unittest.main()
