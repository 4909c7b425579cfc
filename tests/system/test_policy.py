"""TLS to other servers (MISSION C9): verify, DANE by a signed zone, what is published and what is there; nothing is downgraded."""
import pathlib
import shutil
import ssl
import tempfile
import unittest

from certs import Authority, openssl, tlsa
from horn import TMP, Horn, Sink, free_port, wait_for
from nsd import Zone
from test_keys import session

TEXT = b"From: a@example.org\r\nSubject: hello\r\n\r\nA line."


class TlsSink(Sink):
    """A server with STARTTLS and this certificate; crt None: it offers none."""

    def __init__(self, host, port, pair=None, **more):
        self.context, self.handshakes, self.asked = None, 0, []
        if pair:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(*pair)
            self.context.sni_callback = lambda s, name, c: self.asked.append(name)
        super().__init__(host=host, port=port, **more)

    def serve(self, s):
        if self.context is None:
            super().serve(s)
            return
        try:
            s.sendall(b"220 sink.example ESMTP\r\n")
            while line := self.line(s):
                if line.upper().startswith(b"STARTTLS"):
                    s.sendall(b"220 go\r\n")
                    super().serve(self.wrap(s))
                    return
                s.sendall(b"250-sink.example\r\n250 STARTTLS\r\n" if line.upper().startswith(b"EHLO") else b"530 TLS first\r\n")
        except OSError:
            pass
        finally:
            s.close()

    def wrap(self, s):
        tls = self.context.wrap_socket(s, server_side=True)
        self.handshakes += 1
        return tls

    def line(self, s):
        data = b""
        while not data.endswith(b"\n"):
            part = s.recv(1)
            if not part:
                return b""
            data += part
        return data

    def reply(self, s, stage, usual, text=""):
        return True if stage == "greeting" and isinstance(s, ssl.SSLSocket) else super().reply(s, stage, usual, text)


# name: the rule, what TLSA says of which certificate, the certificate that is there (None: no STARTTLS), what becomes of the mail,
# words of the reason
DANE = {
    "ee": ("RFC 7672 3.1.1: DANE-EE, SPKI", ("ee", 3, 1, 1), "ee", "tls", ""),
    "eecert": ("RFC 7672 3.1.1: DANE-EE, the whole certificate", ("ee", 3, 0, 0), "ee", "tls", ""),
    "eelong": ("RFC 7671 4.2: SHA-512", ("ee", 3, 1, 2), "ee", "tls", ""),
    "eeold": ("RFC 7672 3.1.1: neither dates nor names matter", ("old", 3, 1, 1), "old", "tls", ""),
    "eewrong": ("RFC 7672 2.2: another key than published", ("ee", 3, 1, 1), "other", "waits", "no matching DANE TLSA records"),
    "ta": ("RFC 7672 3.1.2: DANE-TA", ("ca", 2, 0, 1), "ta", "tls", ""),
    "taname": ("RFC 7672 3.2.2: DANE-TA, another's name", ("ca", 2, 0, 1), "foreign", "waits", "hostname mismatch"),
    "taold": ("RFC 7672 3.1.2: DANE-TA, expired", ("ca", 2, 0, 1), "taold", "waits", "expired"),
    "tadomain": ("RFC 7672 3.2.2: DANE-TA, the next hop's domain", ("ca", 2, 1, 1), "tadomain", "tls", ""),
    "stripped": ("RFC 7672 2.2: STARTTLS is not offered", ("ee", 3, 1, 1), None, "waits", "offers no TLS (TLS verified by DANE)"),
    "odd": ("RFC 7672 3.1.3: PKIX-EE is of no use: TLS unauthenticated", ("ee", 1, 1, 1), "other", "tls", ""),
    "oddstripped": ("RFC 7672 2.2: the same, and no TLS", ("ee", 1, 1, 1), None, "waits", "offers no TLS (TLS required)"),
    "none": ("RFC 7672 2.1.3: nothing published: opportunistic", None, "other", "tls", ""),
    "plain": ("nothing published, no TLS", None, None, "clear", ""),
    "forged": ("RFC 7672 2.1.2: a bogus TLSA answer", ("ee", 3, 1, 1), "ee", "waits", "TLSA records could not be looked up"),
}


class Dane(Zone):
    def setUp(self):
        self.certs = pathlib.Path(tempfile.mkdtemp(prefix="certs-", dir=TMP))
        self.addCleanup(shutil.rmtree, self.certs, True)
        self.sink_port = free_port()
        ca = Authority(self.certs)
        self.pairs = {"ee": ca.leaf("ee", "elsewhere.example"), "other": ca.leaf("other", "x.example"), "old": ca.leaf("old", "y.example", expired=True),
                      "ta": ca.leaf("ta", "mx-ta.horntest"), "foreign": ca.leaf("foreign", "mx-ta.horntest"), "taold": ca.leaf("taold", "mx-taold.horntest", expired=True),
                      "tadomain": ca.leaf("tadomain", "tadomain.horntest")}
        rows = ["$ORIGIN horntest.", "$TTL 60", "@ SOA ns hostmaster 1 3600 600 86400 60", "@ NS ns", "ns A 127.0.0.1"]
        for i, (name, (_, record, _, _, _)) in enumerate(DANE.items()):
            rows += [f"{name} MX 10 mx-{name}", f"mx-{name} A 127.0.2.{i + 1}"]
            if record:
                crt = ca.crt if record[0] == "ca" else self.pairs[record[0]][0]
                rows.append(f"_{self.sink_port}._tcp.mx-{name} TLSA {tlsa(crt, *record[1:])}")
        rows += ["alias MX 10 mx-alias", "mx-alias CNAME real", "real A 127.0.2.99", f"_{self.sink_port}._tcp.real TLSA {tlsa(self.pairs['ee'][0], 3, 1, 1)}"]
        self.zone = "\n".join(rows) + "\n"
        super().setUp()
        self.serve_forged(f"_{self.sink_port}._tcp.mx-forged")

    def horn(self, *server):
        return Horn(["test_mode=yes", f"dns_servers=127.0.0.1@{self.port}", f"dns_trust_anchor_file={self.anchor}"],
                    [f"outbound_port={self.sink_port}", "relay_exceptions=127.0.0.1", "outbound_connect_timeout=2s", *server])

    def send(self, h, names):
        with h.client() as c:
            for i, name in enumerate(names):
                c.send("back@local.example", f"{name}@{name}.horntest", TEXT, ehlo=i == 0)

    def waiting(self, h):
        return {m["recipients"][0]["address"].split("@")[0]: m["recipients"][0]["reason"] for m in h.messages() if m["state"] == "deferred"}

    def test_each_case(self):
        sinks = {n: TlsSink(f"127.0.2.{i + 1}", self.sink_port, self.pairs[c[2]] if c[2] else None) for i, (n, c) in enumerate(DANE.items())}
        try:
            with self.horn() as h:
                self.send(h, DANE)
                wait_for("all decided", lambda: sum(len(s.messages) for s in sinks.values()) + len(self.waiting(h)) == len(DANE), 30)
                reasons = self.waiting(h)
                for name, (rule, _, _, outcome, words) in DANE.items():
                    sink = sinks[name]
                    got = "waits" if name in reasons else "tls" if sink.handshakes else "clear"
                    self.assertEqual((got, len(sink.messages)), (outcome, 0 if outcome == "waits" else 1), f"{name}: {rule}: {reasons.get(name)}")
                    self.assertTrue(any(w in reasons.get(name, "") for w in words.split("|")), f"{name}: {reasons.get(name)}")
                    if outcome == "waits":
                        said = self.why(h, name)
                        self.assertIn(words, said)
                        self.assertRegex(said, r"\(TLS verified by DANE\)|TLS handshake; TLS verified by DANE|TLS required|\(DANE\)", name)
                self.assertEqual(sinks["ta"].asked, ["mx-ta.horntest"]) # RFC 7672 8.1: SNI is the base domain
                said = h.run("posthorn", "-c", str(h.dir), "explain", "x@ee.horntest").stdout.decode()
                self.assertIn("TLS verified by DANE", said)
                self.assertIn("1 TLSA record, 1 of use", said)
        finally:
            for s in sinks.values():
                s.close()

    def test_below_the_name_that_the_host_is_an_alias_of(self):
        """RFC 7672 2.2.2, and SNI names it as well."""
        with TlsSink("127.0.2.99", self.sink_port, self.pairs["ee"]) as sink, self.horn() as h:
            self.send(h, ["alias"])
            wait_for("the mail", lambda: sink.messages)
            self.assertEqual(sink.asked, ["real.horntest"])

    def test_dane_only_and_dane_no(self):
        i = list(DANE).index
        with TlsSink(f"127.0.2.{i('none') + 1}", self.sink_port, self.pairs["other"]) as none, TlsSink(f"127.0.2.{i('eewrong') + 1}", self.sink_port, self.pairs["other"]) as wrong, \
                TlsSink(f"127.0.2.{i('ee') + 1}", self.sink_port, self.pairs["ee"]) as good:
            h = self.horn("outbound_tls=dane-only")
            h.conf("domain", "add", "eewrong.horntest", "type=remote", "outbound_dane=no", "outbound_tls=opportunistic")
            with h:
                self.send(h, ["none", "eewrong", "ee"])
                wait_for("those that may", lambda: len(wrong.messages) == len(good.messages) == 1)
                reason = wait_for("the other waits", lambda: self.waiting(h).get("none"))
                self.assertIn("dane-only, and there is no usable TLSA record", reason)
                self.assertEqual((none.connections, none.messages), (0, []))


class Verify(unittest.TestCase):
    def setUp(self):
        self.certs = pathlib.Path(tempfile.mkdtemp(prefix="certs-", dir=TMP))
        self.addCleanup(shutil.rmtree, self.certs, True)
        self.ca, self.stranger = Authority(self.certs), Authority(self.certs, "stranger")

    def outcome(self, pair, *server):
        port = free_port()
        with TlsSink("127.0.0.1", port, pair) as sink:
            h = Horn(server=["outbound_tls=verify", f"outbound_tls_ca_file={self.ca.crt}", *server])
            h.conf("domain", "add", "far.example", "type=remote", "relay=yes", f"route=[127.0.0.1]:{port}")
            with h:
                with h.client() as c:
                    c.send("back@local.example", "x@far.example", TEXT)
                wait_for("an outcome", lambda: sink.messages or [m for m in h.messages() if m["state"] == "deferred"])
                return "sent" if sink.messages else h.messages()[0]["recipients"][0]["reason"]

    def test_whose_certificate(self):
        """RFC 6125: an address is looked for as such; a name is the next hop's."""
        old = self.ca.leaf("old", "127.0.0.1", expired=True)
        for rule, pair, words in (("good", self.ca.leaf("good", "127.0.0.1"), "sent"), ("another's", self.ca.leaf("another", "127.0.0.2", "far.example"), "mismatch"),
                                  ("expired", old, "expired"), ("of a stranger", self.stranger.leaf("strange", "127.0.0.1"), "certificate"), ("no TLS", None, "offers no TLS (TLS verified by its certificate)")):
            self.assertIn(words, self.outcome(pair), rule)

    def test_a_reload_brings_other_authorities(self):
        port = free_port()
        with TlsSink("127.0.0.1", port, self.stranger.leaf("strange", "127.0.0.1")) as sink:
            h = Horn(server=["outbound_tls=require", f"outbound_tls_ca_file={self.ca.crt}", "retry_first=1s", "retry_second=1s", "retry_third=1s", "retry_subsequent=1s", "destination_probe=1s"], service=["test_mode=yes"])
            h.conf("domain", "add", "far.example", "type=remote", "relay=yes", f"route=[127.0.0.1]:{port}")
            with h, h.client() as c:
                c.send("back@local.example", "x@far.example", TEXT)
                wait_for("required: whoever it is", lambda: len(sink.messages) == 1)
                h.conf("-e", "outbound_tls=verify")
                h.run("posthorn", "-c", str(h.dir), "reload")
                c.send("back@local.example", "x@far.example", TEXT, ehlo=False)
                wait_for("it waits", lambda: "certificate" in (h.messages() or [{"recipients": [{"reason": ""}]}])[0]["recipients"][0]["reason"])
                h.conf("-e", f"outbound_tls_ca_file={self.stranger.crt}")
                h.run("posthorn", "-c", str(h.dir), "reload")
                wait_for("the mail", lambda: len(sink.messages) == 2)


class RequireTls(Zone):
    """RFC 8689, to servers whose MX and TLSA records a signed zone names."""

    def setUp(self):
        self.certs = pathlib.Path(tempfile.mkdtemp(prefix="certs-", dir=TMP))
        self.addCleanup(shutil.rmtree, self.certs, True)
        self.sink_port = free_port()
        self.ca = Authority(self.certs)
        self.pair = self.ca.leaf("ee", "elsewhere.example")
        rows = ["$ORIGIN horntest.", "$TTL 60", "@ SOA ns hostmaster 1 3600 600 86400 60", "@ NS ns", "ns A 127.0.0.1"]
        for i, name in enumerate(("safe", "old", "bare", "wrong")):
            rows += [f"{name} MX 10 mx-{name}", f"mx-{name} A 127.0.3.{i + 1}"]
            if name != "bare":
                rows.append(f"_{self.sink_port}._tcp.mx-{name} TLSA {tlsa(self.ca.crt if name == 'wrong' else self.pair[0], 3, 1, 1)}")
        self.zone = "\n".join(rows) + "\n"
        super().setUp()
        self.serve("zone.signed")

    horn = Zone.trusting

    def sinks(self):
        both = ("PIPELINING", "REQUIRETLS")
        return {"safe": TlsSink("127.0.3.1", self.sink_port, self.pair, extensions=both), "old": TlsSink("127.0.3.2", self.sink_port, self.pair),
                "bare": TlsSink("127.0.3.3", self.sink_port, self.pair, extensions=both), "wrong": TlsSink("127.0.3.4", self.sink_port, self.pair, extensions=both)}

    def test_a_message_that_requires_it(self):
        """4.2.1: a verified server that offers it gets it, with the parameter; the others do not."""
        sinks = self.sinks()
        try:
            with self.horn() as h:
                s = session(h)
                s.ehlo("x.example")
                self.assertTrue(s.has_extn("requiretls"))
                for name in sinks:
                    s.sendmail("back@local.example", [f"x@{name}.horntest"], TEXT, ["REQUIRETLS"])
                s.quit()
                wait_for("the one that may", lambda: sinks["safe"].messages)
                self.assertTrue(sinks["safe"].messages[0][0].endswith(" REQUIRETLS"))
                report = wait_for("a report", h.drop)[0].read_bytes()
                self.assertIn(b"x@old.horntest\r\nAction: failed\r\nStatus: 5.7.30", report) # 5: offered by nobody
                self.assertNotIn(b"A line.", report) # 5: its header alone
                waits = wait_for("the others wait", lambda: len(h.messages()) == 2 and h.messages())
                reasons = {m["recipients"][0]["address"]: m["recipients"][0]["reason"] for m in waits}
                self.assertIn("hostname mismatch", reasons["x@bare.horntest"]) # nothing published: its name decides
                self.assertIn("no matching DANE TLSA records", reasons["x@wrong.horntest"])
                self.assertEqual([len(sinks[n].messages) for n in ("old", "bare", "wrong")], [0, 0, 0])
        finally:
            for s in sinks.values():
                s.close()

    def test_a_message_that_asks_for_less(self):
        """5: TLS-Required: No sets aside what the recipient's domain publishes, not what the administrator asks for."""
        sinks = self.sinks()
        try:
            with self.horn() as h, h.client() as c:
                c.send("back@local.example", "x@wrong.horntest", b"TLS-Required: No\r\n" + TEXT)
                wait_for("it goes", lambda: sinks["wrong"].messages)
                h.conf("-e", "outbound_tls=verify")
                h.run("posthorn", "-c", str(h.dir), "reload")
                c.send("back@local.example", "y@wrong.horntest", b"TLS-required:  no\r\n" + TEXT, ehlo=False)
                c.send("back@local.example", "z@safe.horntest", b"TLS-Required: Not\r\n" + TEXT, ehlo=False)
                wait_for("that of no meaning", lambda: sinks["safe"].messages)
                wait_for("it waits", lambda: [m for m in h.messages() if m["state"] == "deferred"])
        finally:
            for s in sinks.values():
                s.close()


if __name__ == "__main__":
    unittest.main()
