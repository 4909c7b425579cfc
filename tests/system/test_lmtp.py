"""LMTP into a real Dovecot, over TCP and over a socket of this machine."""
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from horn import TMP, Horn, free_port, wait_for

TEXT = b"From: a@example.org\r\nTo: b@example.org\r\nSubject: hello\r\n\r\nA line.\r\n..dots\r\n\xe4\r\n"


@unittest.skipIf(os.geteuid() != 0, "Dovecot starts as root only")
class Lmtp(unittest.TestCase):
    def setUp(self):
        if not shutil.which("dovecot"):
            self.fail("this test needs Dovecot, as make setup check brings it")
        self.dir = d = pathlib.Path(tempfile.mkdtemp(prefix="dove-", dir=TMP))
        os.chmod(d, 0o755)
        self.port = free_port()
        (d / "mail").mkdir()
        shutil.chown(d / "mail", "nobody")
        (d / "users").write_text("one:::::::\ntwo:::::::\nfull:::::::userdb_quota_rule=*:bytes=100\n")
        (d / "conf").write_text(f"""base_dir = {d}/run
log_path = {d}/log
protocols = lmtp
ssl = no
mail_location = maildir:{d}/mail/%n
mail_plugins = quota
plugin {{
  quota = maildir:User quota
}}
first_valid_uid = 1
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = passwd-file
  args = username_format=%n {d}/users
  override_fields = uid=nobody gid=nogroup home={d}/mail/%n
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {self.port}
  }}
  unix_listener lmtp {{
    mode = 0666
  }}
}}
""")
        self.dovecot = subprocess.Popen(["dovecot", "-F", "-c", d / "conf"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(self.end)
        wait_for("Dovecot", lambda: (d / "run/lmtp").exists())
        os.chmod(d / "run", 0o755)

    def end(self):
        self.dovecot.terminate()
        self.dovecot.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def mails(self, user):
        return [p.read_bytes() for p in (self.dir / "mail" / user / "new").glob("*")]

    def deliver(self, address):
        with Horn(server=[f"local_delivery=lmtp:{address}"], domains=[("drop.example", "type=local", "local_delivery=drop")]) as h, h.client() as c:
            c.send("back@drop.example", [f"{u}@local.example" for u in ("one", "two", "nobody-here", "full")], TEXT[:-2])
            for user in ("one", "two"):
                data = wait_for(f"{user}'s mail", lambda: self.mails(user))[0]
                self.assertTrue(data.replace(b"\r\n", b"\n").endswith(b"\n\nA line.\n.dots\n\xe4\n"), data)
                self.assertIn(b"Return-Path: <back@drop.example>", data)
            reports = wait_for("the reports", lambda: h.drop() and b"".join(p.read_bytes() for p in h.drop()))
            self.assertIn(b"nobody-here@local.example\r\nAction: failed\r\nStatus: 5.1.1", reports)
            wait_for("the full one", lambda: b"full@local.example" in b"".join(p.read_bytes() for p in h.drop()) or h.messages())
            for user in ("one", "two"):
                self.assertEqual(len(self.mails(user)), 1)

    def test_over_tcp(self):
        self.deliver(f"[127.0.0.1]:{self.port}")

    def test_over_a_socket_of_this_machine(self):
        self.deliver(f"unix:{self.dir}/run/lmtp")


if __name__ == "__main__":
    unittest.main()
