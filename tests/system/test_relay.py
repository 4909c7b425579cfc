"""Who may send through this server: the classic ways to talk a server into relaying lead nowhere (MISSION C5)."""
import base64
import itertools
import json
import os
import pathlib
import socket
import subprocess
import sys
import unittest

from horn import Horn, Sink, wait_for

OWN, ELSE = "local.example", "elsewhere.example"
# sender, recipient.  What is taken is this server's own mail, whatever its local part looks like.
PROBES = (
    ("a@b.example", f"u@{ELSE}"),                          # plainly
    ("", f"u@{ELSE}"),                                     # as a report
    (f"u@{OWN}", f"u@{ELSE}"),                             # as one of ours
    ("u@[127.0.0.1]", f"u@{ELSE}"),                        # as one of ours by address
    ("u@localhost", f"u@{ELSE}"),
    ("a@b.example", f"u%{ELSE}@{OWN}"),                    # percent hack
    ("a@b.example", f"u%{ELSE}@[127.0.0.1]"),
    ("a@b.example", f"\"u%{ELSE}\"@{OWN}"),
    ("a@b.example", f"\"u%{ELSE}\""),
    ("a@b.example", f"u%{ELSE}"),
    ("a@b.example", f"\"u@{ELSE}\""),                      # quoted at-signs
    ("a@b.example", f"\"u@{ELSE}\"@{OWN}"),
    ("a@b.example", f"\"u@{ELSE}\"@[127.0.0.1]"),
    ("a@b.example", f"u@{ELSE}@{OWN}"),                    # two at-signs
    ("a@b.example", f"u@{ELSE}@[127.0.0.1]"),
    ("a@b.example", f"u@{OWN}@{ELSE}"),
    ("a@b.example", f"@{OWN}:u@{ELSE}"),                   # source routes
    ("a@b.example", f"@[127.0.0.1]:u@{ELSE}"),
    ("a@b.example", f"@{ELSE}:u@{OWN}"),
    ("a@b.example", f"@{OWN},@{ELSE}:u@{ELSE}"),
    ("a@b.example", f"{ELSE}!u"),                          # bang paths
    ("a@b.example", f"{ELSE}!u@{OWN}"),
    ("a@b.example", f"{ELSE}!u@[127.0.0.1]"),
    ("a@b.example", f"{OWN}!{ELSE}!u@{OWN}"),
    ("a@b.example", "u@[192.0.2.1]"),                      # literals of others, of forms that may be ours
    ("a@b.example", "u@[IPv6:2001:db8::1]"),
    ("a@b.example", "u@[IPv6:::ffff:192.0.2.1]"),
    ("a@b.example", f"u@{OWN}.{ELSE}"),                    # names that begin or end as ours do
    ("a@b.example", f"u@{ELSE}{OWN}"),
    ("a@b.example", f"u@{ELSE}.{OWN}"),
    ("a@b.example", f"u@{ELSE} {OWN}"),
    ("a@b.example", f"u@{ELSE}\0@{OWN}"),
    ("a@b.example", f"u@{ELSE}\t"),
    ("a@b.example", f"<u@{ELSE}>"),
    ("a@b.example", f"u@{ELSE}>,<u@{OWN}"),
)


class Relay(unittest.TestCase):
    def test_no_probe_leads_out(self):
        with Sink() as sink, Horn(server=[f"smart_host=[127.0.0.1]:{sink.port}", "error_limit=unlimited", "error_soft_limit=unlimited", "trusted_networks="]) as h:
            taken = []
            for greeting in ("EHLO probe.example", "HELO probe.example", f"EHLO {OWN}", "EHLO [127.0.0.1]"):
                with h.client() as c:
                    c.ask(greeting)
                    for sender, recipient in PROBES:
                        c.ask(f"MAIL FROM:<{sender}>")
                        reply = c.ask(f"RCPT TO:<{recipient}>")
                        if reply.startswith("250"):
                            taken.append(recipient)
                            c.ask("DATA")
                            c.say(b"Subject: probe\r\n\r\nx\r\n.\r\n")
                            self.assertTrue(c.hear().startswith("250"))
                        else:
                            self.assertIn(reply[:3], ("550", "501", "500", "503", "555"), recipient)
                            c.ask("RSET")
            self.assertEqual([r for r in taken if r.endswith(f"@{ELSE}") or r == f"u@{ELSE}"], [])
            wait_for("what was taken is here", lambda: len(h.drop()) == len(taken))
            self.assertEqual(h.messages(), [])
            self.assertEqual((sink.messages, sink.connections), ([], 0))
            receivers = [p.read_text().split("X-Receiver: ")[1].split("\n")[0].strip(" <>\r") for p in h.drop()]
            self.assertEqual([r for r in receivers if r.rsplit("@", 1)[1] not in (OWN, "[127.0.0.1]")], [])

    def test_one_that_may_relay_leads_out(self):
        """The control: the same from a listed client arrives."""
        with Sink() as sink, Horn(server=[f"smart_host=[127.0.0.1]:{sink.port}", "relay_exceptions=127.0.0.1"]) as h, h.client() as c:
            c.send("a@b.example", f"u@{ELSE}", b"Subject: probe\r\n\r\nx")
            wait_for("it is out", lambda: len(sink.messages) == 1)


SERVER, LISTED, STRANGER = "192.0.2.25", "192.0.2.1", "203.0.113.1"
# what the mission says of each kind of domain: True, False, or as the list and the login say
TO = {"local.example": True, "alias.example": True, "own2.example": True, "routed.example": True, "closed.example": False, "plain.example": None, "else.example": None}


def outside():
    """Another machine: says what it is told from the address that it is told, answers with the replies."""
    for line in sys.stdin:
        order = json.loads(line)
        with socket.create_connection((SERVER, order["port"]), 20, (order["from"], 0)) as s:
            f, replies = s.makefile("rb"), []
            def hear():
                text = b""
                while not text.splitlines() or text.splitlines()[-1][3:4] == b"-":
                    text += f.readline() or b"000 closed\r\n"
                return text.decode()
            replies.append(hear())
            for say in order["say"]:
                s.sendall(say.encode() + b"\r\n")
                replies.append(hear())
        print(json.dumps(replies), flush=True)


class Outside:
    """A network namespace behind a link, with the addresses LISTED and STRANGER."""

    def __init__(self, port):
        self.port = port
        self.process = subprocess.Popen(["unshare", "-n", sys.executable, "-c", "import test_relay; test_relay.outside()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        pid = self.process.pid
        wait_for("a namespace", lambda: os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net"))
        run = lambda *words: subprocess.run(words, check=True)
        run("ip", "link", "add", "in", "type", "veth", "peer", "name", "out", "netns", str(pid))
        run("ip", "addr", "add", f"{SERVER}/32", "dev", "in")
        run("ip", "link", "set", "in", "up")
        inside = ("nsenter", "-t", str(pid), "-n", "ip")
        for address in (LISTED, STRANGER):
            run(*inside, "addr", "add", f"{address}/32", "dev", "out")
            run("ip", "route", "add", address, "dev", "in", "src", SERVER)
        run(*inside, "link", "set", "out", "up")
        run(*inside, "route", "add", SERVER, "dev", "out")
        for address in (LISTED, STRANGER):
            run("ip", "route", "replace", address, "dev", "in", "src", SERVER)

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def ask(self, address, *say):
        self.process.stdin.write(json.dumps({"from": address, "port": self.port, "say": say}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def mission_takes(allow, listed, login, counts, says):
    """MISSION C5, as it is said there."""
    return says if says is not None else True if login and counts else not allow if listed else allow


def serve(*server):
    h = Horn(server=[f"relay_exceptions={LISTED}", "trusted_networks=", "auth_basic_cleartext=yes", "error_limit=unlimited", "error_soft_limit=unlimited", *server])
    h.conf("-e", f"listen={SERVER}:2525")
    for name, *settings in (("alias.example", "type=alias"), ("own2.example", "type=local"), ("routed.example", "type=remote", "relay=yes"), ("closed.example", "type=remote", "relay=never"),
                            ("plain.example", "type=remote")):
        h.conf("domain", "add", name, *settings)
    h.run("hornpasswd", "-c", str(h.dir), "add", "alice", input=b"secret word\n")
    return h


def inside_matrix():
    """All rows of the matrix, from outside."""
    t, seen = unittest.TestCase(), 0
    with Outside(2525) as out, serve() as h:
        plain = "AUTH PLAIN " + base64.b64encode(b"\0alice\0secret word").decode()
        for allow, counts in itertools.product((False, True), repeat=2):
            h.conf("-e", f"relay={'allow' if allow else 'deny'}", f"relay_authenticated={'yes' if counts else 'no'}")
            h.run("posthorn", "-c", str(h.dir), "reload")
            for listed, login in itertools.product((False, True), repeat=2):
                say = ["EHLO out.example", *([plain] if login else []), "MAIL FROM:<a@b.example>", *(f"RCPT TO:<x@{d}>" for d in TO), "QUIT"]
                address = LISTED if listed else STRANGER
                replies = wait_for("the new configuration", lambda: out.ask(address, *say))
                t.assertTrue(not login or replies[2].startswith("235"), replies)
                for (domain, says), reply in zip(TO.items(), replies[-1 - len(TO):-1]):
                    takes = mission_takes(allow, listed, login, counts, says)
                    t.assertTrue(reply.startswith("250 2.1.5" if takes else "550 5.7.1"), (allow, counts, listed, login, domain, reply))
                    seen += 1
                    if not login: # explain says the same of it
                        said = h.run("posthorn", "-c", str(h.dir), "explain", "--json", "--client", address, "--from", "a@b.example", f"x@{domain}").stdout
                        t.assertEqual(json.loads(said)["relay"].split(":")[0], "taken" if takes else "refused with 550 5.7.1", said)
    t.assertEqual(seen, 16 * len(TO))


def inside_probes():
    """The classic probes by a stranger; the control: the same way out is open to who is listed."""
    t = unittest.TestCase()
    with Sink() as sink, Outside(2525) as out, serve(f"smart_host=[127.0.0.1]:{sink.port}") as h:
        taken = 0
        for sender, recipient in PROBES:
            recipient = recipient.replace("127.0.0.1", SERVER)
            replies = out.ask(STRANGER, "EHLO probe.example", f"MAIL FROM:<{sender.replace('127.0.0.1', SERVER)}>", f"RCPT TO:<{recipient}>")
            if replies[3].startswith("250"):
                t.assertFalse(recipient == f"u@{ELSE}" or recipient.endswith(f"@{ELSE}"), recipient)
                out.ask(STRANGER, "EHLO probe.example", f"MAIL FROM:<{sender.replace('127.0.0.1', SERVER)}>", f"RCPT TO:<{recipient}>", "DATA", "Subject: probe\r\n\r\nx\r\n.")
                taken += 1
        t.assertGreater(taken, 3)
        wait_for("what was taken is here", lambda: len(h.drop()) == taken)
        t.assertEqual((h.messages(), sink.messages, sink.connections), ([], [], 0))
        replies = out.ask(LISTED, "EHLO probe.example", "MAIL FROM:<a@b.example>", f"RCPT TO:<u@{ELSE}>", "DATA", "Subject: probe\r\n\r\nx\r\n.")
        t.assertTrue(replies[-1].startswith("250"), replies)
        wait_for("it is out", lambda: len(sink.messages) == 1)


@unittest.skipUnless(os.geteuid() == 0, "makes network namespaces")
class FromOutside(unittest.TestCase):
    def inside(self, what):
        done = subprocess.run(["unshare", "-n", "sh", "-c", f"ip link set lo up && exec {sys.executable} -c 'import test_relay; test_relay.{what}()'"], cwd=pathlib.Path(__file__).parent,
                              capture_output=True, timeout=300, env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"})
        self.assertEqual(done.returncode, 0, done.stderr.decode()[-3000:] + done.stdout.decode()[-3000:])

    def test_the_matrix(self):
        self.inside("inside_matrix")

    def test_probes(self):
        self.inside("inside_probes")


if __name__ == "__main__":
    unittest.main()
