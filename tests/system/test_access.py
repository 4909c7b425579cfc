"""Who may connect, how often, how much: limits, lists by address and name, rates, the tarpit, reverse DNS."""
import os
import pathlib
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import unittest

from horn import TMP, Client, Horn, free_port, wait_for

TEXT = b"From: a@example.org\r\nSubject: hello\r\n\r\nA line."


def greeting(port, source="127.0.0.1"):
    """The first reply's code, the connection closed again."""
    with Client(port, source=source) as c:
        return c.greeting[:9]


class Limits(unittest.TestCase):
    def test_the_limit_of_all_connections_is_exact_under_a_burst(self):
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
        with Horn(server=["connection_limit=500"]) as h:
            burst = []
            for _ in range(2000):
                s = socket.socket()
                s.setblocking(False)
                s.connect_ex(("127.0.0.1", h.port))
                burst.append(s)
            first, waits = {}, select.poll()
            for s in burst:
                waits.register(s, select.POLLIN)
            by_fd = {s.fileno(): s for s in burst}

            def all_heard():
                for fd, _ in waits.poll(100):
                    first[fd] = by_fd[fd].recv(3)
                    waits.unregister(fd)
                return len(first) == 2000
            wait_for("each connection has its reply", all_heard, 60)
            replies = list(first.values())
            self.assertEqual((replies.count(b"220"), replies.count(b"421")), (500, 1500))
            served = [by_fd[fd] for fd, reply in first.items() if reply == b"220"]
            self.assertEqual(h.status()["servers"][0]["sessions"], 500)
            served[0].close()
            wait_for("the place that became free is given away", lambda: greeting(h.port).startswith("220"))
            for s in burst:
                s.close()

    def test_another_front_counts_the_sessions_that_are_there(self):
        with Horn(server=["connection_limit=5"]) as h:
            held = [h.client() for _ in range(5)]
            front = h.pids("front")[0]
            os.kill(front, signal.SIGKILL)
            wait_for("another front, which knows of them", lambda: h.pids("front") not in ([], [front]) and h.status()["servers"][0]["sessions"] == 5)
            self.assertEqual(greeting(h.port), "421 4.7.0")
            held.pop().s.close()
            wait_for("a place is free", lambda: h.status()["servers"][0]["sessions"] == 4)
            with h.client() as c: # with four old ones it is the fifth
                self.assertTrue(c.greeting.startswith("220"))
                self.assertEqual(greeting(h.port), "421 4.7.0")
                for old in held:
                    self.assertTrue(old.ask("NOOP").startswith("250"))
                    old.s.close()
                wait_for("their places are free", lambda: h.status()["servers"][0]["sessions"] == 1)
                c.send("a@b.example", "x@local.example", TEXT)

    def test_another_front_opens_while_old_sessions_end(self):
        with Horn(server=["client_connection_limit=unlimited"]) as h:
            held = [h.client() for _ in range(400)]
            front = h.pids("front")[0]
            os.kill(front, signal.SIGKILL)
            wait_for("another front", lambda: h.pids("front") not in ([], [front]))
            with Client(h.port, greet=False) as c:
                while held and not select.select([c.s], [], [], 0.005)[0]:
                    held.pop().s.close()
                self.assertTrue(held, "nobody was let in before the last old session had ended")
                self.assertTrue(c.hear().startswith("220"))
            for old in held:
                old.s.close()

    def test_each_client_has_its_share(self):
        with Horn(server=["client_connection_limit=3", "trusted_networks=127.0.0.9"]) as h:
            held = [Client(h.port) for _ in range(3)]
            self.assertEqual(greeting(h.port), "421 4.7.0")
            self.assertTrue(greeting(h.port, "127.0.0.2").startswith("220"))
            trusted = [Client(h.port, source="127.0.0.9") for _ in range(5)]
            self.assertTrue(all(c.greeting.startswith("220") for c in trusted))
            held.pop().s.close()
            wait_for("a place is free", lambda: greeting(h.port).startswith("220"))
            for c in held + trusted:
                c.s.close()
            wait_for("said in the log", lambda: "limit=client_connection_limit" in h.log())

    def test_rates_count_over_connections_and_begin_anew(self):
        with Horn(server=["client_connection_rate=4/1h", "client_message_rate=3/1h", "client_recipient_rate=5/1h", "trusted_networks=127.0.0.9"]) as h:
            seen = []
            for _ in range(2):
                with h.client() as c:
                    c.ask("EHLO client.example")
                    for n in (1, 2):
                        seen.append(c.ask("MAIL FROM:<a@b.example>")[:9])
                        if seen[-1].startswith("250"):
                            seen += [c.ask(f"RCPT TO:<u{i}@local.example>")[:9] for i in range(2)]
                        c.ask("RSET")
            ok, rcpt = "250 2.1.0", "250 2.1.5"
            self.assertEqual(seen, [ok, rcpt, rcpt, ok, rcpt, rcpt, ok, rcpt, "450 4.7.1", "450 4.7.1"])
            with h.client() as c: # the third of its connections
                self.assertTrue(c.greeting.startswith("220"))
            self.assertEqual([greeting(h.port)[:3] for _ in range(2)], ["220", "421"])
            for source in ("127.0.0.2", "127.0.0.9"): # another client, and one that is not counted
                with Client(h.port, source=source) as c:
                    c.send("a@b.example", "x@local.example", TEXT)
            with Client(h.port, source="127.0.0.9") as c:
                for _ in range(8):
                    c.send("a@b.example", "x@local.example", TEXT)

    def test_a_rate_begins_anew(self):
        with Horn(server=["client_connection_rate=1/2s", "trusted_networks="]) as h:
            self.assertEqual([greeting(h.port)[:3] for _ in range(2)], ["220", "421"])
            wait_for("its time is over", lambda: greeting(h.port).startswith("220"))

    def test_lists_of_addresses(self):
        with Horn(server=["access_exceptions=127.0.0.2 127.0.1.0/24 127.0.2.0/255.255.255.0"]) as h:
            sources = ("127.0.0.1", "127.0.0.2", "127.0.1.200", "127.0.2.1", "127.0.3.1")
            self.assertEqual([greeting(h.port, s)[:9].strip() for s in sources], ["220 mx.ho", "554 5.7.1", "554 5.7.1", "554 5.7.1", "220 mx.ho"])
            h.conf("-e", "access=deny")
            h.run("posthorn", "-c", str(h.dir), "reload")
            wait_for("the other way round", lambda: greeting(h.port) == "554 5.7.1")
            self.assertEqual([greeting(h.port, s)[:3] for s in sources], ["554", "220", "220", "220", "554"])
            self.assertNotIn(b"nobody can connect", h.conf("check").stderr)
            h.conf("-X", "access_exceptions")
            self.assertIn(b"access = deny and no access_exceptions: nobody can connect", h.conf("check").stderr)
            wait_for("said in the log", lambda: "limit=access" in h.log())

    def test_bad_lists_and_rates_are_refused_with_what_to_write(self):
        h = Horn()
        try:
            for setting, words in (("access_exceptions=192.0.2.300", "domain names"), ("access_exceptions=.example.org", "domain names"),
                                   ("trusted_networks=example.org", "ADDR/BITS"), ("client_message_rate=100", "100/1h"),
                                   ("client_message_rate=0/1h", "100/1h"), ("client_connection_rate=5/0s", "100/1h"), ("access=maybe", "one of: allow deny")):
                done = h.conf("-e", setting, check=False)
                self.assertNotEqual(done.returncode, 0, setting)
                self.assertIn(words, done.stderr.decode(), setting)
        finally:
            h.__exit__(None)

    def test_the_tarpit_holds_its_client_alone(self):
        with Horn(service=["test_mode=yes"], server=["error_soft_limit=2", "error_limit=100", "tarpit_delay=3s", "trusted_networks="]) as h, h.client() as slow, h.client() as other:
            slow.ask("EHLO client.example")
            slow.ask("NONSENSE")
            slow.say("NONSENSE")
            for _ in range(5):
                other.send("a@b.example", "x@local.example", TEXT)
            self.assertEqual(select.select([slow.s], [], [], 0)[0], []) # five messages later it still waits
            self.assertTrue(slow.hear().startswith("500 5.5.1"))
            self.assertTrue(slow.ask("NOOP").startswith("250"))


ZONE = """$ORIGIN {origin}
$TTL 60
@ SOA ns.named.example. hostmaster.named.example. 1 3600 600 86400 60
@ NS ns.named.example.
"""
NAMES = {
    "named.example.": "ns A 127.0.0.1\ngood A 198.51.100.1\nmx.partner A 198.51.100.2\nlie A 192.0.2.1\nsix AAAA 2001:db8:5::1\n",
    "100.51.198.in-addr.arpa.": "1 PTR good.named.example.\n2 PTR mx.partner.named.example.\n3 PTR lie.named.example.\n5 PTR broken.elsewhere.example.\n",
    "5.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.": ".".join("1" + "0" * 19) + " PTR six.named.example.\n",
}


class Named:
    """NSD with names and reverse names of addresses that only this network namespace has."""

    def __init__(self, names=NAMES):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="names-", dir=TMP))
        self.port = free_port()
        os.chmod(self.dir, 0o755)
        zones = ""
        for i, (origin, records) in enumerate(names.items()):
            (self.dir / f"zone{i}").write_text(ZONE.format(origin=origin) + records)
            zones += f"zone:\n  name: {origin}\n  zonefile: {self.dir}/zone{i}\n"
        (self.dir / "nsd.conf").write_text(f"server:\n  ip-address: 127.0.0.1@{self.port}\n  username: root\n  chroot: \"\"\n  zonesdir: {self.dir}\n"
                                           f"  pidfile: {self.dir}/pid\n  database: \"\"\n  xfrdfile: {self.dir}/xfrd\n  zonelistfile: {self.dir}/zonelist\n"
                                           f"  server-count: 1\nremote-control:\n  control-enable: no\n{zones}")
        self.nsd = subprocess.Popen([shutil.which("nsd") or "/usr/sbin/nsd", "-d", "-c", self.dir / "nsd.conf"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.nsd.terminate()
        self.nsd.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


def to_elsewhere(port, source):
    with Client(port, source=source) as c:
        c.ask("EHLO good.named.example")
        c.ask("MAIL FROM:<a@b.example>")
        return c.ask("RCPT TO:<x@elsewhere.example>")[:9]


def six(service, server):
    """An instance that listens on IPv6 as well."""
    h = Horn(service, server)
    h.conf("-e", f"listen=127.0.0.1:{h.port} [::1]:{h.port}")
    return h


def inside_names():
    """Lists by name, and the trace field's three forms."""
    t = unittest.TestCase()
    with Named() as named:
        dns = [f"dns_servers=127.0.0.1@{named.port}"]
        with Horn(dns, ["access_exceptions=partner.named.example", "relay_exceptions=good.named.example", "reverse_dns_lookup=yes"]) as h:
            t.assertEqual([greeting(h.port, f"198.51.100.{n}")[:3] for n in (1, 2, 3, 4)], ["220", "554", "220", "220"])
            # broken.elsewhere.example is in no zone that NSD has: REFUSED, which is no answer
            t.assertEqual(greeting(h.port, "198.51.100.5"), "421 4.7.1")
            t.assertEqual([to_elsewhere(h.port, f"198.51.100.{n}") for n in (1, 3, 4)], ["250 2.1.5", "550 5.7.1", "550 5.7.1"])
            for n, helo in ((1, "good.named.example"), (1, "other.example"), (4, "good.named.example"), (1, "[198.51.100.1]")):
                with Client(h.port, source=f"198.51.100.{n}") as c:
                    c.ask(f"EHLO {helo}")
                    c.send("a@b.example", "x@local.example", TEXT + f"\r\n{n} {helo}".encode(), ehlo=False)
            drop = wait_for("all four are there", lambda: len(h.drop()) == 4 and h.drop())
            seen = sorted(p.read_text().split("Received: from ")[1].split("\r\n")[0].split("\n")[0] for p in drop)
            t.assertEqual(seen, ["[198.51.100.1] ([198.51.100.1])", "good.named.example ([198.51.100.1])", "good.named.example ([198.51.100.4] RDNS failed)",
                                 "other.example ([198.51.100.1] unverified)"])
            said = h.run("posthorn", "-c", str(h.dir), "explain", "--client", "198.51.100.1", "x@elsewhere.example").stdout.decode()
            t.assertIn("its names  good.named.example\n", said)
            t.assertIn("taken: the client is in relay_exceptions", said)
            said = h.run("posthorn", "-c", str(h.dir), "explain", "--client", "198.51.100.2", "x@elsewhere.example").stdout.decode()
            t.assertIn("access     refused with 554 5.7.1\n", said)
        with six(dns, ["access=deny", "access_exceptions=named.example"]) as h:
            for source, reply in (("2001:db8:5::1", b"220"), ("2001:db8:5::2", b"554")):
                with socket.create_connection(("::1", h.port), 30, (source, 0)) as s:
                    t.assertEqual(s.recv(3), reply, source)


def inside_gateway():
    """Whom the gateway relays for, the world may be: said when it is configured and at start."""
    t = unittest.TestCase()
    for exceptions, words in (("198.51.100.64/26", "let 198.51.100.77 relay, the gateway"), ("fd00::/8", "let fd00::77 relay, the gateway"),
                              ("0.0.0.0/0", "hold every address"), ("192.0.2.0/24 127.0.0.1", None)):
        with Horn(server=[f"relay_exceptions={exceptions}"]) as h:
            said = h.conf("check").stderr.decode() + h.conf("check").stdout.decode()
            wait_for("it has started", lambda: "started" in h.log())
            if words is None:
                t.assertNotIn("relay_exceptions", said + h.log())
            else:
                t.assertIn(words, said)
                wait_for("said in the log", lambda: words in h.log())


def inside_table():
    """A client with every /64 of a /32 makes the table of rates no longer than it may be."""
    t = unittest.TestCase()
    with six([], ["client_connection_rate=5/1d"]) as h:
        front = h.pids("front")[0]

        def memory():
            return int([line for line in pathlib.Path(f"/proc/{front}/status").read_text().splitlines() if line.startswith("VmData")][0].split()[1])

        def knock(a, b):
            with socket.socket(socket.AF_INET6) as s:
                s.setsockopt(socket.IPPROTO_IP, 15, 1) # IP_FREEBIND
                s.bind((f"2001:db8:{a:x}:{b:x}::1", 0))
                s.connect(("::1", h.port))
                return s.recv(3)
        half = None
        for n in range(80000):
            t.assertEqual(knock(n >> 16, n & 0xffff), b"220")
            if n == 66000:
                half = memory()
        if not os.environ.get("POSTHORN_SANITIZED"): # the sanitizers keep what was freed
            t.assertLess(memory() - half, 1024) # KB: the last 14,000 took the places of others
        wait_for("said in the log", lambda: "clients_forgotten" in h.log() or "More clients" in h.log())
        t.assertEqual([knock(9, 9) for _ in range(6)], [b"220"] * 5 + [b"421"]) # and it still counts


@unittest.skipUnless(os.geteuid() == 0, "makes a network namespace")
class Namespace(unittest.TestCase):
    def inside(self, what):
        command = ("ip link set lo up && for n in 1 2 3 4 5; do ip addr add 198.51.100.$n/32 dev lo; done && ip addr add 2001:db8:5::1/128 dev lo && "
                   f"ip addr add 2001:db8:5::2/128 dev lo && ip -6 route add local 2001:db8::/32 dev lo && "
                   "ip link add out type veth && ip link set out up && ip addr add 198.51.100.65/26 dev out && ip addr add fd00::1/64 dev out nodad && "
                   f"ip route add default via 198.51.100.77 && ip -6 route add default via fd00::77 && exec {sys.executable} -c 'import test_access; test_access.{what}()'")
        done = subprocess.run(["unshare", "-n", "sh", "-c", command], cwd=pathlib.Path(__file__).parent, capture_output=True, timeout=300,
                              env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"})
        self.assertEqual(done.returncode, 0, done.stderr.decode()[-3000:] + done.stdout.decode()[-3000:])

    def test_names(self):
        self.inside("inside_names")

    def test_a_gateway_that_may_relay(self):
        self.inside("inside_gateway")

    def test_the_table_of_rates_is_bounded(self):
        self.inside("inside_table")


if __name__ == "__main__":
    unittest.main()
