"""MTA-STS (MISSION C9, RFC 8461): records in a signed zone, policies by real HTTPS on port 443; nothing is downgraded."""
import http.server
import os
import pathlib
import shutil
import ssl
import subprocess
import tempfile
import threading
import unittest

from certs import Authority, tlsa
from horn import BUILD, TMP, Horn, free_port, wait_for
from nsd import Zone
from test_policy import TEXT, TlsSink

HTTPS = "127.0.6.1"


def policy(mode="enforce", *mx, age=86400, version="STSv1", eol="\r\n"):
    return eol.join([f"version: {version}", f"mode: {mode}", *(f"mx: {m}" for m in mx), f"max_age: {age}", ""]).encode()


def context(crt, key):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    c.load_cert_chain(crt, key)
    return c


class Web:
    """Serves texts[host] with the certificate of pairs[host] (a context) or the usual one; a text may be (status, headers, body)."""

    def __init__(self, pair):
        self.texts, self.pairs, self.asked, self.posted, self.refusals = {}, {}, [], [], 0
        self.held = threading.Event()
        self.context = context(*pair)
        self.context.sni_callback = self.choose
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                host = self.headers["Host"]
                if host.startswith("mta-sts.slow"):
                    web.asked.append(host)
                    web.held.wait()
                web.asked.append(host + self.path)
                text = web.texts.get(host)
                status, headers, body = text if isinstance(text, tuple) else (200 if text is not None else 404, {"Content-Type": "text/plain; charset=utf-8"}, text or b"")
                self.send_response(status)
                for h in headers.items():
                    self.send_header(*h)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if web.refusals > 0:
                    web.refusals -= 1
                    self.send_error(503)
                    return
                web.posted.append((self.headers["Host"] + self.path, self.headers["Content-Type"], body))
                self.send_response(201)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def get_request(self):
                s, at = super().get_request()
                return web.context.wrap_socket(s, server_side=True, do_handshake_on_connect=False), at

            def handle_error(self, request, client_address):
                pass # a client that does not like the certificate

        self.server = Server((HTTPS, 443), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def choose(self, s, name, usual):
        if name in self.pairs:
            s.context = self.pairs[name]

    def close(self):
        self.held.set()
        self.server.shutdown()
        self.server.server_close()


# name: the rule; the policy's text; the certificate of the web server, of the MX (None: no STARTTLS); what becomes of the mail; what explain or
# the reason says
CASES = {
    "good": ("8461 4.1: named, of its own name", policy("enforce", "mx-good.horntest"), "web", "mx", "tls", "TLS verified by its certificate (MTA-STS)"),
    "wild": ("8461 4.1: *.NAME is one label", policy("enforce", "*.horntest", eol="\n"), "web", "mx", "tls", "enforce"),
    "deep": ("8461 4.1: and no more than one", policy("enforce", "*.test", "*.deep.horntest", "horntest"), "web", "mx", "waits", "none of the next hop's MX hosts"),
    "foreign": ("8461 4.1: the host is not named", policy("enforce", "mx-good.horntest"), "web", "mx", "waits", "none of the next hop's MX hosts"),
    "name": ("8461 4.2: another name than the host's", policy("enforce", "mx-name.horntest"), "web", "good", "waits", "hostname mismatch"),
    "old": ("8461 4.2: expired", policy("enforce", "mx-old.horntest"), "web", "expired", "waits", "expired"),
    "strange": ("8461 4.2: of an authority that is not trusted", policy("enforce", "mx-strange.horntest"), "web", "strange", "waits", "certificate"),
    "stripped": ("8461 4.2: STARTTLS is not offered", policy("enforce", "mx-stripped.horntest"), "web", None, "waits", "offers no TLS (TLS verified by its certificate (MTA-STS))"),
    "testing": ("8461 5: mode testing delivers", policy("testing", "mx-good.horntest"), "web", None, "clear", "none of the hosts that the policy names"),
    "off": ("8461 5: mode none", policy("none"), "web", None, "clear", "none, holds until"),
    "norecord": ("8461 3.1: without a record there is no policy", policy("enforce", "mx-good.horntest"), "web", None, "clear", ""),
    "two": ("8461 3.1: two records are none", policy("enforce", "mx-good.horntest"), "web", None, "clear", ""),
    "noid": ("8461 3.1: a record without an id is none", policy("enforce", "mx-good.horntest"), "web", None, "clear", ""),
    "version": ("8461 3.2: another version", policy("enforce", "mx-good.horntest", version="STSv2"), "web", None, "clear", "it does not begin with 'version: STSv1'"),
    "noage": ("8461 3.2: max_age is due", policy("enforce", "mx-good.horntest").replace(b"max_age", b"min_age"), "web", None, "clear", "it has no max_age"),
    "nomx": ("8461 3.2: enforce names hosts", policy("enforce"), "web", None, "clear", "it names no mx"),
    "webname": ("8461 3.3: the web server's certificate is another's", policy("enforce", "mx-good.horntest"), "other", None, "clear", "could not be fetched"),
    "webold": ("8461 3.3: it has expired", policy("enforce", "mx-good.horntest"), "webold", None, "clear", "could not be fetched"),
    "moved": ("8461 3.3: no redirect is followed", (301, {"Location": "https://mta-sts.good.horntest/.well-known/mta-sts.txt"}, b""), "web", None, "clear", "something other than 200"),
    "html": ("8461 3.2: text/plain", (200, {"Content-Type": "text/html"}, policy("enforce", "mx-good.horntest")), "web", None, "clear", "it is not text/plain"),
    "large": ("8461 3.3: 64 KB and no more", policy("enforce", "mx-good.horntest") + b"x: " + b"y" * 70000, "web", None, "clear", "could not be fetched"),
    "dane": ("8461 2: usable TLSA records decide", policy("enforce", "mx-dane.horntest"), "web", "strange", "tls", "TLS verified by DANE"),
    "danebad": ("8461 2: a policy that is met does not override them", policy("enforce", "mx-danebad.horntest"), "web", "mx", "waits", "no matching DANE TLSA records"),
}
RECORDS = {"norecord": [], "two": ["v=STSv1; id=1;", "v=STSv1; id=2;"], "noid": ["v=STSv1; jd=1;"]}
SLOW = 32 # as many as are fetched at a time
LATER = "later" # its answers change during the test


@unittest.skipUnless(os.geteuid() == 0, "port 443")
class MtaSts(Zone):
    def setUp(self):
        self.certs = pathlib.Path(tempfile.mkdtemp(prefix="certs-", dir=TMP))
        self.addCleanup(shutil.rmtree, self.certs, True)
        self.sink_port = free_port()
        self.ca, stranger = Authority(self.certs), Authority(self.certs, "stranger")
        names = [*CASES, LATER]
        self.pairs = {"mx": self.ca.leaf("mx", *(f"mx-{n}.horntest" for n in names if n != "name")), "good": self.ca.leaf("good", "mx-good.horntest"),
                      "expired": self.ca.leaf("expired", "mx-old.horntest", expired=True), "strange": stranger.leaf("strange", "mx-strange.horntest")}
        web = {"web": self.ca.leaf("web", *(f"mta-sts.{n}.horntest" for n in names), *(f"mta-sts.slow{i}.horntest" for i in range(SLOW))), "other": self.ca.leaf("other", "mta-sts.elsewhere.horntest"),
               "webold": self.ca.leaf("webold", "mta-sts.webold.horntest", expired=True)}
        self.web = Web(web["web"])
        self.addCleanup(self.web.close)
        for n, case in CASES.items():
            self.web.texts[f"mta-sts.{n}.horntest"] = case[1]
            self.web.pairs[f"mta-sts.{n}.horntest"] = context(*web[case[2]])
        self.address = {n: f"127.0.5.{i + 1}" for i, n in enumerate(names)}
        self.zone = self.rows(1)
        super().setUp()
        self.serve("zone.signed")

    def rows(self, later_id):
        rows = ["$ORIGIN horntest.", "$TTL 1", "@ SOA ns hostmaster 1 3600 600 86400 1", "@ NS ns", "ns A 127.0.0.1"]
        for n, address in self.address.items():
            rows += [f"{n} MX 10 mx-{n}", f"mx-{n} A {address}", f"mta-sts.{n} A {HTTPS}"]
            ids = RECORDS.get(n, ["v=STSv1; id=20261127;"]) if n != LATER else [f"v=STSv1; id={later_id};"] if later_id else []
            rows += [f'_mta-sts.{n} TXT "{r[:9]}" "{r[9:]}"' for r in ids] # strings are joined
        rows += [row for i in range(SLOW) for row in (f"slow{i} MX 10 mx-good", f"mta-sts.slow{i} A {HTTPS}", f'_mta-sts.slow{i} TXT "v=STSv1; id=1;"')]
        rows += [f"_{self.sink_port}._tcp.mx-{n} TLSA {tlsa(self.pairs[c][0], 3, 1, 1)}" for n, c in (("dane", "strange"), ("danebad", "strange"))]
        return "\n".join(rows) + "\n"

    horn = Zone.trusting

    def sink(self, name, pair):
        s = TlsSink(self.address[name], self.sink_port, self.pairs[pair] if pair else None)
        self.addCleanup(s.close)
        return s

    def explain(self, h, name):
        return h.run("posthorn", "-c", str(h.dir), "explain", f"x@{name}.horntest").stdout.decode()

    def waiting(self, h):
        return {m["recipients"][0]["address"].split("@")[0]: m["recipients"][0]["reason"] for m in h.messages() if m["state"] == "deferred"}

    def test_each_case(self):
        sinks = {n: self.sink(n, c[3]) for n, c in CASES.items()}
        with self.horn() as h:
            with h.client() as c:
                for i, n in enumerate(CASES):
                    c.send("back@local.example", f"{n}@{n}.horntest", TEXT, ehlo=i == 0)
            wait_for("all decided", lambda: sum(len(s.messages) for s in sinks.values()) + len(self.waiting(h)) == len(CASES), 60)
            reasons = self.waiting(h)
            for n, (rule, _, _, _, outcome, words) in CASES.items():
                got = "waits" if n in reasons else "tls" if sinks[n].handshakes else "clear"
                self.assertEqual((got, len(sinks[n].messages)), (outcome, 0 if outcome == "waits" else 1), f"{n}: {rule}: {reasons.get(n)}")
                said = reasons.get(n, "") + self.explain(h, n)
                self.assertIn(words, said, f"{n}: {rule}")
                if outcome == "waits":
                    self.assertRegex(self.why(h, n), r"verified by (its certificate \(MTA-STS\)|DANE)|MTA-STS policy \(enforce\)", n)
            self.assertEqual(sinks["good"].asked, ["mx-good.horntest"]) # 4.2: SNI is the host's name
            self.assertNotIn("mta-sts.norecord.horntest/.well-known/mta-sts.txt", self.web.asked)
            self.assertEqual(self.web.asked.count("mta-sts.good.horntest/.well-known/mta-sts.txt"), 1) # and then it is known

    def test_a_policy_that_is_known(self):
        """3.1, 5.1: what the DNS and the web server say later does not take it away; another id brings another; it is there after a restart."""
        host = f"mta-sts.{LATER}.horntest"
        self.web.texts[host] = policy("enforce", "mx-good.horntest")
        self.sink(LATER, None)
        with self.horn() as h:
            self.assertIn("enforce", self.explain(h, LATER))
            self.web.texts[host] = b"nonsense"
            self.zone_is(self.rows(2))
            said = wait_for("the other id", lambda: "could not be" in (t := self.explain(h, LATER)) and t or "of no use" in t and t)
            self.assertIn("MTA-STS policy 1 of later.horntest: enforce, holds until", said)
            self.assertIn("none of the next hop's MX hosts", said)
            self.zone_is(self.rows(None))
            self.web.texts[host] = None
            self.assertIn("enforce, holds until", self.explain(h, LATER))
            h.stop()
            h.start()
            said = self.explain(h, LATER)
            self.assertIn("MTA-STS policy 1 of later.horntest: enforce, holds until", said)
            self.assertIn("none of the next hop's MX hosts", said)
            self.web.texts[host] = policy("testing", f"mx-{LATER}.horntest")
            self.zone_is(self.rows(3))
            said = wait_for("the new policy", lambda: "MTA-STS policy 3 of later.horntest: testing" in (t := self.explain(h, LATER)) and t)
            self.assertIn("tried in this order", said)

    def test_one_that_has_expired_is_none(self):
        host = f"mta-sts.{LATER}.horntest"
        self.web.texts[host] = policy("enforce", "mx-good.horntest", age=2)
        with self.horn() as h:
            self.assertIn("enforce", self.explain(h, LATER))
            self.web.texts[host] = None
            wait_for("its end", lambda: "holds until" not in (t := self.explain(h, LATER)) and "tried in this order" in t)
            self.assertEqual(list((h.dir / "spool/sts").iterdir()), [])

    def test_servers_that_hold_the_fetches_do_not_take_a_policy_away(self):
        """No fetch can begin: it is not known that there is no policy, so mail waits, and goes under it as soon as it can."""
        with self.horn() as h:
            asking = [subprocess.Popen([BUILD / "posthorn", "-c", h.dir, "explain", f"x@slow{i}.horntest"], stdout=subprocess.DEVNULL) for i in range(SLOW)]
            try:
                wait_for("all held", lambda: sum(a.startswith("mta-sts.slow") for a in self.web.asked) == SLOW)
                wait_for("no room", lambda: "MTA-STS policy cannot be told now" in self.explain(h, "good"))
                self.web.held.set()
            finally:
                self.web.held.set()
                for p in asking:
                    p.wait()
            self.assertIn("TLS verified by its certificate (MTA-STS)", self.explain(h, "good"))

    def test_who_does_not_ask(self):
        """outbound_mta_sts = no; RFC 8689 5: TLS-Required: No sets a policy aside."""
        host = f"mta-sts.{LATER}.horntest"
        self.web.texts[host] = policy("enforce", "mx-good.horntest")
        sink = self.sink(LATER, None)
        with self.horn() as h, h.client() as c:
            c.send("back@local.example", f"x@{LATER}.horntest", TEXT)
            wait_for("it waits", lambda: self.waiting(h))
            c.send("back@local.example", f"y@{LATER}.horntest", b"TLS-Required: No\r\n" + TEXT, ehlo=False)
            wait_for("this one goes", lambda: len(sink.messages) == 1)
            h.conf("-e", "outbound_mta_sts=no")
            h.run("posthorn", "-c", str(h.dir), "reload")
            h.run("hornqueue", "-c", str(h.dir), "flush")
            wait_for("the other too", lambda: len(sink.messages) == 2)
            self.assertNotIn("MTA-STS", self.explain(h, LATER))


if __name__ == "__main__":
    unittest.main()
