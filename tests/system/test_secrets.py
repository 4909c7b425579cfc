"""No secret in a log, a process list, a file that everybody may read, or in the memory of a process that does not need it: new
random secrets each time, looked for as they are, in base64, in hex and in UTF-16.  The same search finds one that is planted."""
import base64
import os
import pathlib
import secrets
import smtplib
import stat
import subprocess
import unittest

from horn import Horn, wait_for
from test_auth_out import Provider
from test_keys import context, forms as key_forms, make_pair, memory

TEXT = b"From: a@example.org\r\nSubject: hello\r\n\r\nA line."
# who may hold which for a while: the worker hears a password, smtp says one; authd has those of the outside
NEVER = ("master", "front", "cleanup", "mover", "qmgr", "drop", "bounce", "pickup", "control", "logd", "resolver", "sts", "keyd")


def forms(word):
    """A word as it may lie somewhere: at any offset of base64 the middle of it is the same."""
    raw = word.encode()
    coded = [base64.b64encode(b"\0" * n + raw)[4 if n else 0:-4] for n in range(3)]
    return [raw, raw.hex().encode(), raw.hex().upper().encode(), word.encode("utf-16-le"), word.encode("utf-16-be"), *coded]


def found(data, wanted):
    return [w for w in wanted if w in data]


class Secrets(unittest.TestCase):
    def readable_by_all(self, root):
        for f in pathlib.Path(root).rglob("*"):
            st = f.lstat()
            if stat.S_ISREG(st.st_mode) and st.st_mode & stat.S_IROTH:
                yield f

    def processes(self, h):
        for p in h.tree():
            for name in ("cmdline", "environ"):
                try:
                    yield p, pathlib.Path(f"/proc/{p}/{name}").read_bytes()
                except OSError:
                    pass

    def test_nowhere_but_where_they_are_needed(self):
        if os.geteuid() != 0:
            self.skipTest("reads other processes' memory")
        inside, outside, typo = (secrets.token_hex(16) for _ in range(3))
        with Provider("us", outside) as provider:
            h = Horn(server=["trusted_networks=", "auth_failure_delay=0s"])
            _, key = make_pair(h.root, "pair")
            (h.root / "outside").write_text(outside + "\n")
            os.chmod(h.root / "outside", 0o600)
            h.conf("-e", f"tls_certificate_file={h.root}/pair.crt", f"tls_key_file={key}", f"smart_host=[127.0.0.1]:{provider.port}", "outbound_auth=basic", "outbound_user=us",
                   f"outbound_password_file={h.root}/outside")
            h.run("hornpasswd", "-c", str(h.dir), "add", "alice", input=inside.encode() + b"\n")
            wanted = forms(inside) + forms(outside) + forms(typo) + key_forms(key)
            with h:
                for word in (inside, typo, inside):
                    s = smtplib.SMTP("127.0.0.1", h.port, timeout=60)
                    s.starttls(context=context())
                    try:
                        s.login("alice", word)
                        s.sendmail("alice@local.example", ["b@far.example"], TEXT)
                    except smtplib.SMTPAuthenticationError:
                        self.assertEqual(word, typo)
                    s.quit()
                wait_for("the mail went by the other login", lambda: len(provider.sink.messages) == 2)
                wait_for("a failure is told", lambda: "login_failed" in h.log())
                self.assertEqual(found(h.log().encode(), wanted), [])
                for pid, data in self.processes(h):
                    self.assertEqual(found(data, wanted), [], pid)
                for f in self.readable_by_all(h.root):
                    self.assertEqual(found(f.read_bytes(), wanted), [], f)
                for role in NEVER:
                    mine = [w for w in wanted if role != "keyd" or w not in key_forms(key)]
                    for pid in h.pids(role):
                        self.assertEqual(found(memory(pid), mine), [], role)
                for role in ("smtpd", "smtp", "authd"):
                    for pid in h.pids(role):
                        self.assertEqual(found(memory(pid), key_forms(key)), [], role)
                for pid in h.tree()[1:]: # all but master, which has none: no core image
                    self.assertEqual(pathlib.Path(f"/proc/{pid}/limits").read_text().split("Max core file size")[1].split()[0], "0")
                # the control: each place is searched
                self.assertTrue(found(memory(h.pids("keyd")[0]), key_forms(key)))
                self.assertTrue(found(memory(h.pids("authd")[0]), forms(outside)))
                (h.root / "planted").write_bytes(b"x" + base64.b64encode(b"xx" + outside.encode()))
                os.chmod(h.root / "planted", 0o644)
                self.assertEqual([f.name for f in self.readable_by_all(h.root) if found(f.read_bytes(), wanted)], ["planted"])
                with subprocess.Popen(["sleep", "60"], env={**os.environ, "WORD": inside}) as p:
                    try: # its environment is there a moment after its exec has begun
                        wait_for("the planted one", lambda: found(pathlib.Path(f"/proc/{p.pid}/environ").read_bytes(), wanted))
                    finally:
                        p.kill()
                self.assertTrue(found(h.log().encode() + typo.encode("utf-16-le"), wanted))


if __name__ == "__main__":
    unittest.main()
