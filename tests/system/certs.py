"""Certificates for tests, by openssl(1)."""
import hashlib
import subprocess


def openssl(*args, input=None):
    return subprocess.run(["openssl", *map(str, args)], input=input, capture_output=True, check=True).stdout


class Authority:
    """A CA in a directory; leaf(NAME, hosts) makes NAME.crt (with the CA behind it) and NAME.key there."""

    def __init__(self, place, name="ca"):
        self.place, self.crt, self.key = place, place / f"{name}.crt", place / f"{name}.key"
        openssl("req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-days", "90", "-subj", f"/CN={name}",
                "-addext", "basicConstraints=critical,CA:TRUE", "-keyout", self.key, "-out", self.crt)

    def leaf(self, name, *hosts, expired=False, days=30, more="", names=""):
        crt, key, request, extensions = (self.place / f"{name}.{tail}" for tail in ("crt", "key", "csr", "ext"))
        openssl("req", "-new", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        extensions.write_text(more + "subjectAltName=" + (names or ",".join(("IP:" if h[0].isdigit() else "DNS:") + h for h in hosts or ["nobody.example"])) + "\n")
        openssl("x509", "-req", "-in", request, "-CA", self.crt, "-CAkey", self.key, "-CAcreateserial", "-out", crt, "-extfile", extensions, "-days", "-1" if expired else str(days))
        with crt.open("ab") as f:
            f.write(self.crt.read_bytes())
        return crt, key


def tlsa(crt, usage, selector, matching):
    """The record's data as a zone file has it."""
    der = openssl("x509", "-in", crt, "-outform", "DER")
    if selector:
        der = openssl("pkey", "-pubin", "-outform", "DER", input=openssl("x509", "-in", crt, "-noout", "-pubkey"))
    data = der if matching == 0 else hashlib.new({1: "sha256", 2: "sha512"}[matching], der).digest()
    return f"{usage} {selector} {matching} {data.hex()}"
