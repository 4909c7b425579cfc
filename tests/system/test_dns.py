"""MX look-ups against NSD: order, fail-over, null MX, no such domain, loops, DNSSEC good and bogus."""
import os
import pathlib
import pwd
import shutil
import subprocess
import tempfile
import unittest

from horn import TMP, Horn, Sink, free_port, wait_for

TEXT = b"From: a@example.org\r\nSubject: hello\r\n\r\nA line."
ZONE = """$ORIGIN horntest.
$TTL 60
@ SOA ns hostmaster 1 3600 600 86400 60
@ NS ns
ns A 127.0.0.1
good MX 10 mx.horntest.
over MX 5 dead.horntest.
over MX 10 mx.horntest.
over MX 20 never.horntest.
null MX 0 .
plain A 127.0.0.1
loop MX 10 mx.horn.example.
empty TXT "no address here"
mx A 127.0.0.1
dead A 127.0.0.2
never A 127.0.0.3
"""


class Dns(unittest.TestCase):
    """Signed by ldns; NSD on a port of loopback; the resolver asks it and validates."""

    def setUp(self):
        for program in ("nsd", "ldns-keygen", "ldns-signzone"):
            if not shutil.which(program) and not pathlib.Path("/usr/sbin", program).exists():
                self.fail(f"{program} is missing; make setup check brings it")
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="dns-", dir=TMP))
        os.chmod(self.dir, 0o755)
        self.port = free_port()
        (self.dir / "zone").write_text(ZONE)
        key = subprocess.run(["ldns-keygen", "-a", "ECDSAP256SHA256", "-k", "horntest"], cwd=self.dir, capture_output=True, check=True, text=True).stdout.strip()
        subprocess.run(["ldns-signzone", "-n", "zone", key], cwd=self.dir, check=True, capture_output=True)
        self.anchor = self.dir / f"{key}.key"

    def serve(self, zone):
        user = pwd.getpwuid(os.geteuid()).pw_name
        (self.dir / "nsd.conf").write_text(f"""server:
  ip-address: 127.0.0.1@{self.port}
  username: {user}
  chroot: ""
  zonesdir: {self.dir}
  pidfile: {self.dir}/pid
  database: ""
  xfrdfile: {self.dir}/xfrd
  zonelistfile: {self.dir}/zonelist
  server-count: 1
remote-control:
  control-enable: no
zone:
  name: horntest
  zonefile: {zone}
""")
        nsd = shutil.which("nsd") or "/usr/sbin/nsd"
        self.nsd = subprocess.Popen([nsd, "-d", "-c", self.dir / "nsd.conf"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(self.end)

    def end(self):
        self.nsd.terminate()
        self.nsd.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def horn(self, sink, *service):
        return Horn(["test_mode=yes", f"dns_servers=127.0.0.1@{self.port}", f"dns_trust_anchor_file={self.anchor}", *service],
                    [f"outbound_port={sink.port}", "relay_exceptions=127.0.0.1", "outbound_connect_timeout=2s", "destination_probe=1s"])

    def test_each_kind_of_answer(self):
        self.serve("zone.signed")
        with Sink() as sink, self.horn(sink) as h, h.client() as c:
            wanted = {"good": None, "over": None, "plain": None}
            failed = {"null": b"5.1.10", "nothere": b"5.1.2", "empty": b"5.1.2", "loop": b"5.4.6"}
            for i, name in enumerate([*wanted, *failed]):
                c.send("back@local.example", f"{name}@{name}.horntest", TEXT, ehlo=i == 0)
            wait_for("those that have a way", lambda: len(sink.messages) == len(wanted), 30)
            wait_for("reports of the others", lambda: len(h.drop()) == len(failed), 30)
            reports = b"".join(p.read_bytes() for p in h.drop())
            for name, status in failed.items():
                self.assertIn(b"Final-Recipient: rfc822;%s@%s.horntest\r\nAction: failed\r\nStatus: %s" % (name.encode(), name.encode(), status), reports)

    def test_a_forged_answer_defers(self):
        signed = (self.dir / "zone.signed").read_text()
        (self.dir / "zone.forged").write_text(signed.replace("10 mx.horntest.", "10 ns.horntest."))
        self.serve("zone.forged")
        with Sink() as sink, self.horn(sink) as h, h.client() as c:
            c.send("back@local.example", "x@good.horntest", TEXT)
            row = wait_for("deferred", lambda: [m for m in h.messages() if m["state"] == "deferred"])[0]
            self.assertIn("DNSSEC", row["recipients"][0]["reason"])
            self.assertEqual(sink.messages, [])

    def test_no_name_server_defers(self):
        self.serve("zone.signed")
        self.nsd.terminate()
        self.nsd.wait()
        with Sink() as sink, self.horn(sink) as h, h.client() as c:
            c.send("back@local.example", "x@good.horntest", TEXT)
            row = wait_for("deferred", lambda: [m for m in h.messages() if m["state"] == "deferred"], 45)[0]
            self.assertIn("look-up failed", row["recipients"][0]["reason"])

    def test_a_reload_brings_new_name_servers(self):
        self.serve("zone.signed")
        with Sink() as sink:
            h = self.horn(sink)
            h.conf("-e", f"dns_servers=127.0.0.1@{free_port()}")
            self.reload_with_servers(sink, h)

    def reload_with_servers(self, sink, horn):
        with horn as h:
            old = h.pids("resolver")
            h.conf("-e", f"dns_servers=127.0.0.1@{self.port}")
            h.run("posthorn", "-c", str(h.dir), "reload")
            wait_for("a new resolver", lambda: h.pids("resolver") not in ([], [0], old))
            with h.client() as c:
                c.send("back@local.example", "x@good.horntest", TEXT)
            wait_for("delivered", lambda: len(sink.messages) == 1)


if __name__ == "__main__":
    unittest.main()
