"""Real clients hand in mail; a real Postfix hands in and takes it."""
import os
import pathlib
import re
import shutil
import smtplib
import subprocess
import unittest

from postfix import Postfix
from horn import Horn, Sink, remote, wait_for


def run(*command, **kw):
    done = subprocess.run(command, capture_output=True, timeout=60, **kw)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


class Clients(unittest.TestCase):
    def test_swaks_curl_smtplib_msmtp_snail_and_git(self):
        with Sink() as sink, Horn(domains=[remote(sink)]) as h:
            p, text = str(h.port), b"Subject: by hand\r\n\r\nbody\r\n"
            home = h.root / "home"
            home.mkdir()
            env = {**{k: v for k, v in os.environ.items() if not k.startswith("GIT_")}, "HOME": str(home), "EMAIL": "a@example.org"}
            (h.root / "m").write_bytes(text)
            run("swaks", "--server", f"127.0.0.1:{p}", "--from", "swaks@example.org", "--to", "b@sink.example")
            run("curl", "-s", f"smtp://127.0.0.1:{p}", "--mail-from", "curl@example.org", "--mail-rcpt", "b@sink.example", "-T", str(h.root / "m"))
            run("curl", "-s", "--ssl-reqd", "--insecure", f"smtp://127.0.0.1:{p}", "--mail-from", "curl-tls@example.org", "--mail-rcpt", "b@sink.example", "-T", str(h.root / "m"))
            with smtplib.SMTP("127.0.0.1", h.port) as s:
                s.sendmail("smtplib@example.org", ["b@sink.example"], text)
            run("msmtp", "--host=127.0.0.1", f"--port={p}", "--from=msmtp@example.org", "b@sink.example", input=text, env=env)
            run("s-nail", "-S", f"mta=smtp://127.0.0.1:{p}", "-S", "v15-compat", "-S", "smtp-auth=none", "-r", "snail@example.org", "-s", "x", "b@sink.example", input=b"body\n", env=env)
            repo = h.root / "repo"
            run("git", "init", "-q", str(repo), env=env)
            (repo / "f").write_text("x")
            git = ("git", "-C", str(repo), "-c", "user.name=G", "-c", "user.email=git@example.org")
            run(*git, "add", "f", env=env)
            run(*git, "commit", "-qm", "one", env=env)
            wanted = {"swaks", "curl-tls", "curl", "smtplib", "msmtp", "snail"}
            if shutil.which("git-send-email") or pathlib.Path("/usr/lib/git-core/git-send-email").exists():
                run(*git, "send-email", "--smtp-server=127.0.0.1", f"--smtp-server-port={p}", "--to=b@sink.example", "--confirm=never", "--suppress-cc=all", "-1", env=env)
                wanted.add("git")
            wait_for("all of them", lambda: len(sink.messages) == len(wanted))
            self.assertEqual({re.search(r"<([\w-]+)@", m[0])[1] for m in sink.messages}, wanted)


@unittest.skipIf(os.geteuid() != 0, "Postfix starts as root only")
class NextToPostfix(unittest.TestCase):
    """A private Postfix, as root only; its queue is below the test's directory."""

    def test_postfix_as_client_and_as_next_hop_keeps_every_byte(self):
        shapes = [b"8-bit \xe4\xf6\xfc\r\n", b".dots\r\n..\r\n", b"x" * 900 + b"\r\n", b"\r\n\r\n"]
        with Sink() as sink, Horn(domains=[remote(sink, "out.example")]) as last:
            postfix = Postfix(last.port)
            self.addCleanup(postfix.stop)
            self.through(postfix, sink, last, shapes)

    def through(self, postfix, sink, last, shapes):
        with Horn(domains=[remote(postfix.port, "out.example")]) as h:
            with smtplib.SMTP("127.0.0.1", h.port) as s: # h -> Postfix -> last -> sink
                for i, shape in enumerate(shapes):
                    s.sendmail("a@example.org", ["b@out.example"], b"From: a@example.org\r\nTo: b@out.example\r\nDate: Wed, 25 Nov 2026 10:00:00 +0000\r\n"
                               b"Message-ID: <%d@x>\r\nSubject: %d\r\n\r\n" % (i, i) + shape, ["BODY=8BITMIME"])
            try:
                wait_for("all at the sink", lambda: len(sink.messages) == len(shapes), 40)
            except AssertionError:
                print(postfix.log()[-3000:], h.log()[-1500:], last.log()[-1500:])
                raise
            got = {int(re.search(rb"Subject: (\d+)", m[2])[1]): m[2].split(b"\r\n\r\n", 1)[1] for m in sink.messages}
            self.assertEqual(got, dict(enumerate(shapes)))
            for m in sink.messages:
                self.assertEqual(m[2].count(b"Received:"), 3)


if __name__ == "__main__":
    unittest.main()
