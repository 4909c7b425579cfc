"""posthorn check: what a sending host lacks, told for each lack alone, in a network of its own with a DNS of its own."""
import json
import os
import pathlib
import shutil
import socketserver
import subprocess
import sys
import tempfile
import threading
import unittest

from horn import BUILD, TMP, Horn
from test_access import Named

NAMES = {
    "named.example.": "ns A 127.0.0.1\n", # of the name server of all zones
    "good.example.": """@ MX 10 mx
@ TXT "v=spf1 mx -all"
_dmarc TXT "v=DMARC1; p=none"
mx A 198.51.100.1
other A 192.0.2.9
away MX 10 other
away TXT "v=spf1 +all"
twice A 198.51.100.1
twice TXT "v=spf1 mx -all"
twice TXT "v=spf1 a -all"
peer A 10.9.9.9
peer MX 10 peer
""",
    "bare.example.": "@ A 198.51.100.1\n",
    "100.51.198.in-addr.arpa.": "1 PTR mx.good.example.\n3 PTR other.good.example.\n",
}


def speaker(taken):
    """One that greets, and to RCPT says what taken is."""
    class Session(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(b"220 speaker\r\n")
            for line in self.rfile:
                self.wfile.write(taken if line[:4] == b"RCPT" else b"221 bye\r\n" if line[:4] == b"QUIT" else b"250 ok\r\n")
                if line[:4] == b"QUIT":
                    return
    return Session


class Speaker:
    def __init__(self, address, taken=b"550 no\r\n"):
        socketserver.ThreadingTCPServer.allow_reuse_address = True
        self.server = socketserver.ThreadingTCPServer((address, 25), speaker(taken))
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def rows(h, *more):
    done = h.run("posthorn", "-c", str(h.dir), "check", "--json", "--probe", "peer.good.example", *more, check=False)
    found = [json.loads(l) for l in done.stdout.splitlines()]
    return done.returncode, {(r["server"], r["check"], r["status"]): r["text"] for r in found}


def faults(found):
    """Without the clock, which is the machine's."""
    return sorted(f"{what}: {status}" for (_, what, status) in found if status != "ok" and what != "clock")


# what is set, what is said then
SETTINGS = [
    ("fqdn=nowhere.good.example", ["certificate: problem", "fqdn: problem"]),
    ("fqdn=localhost.localdomain", ["certificate: problem", "fqdn: problem"]),
    ("fqdn=other.good.example", ["certificate: problem", "fqdn: warning", "ptr: warning"]),
    ("default_domain=away.good.example", ["mx: warning", "spf: problem"]),
    ("default_domain=twice.good.example", ["spf: problem"]),
    ("default_domain=none.good.example", ["mx: problem", "spf: warning"]),
    ("default_domain=bare.example", ["dmarc: warning", "spf: warning"]),
    ("default_domain=unheard.example", ["dmarc: unknown", "mx: unknown", "spf: unknown"]), # REFUSED
    ("default_domain=localdomain", ["mx: warning"]),
    ("masquerade_domain=away.good.example", ["masquerade: warning"]),
    ("relay=allow", ["relay: problem"]),
    ("relay_exceptions=203.0.113.0/24", ["relay: problem"]),
    ("smart_host=[10.9.9.9]:26", ["port 25: problem"]),
    ("listen=127.0.0.1:25", ["mx: problem"]),
    ("tls=none", ["certificate: warning"]),
]


def inside():
    t = unittest.TestCase()
    t.maxDiff = None
    with Named(NAMES) as named, Speaker("10.9.9.9"):
        with Horn([f"dns_servers=127.0.0.1@{named.port}"]) as h:
            h.stop()
            h.conf("-e", "listen=198.51.100.1:25", "fqdn=mx.good.example", "default_domain=good.example")
            for made in (h.dir / "state").glob("default.*"):
                made.unlink() # the certificate of the other name
            h.start()
            status, found = rows(h)
            t.assertEqual((status, faults(found)), (0, []), found)
            t.assertIn("tried from 198.51.100.1", found["default", "relay", "ok"])
            t.assertIn("greets: 220 speaker", found["default", "port 25", "ok"])
            for setting, said in SETTINGS:
                with t.subTest(setting):
                    name = setting.split("=")[0]
                    before = h.conf("-h", name).stdout.decode().strip()
                    h.conf("-e", setting)
                    status, found = rows(h)
                    h.conf("-e", f"{name}={before}")
                    t.assertEqual(faults(found), said, found)
                    t.assertEqual(status, 78 if any("problem" in s for s in said) else 0)
            permissions(t, h)
            subprocess.run(["ip", "addr", "add", "198.51.100.2/32", "dev", "lo"], check=True)
            t.assertEqual(faults(rows(h)[1]), ["ptr: problem"]) # no name
            subprocess.run(["ip", "addr", "del", "198.51.100.2/32", "dev", "lo"], check=True)
            subprocess.run(["ip", "addr", "add", "198.51.100.3/32", "dev", "lo"], check=True)
            t.assertEqual(faults(rows(h)[1]), ["ptr: problem"]) # one that leads elsewhere
            subprocess.run(["ip", "addr", "del", "198.51.100.3/32", "dev", "lo"], check=True)
            text = h.run("posthorn", "-c", str(h.dir), "check", "-s", "default", "--probe", "peer.good.example").stdout.decode()
            t.assertRegex(text, r"(?m)^ok +default +spf +good.example: v=spf1 mx -all$")
            h.stop()
            with Speaker("198.51.100.1", b"250 all are welcome\r\n"): # what the rules say is not what listens there
                t.assertEqual(faults(rows(h)[1]), ["relay: problem", "service: warning"])
            t.assertEqual(faults(rows(h)[1]), ["relay: warning", "service: warning"])
            t.assertEqual(h.run("posthorn", "-c", str(h.dir), "check", "-s", "nobody", check=False).returncode, 64)


def permissions(t, h):
    """Each is told, with the command that mends it; and the command mends it."""
    key, conf, spool = h.dir / "state/default.key", h.dir / "posthorn.conf", h.dir / "spool/default/Queue"
    for path, spoil in ((key, lambda: key.chmod(0o644)), (conf, lambda: os.chown(conf, 65534, -1)), (h.dir / "servers", lambda: (h.dir / "servers").chmod(0o777)),
                        (spool, lambda: os.chown(spool, 65534, -1))):
        with t.subTest(path.name):
            spoil()
            status, found = rows(h)
            t.assertEqual((status, faults(found)), (78, ["permissions: problem"]), found)
            text = next(text for (_, what, status), text in found.items() if (what, status) == ("permissions", "problem"))
            subprocess.run([w for c in ("chmod ", "chown ") if c in text for w in (c + text.split(c)[1]).split()], check=True)
            t.assertEqual(faults(rows(h)[1]), [], path)


# startup, what systemctl says, the verdict; /etc, /run and /usr/sbin/sendmail are the test's own
AT_BOOT = [("automatic", "enabled", "ok"), ("automatic", "disabled", "problem"), ("manual", "disabled", "ok"), ("manual", "enabled", "problem"), ("disabled", "masked", "ok"), ("automatic", "", "unknown")]


def at_boot():
    """In a mount namespace of its own: the machine's configuration is /etc/posthorn, and systemd runs."""
    t = unittest.TestCase()
    with tempfile.TemporaryDirectory(dir=TMP) as d:
        shutil.copytree("/etc", f"{d}/etc", symlinks=True, ignore_dangling_symlinks=True)
        pathlib.Path(d, "bin").mkdir()
        shutil.rmtree(f"{d}/etc/posthorn", ignore_errors=True)
        for command in (["mount", "--bind", f"{d}/etc", "/etc"], ["mount", "-t", "tmpfs", "tmpfs", "/run"], ["mkdir", "-p", "/run/systemd/system"]):
            subprocess.run(command, check=True)
        env = {**os.environ, "PATH": f"{d}/bin:" + os.environ["PATH"]}
        subprocess.run([BUILD / "hornconf", "init", "fqdn=localhost"], check=True, capture_output=True)
        for startup, said, status in AT_BOOT:
            pathlib.Path(d, "bin/systemctl").write_text(f"#!/bin/sh\n[ \"$*\" = 'is-enabled posthorn.service' ] && echo {said}\n")
            pathlib.Path(d, "bin/systemctl").chmod(0o755)
            subprocess.run([BUILD / "hornconf", "-e", "--service", f"startup={startup}"], check=True, capture_output=True)
            done = subprocess.run([BUILD / "posthorn", "check", "--json"], capture_output=True, env=env, timeout=120)
            found = {r["check"]: r for r in map(json.loads, done.stdout.splitlines())}
            t.assertEqual(found["startup"]["status"], status, (startup, said, found["startup"]))
            t.assertIn(found["sendmail"]["status"], ("warning", "problem")) # it is another's, or none is there


@unittest.skipUnless(os.geteuid() == 0, "makes a network namespace")
class Check(unittest.TestCase):
    def test_the_unit_at_boot(self):
        done = subprocess.run(["unshare", "-mn", sys.executable, "-c", "import test_check; test_check.at_boot()"], cwd=pathlib.Path(__file__).parent, capture_output=True, timeout=300)
        self.assertEqual(done.returncode, 0, done.stderr.decode()[-3000:] + done.stdout.decode()[-3000:])

    def test_each_lack(self):
        done = subprocess.run(["unshare", "-n", "sh", "-c", "ip link set lo up && ip addr add 198.51.100.1/32 dev lo && ip addr add 10.9.9.9/32 dev lo && "
                               "ip link add out type veth && ip link set out up && exec "
                               f"{sys.executable} -c 'import test_check; test_check.inside()'"], cwd=pathlib.Path(__file__).parent, capture_output=True, timeout=300,
                              env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"})
        self.assertEqual(done.returncode, 0, done.stderr.decode()[-3000:] + done.stdout.decode()[-3000:])


if __name__ == "__main__":
    unittest.main()
