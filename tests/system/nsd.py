"""A signed zone served by NSD on a port of loopback, for tests that ask the DNS."""
import os
import pathlib
import pwd
import shutil
import socket
import subprocess
import tempfile
import unittest

from horn import TMP, Horn, free_port, wait_for


class Zone(unittest.TestCase):
    """Signed by ldns; the resolver asks NSD and validates.  A subclass names its zone."""

    zone = ""

    def setUp(self):
        for program in ("nsd", "ldns-keygen", "ldns-signzone"):
            if not shutil.which(program) and not pathlib.Path("/usr/sbin", program).exists():
                self.fail(f"{program} is missing; make setup check brings it")
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="dns-", dir=TMP))
        os.chmod(self.dir, 0o755)
        self.port = free_port()
        (self.dir / "zone").write_text(self.zone)
        self.key = subprocess.run(["ldns-keygen", "-a", "ECDSAP256SHA256", "-k", "horntest"], cwd=self.dir, capture_output=True, check=True, text=True).stdout.strip()
        self.sign()
        self.anchor = self.dir / f"{self.key}.key"

    def sign(self):
        subprocess.run(["ldns-signzone", "-n", "zone", self.key], cwd=self.dir, check=True, capture_output=True)

    def serve_forged(self, owner):
        """With the last digits of owner's TLSA record changed after it was signed."""
        signed = (self.dir / "zone.signed").read_text()
        forged = "\n".join(l[:-8] + ("00000000" if l[-8:] != "00000000" else "11111111") if l.startswith(f"{owner}.") and "\tTLSA\t" in l else l for l in signed.splitlines())
        self.assertNotEqual(forged, signed.rstrip("\n"))
        (self.dir / "zone.served").write_text(forged + "\n")
        self.serve("zone.served")

    def zone_is(self, zone):
        """Another content, taken up at once."""
        (self.dir / "zone").write_text(zone)
        self.sign()
        self.nsd.terminate()
        self.nsd.wait()
        self.start()

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
        self.start()
        self.addCleanup(self.end)

    def start(self):
        nsd = shutil.which("nsd") or "/usr/sbin/nsd"
        self.nsd = subprocess.Popen([nsd, "-d", "-c", self.dir / "nsd.conf"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for("an answer of NSD", self.answers)

    def answers(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(0.2)
            try:
                s.connect(("127.0.0.1", self.port))
                s.send(b"\0\1\0\0\0\1\0\0\0\0\0\0\x08horntest\0\0\6\0\1") # SOA
                return s.recv(4096)
            except OSError:
                return None

    def end(self):
        self.nsd.terminate()
        self.nsd.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def why(self, h, name):
        """hornqueue why tells the policy, the reason and the next attempt."""
        m = next(m for m in h.messages() if m["recipients"][0]["address"].startswith(name + "@"))
        said = h.queue("why", m["id"]).stdout.decode()
        self.assertRegex(said, r"next attempt: 20\d\d-")
        return said

    def trusting(self, *server):
        """A service that mails to sink_port of the zone's hosts and trusts the authority ca: what a subclass has made."""
        return Horn(["test_mode=yes", f"dns_servers=127.0.0.1@{self.port}", f"dns_trust_anchor_file={self.anchor}"],
                    [f"outbound_port={self.sink_port}", "relay_exceptions=127.0.0.1", "outbound_connect_timeout=2s", f"outbound_tls_ca_file={self.ca.crt}", *server])

    def horn(self, sink, *service):
        return Horn(["test_mode=yes", f"dns_servers=127.0.0.1@{self.port}", f"dns_trust_anchor_file={self.anchor}", *service],
                    [f"outbound_port={sink.port}", "relay_exceptions=127.0.0.1", "outbound_connect_timeout=2s", "destination_probe=1s"])
