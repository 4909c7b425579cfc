"""TLS policies of domains whose MX is a real Postfix: a signed zone by NSD, policies by real HTTPS; nothing is downgraded, and hornqueue
why explains what waits."""
import datetime
import gzip
import json
import os
import pathlib
import shutil
import tempfile
import unittest

from certs import Authority, tlsa
from horn import TMP, TREE, Sink, free_port, wait_for
from nsd import Zone
from postfix import Postfix
from test_keys import session
from test_mta_sts import CASES as STS, HTTPS, Web, policy
from test_policy import DANE, TEXT

# name: the rule; TLSA (certificate, usage, selector, matching); the policy's hosts; Postfix's certificate (None: no STARTTLS); what becomes
# of the mail; words of the reason
CASES = {
    "good": ("RFC 7672 3.1.1: DANE-EE", ("ee", 3, 1, 1), None, "ee", "tls", ""),
    "old": ("RFC 7672 3.1.1: DANE-EE, dates do not matter", ("old", 3, 1, 1), None, "old", "tls", ""),
    "wrong": ("RFC 7672 2.2: another key than published", ("ee", 3, 1, 1), None, "other", "waits", "no matching DANE TLSA records"),
    "ta": ("RFC 7672 3.1.2: DANE-TA", ("ca", 2, 0, 1), None, "ta", "tls", ""),
    "taold": ("RFC 7672 3.1.2: DANE-TA, expired", ("ca", 2, 0, 1), None, "taold", "waits", "expired"),
    "taname": ("RFC 7672 3.2.2: DANE-TA, another's name", ("ca", 2, 0, 1), None, "other", "waits", "hostname mismatch"),
    "stripped": ("RFC 7672 2.2: STARTTLS is not offered", ("ee", 3, 1, 1), None, None, "waits", "offers no TLS (TLS verified by DANE)"),
    "forged": ("RFC 7672 2.1.2: a bogus TLSA answer", ("ee", 3, 1, 1), None, "ee", "waits", "TLSA records could not be looked up"),
    "sts": ("RFC 8461 4.1: of the name that the policy names", None, "mx-sts.horntest", "sts", "tls", ""),
    "stsname": ("RFC 8461 4.2: another name than the host's", None, "mx-stsname.horntest", "sts", "waits", "hostname mismatch"),
    "stsold": ("RFC 8461 4.2: expired", None, "mx-stsold.horntest", "stsold", "waits", "expired"),
    "stsother": ("RFC 8461 4.1: the host is not named", None, "mx-sts.horntest", "sts", "waits", "none of the next hop's MX hosts"),
    "stsstripped": ("RFC 8461 4.2: STARTTLS is not offered", None, "mx-stsstripped.horntest", None, "waits", "offers no TLS (TLS verified by its certificate (MTA-STS))"),
    "none": ("RFC 7672 2.1.3: nothing published: opportunistic", None, None, "other", "tls", ""),
    "plain": ("nothing published, no TLS", None, None, None, "clear", ""),
}
# RFC 8460 4.3: what is reported of them: sessions that were good, kinds of failure
REPORTS = {"good": (1, set()), "wrong": (0, {"validation-failure"}), "taold": (0, {"certificate-expired"}), "taname": (0, {"certificate-host-mismatch"}), "stripped": (0, {"starttls-not-supported"}),
           "sts": (1, set()), "stsname": (0, {"certificate-host-mismatch"}), "stsold": (0, {"certificate-expired"}), "stsstripped": (0, {"starttls-not-supported"})}


def page():
    """docs/tls-policies.md: each case of this file and of its neighbours."""
    def table(rows):
        return ["| domain | rule | mail | reason in `hornqueue why` |", "|---|---|---|---|", *(f"| {n} | {rule} | {outcome} | {words} |" for n, rule, outcome, words in rows), ""]
    lines = ["# Policies of TLS to other servers: each case and what becomes of the mail", "",
             "Run by `make check` (tests/system/test_policy.py, test_mta_sts.py, test_policy_postfix.py; REQUIRETLS and TLSRPT: test_policy.py, test_tlsrpt.py): a", "signed zone served by NSD, policies by HTTPS on port 443, servers with the certificate of the case. *tls*: delivered encrypted; *clear*: delivered,", "since nothing asks for more; *waits*: deferred with the reason, the policy and the next attempt in `hornqueue why`. Nothing is downgraded.", "",
             "## DANE", *table((n, c[0], c[3], c[4]) for n, c in DANE.items()),
             "## MTA-STS", "The words of those that are delivered are `posthorn explain`'s.", "", *table((n, "RFC " + c[0], c[4], c[5]) for n, c in STS.items()),
             "A policy that is known stays, whatever the DNS and the web server say later, until its max_age (RFC 8461 3.1, 5.1); another id brings", "another; it is there after a restart; expired it is none (test_a_policy_that_is_known, test_one_that_has_expired_is_none).", "",
             "## At a real Postfix", *table((n, c[0], c[4], c[5]) for n, c in CASES.items()),
             "A message with REQUIRETLS comes back, 5.7.30 (RFC 8689 5): Postfix does not offer it. Reports (RFC 8460 4.3):", "",
             "| domain | good sessions | failures |", "|---|---|---|", *(f"| {n} | {good} | {', '.join(sorted(kinds))} |" for n, (good, kinds) in REPORTS.items())]
    return "\n".join(lines) + "\n"


@unittest.skipUnless(os.geteuid() == 0, "Postfix is root's to start, and port 443 to listen on")
class AtPostfix(Zone):
    horn = Zone.trusting

    def setUp(self):
        self.certs = pathlib.Path(tempfile.mkdtemp(prefix="certs-", dir=TMP))
        self.addCleanup(shutil.rmtree, self.certs, True)
        os.chmod(self.certs, 0o755)
        self.sink_port = free_port()
        ca = self.ca = Authority(self.certs)
        self.pairs = {"ee": ca.leaf("ee"), "old": ca.leaf("old", expired=True), "other": ca.leaf("other", "x.example"), "ta": ca.leaf("ta", "mx-ta.horntest"),
                      "taold": ca.leaf("taold", "mx-taold.horntest", expired=True), "sts": ca.leaf("sts", "mx-sts.horntest", "mx-stsother.horntest"),
                      "stsold": ca.leaf("stsold", "mx-stsold.horntest", expired=True)}
        web = self.web = Web(ca.leaf("web", "rua.horntest", *(f"mta-sts.{n}.horntest" for n in CASES)))
        self.addCleanup(web.close)
        rows = ["$ORIGIN horntest.", "$TTL 60", "@ SOA ns hostmaster 1 3600 600 86400 60", "@ NS ns", "ns A 127.0.0.1", f"rua A {HTTPS}"]
        rows += [f'_smtp._tls.{n} TXT "v=TLSRPTv1; rua=https://rua.horntest/r"' for n in REPORTS]
        services = []
        for i, (n, (_, record, host, pair, _, _)) in enumerate(CASES.items()):
            rows += [f"{n} MX 10 mx-{n}", f"mx-{n} A 127.0.9.{i + 10}"]
            if record:
                rows.append(f"_{self.sink_port}._tcp.mx-{n} TLSA {tlsa(ca.crt if record[0] == 'ca' else self.pairs[record[0]][0], *record[1:])}")
            if host:
                rows += [f"mta-sts.{n} A {HTTPS}", f'_mta-sts.{n} TXT "v=STSv1; id=1;"']
                web.texts[f"mta-sts.{n}.horntest"] = policy("enforce", host)
            tls = f"-o smtpd_tls_security_level=may -o smtpd_tls_cert_file={self.pairs[pair][0]} -o smtpd_tls_key_file={self.pairs[pair][1]}" if pair else "-o smtpd_tls_security_level=none"
            services.append(f"127.0.9.{i + 10}:{self.sink_port} inet n - n - - smtpd {tls}")
        self.zone = "\n".join(rows) + "\n"
        super().setUp()
        self.serve_forged(f"_{self.sink_port}._tcp.mx-forged")
        self.sink = Sink()
        self.addCleanup(self.sink.close)
        self.postfix = Postfix(self.sink.port, "smtpd_tls_loglevel = 1", services=services)
        self.addCleanup(self.postfix.stop)

    def waiting(self, h):
        return {m["recipients"][0]["address"].split("@")[0]: m["recipients"][0]["reason"] for m in h.messages() if m["state"] == "deferred"}

    def arrived(self):
        return sorted(to.split("<")[1].split("@")[0] for _, tos, _ in self.sink.messages for to in tos)

    def send(self, h):
        with h.client() as c:
            for i, n in enumerate(CASES):
                c.send("back@local.example", f"{n}@{n}.horntest", TEXT, ehlo=i == 0)
        wait_for("all decided", lambda: len(self.sink.messages) + len(self.waiting(h)) == len(CASES), 60)

    def test_each_case(self):
        with self.horn() as h:
            self.send(h)
            reasons = self.waiting(h)
            self.assertEqual(self.arrived(), sorted(n for n, c in CASES.items() if c[4] != "waits"))
            for n, (rule, _, _, _, outcome, words) in CASES.items():
                self.assertEqual(n in reasons, outcome == "waits", f"{n}: {rule}: {reasons.get(n)}")
                self.assertIn(words, reasons.get(n, ""), f"{n}: {rule}")
                if outcome == "waits":
                    self.assertIn(words, self.why(h, n))
            protocols = {m[2].split(b"for <")[1].split(b"@")[0].decode(): b"with ESMTPS" in m[2].split(b"for <")[0] for m in self.sink.messages} # Postfix's own Received
            self.assertEqual(protocols, {n: c[4] == "tls" for n, c in CASES.items() if c[4] != "waits"})

    def test_requiretls(self):
        """RFC 8689 5: Postfix does not offer it, so the mail comes back though its certificate is the one that is published."""
        with self.horn() as h:
            s = session(h)
            s.ehlo("x.example")
            s.sendmail("back@local.example", ["good@good.horntest"], TEXT, ["REQUIRETLS"])
            s.quit()
            self.assertIn(b"good@good.horntest\r\nAction: failed\r\nStatus: 5.7.30", wait_for("a report", h.drop)[0].read_bytes())
            with h.client() as c: # the control
                c.send("back@local.example", "good@good.horntest", TEXT)
            wait_for("the mail", lambda: self.arrived() == ["good"])

    def test_reports(self):
        """RFC 8460: what was counted of a day is reported on the next."""
        with self.horn("tls_report=yes") as h:
            self.send(h)
            h.queue("remove", *(m["id"] for m in h.messages() if m["state"] == "deferred"))
            h.stop()
            counted, today = h.dir / "spool/sts/tls-reports", int(datetime.datetime.now().timestamp()) // 86400
            counted.write_text(counted.read_text().replace(f"tally {today} ", f"tally {today - 1} "))
            h.start()
            wait_for("all reports", lambda: len(self.web.posted) == len(REPORTS), 60)
        reports = {r["policies"][0]["policy"]["policy-domain"].split(".")[0]: r for r in (json.loads(gzip.decompress(body)) for _, _, body in self.web.posted)}
        found = {n: (sum(p["summary"]["total-successful-session-count"] for p in r["policies"]), {f["result-type"] for p in r["policies"] for f in p.get("failure-details", [])}) for n, r in reports.items()}
        self.assertEqual(found, REPORTS)


class Page(unittest.TestCase):
    def test_it_has_each_case(self):
        self.assertEqual((TREE / "docs/tls-policies.md").read_text(), page())


if __name__ == "__main__":
    unittest.main()
