"""EXTERNAL and certificates of clients (MISSION C1): curl, gsasl(1) and Python log in by them."""
import base64
import pathlib
import shutil
import smtplib
import ssl
import subprocess
import tempfile
import unittest

import impostor
from certs import Authority, openssl
from horn import TMP, Horn, Sink, remote, wait_for

TEXT = b"From: a@example.org\r\nSubject: hello\r\n\r\nA line.\r\n"


class External(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.place = pathlib.Path(tempfile.mkdtemp(prefix="certs-", dir=TMP))
        cls.addClassCleanup(shutil.rmtree, cls.place, True)
        cls.ca, stranger = Authority(cls.place), Authority(cls.place, "stranger")
        cls.alice = cls.ca.leaf("alice", more="extendedKeyUsage=clientAuth\n", names="email:alice@example.com")
        cls.bob = cls.ca.leaf("bob")
        cls.old = cls.ca.leaf("old", expired=True)
        cls.server = cls.ca.leaf("server", more="extendedKeyUsage=serverAuth\n")
        cls.strange = stranger.leaf("strange", names="email:alice@example.com")

    def horn(self, *server, domains=()):
        return Horn(["test_mode=yes"], ["auth_default_domain=local.example", "auth_failure_delay=1s", f"tls_client_ca_file={self.ca.crt}", "auth_mechanisms_extra=external", *server], domains)

    def session(self, h, pair):
        context = ssl._create_unverified_context()
        if pair:
            context.load_cert_chain(*pair)
        s = smtplib.SMTP("127.0.0.1", h.port)
        s.ehlo("x")
        self.assertNotIn("EXTERNAL", s.esmtp_features.get("auth", "")) # not before TLS
        s.starttls(context=context)
        s.ehlo("x")
        return s

    def offered(self, h, pair):
        with self.session(h, pair) as s:
            return "EXTERNAL" in s.esmtp_features.get("auth", "")

    def login(self, h, pair, response="="):
        with self.session(h, pair) as s:
            return s.docmd("AUTH", f"EXTERNAL {response}")[0]

    def who(self, h):
        return [l.split("sasl_username=")[1].split(",")[0] for l in h.log().splitlines() if " login: " in l]

    def test_clients_log_in(self):
        with Sink() as sink, self.horn(domains=[("far.example", "type=remote", f"route=[127.0.0.1]:{sink.port}")]) as h:
            wait_for("the offer", lambda: self.offered(h, self.alice))
            crt, key = self.alice
            done = subprocess.run(["curl", "-s", "-k", "--ssl-reqd", "--cert", crt, "--key", key, "--login-options", "AUTH=EXTERNAL", "--user", "alice@example.com:", f"smtp://127.0.0.1:{h.port}",
                                   "--mail-from", "a@b.example", "--mail-rcpt", "x@far.example", "-T", "-"], input=TEXT, capture_output=True, timeout=60)
            self.assertEqual(done.returncode, 0)
            wait_for("it is through", lambda: sink.messages)
            done = subprocess.run(["gsasl", "--smtp", "--connect", f"127.0.0.1:{h.port}", "--mechanism", "EXTERNAL", "--authorization-id", "", "--x509-cert-file", crt, "--x509-key-file", key, "--x509-ca-file", ""],
                                  input=b"", capture_output=True, timeout=60)
            self.assertEqual(done.returncode, 0, done)
            self.assertEqual(self.login(h, self.bob), 235) # without an address: its common name
            name = base64.b64encode(b"alice@example.com").decode()
            self.assertEqual(self.login(h, self.alice, name), 235)
            wait_for("all in the log", lambda: self.who(h) == ["alice@example.com", "alice@example.com", "bob@local.example", "alice@example.com"])
            with self.session(h, self.alice) as s: # in two steps
                self.assertEqual(s.docmd("AUTH", "EXTERNAL"), (334, b""))
                self.assertEqual(s.docmd("")[0], 235)

    def test_who_does_not_get_in(self):
        with self.horn() as h:
            wait_for("the offer", lambda: self.offered(h, self.alice))
            for rule, pair in (("none", None), ("expired", self.old), ("another authority's", self.strange), ("for servers alone", self.server)):
                self.assertFalse(self.offered(h, pair), rule) # and the session goes on: nobody has to have one
                self.assertEqual(self.login(h, pair), 504, rule)
            self.assertEqual(self.login(h, self.alice, base64.b64encode(b"bob").decode()), 535) # who it is not
            self.assertEqual(self.login(h, self.alice, "===="), 501)
            h.conf("-e", "auth_mechanisms_extra=")
            h.run("posthorn", "-c", str(h.dir), "reload")
            wait_for("not wanted", lambda: not self.offered(h, self.alice))
            h.conf("-e", "auth_mechanisms_extra=external", "tls_client_ca_file=")
            h.run("posthorn", "-c", str(h.dir), "reload")
            self.assertFalse(self.offered(h, self.alice))
            done = subprocess.run(["openssl", "s_client", "-starttls", "smtp", "-connect", f"127.0.0.1:{h.port}"], input=b"QUIT\r\n", capture_output=True, timeout=30)
            self.assertIn(b"No client certificate CA names sent", done.stdout)

    def test_a_worker_that_was_taken_over(self):
        """gssd verifies for itself: a certificate that is no good lets nobody in, whatever the worker says of it."""
        for pair, wanted in ((self.strange, "BAD"), (self.alice, "GOOD")): # the second is the control
            h = self.horn()
            try:
                self.assertEqual(impostor.outcome(h, openssl("x509", "-in", pair[0], "-outform", "DER"), b"certificate", "AUTHD"), wanted)
            finally:
                h.__exit__(None)


if __name__ == "__main__":
    unittest.main()
