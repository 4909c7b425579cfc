"""MX look-ups against NSD: order, fail-over, null MX, no such domain, loops, DNSSEC good and bogus."""
import unittest

from horn import Sink, free_port, wait_for
from nsd import Zone

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
circle CNAME circle2
circle2 CNAME circle
many MX 10 m0
@MANY@
mx A 127.0.0.1
dead A 127.0.0.2
never A 127.0.0.3
""".replace("@MANY@", "\n".join(f"many MX {10 + i} m{i}\nm{i} A 127.0.1.{i}" for i in range(100)))


class Dns(Zone):
    zone = ZONE

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

    def test_odd_answers(self):
        """A CNAME that goes in circles; more mail exchangers than are tried, in an answer that needs TCP; a server that refuses."""
        self.serve("zone.signed")
        with Sink() as sink, self.horn(sink) as h, h.client() as c:
            c.send("back@local.example", "x@circle.horntest", TEXT)
            c.send("back@local.example", "x@elsewhere.fr", TEXT, ehlo=False) # NSD has no such zone: REFUSED
            rows = wait_for("both wait", lambda: len([m for m in h.messages() if m["state"] == "deferred"]) == 2 and h.messages(), 40)
            for row in rows:
                self.assertIn("look-up failed", row["recipients"][0]["reason"])
            said = h.run("posthorn", "-c", str(h.dir), "explain", "x@many.horntest").stdout.decode()
            self.assertIn("  20. ", said)
            self.assertNotIn("  21. ", said)

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
