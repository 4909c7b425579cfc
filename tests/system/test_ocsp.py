"""OCSP stapling (RFC 6066 8, RFC 6960): certificates that name a responder, which answers by openssl(1) over HTTP on port 80."""
import http.server
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import threading
import unittest

from certs import Authority, openssl
from horn import TMP, Horn, wait_for
from nsd import Zone

HTTP = "127.0.8.1"


class Responder:
    """Says of each serial number what says[serial] is: V, R; signer None: it is out of order."""

    def __init__(self, ca):
        self.ca, self.says, self.asked, self.signer = ca, {}, 0, ca
        responder = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                responder.asked += 1
                body = self.rfile.read(int(self.headers["Content-Length"]))
                answer = responder.answer(body) if self.headers["Content-Type"] == "application/ocsp-request" and responder.signer else None
                self.send_response(200 if answer else 503)
                self.send_header("Content-Length", str(len(answer or b"")))
                self.end_headers()
                self.wfile.write(answer or b"")

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer((HTTP, 80), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def answer(self, request):
        index, q, r = (self.ca.place / n for n in ("index", "request", "response"))
        index.write_text("".join(f"{s}\t400101000000Z\t{'261101000000Z' if s == 'R' else ''}\t{n}\tunknown\t/CN={n}\n" for n, s in self.says.items()))
        q.write_bytes(request)
        openssl("ocsp", "-index", index, "-CA", self.ca.crt, "-rsigner", self.signer.crt, "-rkey", self.signer.key, "-reqin", q, "-respout", r, "-ndays", "7", "-noverify")
        return r.read_bytes()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@unittest.skipUnless(os.geteuid() == 0, "port 80")
class Stapling(Zone):
    zone = "\n".join(["$ORIGIN horntest.", "$TTL 60", "@ SOA ns hostmaster 1 3600 600 86400 60", "@ NS ns", "ns A 127.0.0.1", f"ocsp A {HTTP}"]) + "\n"

    def setUp(self):
        super().setUp()
        self.serve("zone.signed")
        self.place = pathlib.Path(tempfile.mkdtemp(prefix="certs-", dir=TMP))
        self.addCleanup(shutil.rmtree, self.place, True)
        self.ca, self.stranger = Authority(self.place), Authority(self.place, "stranger")
        self.responder = Responder(self.ca)
        self.addCleanup(self.responder.close)

    def leaf(self, name, url="http://ocsp.horntest/", chain=True):
        crt, key = self.ca.leaf(name, "mx.horn.example", more=f"authorityInfoAccess=OCSP;URI:{url}\n")
        if not chain:
            crt.write_text(re.search(r"-----BEGIN.*?-----END CERTIFICATE-----\n", crt.read_text(), re.S)[0])
        serial = openssl("x509", "-in", crt, "-noout", "-serial").decode().strip().split("=")[1]
        self.responder.says[serial] = "V"
        return crt, key, serial

    def horn(self, crt, key):
        return Horn(["test_mode=yes", f"dns_servers=127.0.0.1@{self.port}"], [f"tls_certificate_file={crt}", f"tls_key_file={key}"])

    def stapled(self, h):
        done = subprocess.run(["openssl", "s_client", "-status", "-starttls", "smtp", "-connect", f"127.0.0.1:{h.port}", "-CAfile", self.ca.crt], input=b"QUIT\r\n", capture_output=True, timeout=30)
        said = done.stdout.decode()
        return "none" if "no response sent" in said else re.search(r"Cert Status: (\w+)", said)[1]

    def test_it_is_sent_and_holds(self):
        crt, key, _ = self.leaf("mx")
        with self.horn(crt, key) as h:
            wait_for("a staple", lambda: self.stapled(h) == "good")
            self.assertEqual(self.responder.asked, 1)
            self.responder.signer = None
            for role in ("smtpd", "keyd"): # whoever comes new hears of it; nobody asks again
                old = h.pids(role)
                for pid in old:
                    os.kill(pid, 9)
                wait_for("others", lambda: h.pids(role) and not set(h.pids(role)) & {0, *old})
                wait_for(f"a staple after a new {role}", lambda: self.stapled(h) == "good")
            self.assertEqual(self.responder.asked, 1)
            self.responder.signer = self.ca
            other, other_key, _ = self.leaf("next") # renewed: another certificate, another answer
            h.conf("-e", f"tls_certificate_file={other}", f"tls_key_file={other_key}")
            h.run("posthorn", "-c", str(h.dir), "reload")
            wait_for("asked about the other", lambda: self.responder.asked == 2)
            wait_for("its staple", lambda: self.stapled(h) == "good")

    def refused(self, leaf, words):
        crt, key, _ = leaf
        with self.horn(crt, key) as h:
            if words:
                wait_for(words, lambda: words in h.log())
            self.assertEqual(self.stapled(h), "none")

    def test_what_is_no_good_is_not_sent(self):
        revoked = self.leaf("revoked")
        self.responder.says[revoked[2]] = "R"
        self.refused(revoked, "the certificate is revoked")
        unknown = self.leaf("unknown")
        del self.responder.says[unknown[2]]
        self.refused(unknown, "the authority does not know the certificate")
        self.responder.signer = self.stranger
        self.refused(self.leaf("forged"), "its signature is not the authority's")
        self.responder.signer = None
        self.refused(self.leaf("away"), "something other than 200")

    def test_who_is_not_asked(self):
        """Another port, HTTPS, no issuer in the file."""
        for leaf in (self.leaf("port", "http://ocsp.horntest:8080/"), self.leaf("tls", "https://ocsp.horntest/"), self.leaf("alone", chain=False)):
            self.refused(leaf, "")
        self.assertEqual(self.responder.asked, 0)


if __name__ == "__main__":
    unittest.main()
