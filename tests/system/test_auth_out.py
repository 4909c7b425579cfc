"""Logins at other servers (MISSION C4): the guide's two examples, each mechanism, and no credential where it does not belong."""
import os
import re
import subprocess
import threading
import unittest

from dovecot import DovecotAuth
from horn import Horn, Sink, remote, wait_for
from postfix import Postfix

TEXT = b"From: a@example.org\r\nSubject: hello\r\n\r\nA line."


class Provider(Horn):
    """A server that wants a login, and passes mail on to its sink."""

    def __init__(self, user, password, *settings):
        self.sink = Sink()
        super().__init__(["test_mode=yes"], ["auth_methods=basic", "smart_host=[127.0.0.1]:%d" % self.sink.port, "trusted_networks=", "auth_failure_delay=0s", *settings])
        self.run("hornpasswd", "-c", str(self.dir), "add", user, input=password.encode() + b"\n")

    def __exit__(self, *a):
        super().__exit__(*a)
        self.sink.close()

    def logins(self):
        return re.findall(r"login: client=127.0.0.1, sasl_method=(\S+), sasl_username=(\S+),", self.log())


class Listener(Sink):
    """A server that offers AUTH and shall never hear it."""

    def __init__(self, *offers):
        self.heard = []
        super().__init__(answer=lambda stage, text, n: None, extensions=("PIPELINING", *(offers or ("AUTH PLAIN LOGIN",))))

    def reply(self, s, stage, usual, text=""):
        self.heard.append(text)
        return super().reply(s, stage, usual, text)


class AuthOut(unittest.TestCase):
    def password_file(self, h, name, text):
        f = h.root / name
        f.write_text(text + "\n")
        f.chmod(0o600)
        return str(f)

    def login(self, h, user, password):
        return "outbound_auth=basic", f"outbound_user={user}", "outbound_password_file=" + self.password_file(h, user, password)

    def send(self, h, *recipients):
        with h.client() as c:
            c.ask("EHLO x.example")
            c.send("a@local.example", list(recipients), TEXT)

    def test_many_destinations_one_of_them_wants_a_login(self):
        """The guide's first example: the domain's login goes to its route, everybody else hears of none."""
        with Provider("partner-user", "partner secret") as provider, Listener() as other, Listener() as third:
            h = Horn()
            h.conf("domain", "add", "partner.example", "type=remote", "relay=yes", f"route=[127.0.0.1]:{provider.port}", *self.login(h, "partner-user", "partner secret"))
            for name, peer in (("other.example", other), ("third.example", third)):
                h.conf("domain", "add", *remote(peer, name))
            with h:
                self.send(h, "a@partner.example", "b@other.example", "c@third.example")
                wait_for("all three", lambda: len(provider.sink.messages) == len(other.messages) == len(third.messages) == 1)
                self.assertEqual(provider.logins(), [("SCRAM-SHA-256-PLUS", "partner-user")])
                self.assertRegex(h.run("posthorn", "-c", str(h.dir), "explain", "x@partner.example").stdout.decode(), "login +partner-user")
                self.assertNotIn("login", h.run("posthorn", "-c", str(h.dir), "explain", "x@other.example").stdout.decode())
            self.assertFalse([l for l in other.heard + third.heard if "AUTH" in l.upper()])

    def test_one_smart_host_with_a_login_other_domains_with_theirs_or_none(self):
        """The guide's second example."""
        with Provider("smart-user", "smart secret") as smart, Provider("own-user", "own secret") as own, Listener() as plain, Listener() as quiet:
            h = Horn()
            h.conf("-e", f"smart_host=[127.0.0.1]:{smart.port}", "relay=allow", *self.login(h, "smart-user", "smart secret"))
            h.conf("domain", "add", "own.example", "type=remote", f"route=[127.0.0.1]:{own.port}", *self.login(h, "own-user", "own secret"))
            h.conf("domain", "add", "plain.example", "type=remote", f"route=[127.0.0.1]:{plain.port}", "outbound_auth=anonymous")
            h.conf("domain", "add", "quiet.example", "type=remote", f"route=[127.0.0.1]:{quiet.port}")
            with h:
                self.send(h, "a@anybody.example", "b@own.example", "c@plain.example", "d@quiet.example")
                wait_for("all", lambda: len(smart.sink.messages) == len(own.sink.messages) == len(plain.messages) == len(quiet.messages) == 1)
                self.assertEqual((smart.logins(), own.logins()), ([("SCRAM-SHA-256-PLUS", "smart-user")], [("SCRAM-SHA-256-PLUS", "own-user")]))
            self.assertFalse([l for l in plain.heard + quiet.heard if "AUTH" in l.upper()])

    def test_a_wrong_password_returns_the_mail_and_names_the_account(self):
        with Provider("us", "right") as provider:
            h = Horn()
            h.conf("-e", f"smart_host=[127.0.0.1]:{provider.port}", "relay=allow", *self.login(h, "us", "wrong"))
            with h:
                self.send(h, "a@anybody.example")
                report = wait_for("a report", h.drop)[0].read_bytes()
                self.assertIn(b"Status: 5.7.8", report)
                self.assertIn(b"(AUTH as us)", report)
                self.assertNotIn(b"wrong", report)
                # the right one is taken up by a reload
                self.password_file(h, "us", "right")
                h.run("posthorn", "-c", str(h.dir), "reload")
                self.send(h, "a@anybody.example")
                wait_for("the mail", lambda: provider.sink.messages)

    def test_files_that_are_no_good(self):
        with Provider("us", "right") as provider:
            h = Horn()
            h.conf("-e", f"smart_host=[127.0.0.1]:{provider.port}", "relay=allow", *self.login(h, "us", ""))
            with h:
                wait_for("a line", lambda: "password_unusable" in h.log() and "its first line is empty" in h.log())
                self.send(h, "a@anybody.example")
                m = wait_for("it waits", lambda: [m for m in h.messages() if m["state"] == "deferred"])[0]
                self.assertIn("no login as us: outbound_password_file holds no password", m["recipients"][0]["reason"])
                os.chmod(h.root / "us", 0o644)
                (h.root / "us").write_text("right\r\n")
                h.run("posthorn", "-c", str(h.dir), "reload")
                wait_for("a warning", lambda: "secret_open" in h.log())
                h.queue("retry", m["id"]) # though the destination is down: it is asked for
                wait_for("the mail", lambda: provider.sink.messages)
                (h.root / "us").unlink()
                done = h.run("posthorn", "-c", str(h.dir), "reload", check=False)
                self.assertEqual((done.returncode, b"us: cannot open" in done.stdout + done.stderr), (78, True))

    def test_what_hornconf_refuses(self):
        h = Horn()
        try:
            for scope, settings, words in (((), ["outbound_auth=basic"], b"needs outbound_user and one outbound_password_file"),
                                           (("partner.example",), ["outbound_auth=basic", "outbound_user=u", "outbound_password_file=/f"], b"needs type = remote and a route"),
                                           (("partner.example",), ["route=[192.0.2.1]", "outbound_auth=basic"], b"of the domain's own"),
                                           (("partner.example",), ["route=[192.0.2.1]", "outbound_user=u"], b"need an outbound_auth of the domain's own"),
                                           ):
                done = h.conf("domain", "add", *scope, "type=remote", *settings, check=False) if scope else h.conf("-e", *settings, check=False)
                self.assertEqual((done.returncode, words in done.stderr), (78, True), (settings, done.stderr))
        finally:
            h.__exit__(None)

    def test_many_logins_at_once_and_authd_dies(self):
        """Nothing is lost or sent twice while authd is killed under logins."""
        with Provider("us", "right", "auth_user_failure_rate=unlimited", "auth_client_failure_rate=unlimited") as provider:
            h = Horn(["test_mode=yes"], ["retry_first=1s", "retry_second=1s", "retry_third=1s", "retry_subsequent=1s", "destination_probe=1s", "messages_per_connection=1"])
            h.conf("-e", f"smart_host=[127.0.0.1]:{provider.port}", "relay=allow", *self.login(h, "us", "right"))
            with h:
                def some(k):
                    for i in range(10):
                        self.send(h, f"r{k}.{i}@anybody.example")
                clients = [threading.Thread(target=some, args=(k,)) for k in range(4)]
                for c in clients:
                    c.start()
                old = None
                for _ in range(3):
                    old = wait_for("authd", lambda: [p for p in h.pids("authd") if p != old])[0]
                    os.kill(old, 9)
                for c in clients:
                    c.join()
                wait_for("all mail", lambda: len(provider.sink.messages) >= 40, 60)
                self.assertEqual(len({m[1][0] for m in provider.sink.messages}), len(provider.sink.messages))


@unittest.skipIf(os.geteuid() != 0, "Postfix and Dovecot start as root only")
class AtPostfix(unittest.TestCase):
    def setUp(self):
        self.dovecot = DovecotAuth({"us": "right"})
        self.addCleanup(self.dovecot.close)
        self.dir = d = self.dovecot.dir
        subprocess.run(["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-days", "9", "-subj", "/CN=pf.example",
                        "-keyout", d / "key", "-out", d / "crt"], check=True, capture_output=True)

    def test_each_mechanism_at_postfix_with_dovecot(self):
        with Sink() as sink:
            for n, mechanism in enumerate(("scram-sha-256", "plain", "login")):
                others = ", ".join(m for m in ("plain", "login", "scram-sha-256") if m != mechanism)
                postfix = Postfix(sink.port, "smtpd_sasl_auth_enable = yes", "smtpd_sasl_type = dovecot", f"smtpd_sasl_path = {self.dir}/auth", "smtpd_tls_security_level = may",
                                  f"smtpd_tls_cert_file = {self.dir}/crt", f"smtpd_tls_key_file = {self.dir}/key", "smtpd_tls_auth_only = yes",
                                  "smtpd_relay_restrictions = permit_sasl_authenticated, reject", f"smtpd_sasl_mechanism_filter = !{others}, static:all".replace(", scram", ", !scram").replace(", login", ", !login"))
                h = Horn()
                (h.root / "pw").write_text("right\n")
                h.conf("-e", f"smart_host=[127.0.0.1]:{postfix.port}", "relay=allow", "outbound_auth=basic", "outbound_user=us", f"outbound_password_file={h.root}/pw")
                try:
                    with h, h.client() as c:
                        c.send("a@local.example", ["b@far.example"], TEXT)
                        wait_for("the mail", lambda: len(sink.messages) == n + 1)
                        self.assertIn(f"sasl_method={mechanism.upper()}, sasl_username=us", postfix.log())
                except AssertionError:
                    print(postfix.log()[-2000:])
                    raise
                finally:
                    postfix.stop()


if __name__ == "__main__":
    unittest.main()
