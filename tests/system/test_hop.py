"""The first hop: masquerading and the default domain; limits of size and hops at their edges (MISSION D4, D5, D10, E1)."""
import os
import unittest

from horn import Horn, Sink, remote, wait_for

HEADER = b"From: Me <me@local.example>\r\nSender: me\r\nReply-To: box@alias.example\r\nTo: you, b@sink.example\r\nSubject: me@local.example\r\n"


def text(size, header=b"Subject: x\r\n\r\n"):
    """A message of exactly so many octets, its last line end included; the dot of SMTP is not counted (RFC 1870 3)."""
    lines = (size - len(header)) // 50
    rest = size - len(header) - lines * 50
    body = (b"y" * 48 + b"\r\n") * (lines - 1) + b"y" * (48 + rest) + b"\r\n"
    assert len(header + body) == size
    return header + body


class Hop(unittest.TestCase):
    def horn(self, sink, *server):
        return Horn(["test_mode=yes"], ["masquerade_domain=public.example", *server], [remote(sink), ("alias.example", "type=alias")])

    def check(self, message):
        sender, _, data = message
        self.assertTrue(sender.startswith("MAIL FROM:<me@public.example>"), sender)
        for line in (b"From: Me <me@public.example>", b"Sender: me@public.example", b"Reply-To: box@public.example",
                     b"To: you@local.example, b@sink.example", b"Subject: me@local.example"):
            self.assertIn(line + b"\r\n", data)

    def test_masked_on_the_first_hop_from_smtp_pickup_and_sendmail(self):
        with Sink() as sink, self.horn(sink) as h, h.client() as c:
            c.send("me@local.example", "b@sink.example", HEADER + b"\r\nby SMTP")
            (h.root / "m").write_bytes(b"X-Sender: me@local.example\r\nX-Receiver: b@sink.example\r\n" + HEADER + b"\r\nby Pickup")
            os.chmod(h.root / "m", 0o644)
            os.rename(h.root / "m", h.server_dir / "Pickup/m")
            h.sendmail("-f", "me@local.example", "b@sink.example", input=HEADER + b"\r\nby sendmail")
            for m in wait_for("three messages", lambda: len(sink.messages) == 3 and sink.messages):
                self.check(m)

    def test_a_later_hop_and_other_senders_are_left_alone(self):
        with Sink() as sink, self.horn(sink) as h, h.client() as c:
            later = b"Received: from x by y; Thu, 1 Jan 1970 00:00:00 +0000\r\n" + HEADER
            c.send("me@local.example", "b@sink.example", later + b"\r\nlater")
            c.send("them@else.example", "b@sink.example", b"From: them@else.example\r\n\r\nother", ehlo=False)
            got = wait_for("both", lambda: len(sink.messages) == 2 and sink.messages)
            for sender, _, data in got:
                if b"later" in data:
                    self.assertTrue(sender.startswith("MAIL FROM:<me@local.example>"))
                    self.assertIn(later, data)
                else:
                    self.assertTrue(sender.startswith("MAIL FROM:<them@else.example>"))

    def test_a_large_message_and_chunks_are_masked_too(self):
        with Sink(extensions=("PIPELINING", "8BITMIME", "CHUNKING")) as sink, self.horn(sink) as h, h.client() as c:
            body = b"\r\n" + b"z" * 70 + b"\r\n"
            c.send("me@local.example", "b@sink.example", HEADER + body * 5000)
            for part in ("MAIL FROM:<me@local.example>", "RCPT TO:<b@sink.example>"):
                c.ask(part)
            whole = HEADER + body
            c.say(b"BDAT 20\r\n" + whole[:20])
            c.hear()
            c.say(b"BDAT %d LAST\r\n" % (len(whole) - 20) + whole[20:])
            self.assertTrue(c.hear().startswith("250"))
            got = wait_for("both", lambda: len(sink.messages) == 2 and sink.messages)
            for m in got:
                self.check(m)
            self.assertEqual(sorted(m[2].count(b"z" * 70) for m in got), [1, 5000])

    def test_message_size_at_its_edges(self):
        limit = 2048 * 1024
        with Horn() as h, h.client() as c:
            self.assertIn(f"SIZE {limit}", c.ask("EHLO c.example"))
            self.assertTrue(c.ask(f"MAIL FROM:<a@x.example> SIZE={limit + 1}").startswith("552 5.3.4"))
            self.assertTrue(c.ask(f"MAIL FROM:<a@x.example> SIZE={limit}").startswith("250"))
            c.ask("RSET")
            for size, answer in ((limit, "250 2.0.0"), (limit + 1, "552 5.3.4")):
                for part in ("MAIL FROM:<a@x.example>", "RCPT TO:<b@local.example>", "DATA"):
                    c.ask(part)
                c.say(text(size) + b".\r\n")
                self.assertTrue(c.hear().startswith(answer), size)

    def test_session_size_at_its_edge(self):
        """MISSION D10: five messages of 2048K fill a session of 10240K; one byte more gets 421 and the end."""
        size = 2048 * 1024
        with Horn(server=["error_limit=unlimited"]) as h:
            for more in (0, 1):
                with h.client() as c:
                    c.ask("EHLO c.example")
                    for i in range(5 + more):
                        for part in ("MAIL FROM:<a@x.example>", "RCPT TO:<b@local.example>", "DATA"):
                            c.ask(part)
                        if i < 5:
                            c.say(text(size) + b".\r\n")
                            self.assertTrue(c.hear().startswith("250"))
                        else:
                            c.say(b"\r\n.\r\n")
                            self.assertTrue(c.hear().startswith("421 4.7.0"))
                            self.assertTrue(c.closed())

    def test_hops_at_their_edge_and_a_peer_with_and_without_size(self):
        hop = b"Received: from a by b; Thu, 1 Jan 1970 00:00:00 +0000\r\n"
        with Sink(extensions=("SIZE 1000",)) as small, Sink(extensions=("SIZE",)) as open_, Sink(extensions=()) as none, Horn(domains=[
                remote(small, "small.example"), remote(open_, "open.example"), remote(none, "none.example")]) as h, h.client() as c:
            c.send("back@local.example", "b@none.example", hop * 15 + b"Subject: fifteen\r\n\r\nx")
            c.send("back@local.example", "b@none.example", hop * 16 + b"Subject: sixteen\r\n\r\nx", ehlo=False)
            for name in ("small", "open", "none"):
                c.send("back@local.example", f"b@{name}.example", text(2000), ehlo=False)
            wait_for("what has a way", lambda: len(none.messages) == 2 and len(open_.messages) == 1)
            reports = wait_for("two reports", lambda: len(h.drop()) == 2 and b"".join(p.read_bytes() for p in h.drop()))
            for part in (b"Status: 5.4.6", b"Status: 5.3.4", b"Subject: sixteen", b"b@small.example"):
                self.assertIn(part, reports)
            self.assertNotIn(b"Subject: fifteen", reports)
            self.assertNotIn("data", small.counts) # never sent


if __name__ == "__main__":
    unittest.main()
