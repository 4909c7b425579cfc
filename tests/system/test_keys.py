"""Private keys are in keyd alone: certificates by name and by kind, renewal, resumption, what happens when keyd is gone (MISSION C7, C8)."""
import os
import pathlib
import re
import signal
import smtplib
import ssl
import subprocess
import threading
import unittest

import impostor
from horn import Horn, free_port, wait_for

HOST = "mx.horn.example"


def context(**settings):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) # without the system's certificates: reading them takes its time
    c.check_hostname, c.verify_mode = False, ssl.CERT_NONE
    for name, value in settings.items():
        setattr(c, name, value)
    return c


def make_pair(place, name, kind="ec", days=90, host=HOST):
    """NAME.crt and NAME.key in place; returns both paths."""
    how = {"ec": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "rsa": ["-newkey", "rsa:2048"], "ed": ["-newkey", "ed25519"]}[kind]
    crt, key = place / f"{name}.crt", place / f"{name}.key"
    subprocess.run(["openssl", "req", "-x509", "-nodes", *how, "-days", str(days), "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{host}",
                    "-keyout", str(key) + ".new", "-out", str(crt) + ".new"], check=True, capture_output=True)
    for f in (crt, key):
        os.replace(str(f) + ".new", f)
    return crt, key


OPEN = []


def session(h, host=HOST, **settings):
    s = smtplib.SMTP("127.0.0.1", h.port, timeout=60)
    s.ehlo("x.example")
    s._host = host # the name that is asked for
    OPEN.append(s)
    s.starttls(context=context(**settings))
    return s


def subject(s):
    text = subprocess.run(["openssl", "x509", "-inform", "DER", "-noout", "-subject"], input=s.sock.getpeercert(True), capture_output=True, check=True).stdout
    return text.decode().split("CN = ")[1].strip()


def memory(pid):
    """What a process has in its memory, as a core image would have it."""
    parts = []
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as mem:
        for line in maps:
            span, rights, *_ = line.split()
            if "r" not in rights or "[v" in line:
                continue
            start, end = (int(x, 16) for x in span.split("-"))
            if end - start > 1 << 30: # a sanitizer's own
                continue
            try:
                mem.seek(start)
                parts.append(mem.read(end - start))
            except OSError:
                pass # guard pages
    return b"\0".join(parts)


def forms(key):
    """The secret of a P-256 or RSA key as it may lie in memory: as it is, turned round (a bignum's words), in hex, and lines of its PEM."""
    text = subprocess.run(["openssl", "pkey", "-in", str(key), "-noout", "-text"], check=True, capture_output=True).stdout.decode()
    secrets = []
    for title in ("priv:", "privateExponent:", "prime1:", "prime2:"):
        if title in text:
            lines = text.split(title)[1].splitlines()[1:]
            digits = "".join(l.strip() for l in lines[:next(i for i, l in enumerate(lines) if not l.startswith("    "))])
            secrets.append(bytes.fromhex(digits.replace(":", "")).lstrip(b"\0"))
    found = [l for l in pathlib.Path(key).read_bytes().splitlines() if len(l) >= 40 and b"---" not in l]
    for s in secrets:
        found += [s, s[::-1], s.hex().encode(), s.hex().upper().encode()]
    return found


class Keys(unittest.TestCase):
    def tearDown(self):
        while OPEN:
            OPEN.pop().close()

    def certified(self, h, *kinds, **more):
        pairs = [make_pair(h.root, k, k, **more) for k in kinds]
        h.conf("-e", "tls_certificate_file=" + " ".join(str(c) for c, _ in pairs), "tls_key_file=" + " ".join(str(k) for _, k in pairs))
        return pairs

    def reload(self, h):
        h.run("posthorn", "-c", str(h.dir), "reload")

    def test_every_kind_of_key_signs_in_both_versions(self):
        h = Horn()
        self.certified(h, "ec", "rsa", "ed")
        with h:
            for ciphers, version, wanted in (("ECDHE+aECDSA", "TLSv1_2", "ec"), ("ECDHE+aRSA", "TLSv1_2", "rsa"), (None, "TLSv1_3", "ec")):
                c = dict(maximum_version=ssl.TLSVersion[version], minimum_version=ssl.TLSVersion[version])
                s = smtplib.SMTP("127.0.0.1", h.port, timeout=60)
                made = context(**c)
                if ciphers:
                    made.set_ciphers(ciphers)
                s.starttls(context=made)
                self.assertEqual(subject(s), wanted)
                s.quit()
            for algorithms, wanted in (("rsa_pss_rsae_sha256", "rsa"), ("ed25519", "ed"), ("ECDSA+SHA256", "ec")):
                done = subprocess.run(["openssl", "s_client", "-starttls", "smtp", "-connect", f"127.0.0.1:{h.port}", "-tls1_3", "-sigalgs", algorithms], input=b"QUIT\r\n", capture_output=True, timeout=60)
                self.assertIn(f"CN = {wanted}".encode(), done.stdout, (algorithms, done.stderr))

    def test_certificates_by_name(self):
        """tls_sni: the name itself, then the longest *.; else the server's own.  A name may have two kinds."""
        h = Horn()
        self.certified(h, "ec")
        pairs = {n: make_pair(h.root, n, "rsa" if n == "one" else "ec") for n in ("one", "wide", "wider")}
        h.conf("-e", "tls_sni=" + " ".join(f"{host}={pairs[n][0]}:{pairs[n][1]}" for host, n in (("one.example.org", "one"), ("*.example.org", "wide"), ("*.org", "wider"))))
        with h:
            for host, wanted in (("one.example.org", "one"), ("ONE.Example.org", "one"), ("two.example.org", "wide"), ("a.b.example.org", "wide"), ("other.org", "wider"), ("org", "ec"), ("x.example.net", "ec")):
                s = session(h, host)
                self.assertEqual(subject(s), wanted, host)
                s.quit()
            s = smtplib.SMTP("127.0.0.1", h.port, timeout=60)
            s._host = "127.0.0.1" # no name is asked for
            s.starttls(context=context())
            self.assertEqual(subject(s), "ec")
            s.quit()

    def test_a_worker_never_has_the_key(self):
        """The same search finds it in keyd, and in a client that has loaded it."""
        if os.geteuid() != 0:
            self.skipTest("reads other processes' memory")
        h = Horn()
        (ec_crt, ec), (_, rsa) = self.certified(h, "ec", "rsa")
        ec_crt.write_text(ec_crt.read_text() + ec.read_text()) # a file with both, as many keep it
        with h:
            sessions = [session(h) for _ in range(6)]
            wanted = forms(ec) + forms(rsa)

            def hits(pid):
                data = memory(pid)
                return sum(f in data for f in wanted)
            for role in ("smtpd", "front", "master", "cleanup", "qmgr"):
                for pid in h.pids(role):
                    self.assertEqual(hits(pid), 0, role)
            self.assertGreater(hits(h.pids("keyd")[0]), 0)
            with subprocess.Popen(["openssl", "s_server", "-accept", str(free_port()), "-cert", str(h.root / "ec.crt"), "-key", str(ec)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as p:
                p.stdout.readline()
                self.assertGreater(hits(p.pid), 0)
                p.terminate()
            for s in sessions:
                self.assertEqual(s.noop()[0], 250)
                s.quit()

    def test_keyd_dies_and_is_stopped(self):
        with Horn() as h:
            s = session(h)
            old = h.pids("keyd")[0]
            os.kill(old, signal.SIGSTOP) # owes signatures, then dies
            done = []

            def client():
                try:
                    done.append(session(h).noop()[0])
                except Exception as e:
                    done.append(e)
            clients = [threading.Thread(target=client) for _ in range(300)] # more than there are jobs
            for c in clients:
                c.start()
            wait_for("sessions", lambda: h.status()["servers"][0]["sessions"] > 290)
            os.kill(old, signal.SIGKILL)
            for c in clients:
                c.join()
            self.assertEqual(done, [250] * 300)
            self.assertNotEqual(wait_for("another keyd", lambda: h.pids("keyd"))[0], old)
            self.assertEqual(s.noop()[0], 250)
            self.assertEqual(session(h).noop()[0], 250)

    def test_renewal_under_load(self):
        """No handshake fails while certificates are replaced, a session stays, and the new one is served."""
        h = Horn()
        self.certified(h, "ec")
        with h:
            first = session(h)
            failed, shaken, stop = [], [], threading.Event()

            def load():
                while not stop.is_set():
                    try:
                        session(h).quit()
                        shaken.append(1)
                    except Exception as e:
                        failed.append(e)
            clients = [threading.Thread(target=load) for _ in range(4)]
            for c in clients:
                c.start()
            for i in range(20):
                make_pair(h.root, "ec", "ec" if i % 2 else "rsa")
                self.reload(h)
            stop.set()
            for c in clients:
                c.join()
            self.assertEqual(failed, [])
            self.assertGreater(len(shaken), 40)
            self.assertEqual(first.noop()[0], 250)
            make_pair(h.root, "ec", "ec", host="renewed.example")
            self.reload(h)
            wanted = ssl.PEM_cert_to_DER_cert((h.root / "ec.crt").read_text())
            wait_for("the new certificate", lambda: session(h).sock.getpeercert(True) == wanted)

    def test_keys_that_came_again_or_were_replaced(self):
        """A reload with the same key keeps it once; one that was replaced is not in keyd's memory after a minute."""
        if os.geteuid() != 0:
            self.skipTest("reads another process's memory")
        h = Horn()
        (_, key), = self.certified(h, "ec")
        with h:
            pid = h.pids("keyd")[0]
            rss = lambda: int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1])
            reload = lambda n: [h.run("posthorn", "-c", str(h.dir), "reload") for _ in range(n)]
            reload(20)
            before = rss()
            reload(200)
            if not os.environ.get("POSTHORN_SANITIZED"): # they keep what was freed
                self.assertLess(rss() - before, 400) # it was 1,600 KB
            old = forms(key)
            self.assertTrue(any(f in memory(pid) for f in old))
            self.certified(h, "ec")
            reload(1)
            wait_for("the old key is gone", lambda: not any(f in memory(pid) for f in old), 90)
            self.assertTrue(any(f in memory(pid) for f in forms(key)))

    def test_a_bad_file_changes_nothing(self):
        h = Horn()
        (crt, key), = self.certified(h, "ec")
        served = ssl.PEM_cert_to_DER_cert(crt.read_text())
        other = make_pair(h.root, "other")
        with h:
            for n, (file, text, words) in enumerate(((key, other[1].read_text(), "the key is not the certificate's"), (key, "no key\n", "no key in PEM without a passphrase"),
                                                     (crt, "no certificate\n", "no certificate in PEM"), (crt, "x" * 140000, "File too large"))):
                good = file.read_text()
                file.write_text(text)
                self.reload(h)
                wait_for(words, lambda: words in h.log())
                self.assertEqual(session(h).sock.getpeercert(True), served)
                file.write_text(good)
            key.rename(str(key) + ".away")
            done = h.run("posthorn", "-c", str(h.dir), "reload", check=False)
            self.assertEqual(done.returncode, 78)
            self.assertIn(b"ec.key: cannot open: No such file or directory; server default needs it: see tls_key_file", done.stdout + done.stderr)
            self.assertEqual(session(h).sock.getpeercert(True), served)
            h.stop()
            done = h.run("posthorn", "-c", str(h.dir), "start", check=False)
            self.assertEqual((done.returncode, b"ec.key" in done.stderr), (66, True), done.stderr)

    def test_a_bad_file_of_one_kind_leaves_both_kinds(self):
        """What the configuration no longer names goes all the same."""
        h = Horn()
        pairs = self.certified(h, "ec", "rsa")

        def served(ciphers):
            c = context(maximum_version=ssl.TLSVersion.TLSv1_2)
            c.set_ciphers(ciphers)
            s = smtplib.SMTP("127.0.0.1", h.port, timeout=60)
            try:
                s.starttls(context=c)
                return subject(s)
            except (ssl.SSLError, ConnectionError, smtplib.SMTPServerDisconnected):
                return None
            finally:
                s.close()
        with h:
            self.assertEqual((served("aECDSA"), served("aRSA")), ("ec", "rsa"))
            pairs[1][1].write_text("no key\n")
            self.reload(h)
            wait_for("a line", lambda: "tls_unavailable" in h.log())
            self.assertEqual((served("aECDSA"), served("aRSA")), ("ec", "rsa"))
            h.conf("-e", f"tls_certificate_file={pairs[0][0]}", f"tls_key_file={pairs[0][1]}")
            self.reload(h)
            wait_for("one kind", lambda: served("aRSA") is None)
            self.assertEqual(served("aECDSA"), "ec")

    def test_expiry_is_warned_of(self):
        h = Horn()
        self.certified(h, "ec", days=29)
        with h:
            wait_for("a warning", lambda: "certificate_expires" in h.log() and ("when=in 28 days" in h.log() or "when=in 29 days" in h.log()))
            self.certified(h, "rsa", days=32)
            before = h.log().count("certificate_expires")
            self.reload(h)
            wait_for("the other", lambda: subject(session(h)) == "rsa")
            self.assertEqual(h.log().count("certificate_expires"), before)

    def resumed(self, h, version, kept):
        return subprocess.run(["openssl", "s_client", "-starttls", "smtp", "-connect", f"127.0.0.1:{h.port}", version, *kept], input=b"EHLO x\r\nQUIT\r\n", capture_output=True, timeout=60).stdout

    def test_sessions_are_resumed_by_any_worker(self):
        """keyd's ticket keys are the same for all; they are new with a new keyd, and an old ticket then costs a whole handshake, no error."""
        with Horn() as h:
            for version in ("-tls1_2", "-tls1_3"):
                kept = str(h.root / version)
                self.assertIn(b"New, TLS", self.resumed(h, version, ["-sess_out", kept, "-ign_eof"]))
                for _ in range(6):
                    self.assertIn(b"Reused, TLS", self.resumed(h, version, ["-sess_in", kept]))
            # in TLS 1.3 a client uses a ticket once (RFC 8446 C.4): each resumed session brings the next one
            self.assertIn(b"Reused, TLS", self.resumed(h, version, ["-sess_in", kept, "-sess_out", kept + ".next", "-ign_eof"]))
            self.assertIn(b"Reused, TLS", self.resumed(h, version, ["-sess_in", kept + ".next"]))
            old = h.pids("keyd")[0]
            os.kill(old, signal.SIGKILL)
            wait_for("another keyd", lambda: [p for p in h.pids("keyd") if p != old])
            for version in ("-tls1_2", "-tls1_3"):
                self.assertIn(b"New, TLS", self.resumed(h, version, ["-sess_in", str(h.root / version)]))

    def test_tls_required_from_the_beginning(self):
        """The first start makes a pair whatever tls is, but for none."""
        with Horn(server=["tls=require"]) as h:
            self.assertEqual(session(h).noop()[0], 250)

    def test_levels(self):
        """tls_minimum, tls_ciphers, tls_minimum_bits (C8); a reload changes them."""
        def cipher(**settings):
            made = context(**{k: v for k, v in settings.items() if k != "ciphers"})
            if "ciphers" in settings:
                made.set_ciphers(settings["ciphers"])
            s = smtplib.SMTP("127.0.0.1", h.port, timeout=60)
            try:
                s.starttls(context=made)
            except (ssl.SSLError, ConnectionError, smtplib.SMTPServerDisconnected):
                return None
            name = s.sock.cipher()[0]
            s.quit()
            return name
        old = dict(maximum_version=ssl.TLSVersion.TLSv1_2)
        with Horn() as h:
            self.assertEqual(cipher(ciphers="ECDHE-ECDSA-AES128-SHA256", **old), "ECDHE-ECDSA-AES128-SHA256")
            self.assertIsNone(cipher(maximum_version=ssl.TLSVersion.TLSv1_1, minimum_version=ssl.TLSVersion.TLSv1, ciphers="ALL:@SECLEVEL=0"))
            self.assertIsNone(cipher(ciphers="AES128-GCM-SHA256", **old)) # no forward secrecy
            h.conf("-e", "tls_ciphers=modern")
            self.reload(h)
            wait_for("modern", lambda: cipher(ciphers="ECDHE-ECDSA-AES128-SHA256", **old) is None)
            self.assertEqual(cipher(ciphers="ECDHE-ECDSA-AES128-GCM-SHA256", **old), "ECDHE-ECDSA-AES128-GCM-SHA256")
            h.conf("-e", "tls_minimum_bits=256")
            self.reload(h)
            wait_for("256 bits", lambda: cipher(ciphers="ECDHE-ECDSA-AES128-GCM-SHA256", **old) is None)
            self.assertEqual(cipher(ciphers="ECDHE+AESGCM", **old), "ECDHE-ECDSA-AES256-GCM-SHA384")
            h.conf("-e", "tls_minimum=TLSv1.3")
            self.reload(h)
            wait_for("TLS 1.3", lambda: cipher(**old) is None)
            self.assertEqual(cipher(), "TLS_AES_256_GCM_SHA384")

    def test_keyd_signs_handshakes_alone(self):
        """A worker that has been taken over gets its TLS lines signed, and nothing else."""
        for text, wanted in ((b" " * 64 + b"TLS 1.3, server CertificateVerify\0" + b"h" * 32, "signed"), (b" " * 64 + b"TLS 1.3, client CertificateVerify\0" + b"h" * 32, "refused"), (b"h" * 32, "refused")):
            h = Horn()
            try:
                self.assertEqual(impostor.outcome(h, text, b"", "KEYD"), wanted)
                if wanted == "refused":
                    wait_for("a line", lambda: "sign_refused" in h.log())
            finally:
                h.__exit__(None)


if __name__ == "__main__":
    unittest.main()
