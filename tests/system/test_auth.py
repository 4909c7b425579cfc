"""Logins (RFC 4954): by real clients, and what those get who have none."""
import base64
import os
import pathlib
import re
import signal
import smtplib
import socket
import sqlite3
import ssl
import subprocess
import time
import unittest

import impostor
from dovecot import DovecotAuth
from horn import Client, Horn, Sink, remote, wait_for

SLOW = int(os.environ.get("POSTHORN_SLOW", "1"))
TEXT = b"From: a@example.org\r\nSubject: hello\r\n\r\nA line."
OPEN = ["trusted_networks=", "auth_basic_cleartext=yes", "auth_failure_delay=0s", "error_limit=unlimited", "error_soft_limit=unlimited"]


def plain(user, word, to=""):
    return "AUTH PLAIN " + base64.b64encode(f"{to}\0{user}\0{word}".encode()).decode()


def tls():
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Auth(unittest.TestCase):
    def horn(self, sink=None, server=(), users=(("alice", "secret"),)):
        h = Horn(["test_mode=yes"], server, [remote(sink)] if sink else [])
        for user, word in users:
            self.passwd(h, "add", user, word)
        return h

    def passwd(self, h, act, user, word=None, **kw):
        return h.run("hornpasswd", "-c", str(h.dir), act, user, input=None if word is None else word.encode() + b"\n", **kw)

    def login(self, h, user, word, source=""):
        """The reply to a login of its own connection."""
        with Client(h.port, source=source) as c:
            c.ask("EHLO c.example")
            return c.ask(plain(user, word))

    def offers(self, h):
        with h.client() as c:
            return re.findall(r"^250.AUTH (.*)$", c.ask("EHLO c.example"), re.M)

    def test_each_client_logs_in_and_may_relay(self):
        """swaks, curl, msmtp, Python, gsasl; with each mechanism that they know."""
        with Sink() as sink, self.horn(sink, ["trusted_networks=", "auth_default_domain=horn.example"], [("alice@horn.example", "secret word")]) as h:
            mail = h.root / "mail.eml"
            mail.write_bytes(TEXT + b"\r\n")
            def run(*command, input=None):
                done = subprocess.run(command, capture_output=True, input=input, timeout=60)
                self.assertEqual(done.returncode, 0, (command, done.stdout, done.stderr))
            def swaks(how):
                run("swaks", "--server", f"127.0.0.1:{h.port}", "--to", "b@sink.example", "--from", "alice@local.example", "--tls", "--auth", how, "--auth-user", "alice",
                    "--auth-password", "secret word", "--header", f"Subject: swaks {how}")
            def curl():
                run("curl", "-sk", "--ssl-reqd", f"smtp://127.0.0.1:{h.port}", "-u", "Alice@Horn.example:secret word", "--mail-from", "alice@local.example", "--mail-rcpt", "b@sink.example",
                    "-T", str(mail))
            def msmtp(how):
                run("msmtp", "-C", "/dev/null", "--host=127.0.0.1", f"--port={h.port}", f"--auth={how}", "--user=alice", "--passwordeval=echo 'secret word'", "--tls=on", "--tls-starttls=on",
                    "--tls-certcheck=off", "--from=alice@local.example", "b@sink.example", input=TEXT.replace(b"\r\n", b"\n"))
            def python(how):
                with smtplib.SMTP("127.0.0.1", h.port, timeout=60) as s:
                    s.starttls(context=tls())
                    s.ehlo()
                    s.user, s.password = "alice", "secret word"
                    code, _ = s.auth(how, getattr(s, "auth_" + how.lower()))
                    self.assertEqual(code, 235)
                    s.sendmail("alice@local.example", ["b@sink.example"], TEXT)
            def gsasl(how, *more):
                """It can't send mail; it says whether the server knows it."""
                done = subprocess.run(["gsasl", "--smtp", "--connect", f"127.0.0.1:{h.port}", "-m", how, "-a", "alice", "-p", "secret word", "--starttls", "--x509-ca-file=", *more],
                                      capture_output=True, input=b"", timeout=60)
                self.assertIn(b"\n235 2.7.0 Authentication successful\n", done.stdout.replace(b"\r\n", b"\n"), done.stderr)
            swaks("PLAIN")
            swaks("LOGIN")
            curl()
            for how in ("plain", "login", "scram-sha-256"):
                msmtp(how)
            python("PLAIN")
            python("LOGIN")
            for how in ("PLAIN", "LOGIN", "SCRAM-SHA-256-PLUS"):
                gsasl(how)
            gsasl("SCRAM-SHA-256", "--no-cb")
            wait_for("all mail", lambda: len(sink.messages) == 8)
            self.assertIn(b"with ESMTPSA id", sink.messages[0][2])
            log = wait_for("the log", lambda: h.log() if h.log().count("sasl_username=alice@horn.example, status=good") == 12 else None)
            self.assertEqual(log.count("sasl_username=alice@horn.example"), 20) # a line for each message, too
            self.assertNotIn("secret word", log)

    def test_what_is_no_login_is_refused_alike(self):
        with self.horn(server=["trusted_networks=", "auth_basic_cleartext=yes", "auth_failure_delay=1s"]) as h:
            with h.client() as c:
                c.ask("EHLO c.example")
                replies, took = [], []
                for line in (plain("alice", "secrex"), plain("nobody", "secret"), plain("alice", ""), plain("", "secret"), plain("alice", "secret", "bob"), "AUTH PLAIN AAAA"):
                    begun = time.monotonic()
                    replies.append(c.ask(line))
                    took.append(time.monotonic() - begun)
                self.assertEqual(set(replies), {"535 5.7.8 Authentication credentials invalid"})
                self.assertGreater(min(took), 0.9)
                self.assertTrue(c.ask(plain("alice", "secret", "alice")).startswith("235"))
            self.assertNotIn("secre", h.log())

    def test_scram_tells_nobody_who_exists(self):
        """Of a name that is not there the salt is the same each time, as many rounds as of one that is; the last step fails alike."""
        def first(h, user):
            with h.client() as c:
                c.ask("EHLO c.example")
                text = c.ask("AUTH SCRAM-SHA-256 " + base64.b64encode(f"n,,n={user},r=fyko+d2lbbFgONRv9qkxdawL".encode()).decode())
                got = dict(p.split("=", 1) for p in base64.b64decode(text[4:]).decode().split(","))
                end = f"c=biws,r={got['r']},p={base64.b64encode(b'x' * 32).decode()}"
                return got["s"], got["i"], c.ask(base64.b64encode(end.encode()).decode())
        with self.horn(server=OPEN) as h:
            seen = [first(h, "nobody"), first(h, "alice"), first(h, "noone")]
            self.assertEqual({(len(s), i, reply) for s, i, reply in seen}, {(len(seen[0][0]), "65536", "535 5.7.8 Authentication credentials invalid")})
            self.assertEqual(len({s for s, i, reply in seen}), 3)
            h.stop()
            h.start()
            self.assertEqual([first(h, "nobody"), first(h, "alice"), first(h, "noone")], seen)

    def test_a_client_that_fails_too_often_is_not_looked_at(self):
        """MISSION C3; trusted networks are spared, and other clients."""
        with self.horn(server=["trusted_networks=127.0.0.9", *OPEN[1:], "auth_client_failure_rate=3/1h"]) as h:
            for _ in range(3):
                self.assertTrue(self.login(h, "alice", "no").startswith("535"))
            self.assertTrue(self.login(h, "alice", "secret").startswith("454 4.7.0 Too many logins that failed"))
            for _ in range(5):
                self.assertTrue(self.login(h, "alice", "no", "127.0.0.9").startswith("535"))
            self.assertTrue(self.login(h, "alice", "secret", "127.0.0.9").startswith("235"))
            self.assertTrue(self.login(h, "alice", "secret", "127.0.0.2").startswith("235"))
            self.assertIn("limit=auth_client_failure_rate", wait_for("the log", lambda: h.log() if "login_limited" in h.log() else None))

    def test_a_name_is_guarded_and_its_owner_is_not_locked_out(self):
        """What fails from everywhere closes the name to strangers; a client whose login was good before gets in."""
        with self.horn(server=[*OPEN, "auth_user_failure_rate=4/1h"], users=[("alice", "secret"), ("bob", "word")]) as h:
            self.assertTrue(self.login(h, "alice", "secret", "127.0.0.5").startswith("235"))
            for i in range(4):
                self.assertTrue(self.login(h, "alice", "no", f"127.0.1.{i + 1}").startswith("535"))
            self.assertTrue(self.login(h, "Alice", "secret", "127.0.2.1").startswith("454"))
            self.assertTrue(self.login(h, "alice", "secret", "127.0.0.5").startswith("235"))
            self.assertTrue(self.login(h, "bob", "word", "127.0.2.1").startswith("235"))

    def test_users_come_and_go_while_it_runs(self):
        with self.horn(server=OPEN, users=()) as h:
            self.assertEqual(self.offers(h), [])
            self.assertTrue(self.login(h, "alice", "one").startswith("504"))
            self.passwd(h, "add", "alice", "one")
            wait_for("AUTH is offered", lambda: self.offers(h) == ["SCRAM-SHA-256 PLAIN LOGIN"])
            self.assertTrue(self.login(h, "alice", "one").startswith("235"))
            self.passwd(h, "add", "alice", "two")
            wait_for("the new password", lambda: self.login(h, "alice", "two").startswith("235"))
            self.assertTrue(self.login(h, "alice", "one").startswith("535"))
            with open(h.dir / "servers" / "default.passwd", "a") as f:
                f.write("bob:nonsense\n")
            wait_for("the bad line is told", lambda: "line 4 is no good" in h.log())
            self.assertTrue(self.login(h, "alice", "two").startswith("235"))
            done = self.passwd(h, "add", "carol", "x", check=False)
            self.assertEqual((done.returncode, b"default.passwd:4: " in done.stderr), (65, True))
            (h.dir / "servers" / "default.passwd").unlink()
            wait_for("nothing is offered", lambda: self.offers(h) == [])

    def test_names_get_the_default_domain_when_they_are_added_too(self):
        with self.horn(server=[*OPEN, "auth_default_domain=Horn.example"], users=[("alice", "secret"), ("bob@other.example", "word")]) as h:
            names = lambda: h.run("hornpasswd", "-c", str(h.dir), "list").stdout.decode().split()
            self.assertEqual(sorted(names()), ["alice@horn.example", "bob@other.example"])
            self.assertTrue(self.login(h, "alice", "secret").startswith("235"))
            file = h.dir / "servers/default.passwd" # a row from before the domain was set
            row = next(l for l in file.read_text().splitlines() if l.startswith("alice@"))
            file.write_text(file.read_text() + row.replace("alice@horn.example", "carol", 1) + "\n")
            self.passwd(h, "check", "carol", "secret")
            self.passwd(h, "remove", "carol")
            self.passwd(h, "remove", "alice")
            self.assertEqual(names(), ["bob@other.example"])

    def test_reload_changes_methods(self):
        with self.horn(server=OPEN) as h:
            for methods, offered in (("anonymous", []), ("basic", ["SCRAM-SHA-256 PLAIN LOGIN"]), ("anonymous integrated", [])):
                h.conf("-e", f"auth_methods={methods}")
                h.run("posthorn", "-c", str(h.dir), "reload")
                wait_for(methods, lambda: self.offers(h) == offered)
                with h.client() as c:
                    c.ask("EHLO c.example")
                    self.assertEqual(c.ask("MAIL FROM:<a@example.org>")[:3], "530" if methods == "basic" else "250")

    def test_authd_may_die(self):
        with Sink() as sink, self.horn(sink, OPEN) as h, h.client() as c:
            c.ask("EHLO c.example")
            self.assertTrue(c.ask(plain("alice", "secret")).startswith("235"))
            for pid in h.pids("authd"):
                os.kill(pid, signal.SIGKILL)
            wait_for("logins go on", lambda: self.login(h, "alice", "secret").startswith("235"))
            with h.client() as half:
                half.ask("EHLO c.example")
                self.assertTrue(half.ask("AUTH LOGIN").startswith("334"))
                for pid in h.pids("authd"):
                    os.kill(pid, signal.SIGKILL)
                wait_for("another one", lambda: self.login(h, "alice", "secret").startswith("235"))
                self.assertTrue(half.ask("YWxpY2U=").startswith("454"))
            c.send("alice@local.example", "b@sink.example", TEXT, ehlo=False)
            for role in ("cleanup", "front"):
                for pid in h.pids(role):
                    os.kill(pid, signal.SIGKILL)
            wait_for("it knows the login still", lambda: c.ask("MAIL FROM:<alice@local.example>").startswith("250") or c.ask("RSET") == "")
            c.ask("RCPT TO:<b@sink.example>")
            c.ask("DATA")
            c.say(TEXT + b"\r\n.\r\n")
            self.assertTrue(c.hear().startswith("250"))
            wait_for("both", lambda: len(sink.messages) == 2)
            wait_for("logins go on", lambda: self.login(h, "alice", "secret").startswith("235"))

    def outcome_of_claim(self, login, proof):
        """What cleanup says to a worker that claims a login, and the log."""
        h = self.horn()
        try:
            said = impostor.outcome(h, login, proof)
            wait_for("the log", lambda: "status=" in h.log() or "bad_submission" in h.log())
            return said, h.log()
        finally:
            h.__exit__(None)

    def test_a_worker_that_was_taken_over_cannot_claim_a_login(self):
        """cleanup wants authd's proof; without a login it takes the same message."""
        for proof in (b"", b"p" * 32, b"p" * 31):
            said, log = self.outcome_of_claim(b"alice", proof)
            self.assertEqual((said, "bad_submission" in log), ("closed", True), proof)
        said, log = self.outcome_of_claim(b"", b"")
        self.assertEqual((said, "bad_submission" in log, "status=sent" in log), ("submitted", False, True))

    def test_a_flood_of_logins_holds_up_nobody(self):
        """1,000 clients that guess: another's mail is taken within a second, memory stays bounded."""
        with Sink() as sink, self.horn(sink, ["trusted_networks=", "auth_basic_cleartext=yes", "client_connection_limit=unlimited", "auth_failure_delay=5s"]) as h:
            authd = h.pids("authd")[0]
            def held():
                with open(f"/proc/{authd}/smaps_rollup") as f:
                    return int(re.search(r"^Pss: +(\d+)", f.read(), re.M)[1])
            before, guessers = held(), []
            try:
                for i in range(1000):
                    s = socket.create_connection(("127.0.0.1", h.port), 60, (f"127.{i // 250 + 1}.{i % 250 + 1}.1", 0))
                    guessers.append(s)
                for s in guessers:
                    s.recv(1000)
                for i, s in enumerate(guessers):
                    s.sendall(b"EHLO c.example\r\n")
                for i, s in enumerate(guessers):
                    s.recv(4000)
                for i, s in enumerate(guessers):
                    s.sendall(plain(f"user{i}", "guess").encode() + b"\r\n")
                most = 0
                for _ in range(5):
                    begun = time.monotonic()
                    with h.client() as c:
                        c.send("x@example.org", "postmaster@local.example", TEXT)
                    most = max(most, time.monotonic() - begun)
                self.assertLess(most, 1 * SLOW, "mail of others")
                grown = held() - before
                self.assertLess(grown, 64 * 1024 * SLOW, "KB")
                answers = [s.recv(1000)[:3] for s in guessers]
                self.assertEqual(set(answers), {b"535"})
            finally:
                for s in guessers:
                    s.close()


@unittest.skipIf(os.geteuid() != 0, "Dovecot starts as root only")
class AtDovecot(unittest.TestCase):
    """auth_backend = dovecot:SOCKET: mechanisms and users are Dovecot's."""

    def test_each_mechanism_and_a_dovecot_that_goes_away(self):
        dovecot = DovecotAuth({"alice@local.example": "secret word"}, "plain login scram-sha-256 digest-md5")
        self.addCleanup(dovecot.close)
        with Sink() as sink, Horn(["test_mode=yes"], [*OPEN, f"auth_backend=dovecot:{dovecot.socket}", "auth_default_domain=other.example"], [remote(sink)]) as h:
            offers = lambda: re.findall(r"^250.AUTH (.*)$", self.hello(h), re.M)
            wait_for("its mechanisms", lambda: offers() == ["SCRAM-SHA-256 PLAIN LOGIN"])
            for how in ("PLAIN", "LOGIN"):
                done = subprocess.run(["swaks", "--server", f"127.0.0.1:{h.port}", "--to", "b@sink.example", "--auth", how, "--auth-user", "alice@local.example", "--auth-password", "secret word"], capture_output=True, timeout=60)
                self.assertEqual(done.returncode, 0, done.stdout)
            done = subprocess.run(["msmtp", "-C", "/dev/null", "--host=127.0.0.1", f"--port={h.port}", "--auth=scram-sha-256", "--user=alice@local.example", "--passwordeval=echo 'secret word'",
                                   "--tls=off", "--from=alice@local.example", "b@sink.example"], input=TEXT.replace(b"\r\n", b"\n"), capture_output=True, timeout=60)
            self.assertEqual(done.returncode, 0, done.stderr)
            wait_for("all mail", lambda: len(sink.messages) == 3)
            with h.client() as c:
                c.ask("EHLO c.example")
                self.assertTrue(c.ask(plain("alice@local.example", "wrong")).startswith("535 5.7.8"))
                self.assertTrue(c.ask(plain("nobody", "secret word")).startswith("535 5.7.8"))
                self.assertTrue(c.ask("AUTH LOGIN").startswith("334 "))
                self.assertTrue(c.ask("*").startswith("501"))
                self.assertTrue(c.ask("AUTH DIGEST-MD5").startswith("504"))
                c.ask("AUTH LOGIN")
                dovecot.stop()
                wait_for("it is missed", lambda: "backend_away" in h.log())
                self.assertTrue(c.ask("YQ==").startswith("454 4.7.0"))
            wait_for("nothing is offered", lambda: offers() == [])
            dovecot.start()
            wait_for("it is back", lambda: offers() == ["SCRAM-SHA-256 PLAIN LOGIN"])
            with h.client() as c:
                c.ask("EHLO c.example")
                self.assertTrue(c.ask(plain("alice@local.example", "secret word")).startswith("235"))
            self.assertNotIn("secret word", h.log())

    def hello(self, h):
        with h.client() as c:
            return c.ask("EHLO c.example")

    def test_what_hornconf_refuses(self):
        with Horn() as h:
            for value in ("dovecot", "dovecot:auth", "shadow", "dovecot:/" + "x" * 120):
                self.assertIn(b"auth_backend: write file, pam, sql, ldap or dovecot:/SOCKET", h.conf("-e", f"auth_backend={value}", check=False).stderr)


@unittest.skipIf(os.geteuid() != 0, "makes a PAM service")
class WithPam(unittest.TestCase):
    """auth_backend = pam, by a service of this test's own whose module is a script."""

    def setUp(self):
        self.service = f"posthorn-test-{os.getpid()}"
        file = pathlib.Path("/etc/pam.d", self.service)
        self.addCleanup(file.unlink)
        self.h = Horn(["test_mode=yes"], [*OPEN, "auth_backend=pam", f"auth_pam_service={self.service}", "auth_default_domain=local.example"])
        script = self.h.root / "check"
        script.write_text("#!/bin/sh\nword=$(tr -d '\\0')\ncase \"$PAM_USER:$word\" in 'alice:secret word'|'carol@other.example:x') exit 0;; slow:*) echo $$ >%s/slow; sleep 60;; esac\nexit 1\n" % self.h.root)
        script.chmod(0o755)
        file.write_text(f"auth [success=1 default=ignore] pam_exec.so expose_authtok quiet {script}\nauth requisite pam_deny.so\nauth required pam_permit.so\naccount required pam_permit.so\n")

    def answer(self, user, word, how="PLAIN"):
        with self.h.client() as c:
            c.ask("EHLO c.example")
            if how == "PLAIN":
                return c.ask(plain(user, word))
            c.ask("AUTH LOGIN")
            c.ask(base64.b64encode(user.encode()).decode())
            return c.ask(base64.b64encode(word.encode()).decode())

    def test_yes_no_and_not_now(self):
        with self.h as h:
            with h.client() as c:
                self.assertIn("250-AUTH PLAIN LOGIN\n", wait_for("offered", lambda: (said := c.ask("EHLO c.example")) and "AUTH" in said and said))
            for user, word, how, code in (("alice", "secret word", "PLAIN", "235"), ("Alice@Local.Example", "secret word", "LOGIN", "235"), ("carol@other.example", "x", "PLAIN", "235"),
                                          ("alice", "wrong", "PLAIN", "535"), ("alice", "", "LOGIN", "535"), ("nobody", "secret word", "LOGIN", "535")):
                self.assertEqual(self.answer(user, word, how)[:3], code, (user, how))
            for user, word in (("alice", "x" * 256), ("alice", "x" * 6000), ("a" * 255 + "@local.example", "x"), ("n" * 256, "x")): # nobody else's login ends with it
                self.assertEqual(self.answer(user, word)[:3], "535", (len(user), len(word)))
            self.assertTrue(self.answer("alice", "secret word").startswith("235"))
            self.assertNotIn("channel_cut", h.log())
            self.assertIn("sasl_username=alice@local.example, status=good", h.log())
            with h.client() as c: # pamd dies under a login
                c.ask("EHLO c.example")
                c.say(plain("slow", "x"))
                wait_for("its process", (h.root / "slow").exists)
                os.kill(h.pids("pamd")[0], 9)
                self.assertTrue(c.hear().startswith("454 4.7.0"))
            wait_for("another pamd", lambda: self.answer("alice", "secret word").startswith("235"))
            os.kill(int((h.root / "slow").read_text()), 9)
            pathlib.Path("/etc/pam.d", self.service).write_text("auth required pam_not_there.so\n")
            self.assertTrue(self.answer("alice", "secret word").startswith("454 4.7.0"))
            wait_for("a line", lambda: "pam_failed" in h.log())
            self.assertNotIn("secret", h.log())


class CramMd5(unittest.TestCase):
    """RFC 2195: off by default, of users who were added for it, with TLS."""

    def test_old_clients(self):
        h = Horn(["test_mode=yes"], ["auth_failure_delay=0s", "auth_default_domain=local.example", "auth_mechanisms_extra=cram-md5"])
        h.run("hornpasswd", "-c", str(h.dir), "add", "--cram-md5", "alice@local.example", input=b"secret word\n")
        h.run("hornpasswd", "-c", str(h.dir), "add", "bob@local.example", input=b"b\n")
        self.assertNotIn("secret", (h.dir / "servers/default.passwd").read_text())
        with h:
            curl = lambda user, word: subprocess.run(["curl", "-s", "-k", "--ssl-reqd", "--login-options", "AUTH=CRAM-MD5", "--user", f"{user}:{word}", f"smtp://127.0.0.1:{h.port}",
                                                      "--mail-from", "a@b.example", "--mail-rcpt", "x@local.example", "-T", "-"], input=TEXT + b"\r\n", capture_output=True, timeout=60).returncode
            wait_for("curl logs in", lambda: curl("alice", "secret word") == 0)
            self.assertEqual([curl("ALICE@local.example", "secret word"), curl("alice", "wrong"), curl("nobody", "x"), curl("bob", "b")], [0, 67, 67, 67])
            with smtplib.SMTP("127.0.0.1", h.port) as s:
                s.ehlo("x")
                self.assertNotIn("CRAM-MD5", s.esmtp_features.get("auth", "").split())
                self.assertEqual(s.docmd("AUTH", "CRAM-MD5")[0], 538)
                s.starttls(context=ssl._create_unverified_context())
                s.ehlo("x")
                self.assertEqual(s.docmd("AUTH", "CRAM-MD5 YWxpY2UgeA==")[0], 535) # the first word is the server's
                challenges = [(s.docmd("AUTH", "CRAM-MD5"), s.docmd("*"))[0] for _ in range(2)]
                self.assertEqual([c[0] for c in challenges], [334, 334])
                self.assertNotEqual(*challenges)
                s.user, s.password = "alice", "secret word"
                self.assertEqual(s.auth("CRAM-MD5", s.auth_cram_md5)[0], 235)
            h.conf("-e", "auth_mechanisms_extra=")
            h.run("posthorn", "-c", str(h.dir), "reload")
            wait_for("no longer", lambda: curl("alice", "secret word") == 67)


class WithTables(unittest.TestCase):
    """auth_backend = sql: a hash for each login in a database; ldap goes the same way."""

    def test_hashes_in_a_database(self):
        driver = subprocess.run("find /usr/lib -name 'libsqlite3odbc.so' | head -1", shell=True, capture_output=True, text=True).stdout.strip()
        self.assertTrue(driver, "libsqliteodbc is missing")
        h = Horn(["test_mode=yes"], [*OPEN, "auth_default_domain=local.example"])
        os.chmod(h.root, 0o755)
        hash_of = lambda word: subprocess.run(["openssl", "passwd", "-6", word], capture_output=True, check=True, text=True).stdout.strip()
        with sqlite3.connect(h.root / "users.db") as db:
            db.execute("create table users (login text, secret text)")
            db.executemany("insert into users values (?, ?)", [("alice", hash_of("secret word")), ("bob@other.example", "{CRYPT}" + hash_of("b")), ("plain", "p"), ("empty", ""), ("old", "abJnggxhB/yWI")])
        db.close()
        (h.root / "sql").write_text(f"connection = DRIVER={driver};Database={h.root}/users.db\nquery = SELECT secret FROM users WHERE login = ?\n")
        os.chmod(h.root / "users.db", 0o644)
        h.conf("-e", "auth_backend=sql", f"auth_map=odbc:{h.root}/sql")
        with h:
            def answer(user, word):
                with h.client() as c:
                    c.ask("EHLO c.example")
                    return c.ask(plain(user, word))[:3]
            with h.client() as c:
                wait_for("offered", lambda: "250-AUTH PLAIN LOGIN\n" in c.ask("EHLO c.example"))
            for user, word, code in (("alice", "secret word", "235"), ("ALICE@local.example", "secret word", "235"), ("bob@other.example", "b", "235"), ("alice", "wrong", "535"),
                                     ("nobody", "x", "535"), ("plain", "p", "535"), ("empty", "", "535"), ("old", "ab", "535"), ("' OR '1'='1", "x", "535"), ("bob", "b", "535")):
                self.assertEqual(answer(user, word), code, user)
            (h.root / "users.db").rename(h.root / "away")
            h.run("posthorn", "-c", str(h.dir), "reload")
            wait_for("not now", lambda: answer("alice", "secret word") == "454")
            (h.root / "away").rename(h.root / "users.db")
            wait_for("again", lambda: answer("alice", "secret word") == "235")
            self.assertNotIn("secret word", h.log())

    def test_keys_of_scram_in_a_database(self):
        """auth_map_scram = yes: rows as hornpasswd writes them."""
        driver = subprocess.run("find /usr/lib -name 'libsqlite3odbc.so' | head -1", shell=True, capture_output=True, text=True).stdout.strip()
        h = Horn(["test_mode=yes"], [*OPEN, "auth_default_domain=local.example"])
        os.chmod(h.root, 0o755)
        rows = []
        for user, word in (("alice", b"secret word"), ("o=h,y", b"b")):
            h.run("hornpasswd", "-c", str(h.dir), "add", user if user == "alice" else "bob", input=word + b"\n")
            line = (h.dir / "servers/default.passwd").read_text().splitlines()[-1]
            rows.append((user, line.split(":", 1)[1]))
            h.run("hornpasswd", "-c", str(h.dir), "remove", user if user == "alice" else "bob")
        rows += [("bare", subprocess.run(["openssl", "passwd", "-6", "c"], capture_output=True, check=True, text=True).stdout.strip())]
        with sqlite3.connect(h.root / "users.db") as db:
            db.execute("create table users (login text, secret text)")
            db.executemany("insert into users values (?, ?)", rows)
        db.close()
        (h.root / "sql").write_text(f"connection = DRIVER={driver};Database={h.root}/users.db\nquery = SELECT secret FROM users WHERE login = ?\n")
        os.chmod(h.root / "users.db", 0o644)
        h.conf("-e", "auth_backend=sql", f"auth_map=odbc:{h.root}/sql", "auth_map_scram=yes")
        with h:
            with h.client() as c:
                wait_for("offered", lambda: "250-AUTH SCRAM-SHA-256 PLAIN LOGIN\n" in c.ask("EHLO c.example"))
            def scram(user, word, mechanism="SCRAM-SHA-256"):
                return subprocess.run(["gsasl", "--smtp", "--connect", f"127.0.0.1:{h.port}", "--mechanism", mechanism, "--authentication-id", user, "--authorization-id", "", "--password", word,
                                       "--no-starttls", "--no-cb"], input=b"", capture_output=True, timeout=60).stdout.count(b"\n235 ")
            self.assertEqual([scram("alice", "secret word"), scram("ALICE@local.example", "secret word"), scram("alice", "wrong"), scram("nobody", "x"), scram("bare", "c")], [1, 1, 0, 0, 0])
            with h.client() as c: # a row that has the keys of SCRAM has the hash as well
                c.ask("EHLO c.example")
                self.assertTrue(c.ask(plain("alice", "secret word")).startswith("235"))
            def salt(user, n=0): # of nobody the same each time, like anybody's
                with h.client() as c:
                    c.ask("EHLO c.example")
                    said = c.ask("AUTH SCRAM-SHA-256 " + base64.b64encode(f"n,,n={user},r=abcdefgh".encode()).decode())
                    return said[:3] if said[:3] != "334" else base64.b64decode(said[4:]).decode().split(",")[1]
            self.assertEqual(salt("nobody"), salt("nobody"))
            self.assertNotEqual(salt("nobody"), salt("nobody2"))
            self.assertEqual(salt("alice"), "s=" + rows[0][1].split(",")[1])
            self.assertEqual(salt("o=3Dh=2Cy"), "s=" + rows[1][1].split(",")[1])
            self.assertTrue(salt("a=2Xb").startswith("s=")) # no name (RFC 5802 5.1): told what nobody is told
            (h.root / "users.db").rename(h.root / "away")
            h.run("posthorn", "-c", str(h.dir), "reload")
            wait_for("not now", lambda: salt("alice") == "454")

    def test_a_worker_that_was_taken_over_reads_no_hash(self):
        """maps answers its other questions."""
        for asked, wanted in (("ASK_SECRET", "closed"), ("ASK_RECIPIENT", "map_answer")):
            h = Horn()
            h.conf("-e", "auth_backend=sql", "auth_map=odbc:/nowhere")
            try:
                self.assertEqual(impostor.outcome(h, b"alice@local.example", asked.encode(), "MAPS"), wanted)
            finally:
                h.__exit__(None)

    def test_what_is_not_offered_is_not_taken(self):
        """A worker that was taken over can't choose the users of the file where the table has the say."""
        for backend, wanted in (([], "GOES_ON"), (["auth_backend=sql", "auth_map=odbc:/nowhere"], "FAILED")):
            h = Horn()
            h.run("hornpasswd", "-c", str(h.dir), "add", "alice", input=b"secret\n")
            if backend:
                h.conf("-e", *backend)
            try:
                self.assertEqual(impostor.outcome(h, b"alice", b"", "AUTHD"), wanted)
            finally:
                h.__exit__(None)

    def test_what_hornconf_refuses(self):
        with Horn() as h:
            for settings in (["auth_backend=sql"], ["auth_backend=sql", "auth_map=ldap:/etc/x"], ["auth_map=odbc:/etc/x"], ["auth_backend=ldap", "auth_map=ldap:/etc/x,ldap:/etc/y"]):
                self.assertIn(b"auth_backend = sql needs auth_map = odbc:FILE", h.conf("-e", *settings, check=False).stderr, settings)


class SenderLogins(unittest.TestCase):
    def test_a_login_sends_as_its_own_addresses(self):
        with Sink() as sink:
            h = Horn(["test_mode=yes"], OPEN, [remote(sink)])
            h.run("hornpasswd", "-c", str(h.dir), "add", "alice", input=b"secret\n")
            h.run("hornpasswd", "-c", str(h.dir), "add", "bob", input=b"secret\n")
            (h.root / "owners").write_text("a@local.example alice\nshared@local.example bob, alice\n@bobs.example bob\n")
            h.run("hornmap", "build", f"hash:{h.root}/owners")
            h.conf("-e", f"sender_login_map=hash:{h.root}/owners")
            with h, h.client() as c:
                c.ask("EHLO c.example")
                self.assertTrue(c.ask("MAIL FROM:<x@bobs.example>").startswith("250")) # no login: not concerned
                c.ask("RSET")
                c.ask(plain("alice", "secret"))
                for sender, code in (("a@local.example", "250"), ("A+ext@local.example", "250"), ("shared@local.example", "250"), ("x@bobs.example", "553"), ("else@local.example", "553"), ("", "250")):
                    self.assertEqual(c.ask(f"MAIL FROM:<{sender}>")[:3], code, sender)
                    c.ask("RSET")


if __name__ == "__main__":
    unittest.main()
