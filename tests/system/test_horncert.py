"""horncert against a running service: what it says, what it makes, and that what does not fit changes nothing (MISSION C7)."""
import json
import ssl
import subprocess
import unittest

from certs import Authority, openssl
from horn import Horn, wait_for
from test_keys import session


class HornCert(unittest.TestCase):
    def cert(self, h, *args, status=0):
        done = h.run("horncert", "-c", str(h.dir), *args, check=False)
        self.assertEqual(done.returncode, status, (args, done.stdout, done.stderr))
        return done

    def show(self, h):
        return [json.loads(l) for l in self.cert(h, "show", "--json").stdout.splitlines()]

    def served(self, h):
        s = session(h)
        try:
            return s.sock.getpeercert(True)
        finally:
            s.quit()

    def wait_for_file(self, h, path):
        wanted = ssl.PEM_cert_to_DER_cert(open(path).read().split("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n")
        wait_for(f"{path} is served", lambda: self.served(h) == wanted)

    def test_self_signed_show_check_and_renew(self):
        with Horn() as h:
            row, = self.show(h)
            self.assertEqual((row["names"], row["key"], row["bits"], row["self_signed"], row["fault"]), ("mx.horn.example", "ec", 256, True, ""))
            self.assertIn(b"no problem found", self.cert(h, "check").stdout)
            first = self.served(h)
            self.assertIn(b"taken up; sessions go on", self.cert(h, "self-signed", "--key", "rsa", "--days", "20", "mx.horn.example", "*.horn.example").stdout)
            self.wait_for_file(h, row["file"])
            self.assertNotEqual(self.served(h), first)
            row, = self.show(h)
            self.assertEqual((row["names"], row["key"], row["bits"]), ("mx.horn.example *.horn.example", "rsa", 3072))
            self.assertIn(row["days"], (19, 20))
            self.assertRegex(self.cert(h, "check", status=65).stdout, b"it expires in (19|20) days")
            before = self.served(h)
            self.cert(h, "renew")
            wait_for("a renewed one", lambda: self.served(h) != before)
            row, = self.show(h)
            self.assertEqual((row["names"], row["key"]), ("mx.horn.example *.horn.example", "rsa"))
            self.assertIn(row["days"], (3649, 3650))
            self.assertIn(b"nothing to renew", self.cert(h, "renew").stdout)
            self.cert(h, "self-signed", "elsewhere.example")
            self.assertIn(b"it is not for mx.horn.example (fqdn)", self.cert(h, "check", status=65).stdout)
            self.assertEqual((h.dir / "state/default.key").stat().st_mode & 0o777, 0o600)

    def test_a_request_and_what_an_authority_makes_of_it(self):
        with Horn() as h:
            ca = Authority(h.root)
            before = self.served(h)
            request = self.cert(h, "request", "mx.horn.example", "mail.horn.example").stdout
            (h.root / "r.csr").write_bytes(request)
            self.assertIn(b"DNS:mx.horn.example, DNS:mail.horn.example", openssl("req", "-in", h.root / "r.csr", "-noout", "-text", "-verify"))
            self.assertEqual(self.served(h), before) # the new key is not in use yet
            openssl("x509", "-req", "-in", h.root / "r.csr", "-CA", ca.crt, "-CAkey", ca.key, "-CAcreateserial", "-out", h.root / "leaf.pem", "-days", "60", "-copy_extensions", "copy")
            chain = h.root / "chain.pem"
            chain.write_bytes((h.root / "leaf.pem").read_bytes() + ca.crt.read_bytes())
            self.assertIn(b"installed", self.cert(h, "install", str(chain)).stdout)
            self.wait_for_file(h, chain)
            self.assertFalse((h.dir / "state/default.key.new").exists())
            done = subprocess.run(["openssl", "s_client", "-starttls", "smtp", "-connect", f"127.0.0.1:{h.port}", "-CAfile", ca.crt, "-verify_return_error", "-verify_hostname", "mail.horn.example"],
                                  input=b"QUIT\r\n", capture_output=True, timeout=60)
            self.assertIn(b"Verify return code: 0 (ok)", done.stdout)
            # another from the same authority, with its key: what an ACME client's hook does
            crt, key = ca.leaf("acme", "mx.horn.example")
            both = h.root / "both.pem" # everybody may read what is installed as a certificate
            both.write_bytes(key.read_bytes() + crt.read_bytes())
            self.cert(h, "install", str(both), str(both))
            self.wait_for_file(h, crt)
            self.assertEqual([l for l in (h.dir / "state/default.crt").read_text().splitlines() if "BEGIN" in l], ["-----BEGIN CERTIFICATE-----"] * 2)
            self.assertIn(b"BEGIN CERTIFICATE REQUEST", self.cert(h, "renew", "--force").stdout)

    def test_what_does_not_fit_changes_nothing(self):
        with Horn() as h:
            ca = Authority(h.root)
            crt, key = ca.leaf("one", "mx.horn.example")
            _, other = ca.leaf("two", "mx.horn.example")
            old, old_key = ca.leaf("old", "mx.horn.example", expired=True)
            (h.root / "none").write_text("nothing\n")
            before = {f.name: f.read_bytes() for f in (h.dir / "state").glob("default.*")}
            for args, status, words in (((str(crt), str(other)), 65, b"not the key of this certificate; nothing was changed"), ((str(crt),), 65, b"not the key of this certificate"),
                                        ((str(h.root / "none"), str(key)), 65, b"no certificate in PEM"), ((str(crt), str(h.root / "none")), 65, b"no key in PEM"),
                                        ((str(old), str(old_key)), 65, b"it has expired"), (("/nowhere", str(key)), 65, b"No such file")):
                self.assertIn(words, self.cert(h, "install", *args, status=status).stderr)
            for args in (("self-signed", "no name"), ("self-signed", "--key", "dsa"), ("self-signed", "--days", "0"), ("install",), ("nonsense",)):
                self.cert(h, *args, status=64)
            self.assertEqual({f.name: f.read_bytes() for f in (h.dir / "state").glob("default.*")}, before)
            h.conf("-e", f"tls_certificate_file={crt}", f"tls_key_file={key}")
            h.run("posthorn", "-c", str(h.dir), "reload")
            for act in ("self-signed", "request"):
                self.assertIn(b"names no certificate with a key of this kind (rsa)", self.cert(h, act, "--key", "rsa", status=78).stderr)
            self.assertIn(b"not for mx.horn.example", self.cert(h, "self-signed", "other.example").stderr + self.cert(h, "check", status=65).stdout)


if __name__ == "__main__":
    unittest.main()
