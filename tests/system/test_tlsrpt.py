"""Reports about TLS (MISSION C9, RFC 8460): what is counted against a signed zone, policies by HTTPS and real servers; by mail and by HTTPS."""
import datetime
import email
import gzip
import json
import os
import pathlib
import re
import shutil
import tempfile
import unittest

from certs import Authority, tlsa
from horn import TMP, Horn, Sink, free_port, wait_for
from nsd import Zone
from test_mta_sts import HTTPS, Web, context, policy
from test_policy import TEXT, TlsSink

RUA = "mailto:reports@rua.horntest,https://RUA.horntest/v1/tls?x=1"
# name: what the report says: kind of policy, sessions that succeeded, failures {type: n}; the policy's text, the certificate of the MX (None: no
# STARTTLS), its TLSA record; rua
CASES = {
    "good": ("sts", 1, {}, policy("enforce", "mx-good.horntest"), "mx", None, RUA),
    "name": ("sts", 0, {"certificate-host-mismatch": 1}, policy("enforce", "mx-name.horntest"), "other", None, RUA),
    "old": ("sts", 0, {"certificate-expired": 1}, policy("enforce", "mx-old.horntest"), "expired", None, RUA),
    "strange": ("sts", 0, {"certificate-not-trusted": 1}, policy("enforce", "mx-strange.horntest"), "strange", None, RUA),
    "stripped": ("sts", 0, {"starttls-not-supported": 1}, policy("enforce", "mx-stripped.horntest"), None, None, RUA),
    "foreign": ("sts", 0, {"validation-failure": 1}, policy("enforce", "mx-good.horntest"), "mx", None, RUA),
    "tested": ("sts", 0, {"certificate-host-mismatch": 1}, policy("testing", "mx-tested.horntest"), "other", None, RUA), # and it is delivered
    "invalid": ("sts", 0, {"sts-policy-invalid": 1}, b"nonsense", None, None, RUA),
    "webname": ("sts", 0, {"sts-webpki-invalid": 1}, policy("enforce", "mx-webname.horntest"), None, None, RUA),
    "webgone": ("sts", 0, {"sts-policy-fetch-error": 1}, None, None, None, RUA),
    "dane": ("tlsa", 1, {}, None, "strange", "strange", RUA),
    "danebad": ("tlsa", 0, {"validation-failure": 1}, None, "mx", "strange", RUA),
    "plain": ("no-policy-found", 1, {}, None, "strange", None, RUA),
    "clear": ("no-policy-found", 0, {"starttls-not-supported": 1}, None, None, None, RUA),
    "mute": (None, 0, {}, None, "mx", None, None), # asks for no reports
    "odd": (None, 0, {}, None, "mx", None, "ftp://x,mailto:nobody,https://user@rua.horntest/,https://rua.horntest:444/"),
}
STS = [n for n, c in CASES.items() if c[0] == "sts"]


@unittest.skipUnless(os.geteuid() == 0, "port 443")
class Reports(Zone):
    def setUp(self):
        self.certs = pathlib.Path(tempfile.mkdtemp(prefix="certs-", dir=TMP))
        self.addCleanup(shutil.rmtree, self.certs, True)
        self.sink_port = free_port()
        self.ca, stranger = Authority(self.certs), Authority(self.certs, "stranger")
        self.pairs = {"mx": self.ca.leaf("mx", *(f"mx-{n}.horntest" for n in CASES)), "other": self.ca.leaf("other", "mx.elsewhere.horntest"),
                      "expired": self.ca.leaf("expired", "mx-old.horntest", expired=True), "strange": stranger.leaf("strange", "mx-strange.horntest")}
        self.web = Web(self.ca.leaf("web", "rua.horntest", *(f"mta-sts.{n}.horntest" for n in STS if n != "webname")))
        self.addCleanup(self.web.close)
        rows = ["$ORIGIN horntest.", "$TTL 1", "@ SOA ns hostmaster 1 3600 600 86400 1", "@ NS ns", "ns A 127.0.0.1", f"rua A {HTTPS}", "rua MX 10 mx-rua", "mx-rua A 127.0.7.1"]
        self.address = {n: f"127.0.7.{i + 2}" for i, n in enumerate(CASES)}
        for n, (kind, _, _, text, _, record, rua) in CASES.items():
            rows += [f"{n} MX 10 mx-{n}", f"mx-{n} A {self.address[n]}"]
            if kind == "sts":
                rows += [f'_mta-sts.{n} TXT "v=STSv1; id=1;"', f"mta-sts.{n} A {HTTPS}"]
                self.web.texts[f"mta-sts.{n}.horntest"] = text
            if record:
                rows.append(f"_{self.sink_port}._tcp.mx-{n} TLSA {tlsa(self.pairs[record][0], 3, 1, 1)}")
            if rua:
                rows.append(f'_smtp._tls.{n} TXT "v=TLSRPTv1; rua={rua}"')
        self.zone = "\n".join(rows) + "\n"
        super().setUp()
        self.serve("zone.signed")

    horn = Zone.trusting

    def send(self, h):
        """To each; then the service is down, and what it has counted is of the day before."""
        sinks = {n: TlsSink(self.address[n], self.sink_port, self.pairs[c[4]] if c[4] else None) for n, c in CASES.items()}
        try:
            with h.client() as c:
                for i, n in enumerate(CASES):
                    c.send("back@local.example", f"{n}@{n}.horntest", TEXT, ehlo=i == 0)
            waits = lambda: [m for m in h.messages() if m["state"] == "deferred"]
            wait_for("all decided", lambda: sum(len(s.messages) for s in sinks.values()) + len(waits()) == len(CASES), 60)
            self.assertEqual(len(sinks["tested"].messages), 1)
            if waits():
                h.queue("remove", *(m["id"] for m in waits())) # no more sessions
        finally:
            h.stop()
            for s in sinks.values():
                s.close()

    def check_one(self, report, name):
        kind, good, failures, text, _, _, _ = CASES[name]
        yesterday = (datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)).strftime("%Y-%m-%d")
        self.assertEqual(report["date-range"], {"start-datetime": f"{yesterday}T00:00:00Z", "end-datetime": f"{yesterday}T23:59:59Z"})
        self.assertEqual((report["organization-name"], report["contact-info"]), ("local.example", "postmaster@local.example"))
        found = {"good": 0, "failed": {}, "kinds": set()}
        for p in report["policies"]:
            self.assertEqual(p["policy"]["policy-domain"], f"{name}.horntest")
            if p["policy"]["policy-type"] != kind: # without a policy the session went on as one without
                self.assertIn(name, ("invalid", "webname", "webgone"))
                continue
            found["kinds"].add(p["policy"]["policy-type"])
            found["good"] += p["summary"]["total-successful-session-count"]
            for f in p.get("failure-details", []):
                found["failed"][f["result-type"]] = found["failed"].get(f["result-type"], 0) + f["failed-session-count"]
                if f["result-type"] not in ("validation-failure",) and not f["result-type"].startswith("sts-"):
                    self.assertEqual((f["receiving-mx-hostname"], f["receiving-ip"], f["sending-mta-ip"][:4]), (f"mx-{name}.horntest", self.address[name], "127."))
            self.assertEqual(p["summary"]["total-failure-session-count"], sum(f["failed-session-count"] for f in p.get("failure-details", [])))
            if kind == "sts" and name not in ("invalid", "webname", "webgone"):
                self.assertEqual(p["policy"]["policy-string"], [l for l in text.decode().split("\r\n") if l])
                self.assertEqual(p["policy"]["mx-host"], re.findall(r"mx: (\S+)", text.decode()))
            if kind == "tlsa":
                self.assertEqual(p["policy"]["policy-string"], [tlsa(self.pairs["strange"][0], 3, 1, 1)])
        self.assertEqual(found, {"good": good, "failed": failures, "kinds": {kind}}, name)

    def test_what_is_counted_and_where_it_goes(self):
        h = self.horn("tls_report=yes")
        with h:
            self.send(h)
            stored = h.dir / "spool/sts/tls-reports"
            today = int(datetime.datetime.now().timestamp()) // 86400
            text = stored.read_text()
            self.assertIn(f"tally {today} ", text)
            stored.write_text(text.replace(f"tally {today} ", f"tally {today - 1} "))
            self.web.refusals = 1 # one is tried again, and those who have it by mail get it once
            with Sink(host="127.0.7.1", port=self.sink_port) as sink:
                h.start()
                wanted = {n for n, c in CASES.items() if c[0]}
                wait_for("all by HTTPS", lambda: len(self.web.posted) == len(wanted), 60)
                wait_for("all by mail", lambda: len(sink.messages) >= len(wanted), 60)
                wait_for("nothing left", lambda: stored.read_text() == "")
                self.assertEqual((len(sink.messages), len(self.web.posted)), (len(wanted), len(wanted))) # each once
                self.assertEqual(h.log().count("report_failed: "), 1)
            reports = {}
            for url, kind, body in self.web.posted:
                self.assertEqual((url, kind), ("RUA.horntest/v1/tls?x=1", "application/tlsrpt+gzip"))
                report = json.loads(gzip.decompress(body))
                reports[report["policies"][0]["policy"]["policy-domain"].split(".")[0]] = report
            self.assertEqual(set(reports), wanted)
            for name, report in reports.items():
                self.check_one(report, name)
            for sender, to, body in sink.messages:
                m = email.message_from_bytes(body)
                name = m["TLS-Report-Domain"].split(".")[0]
                self.assertEqual((sender.split()[0:1], m["TLS-Report-Submitter"], m["TLS-Required"], m["From"]), (["MAIL"], "local.example", "No", "<postmaster@local.example>"))
                self.assertIn("FROM:<>", sender)
                self.assertEqual((m.get_content_type(), m.get_param("report-type")), ("multipart/report", "tlsrpt"))
                part = m.get_payload()[1]
                self.assertEqual(part.get_content_type(), "application/tlsrpt+gzip")
                self.assertRegex(part.get_filename(), rf"^local\.example!{name}\.horntest!\d+!\d+\.json\.gz$")
                self.assertEqual(json.loads(gzip.decompress(part.get_payload(decode=True))), reports[name])
                self.assertIn(reports[name]["report-id"], m["Subject"].replace("\r\n", ""))

    def test_it_is_off_unless_it_is_asked_for(self):
        with self.horn() as h:
            self.send(h)
            self.assertFalse((h.dir / "spool/sts/tls-reports").exists())


if __name__ == "__main__":
    unittest.main()
