"""Real clients hand in mail; a real Postfix hands in and takes it."""
import os
import pathlib
import re
import shutil
import smtplib
import subprocess
import tempfile
import unittest

from horn import TMP, Horn, Sink, free_port, remote, wait_for


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
            env = {**os.environ, "HOME": str(home), "EMAIL": "a@example.org"}
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
class Postfix(unittest.TestCase):
    """A private Postfix, as root only; its queue is below the test's directory."""

    def setUp(self):
        if not shutil.which("postfix"):
            self.fail("this test needs Postfix, as make setup check brings it")
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="pf-", dir=TMP))
        os.chmod(self.dir, 0o755)
        self.port = free_port()

    def start(self, relay_port, hash_=""):
        d = self.dir
        for name in ("conf", "queue", "data", "log"):
            (d / name).mkdir()
        shutil.chown(d / "data", "postfix")
        (d / "conf/main.cf").write_text(f"""compatibility_level = 3.6
queue_directory = {d}/queue
data_directory = {d}/data
maillog_file = {d}/log/mail.log
maillog_file_prefixes = {d}
myhostname = pf.example
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
relayhost = [127.0.0.1]:{relay_port}
smtpd_relay_restrictions = permit_mynetworks, reject
smtp_host_lookup = native
smtp_dns_support_level = disabled
""")
        services = ["pickup unix n - n 60 1 pickup", "cleanup unix n - n - 0 cleanup", "qmgr unix n - n 300 1 qmgr", "tlsmgr unix - - n 1000? 1 tlsmgr",
                    "rewrite unix - - n - - trivial-rewrite", "bounce unix - - n - 0 bounce", "defer unix - - n - 0 bounce", "trace unix - - n - 0 bounce",
                    "smtp unix - - n - - smtp", "relay unix - - n - - smtp", "showq unix n - n - - showq", "error unix - - n - - error",
                    "retry unix - - n - - error", "anvil unix - - n - 1 anvil", "scache unix - - n - 1 scache", "postlog unix-dgram n - n - 1 postlogd", "proxymap unix - - n - - proxymap"]
        (d / "conf/master.cf").write_text(f"127.0.0.1:{self.port} inet n - n - - smtpd\n" + "\n".join(services) + "\n")
        run("postfix", "-c", str(d / "conf"), "start")
        self.addCleanup(self.stop)

    def stop(self):
        subprocess.run(["postfix", "-c", str(self.dir / "conf"), "stop"], capture_output=True, timeout=60)
        pid = self.dir / "queue/pid/master.pid"
        wait_for("Postfix ended", lambda: not pid.exists() or not pathlib.Path(f"/proc/{pid.read_text().strip()}").exists())
        shutil.rmtree(self.dir, ignore_errors=True)

    def test_postfix_as_client_and_as_next_hop_keeps_every_byte(self):
        shapes = [b"8-bit \xe4\xf6\xfc\r\n", b".dots\r\n..\r\n", b"x" * 900 + b"\r\n", b"\r\n\r\n"]
        with Sink() as sink, Horn(domains=[remote(self.port, "out.example")]) as h, Horn(domains=[remote(sink, "out.example")]) as last:
            self.start(last.port)
            with smtplib.SMTP("127.0.0.1", h.port) as s: # h -> Postfix -> last -> sink
                for i, shape in enumerate(shapes):
                    s.sendmail("a@example.org", ["b@out.example"], b"From: a@example.org\r\nTo: b@out.example\r\nDate: Wed, 25 Nov 2026 10:00:00 +0000\r\n"
                               b"Message-ID: <%d@x>\r\nSubject: %d\r\n\r\n" % (i, i) + shape, ["BODY=8BITMIME"])
            try:
                wait_for("all at the sink", lambda: len(sink.messages) == len(shapes), 40)
            except AssertionError:
                print((self.dir / "log/mail.log").read_text()[-3000:], h.log()[-1500:], last.log()[-1500:])
                raise
            got = {int(re.search(rb"Subject: (\d+)", m[2])[1]): m[2].split(b"\r\n\r\n", 1)[1] for m in sink.messages}
            self.assertEqual(got, dict(enumerate(shapes)))
            for m in sink.messages:
                self.assertEqual(m[2].count(b"Received:"), 3)


if __name__ == "__main__":
    unittest.main()
