"""A thousand generated messages of distinct shapes, handed in every way, reach a sink, smtp-sink and, through a
Postfix next hop, a sink again: byte for byte but for trace headers."""
import os
import random
import re
import shutil
import subprocess
import unittest

from horn import Client, Horn, Sink, free_port, remote, wait_for
from test_clients import Postfix as PostfixHop

SHAPES = 1000


def header(rng, i):
    lines = [b"From: a@example.org", b"To: b@example.org", b"Date: Wed, 25 Nov 2026 10:00:00 +0000", b"Message-ID: <%d@x>" % i, b"Subject: %d" % i]
    for n in range(rng.choice((0, 1, 1, 3, 30))):
        value = b"".join(rng.choice((b"word ", b"x" * 70, b" ", b"\xc3\xa9 ")) for _ in range(rng.randrange(1, 14)))
        lines.append(b"X-H%d: " % n + value)
        for _ in range(rng.choice((0, 0, 1, 25))): # a long folded header
            lines.append(rng.choice((b" ", b"\t")) + b"folded " + b"y" * rng.randrange(1, 80))
    return b"\r\n".join(lines) + b"\r\n\r\n"


def body(rng, long_lines, i):
    kinds = [lambda: b"", lambda: b"\r\n" * rng.randrange(1, 9), lambda: b".\r\n" * rng.randrange(1, 6), lambda: b"..x\r\n.y\r\n",
             lambda: bytes(rng.choice(b".abc\t \xe9\xff") for _ in range(rng.randrange(0, 900))) + b"\r\n", lambda: b"trailing  \t\r\n",
             lambda: b"From here\r\n>From there\r\n", lambda: b"z" * rng.randrange(900, 998) + b"\r\n",
             lambda: b"a line of text\r\n" * rng.choice((1, 20, 500)), lambda: b"\xc3\xa4\xc3\xb6\r\n" * rng.randrange(1, 50)]
    if long_lines:
        kinds += [lambda: b"w" * rng.randrange(999, 20000) + b"\r\n", lambda: b"nul \x00 here\r\n", lambda: b"v" * 1000 + b".\r\n"]
    text = b"".join(rng.choice(kinds)() for _ in range(rng.randrange(0, 6)))
    if i % 97 == 0:
        text += b"0123456789abcdef" * 6 + b"\r\n"
        text *= 300000 // len(text) # large: by way of a file
    if rng.random() < 0.3:
        text = text[:-2] if text.endswith(b"\r\n") else text + b"no end"
    return text


def shapes(n, long_lines=True):
    rng, seen = random.Random(20261125), {}
    while len(seen) < n:
        i = len(seen)
        content = header(rng, i) + body(rng, long_lines, i)
        while content.endswith(b"\r"):
            content = content[:-1]
        seen[content] = i
    return list(seen)


class Hand:
    """One session that hands messages in by turns as DATA in one piece, DATA in odd pieces, one chunk, many chunks."""

    def __init__(self, port):
        self.c = Client(port)
        self.c.ask("EHLO c.example")
        self.rng = random.Random(7)

    def envelope(self, to, size):
        self.c.say(b"MAIL FROM:<a@example.org> BODY=8BITMIME\r\nRCPT TO:<%s>\r\n" % to.encode())
        for _ in range(2):
            assert self.c.hear().startswith("250")

    def by_data(self, content, pieces):
        assert self.c.ask("DATA").startswith("354")
        wire = re.sub(rb"(?m)^\.", b"..", content)
        wire += b".\r\n" if wire.endswith(b"\r\n") else b"\r\n.\r\n"
        while wire:
            n = self.rng.randrange(1, 2000) if pieces and len(wire) < 50000 else len(wire)
            self.c.say(wire[:n])
            wire = wire[n:]

    def by_chunks(self, content, many):
        while True:
            n = min(len(content), self.rng.randrange(1, 20000)) if many else len(content)
            last = n == len(content)
            self.c.say(b"BDAT %d%s\r\n" % (n, b" LAST" if last else b"") + content[:n])
            content = content[n:]
            if last:
                return
            assert self.c.hear().startswith("250")

    def send(self, i, content, to):
        self.envelope(to, len(content))
        (lambda: self.by_data(content, False), lambda: self.by_data(content, True), lambda: self.by_chunks(content, False),
         lambda: self.by_chunks(content, True))[i % 4]()
        reply = self.c.hear()
        assert reply.startswith("250"), (i, reply)


def as_sent(i, content, next_hop_chunks):
    """What must arrive: a message that DATA ended, or DATA carries on, has a last line end."""
    if content.endswith(b"\r\n") or (next_hop_chunks and i % 4 >= 2):
        return content
    return content + b"\r\n"


def without_trace(text):
    while text.startswith(b"Received:"):
        text = re.sub(rb"\AReceived:[^\n]*\n(?:[ \t][^\n]*\n)*", b"", text)
    return text


class Shapes(unittest.TestCase):
    maxDiff = 300

    def number(self, text):
        return int(re.search(rb"^Subject: (\d+)", text, re.M)[1])

    def check(self, got, wanted, chunks=lambda i: False):
        self.assertEqual(len(got), len(wanted))
        for i, content in enumerate(wanted):
            if got[i] != as_sent(i, content, chunks(i)):
                self.fail(f"message {i} changed: {got[i][-200:]!r} was {content[-200:]!r}")

    def test_a_sink_gets_each_as_it_was(self):
        wanted = shapes(SHAPES)
        extensions = (("PIPELINING", "8BITMIME"), ("8BITMIME", "CHUNKING", "PIPELINING"), ("8BITMIME",), ("8BITMIME", "SIZE 0", "DSN", "CHUNKING"))
        sinks = [Sink(extensions=e) for e in extensions]
        try:
            with Horn(server=["message_size_limit=20M", "session_size_limit=unlimited"], domains=[remote(s, f"s{n}.example") for n, s in enumerate(sinks)]) as h:
                hand = Hand(h.port)
                for i, content in enumerate(wanted):
                    hand.send(i, content, f"b@s{i // 4 % len(sinks)}.example")
                wait_for("all at the sinks", lambda: sum(len(s.messages) for s in sinks) >= len(wanted), 60)
                got = {self.number(m[2]): without_trace(m[2]) for s in sinks for m in s.messages}
                # without pipelining only a large message goes as a chunk: a small one would save no round trip
                self.check(got, wanted, lambda i: "CHUNKING" in extensions[i // 4 % 4] and ("PIPELINING" in extensions[i // 4 % 4] or len(wanted[i]) > 131072))
                hand.c.s.close()
        finally:
            for s in sinks:
                s.close()

    def test_smtp_sink_gets_each_as_it_was(self):
        wanted = [c for c in shapes(SHAPES) if b"\0" not in c][:300] # its files are text
        port = free_port()
        program = shutil.which("smtp-sink") or "/usr/sbin/smtp-sink"
        with Horn(server=["message_size_limit=20M", "session_size_limit=unlimited"], domains=[remote(port, "s.example")]) as h:
            out = h.root / "dump"
            out.mkdir()
            out.chmod(0o777)
            user = ["-u", "posthorn"] if os.geteuid() == 0 else []
            sink = subprocess.Popen([program, *user, "-d", f"{out}/m.", f"127.0.0.1:{port}", "100"])
            try:
                wait_for("smtp-sink listens", lambda: self.connects(port))
                hand = Hand(h.port)
                for i, content in enumerate(wanted):
                    hand.send(i, content, "b@s.example")
                wait_for("an empty queue", lambda: h.status()["servers"][0]["queue"] == 0, 60)
                got = {}
                for p in out.iterdir():
                    text = re.sub(rb"\A(?:X-[^\n]*\n)+", b"", p.read_bytes())
                    text = without_trace(text)
                    self.assertTrue(text.endswith(b"\n"))
                    got[self.number(text)] = text[:-1].replace(b"\n", b"\r\n") # it ends each file with an empty line
                hand.c.s.close()
                keys = [self.number(c) for c in wanted]
                self.assertEqual(sorted(got), sorted(keys))
                for i, content in enumerate(wanted):
                    self.assertEqual(got[self.number(content)], as_sent(i, content, False))
            finally:
                sink.terminate()
                sink.wait()

    def connects(self, port):
        try:
            Client(port).s.close()
            return True
        except (OSError, EOFError):
            return False


class ThroughPostfix(PostfixHop):
    """Posthorn hands in to Postfix, which hands on to another Posthorn."""

    def test_postfix_as_client_and_as_next_hop_keeps_every_byte(self):
        wanted = shapes(SHAPES, long_lines=False) # Postfix itself breaks lines over 998 and takes no NUL
        settings = ["message_size_limit=20M", "session_size_limit=unlimited"]
        with Sink() as sink, Horn(server=settings, domains=[remote(self.port, "out.example")]) as h, Horn(server=settings, domains=[remote(sink, "out.example")]) as last:
            self.start(last.port)
            hand = Hand(h.port)
            for i, content in enumerate(wanted):
                hand.send(i, content, "b@out.example")
            wait_for("all at the sink", lambda: len(sink.messages) >= len(wanted), 120)
            hand.c.s.close()
            got = {int(re.search(rb"^Subject: (\d+)", m[2], re.M)[1]): without_trace(m[2]) for m in sink.messages}
            self.assertEqual(len(got), len(wanted))
            for i, content in enumerate(wanted):
                if got[i] != as_sent(i, content, False):
                    self.fail(f"message {i} changed: {got[i][-300:]!r} was {content[-300:]!r}")


del PostfixHop

if __name__ == "__main__":
    unittest.main()
