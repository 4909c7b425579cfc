"""Logins by Kerberos and NTLM (MISSION C1, auth_methods = integrated): a real KDC, gss-ntlmssp's file of users, clients that people have."""
import base64
import os
import pathlib
import pwd
import re
import shutil
import signal
import struct
import subprocess
import unittest

from horn import Horn, Sink, alive, remote, wait_for
from kdc import Realm

TEXT = b"From: a@example.org\r\nSubject: hello\r\n\r\nA line.\r\n"


NEGOTIATE = "TlRMTVNTUAABAAAAB4IIogAAAAAAAAAAAAAAAAAAAAAGAbEdAAAADw=="


def wrong_ntlm(domain, user):
    """An AUTHENTICATE_MESSAGE ([MS-NLMP] 2.2.1.3) whose proof is no good."""
    wide = [t.encode("utf-16-le") for t in (domain, user, "PC")]
    proof = b"p" * 16 + b"\1\1" + b"\0" * 6 + struct.pack("<Q", 133000000000000000) + b"c" * 8 + b"\0" * 8
    payload, fields, place = b"", b"", 72
    for value in (b"l" * 24, proof, *wide, b""):
        fields += struct.pack("<HHI", len(value), len(value), place + len(payload))
        payload += value
    return b"NTLMSSP\0" + struct.pack("<I", 3) + fields + struct.pack("<I", 0xa2080205) + b"\6\1\xb1\x1d\0\0\0\x0f" + payload


@unittest.skipUnless(os.geteuid() == 0, "a keytab is root's")
class Integrated(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.realm = Realm()
        cls.addClassCleanup(cls.realm.close)
        cls.realm.user("alice", "secret")
        cls.realm.service("smtp/mx.horn.example", cls.realm.dir / "keytab")
        cls.realm.service("smtp/mx.elsewhere.example", cls.realm.dir / "keytab")
        cls.realm.service("smtp/mx.elsewhere.example", cls.realm.dir / "other")
        cls.realm.ticket("alice", "secret")

    def horn(self, *server, keytab="keytab", readable=True, domains=()):
        h = Horn(["test_mode=yes"], ["auth_default_domain=local.example", "auth_failure_delay=1s", *server], domains)
        users = h.root / "ntlm"
        users.write_text("HORN:bob:secret word\n")
        os.chmod(users, 0o640)
        if readable:
            os.chown(users, 0, pwd.getpwnam("posthorn-gss").pw_gid)
        shutil.copy(self.realm.dir / keytab, h.root / "keytab")
        os.chmod(h.root / "keytab", 0o600)
        with (h.dir / "posthorn.conf").open("a") as f:
            f.write(f"auth_keytab_file = {h.root}/keytab\nauth_ntlm_file = {users}\n")
        return h

    def offered(self, h, tls=False):
        if tls:
            done = subprocess.run(["openssl", "s_client", "-quiet", "-starttls", "smtp", "-connect", f"127.0.0.1:{h.port}"], input=b"EHLO x\r\nQUIT\r\n", capture_output=True, timeout=30)
            return re.findall(r"250-AUTH (.*?)\r?\n", done.stdout.decode())
        with h.client() as c:
            return re.findall(r"250-AUTH (.*?)\r?\n", c.ask("EHLO x") + "\n")

    def begin(self, h):
        h.start()
        wait_for("the offer", lambda: self.offered(h))
        return h

    def gsasl(self, h, mechanism, *more):
        return subprocess.run(["gsasl", "--smtp", "--connect", f"127.0.0.1:{h.port}", "--mechanism", mechanism, "--service", "smtp", "--hostname", "mx.horn.example", "--authorization-id", "",
                               "--quality-of-protection", "qop-auth", "--no-starttls", *more], env=self.realm.env, input=b"", capture_output=True, timeout=60)

    def curl(self, h, mechanism, user, **more):
        return subprocess.run(["curl", "-s", "-k", "--ssl-reqd", "--login-options", f"AUTH={mechanism}", "--user", user, f"smtp://mx.horn.example:{h.port}", "--resolve", f"mx.horn.example:{h.port}:127.0.0.1",
                               "--mail-from", "a@b.example", "--mail-rcpt", "x@far.example", "-T", "-"], input=TEXT, capture_output=True, timeout=60, **more).returncode

    def token(self, mechanism, env=None):
        done = subprocess.run(["gsasl", "--client", "--mechanism", mechanism, "--service", "smtp", "--hostname", "mx.horn.example", "--authorization-id", "", "--quality-of-protection", "qop-auth"],
                              env=env or self.realm.env, input=b"\n", capture_output=True, timeout=30)
        return max(re.findall(rb"[A-Za-z0-9+/=]{50,}", done.stdout), key=len).decode()

    def logins(self, h, event="login:"):
        return [l.split("posthorn/authd")[1] for l in h.log().splitlines() if event in l]

    def test_clients_log_in(self):
        """gsasl(1) and curl; who has logged in may relay."""
        with Sink() as sink, self.horn(domains=[("far.example", "type=remote", f"route=[127.0.0.1]:{sink.port}")]) as h:
            wait_for("the offer", lambda: self.offered(h) == ["GSSAPI GS2-KRB5"])
            wait_for("with TLS", lambda: self.offered(h, tls=True) == ["GSSAPI GS2-KRB5 NTLM"])
            for mechanism in ("GSSAPI", "GS2-KRB5"):
                done = self.gsasl(h, mechanism)
                self.assertEqual(done.returncode, 0, done)
            self.assertEqual(self.curl(h, "GSSAPI", "alice@HORN.TEST:", env=self.realm.env), 0)
            self.assertEqual(self.curl(h, "NTLM", r"HORN\bob:secret word"), 0)
            wait_for("it is through", lambda: len(sink.messages) >= 2)
            good = self.logins(h)
            for mechanism, who, n in (("GSSAPI", "alice@horn.test", 2), ("GS2-KRB5", "alice@horn.test", 1), ("NTLM", "bob@horn", 1)):
                self.assertEqual(sum(f"sasl_method={mechanism}, sasl_username={who}, status=good" in l for l in good), n, good)
            with h.client() as c: # the control: without a login nobody relays
                c.ask("EHLO x")
                c.ask("MAIL FROM:<a@b.example>")
                self.assertTrue(c.ask("RCPT TO:<x@far.example>").startswith("550 5.7.1"))

    def test_who_does_not_get_in(self):
        with self.horn() as h:
            wait_for("the offer", lambda: self.offered(h))
            garbage = base64.b64encode(b"x" * 400).decode()
            ntlm = "TlRMTVNTUAABAAAABoIIAAAAAAAAAAAAAAAAAAAAAAA="
            with h.client() as c:
                ask = lambda *lines: [c.ask(l)[:9] for l in lines]
                ask("EHLO x")
                self.assertEqual(ask(f"AUTH GSSAPI {garbage}"), ["535 5.7.8"])
                self.assertEqual(ask(f"AUTH GS2-KRB5 {garbage}"), ["535 5.7.8"])
                self.assertEqual(ask("AUTH GSSAPI =", "="), ["334 ", "501 5.5.2"]) # an empty word is no token yet
                self.assertEqual(ask("AUTH GSSAPI", "*"), ["334 ", "501 5.7.0"]) # cancelled
                self.assertEqual(ask("AUTH GSSAPI ===="), ["501 5.5.2"])
                self.assertEqual(ask(f"AUTH NTLM {ntlm}"), ["538 5.7.1"]) # not without TLS
            once = self.token("GS2-KRB5")
            answers = []
            for _ in range(2): # a ticket that was seen lets nobody in again: GS2-KRB5 has no further word of the client
                with h.client() as c:
                    c.ask("EHLO x")
                    said = c.ask(f"AUTH GS2-KRB5 {once}")
                    answers.append(c.ask("")[:9] if said.startswith("334") else said[:9])
            self.assertEqual(answers, ["235 2.7.0", "535 5.7.8"])
            self.assertNotEqual(self.curl(h, "NTLM", r"HORN\bob:wrong word"), 0)
            self.assertNotEqual(self.curl(h, "NTLM", r"HORN\nobody:secret word"), 0)
            self.assertEqual(sum("NTLM" in l for l in self.logins(h, "login_failed:")), 2)
            self.assertNotIn("secret word", h.log())

    def test_a_ticket_for_another_server(self):
        """The keytab has it, but it is not this server's: its key was not taken up."""
        with self.horn() as h:
            wait_for("the offer", lambda: self.offered(h))
            done = subprocess.run(["gsasl", "--client", "--mechanism", "GSSAPI", "--service", "smtp", "--hostname", "mx.elsewhere.example", "--authorization-id", "", "--quality-of-protection", "qop-auth"],
                                  env=self.realm.env, input=b"\n", capture_output=True, timeout=30)
            token = max(re.findall(rb"[A-Za-z0-9+/=]{50,}", done.stdout), key=len).decode()
            with h.client() as c:
                c.ask("EHLO x")
                self.assertTrue(c.ask(f"AUTH GSSAPI {token}").startswith("535"))

    def test_what_is_not_there_is_not_offered(self):
        with self.horn(readable=False) as h:
            wait_for("the offer", lambda: self.offered(h))
            self.assertEqual(self.offered(h, tls=True), ["GSSAPI GS2-KRB5"])
            wait_for("said in the log", lambda: "it has to be readable by the user posthorn-gss" in h.log())
            shutil.copy(self.realm.dir / "other", h.root / "keytab") # a reload takes up another keytab
            h.run("posthorn", "-c", str(h.dir), "reload")
            wait_for("nothing is offered", lambda: self.offered(h) == [])
            wait_for("said in the log", lambda: "it has no key of smtp/FQDN" in h.log())
            shutil.copy(self.realm.dir / "keytab", h.root / "keytab")
            h.run("posthorn", "-c", str(h.dir), "reload")
            wait_for("offered again", lambda: self.offered(h) == ["GSSAPI GS2-KRB5"])
            h.conf("-e", "auth_methods=anonymous basic")
            h.run("posthorn", "-c", str(h.dir), "reload")
            wait_for("not wanted", lambda: self.offered(h) == [])

    def test_files_that_are_not_there_are_named(self):
        for name in ("auth_keytab_file", "auth_ntlm_file"):
            h = Horn()
            with (h.dir / "posthorn.conf").open("a") as f:
                f.write(f"{name} = /nowhere/keys\n")
            with h:
                wait_for("said in the log", lambda: f"{name} = /nowhere/keys: No such file or directory" in h.log())

    def test_gssd_killed(self):
        with self.horn() as h:
            wait_for("the offer", lambda: self.offered(h))
            with h.client() as c:
                c.ask("EHLO x")
                self.assertTrue(c.ask("AUTH GSSAPI").startswith("334"))
                os.kill(h.pids("gssd")[0], signal.SIGKILL)
                wait_for("another", lambda: self.offered(h))
                self.assertTrue(c.ask(self.token("GSSAPI")).startswith("454"))
            self.assertEqual(self.gsasl(h, "GSSAPI").returncode, 0)

    def test_gssd_makes_room_for_another(self):
        """gss-ntlmssp loses memory with each login: gssd ends after 5,000 (some 45 MB; without that it had 84 MB after 10,000), once it has answered."""
        def rss(pid):
            try:
                found = re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())
            except OSError:
                found = None
            return int(found[1]) if found else 0 # it has just ended
        h = self.horn("auth_client_failure_rate=unlimited", "auth_user_failure_rate=unlimited", "auth_basic_cleartext=yes")
        h.conf("-e", "auth_failure_delay=0s")
        with h:
            wait_for("the offer", lambda: self.offered(h) == ["GSSAPI GS2-KRB5 NTLM"])
            first, most, n = h.pids("gssd")[0], 0, 0
            third = base64.b64encode(wrong_ntlm("HORN", "bob")).decode()
            while alive(first) and n < 12000:
                with h.client() as c:
                    c.ask("EHLO x")
                    for _ in range(500):
                        if not c.ask(f"AUTH NTLM {NEGOTIATE}").startswith("334"):
                            break
                        n += c.ask(third).startswith("535")
                    most = max(most, rss(first))
            wait_for("the line", lambda: "retired" in h.log())
            self.assertEqual(n, 5000)
            if not os.environ.get("POSTHORN_SANITIZED"): # they keep what was freed
                self.assertLess(most, 100000)
            wait_for("another", lambda: self.offered(h))
            self.assertEqual(self.curl(h, "NTLM", r"HORN\bob:secret word"), 0)


if __name__ == "__main__":
    unittest.main()
