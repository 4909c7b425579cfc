"""Ports for TLS from the beginning (RFC 8314) and for submission (RFC 6409), by real clients."""
import smtplib
import socket
import ssl
import subprocess
import unittest

from horn import Client, Horn, Sink, free_port, remote, wait_for

TEXT = b"From: a@example.org\r\nSubject: hello\r\n\r\nA line."


def tls():
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class Submission(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.tls_port, cls.port = free_port(), free_port()
        cls.sink = Sink()
        cls.h = Horn(["test_mode=yes"], [f"listen_tls=127.0.0.1:{cls.tls_port}", f"listen_submission=127.0.0.1:{cls.port}", "trusted_networks="], [remote(cls.sink)])
        cls.h.run("hornpasswd", "-c", str(cls.h.dir), "add", "alice", input=b"secret\n")
        cls.h.start()

    @classmethod
    def tearDownClass(cls):
        cls.h.__exit__(None)
        cls.sink.close()

    def run_ok(self, *command, input=None):
        done = subprocess.run(command, capture_output=True, input=input, timeout=60)
        self.assertEqual(done.returncode, 0, (command, done.stdout, done.stderr))

    def test_clients_on_both_ports(self):
        before = len(self.sink.messages)
        mail = self.h.root / "mail.eml"
        mail.write_bytes(TEXT + b"\r\n")
        for scheme, port, more in (("smtps", self.tls_port, ()), ("smtp", self.port, ("--ssl-reqd",))):
            self.run_ok("curl", "-sk", *more, f"{scheme}://127.0.0.1:{port}", "-u", "alice:secret", "--mail-from", "alice@local.example", "--mail-rcpt", "b@sink.example", "-T", str(mail))
            self.run_ok("swaks", "--server", f"127.0.0.1:{port}", "--to", "b@sink.example", "--from", "alice@local.example", "--tls-on-connect" if scheme == "smtps" else "--tls",
                        "--auth", "PLAIN", "--auth-user", "alice", "--auth-password", "secret")
            self.run_ok("msmtp", "-C", "/dev/null", "--host=127.0.0.1", f"--port={port}", "--auth=scram-sha-256", "--user=alice", "--passwordeval=echo secret", "--tls=on",
                        f"--tls-starttls={'off' if scheme == 'smtps' else 'on'}", "--tls-certcheck=off", "--from=alice@local.example", "b@sink.example", input=TEXT.replace(b"\r\n", b"\n"))
        with smtplib.SMTP_SSL("127.0.0.1", self.tls_port, context=tls(), timeout=60) as s:
            s.login("alice", "secret")
            s.sendmail("alice@local.example", ["b@sink.example"], TEXT)
        wait_for("all mail", lambda: len(self.sink.messages) == before + 7)
        self.assertEqual({b"with ESMTPSA id" in m[2] for m in self.sink.messages[before:]}, {True})

    def test_submission_takes_nothing_from_strangers(self):
        """Not even for a domain of its own; port 25 does."""
        with smtplib.SMTP("127.0.0.1", self.port, timeout=60) as s:
            s.ehlo("x.example")
            self.assertEqual(s.docmd("MAIL FROM:<a@example.org>")[0], 530)
            s.starttls(context=tls())
            s.ehlo("x.example")
            self.assertEqual(s.docmd("MAIL FROM:<a@example.org>")[0], 530)
        with self.h.client() as c:
            c.ask("EHLO x.example")
            self.assertTrue(c.ask("MAIL FROM:<a@example.org>").startswith("250"))

    def test_text_on_the_tls_port_hears_nothing_of_smtp(self):
        with socket.create_connection(("127.0.0.1", self.tls_port), 30) as s:
            s.sendall(b"EHLO x.example\r\nMAIL FROM:<a@example.org>\r\n")
            data = b""
            try:
                while part := s.recv(1000):
                    data += part
            except ConnectionResetError:
                pass # it had more to say than was read
            self.assertNotIn(b"220", data)
            self.assertNotIn(b"Posthorn", data)

    def test_a_refusal_on_the_tls_port_is_no_text(self):
        with Horn([], [f"listen_tls=127.0.0.1:{(port := free_port())}", "connection_limit=1"]) as h, h.client():
            with socket.create_connection(("127.0.0.1", port), 30) as s:
                self.assertEqual(s.recv(1000), b"")
            self.assertTrue(Client(h.port).greeting.startswith("421"))

    def test_status_names_the_ports(self):
        s, = self.h.status()["servers"]
        self.assertEqual((s["listen_tls"], s["listen_submission"]), (f"127.0.0.1:{self.tls_port}", f"127.0.0.1:{self.port}"))

    def test_configurations_that_could_not_work_are_refused(self):
        h = Horn()
        try:
            for settings, words in (([f"listen_tls=127.0.0.1:{h.port}"], b"listen_tls: 127.0.0.1:%d is named by server default and by server default" % h.port),
                                    (["listen_tls=127.0.0.1:1465", "listen_submission=127.0.0.1:1465"], b"listen_submission: "),
                                    (["listen_submission=127.0.0.1:1587", "auth_methods=anonymous"], b"add basic"),
                                    (["listen_tls=127.0.0.1:1465", "tls=none"], b"need TLS"), (["listen_tls=127.0.0.1"], b"write ADDR:PORT")):
                done = h.conf("-e", *settings, check=False)
                self.assertEqual((done.returncode != 0, words in done.stderr), (True, True), (settings, done.stderr))
        finally:
            h.__exit__(None)


if __name__ == "__main__":
    unittest.main()
