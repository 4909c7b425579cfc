"""Logins at other servers by Kerberos and NTLM (MISSION C4, outbound_auth = integrated): a real KDC, another Posthorn and Postfix with
Dovecot as peers."""
import base64
import os
import pwd
import shutil
import signal
import socket
import subprocess
import threading
import unittest
from unittest import mock

from dovecot import DovecotAuth
from horn import Horn, Sink, TREE, free_port, wait_for
from kdc import Realm
from nsd import Zone
from postfix import Postfix
from test_auth_out import Provider, TEXT

ZONE = """$ORIGIN horntest.
@ 60 IN SOA ns host 1 60 60 60 60
@ 60 IN NS ns
ns 60 IN A 127.0.0.1
mx 60 IN A 127.0.0.1
kdc 60 IN A 127.0.9.1
gone 60 IN A 127.0.9.2
_kerberos._tcp 60 IN SRV 1 0 88 gone
_kerberos._tcp 60 IN SRV 2 0 88 kdc
"""


class Peer(Provider):
    """mx.horntest: takes Kerberos, NTLM, or both."""

    def __init__(self, realm, *kinds):
        super().__init__("unused", "unused")
        self.conf("-e", "fqdn=mx.horntest", "auth_methods=basic integrated")
        users = self.root / "ntlm"
        users.write_text("HORN:bob:secret word\nHORNTEST:carol:carols word\n")
        os.chmod(users, 0o640)
        os.chown(users, 0, pwd.getpwnam("posthorn-gss").pw_gid)
        shutil.copy(realm.dir / "keytab", self.root / "keytab")
        os.chmod(self.root / "keytab", 0o600)
        with (self.dir / "posthorn.conf").open("a") as f:
            f.write(("auth_keytab_file = %s/keytab\n" % self.root if "GSSAPI" in kinds else "") + (f"auth_ntlm_file = {users}\n" if "NTLM" in kinds else ""))
        self.kinds = kinds

    def __enter__(self):
        super().__enter__()
        wait_for("the offer", lambda: all(k in self.offer() for k in self.kinds))
        return self

    def offer(self):
        return subprocess.run(["openssl", "s_client", "-quiet", "-starttls", "smtp", "-connect", f"127.0.0.1:{self.port}"], input=b"EHLO x\r\nQUIT\r\n", capture_output=True, timeout=30).stdout.decode()


class Listener:
    """Answers the first words of each connection by these, and hangs up."""

    def __init__(self, words):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port, self.words, self.heard = self.listener.getsockname()[1], words, 0
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            with s:
                self.heard += len(s.recv(65536)) > 0
                s.sendall(self.words)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class Impostor(Sink):
    """Offers a mechanism, and answers the words of a login by a list."""

    def __init__(self, mechanism, *words):
        self.mechanism, self.words = mechanism, words
        super().__init__()

    def serve(self, s):
        words = iter(self.words)
        f = s.makefile("rb")
        s.sendall(b"220 mx.horntest ESMTP\r\n")
        try:
            for line in f:
                if line.startswith(b"EHLO"):
                    s.sendall(b"250-mx.horntest\r\n250 AUTH " + self.mechanism.encode() + b"\r\n")
                elif line.startswith((b"MAIL", b"RCPT", b"DATA")):
                    self.messages.append(line)
                    s.sendall(b"250 ok\r\n")
                else:
                    s.sendall(next(words, "221 bye").encode() + b"\r\n")
        except OSError:
            pass
        finally:
            f.close()
            self.sockets.discard(s)
            s.close()


@unittest.skipUnless(os.geteuid() == 0, "a keytab is root's, and so is port 88")
class IntegratedOut(Zone):
    zone = ZONE
    by_dns = False

    def setUp(self):
        super().setUp()
        self.serve("zone.signed")
        self.realm = Realm("HORNTEST", "127.0.9.1", self.by_dns)
        self.addCleanup(self.realm.close)
        self.realm.user("us", "right", "+requires_preauth")
        self.realm.service("smtp/mx.horntest", self.realm.dir / "keytab")
        environment = mock.patch.dict(os.environ, {"KRB5_CONFIG": str(self.realm.dir / "krb5.conf")})
        environment.start()
        self.addCleanup(environment.stop)

    def horn(self, port, user, password, *settings):
        h = Horn([f"dns_servers=127.0.0.1@{self.port}", f"dns_trust_anchor_file={self.anchor}", "test_mode=yes"], ["retry_first=1s", "retry_second=1s", "retry_third=1s", "retry_subsequent=1s", "destination_probe=1s"])
        (h.root / "word").write_text(password + "\n")
        (h.root / "word").chmod(0o600)
        h.conf("-e", f"smart_host=[mx.horntest]:{port}", "relay=allow", "outbound_auth=integrated", f"outbound_user={user}", f"outbound_password_file={h.root}/word", *settings)
        return h

    def send(self, h, n=1):
        with h.client() as c:
            c.ask("EHLO x.example")
            for i in range(n):
                c.send("a@local.example", [f"b{i}@far.example"], TEXT, ehlo=False)

    def waits_for(self, h):
        return wait_for("it waits", lambda: [m for m in h.messages() if m["state"] == "deferred"])[0]["recipients"][0]["reason"]


class Outcomes(IntegratedOut):
    def test_kerberos(self):
        """Mail goes under the ticket's name; the ticket of tickets serves for more than one login; a new password has its own."""
        with Peer(self.realm, "GSSAPI") as peer, self.horn(peer.port, "us@HORNTEST", "right", "messages_per_connection=1") as h:
            for n in (1, 2, 3):
                self.send(h)
                wait_for("the mail", lambda: len(peer.sink.messages) == n)
            self.assertEqual(peer.logins(), [("GSSAPI", "us@horntest")] * 3)
            self.assertEqual((self.realm.requests("AS_REQ", "us@HORNTEST"), self.realm.requests("TGS_REQ", "us@HORNTEST")), (1, 3))
            self.realm.run("kadmin.local", "-r", "HORNTEST", "-q", "cpw -pw other us")
            (h.root / "word").write_text("other\n")
            h.run("posthorn", "-c", str(h.dir), "reload")
            self.send(h)
            wait_for("the mail", lambda: len(peer.sink.messages) == 4)
            self.assertEqual(self.realm.requests("AS_REQ", "us@HORNTEST"), 2)
            self.assertNotIn("right", h.log())

    def test_keys_that_change(self):
        """Of the service: no ticket from before is shown to it.  Of the realm: a new ticket of tickets is fetched."""
        with Peer(self.realm, "GSSAPI") as peer, self.horn(peer.port, "us@HORNTEST", "right", "messages_per_connection=1") as h:
            self.send(h)
            wait_for("the mail", lambda: len(peer.sink.messages) == 1)
            (self.realm.dir / "keytab").unlink()
            self.realm.run("kadmin.local", "-r", "HORNTEST", "-q", f"ktadd -k {self.realm.dir}/keytab smtp/mx.horntest")
            shutil.copy(self.realm.dir / "keytab", peer.root / "keytab")
            before = peer.pids("gssd")
            peer.run("posthorn", "-c", str(peer.dir), "reload")
            wait_for("another gssd", lambda: peer.pids("gssd") != before and "GSSAPI" in peer.offer())
            self.send(h)
            wait_for("the mail", lambda: len(peer.sink.messages) == 2)
            self.assertEqual(self.realm.requests("AS_REQ", "us@HORNTEST"), 1)
            self.realm.run("kadmin.local", "-r", "HORNTEST", "-q", "cpw -randkey krbtgt/HORNTEST")
            self.send(h)
            wait_for("the mail", lambda: len(peer.sink.messages) == 3)
            self.assertEqual((self.realm.requests("AS_REQ", "us@HORNTEST"), h.drop()), (2, []))

    def test_ntlm(self):
        with Peer(self.realm, "NTLM") as peer, self.horn(peer.port, r"HORN\bob", "secret word") as h:
            self.send(h)
            wait_for("the mail", lambda: peer.sink.messages)
            self.assertEqual(peer.logins(), [("NTLM", "bob@horn")])
            self.assertNotIn("secret word", h.log())

    def test_which_of_both(self):
        """Kerberos where there is a ticket; NTLM where the realm's KDC does not know the name or is not there."""
        with Peer(self.realm, "GSSAPI", "NTLM") as peer:
            with self.horn(peer.port, "us@HORNTEST", "right") as h:
                self.send(h)
                wait_for("the mail", lambda: len(peer.sink.messages) == 1)
            with self.horn(peer.port, "carol@HORNTEST", "carols word") as h:
                self.send(h)
                wait_for("the mail", lambda: len(peer.sink.messages) == 2)
            self.realm.stop()
            try:
                with self.horn(peer.port, "carol@HORNTEST", "carols word") as h:
                    self.send(h)
                    wait_for("the mail", lambda: len(peer.sink.messages) == 3)
            finally:
                self.realm.start()
            self.assertEqual(peer.logins(), [("GSSAPI", "us@horntest"), ("NTLM", "carol@horntest"), ("NTLM", "carol@horntest")])

    def test_wrong_passwords(self):
        """The KDC's no keeps the mail, and NTLM is not tried with that password; the peer's no returns it."""
        with Peer(self.realm, "GSSAPI", "NTLM") as peer:
            self.realm.user("easy", "right") # its ticket is given to whoever asks, but can't be read
            for user in ("us", "easy"):
                with self.horn(peer.port, f"{user}@HORNTEST", "wrong") as h:
                    self.send(h)
                    self.assertIn(f"no login as {user}@HORNTEST: Kerberos: the password is wrong", self.waits_for(h))
            self.assertNotIn("login_failed", peer.log())
            with self.horn(peer.port, r"HORN\bob", "wrong") as h:
                self.send(h)
                report = wait_for("a report", h.drop)[0].read_bytes()
                self.assertIn(rb"(AUTH as HORN\bob)", report)
        self.assertFalse(peer.sink.messages)

    def test_nobody_to_ask(self):
        with Peer(self.realm, "GSSAPI") as peer:
            self.realm.stop()
            try:
                with self.horn(peer.port, "us@HORNTEST", "right") as h:
                    self.send(h)
                    self.assertIn("no login as us@HORNTEST: no KDC of HORNTEST: Connection refused", self.waits_for(h))
                    self.realm.start()
                    wait_for("the mail", lambda: peer.sink.messages)
            finally:
                if self.realm.kdc.poll() is not None:
                    self.realm.start()
            for user, why in (("us@ELSEWHERE.HORNTEST", "neither krb5.conf nor the DNS names one"), (r"HORNTEST\us", "no Kerberos: outbound_user is not USER@REALM; no NTLM: the peer does not offer it"),
                              ("nobody@HORNTEST", "Kerberos: Client 'nobody@HORNTEST' not found")):
                with self.horn(peer.port, user, "right") as h:
                    self.send(h)
                    self.assertIn(why, self.waits_for(h))

    def test_one_kdc_after_the_other(self):
        """One says a length beyond all bounds, one hangs up, one is not there, the last one answers; an answer that is none ends the login only."""
        with Listener(b"\xff\xff\xff\xff") as huge, Listener(b"") as short, Listener(b"\0\0\0\4junk") as junk, Peer(self.realm, "GSSAPI") as peer:
            conf = self.realm.dir / "krb5.conf"
            real = f"kdc = 127.0.9.1:{self.realm.port}"
            usual = conf.read_text()
            for kdcs, why in (([huge.port, short.port, free_port()], None), ([junk.port], "Kerberos: ")):
                conf.write_text(usual.replace(real, "\n".join([f"kdc = 127.0.0.1:{p}" for p in kdcs] + [real])))
                with self.horn(peer.port, "us@HORNTEST", "right") as h:
                    before = h.pids("gssc")
                    self.send(h)
                    if why:
                        self.assertIn(why, self.waits_for(h))
                    else:
                        wait_for("the mail", lambda: len(peer.sink.messages) == 1)
                    self.assertEqual(h.pids("gssc"), before)
            self.assertEqual((huge.heard > 0, short.heard > 0, junk.heard > 0), (True, True, True))

    def test_another_server_in_its_place(self):
        """Without the service's key nobody gets the mail, though it says yes to everything."""
        code = lambda b: "334 " + base64.b64encode(b).decode()
        for said, why in ((["235 2.7.0 welcome"], "the peer did not prove"), ([code(b"x" * 80), "235 2.7.0 welcome"], "GSSAPI: "), (["334 ", "235 2.7.0 welcome"], "GSSAPI: ")):
            with Impostor("GSSAPI", "334 ", *said) as sink, self.horn(sink.port, "us@HORNTEST", "right", "outbound_auth_cleartext=yes") as h:
                self.send(h)
                self.assertIn(f"no login as us@HORNTEST: {why}", self.waits_for(h), said)
                self.assertFalse(sink.messages)

    def test_challenges_that_are_damaged(self):
        """What would end a process by gss-ntlmssp (tests/unit/gss_test.c) ends the login only."""
        whole = (TREE / "tests/fuzz/corpus/ntlm/whole").read_bytes()
        for challenge in (b"", whole[:90], whole[:12] + b"\0" + whole[13:]):
            with Impostor("NTLM", "334 " + base64.b64encode(challenge).decode(), "235 2.7.0 welcome") as sink, self.horn(sink.port, r"HORN\bob", "right", "outbound_auth_cleartext=yes") as h:
                before = h.pids("gssc")
                self.send(h)
                self.assertIn("NTLM: the peer's challenge is damaged", self.waits_for(h))
                self.assertEqual(h.pids("gssc"), before)
                self.assertFalse(sink.messages)

    def test_processes_that_die(self):
        """gssc and authd killed under logins: nothing is lost or sent twice."""
        with Peer(self.realm, "GSSAPI", "NTLM") as peer, self.horn(peer.port, "us@HORNTEST", "right", "messages_per_connection=1") as h:
            for role in ("gssc", "authd", "gssc", "resolver", "gssc"):
                self.send(h, 8)
                os.kill(wait_for(role, lambda: h.pids(role))[0], signal.SIGKILL)
            self.send(h, 8)
            wait_for("all mail", lambda: len(peer.sink.messages) >= 48, 60)
            self.assertEqual(len(peer.sink.messages), 48)
            self.assertEqual({m for m, _ in peer.logins()}, {"GSSAPI"})

    def test_it_is_there_where_it_is_needed(self):
        h = Horn()
        with h:
            self.assertFalse(h.pids("gssc"))
            (h.root / "word").write_text("word\n")
            h.conf("-e", "smart_host=[192.0.2.1]", "outbound_auth=integrated", "outbound_user=us@HORNTEST", f"outbound_password_file={h.root}/word")
            h.run("posthorn", "-c", str(h.dir), "reload")
            wait_for("gssc", lambda: h.pids("gssc"))

    def test_what_is_not_to_be_had_is_said(self):
        """Without gss-ntlmssp, with a krb5.conf that only root may read."""
        hidden = self.realm.dir / "hidden.conf"
        hidden.write_text((self.realm.dir / "krb5.conf").read_text())
        hidden.chmod(0o600)
        with Peer(self.realm, "GSSAPI", "NTLM") as peer, mock.patch.dict(os.environ, {"GSS_MECH_CONFIG": "/nowhere", "KRB5_CONFIG": str(hidden)}), self.horn(peer.port, r"HORN\bob", "secret word") as h:
            self.send(h)
            self.assertIn("no NTLM: the package gss-ntlmssp is missing", self.waits_for(h))
            self.assertIn("no_ntlm", h.log())
            self.assertIn(f"krb5_unreadable: file={hidden}, reason=Permission denied", h.log())

    def test_postfix_and_dovecot(self):
        os.chown(self.realm.dir / "keytab", pwd.getpwnam("dovecot").pw_uid, 0)
        dovecot = DovecotAuth({}, "gssapi", f"auth_krb5_keytab = {self.realm.dir}/keytab\nauth_gssapi_hostname = mx.horntest\nimport_environment = KRB5_CONFIG={self.realm.dir}/krb5.conf")
        self.addCleanup(dovecot.close)
        d = dovecot.dir
        subprocess.run(["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-days", "9", "-subj", "/CN=pf.example", "-keyout", d / "key", "-out", d / "crt"],
                       check=True, capture_output=True)
        with Sink() as sink:
            postfix = Postfix(sink.port, "smtpd_sasl_auth_enable = yes", "smtpd_sasl_type = dovecot", f"smtpd_sasl_path = {d}/auth", "smtpd_tls_security_level = may", f"smtpd_tls_cert_file = {d}/crt",
                              f"smtpd_tls_key_file = {d}/key", "smtpd_relay_restrictions = permit_sasl_authenticated, reject")
            try:
                with self.horn(postfix.port, "us@HORNTEST", "right") as h:
                    self.send(h)
                    wait_for("the mail", lambda: sink.messages)
                    self.assertRegex(postfix.log(), r"sasl_method=GSSAPI, sasl_username=us")
            except AssertionError:
                print(postfix.log()[-2000:], (d / "log").read_text()[-2000:])
                raise
            finally:
                postfix.stop()


class ByDns(IntegratedOut):
    by_dns = True

    def test_the_dns_names_the_kdc(self):
        """RFC 4120 7.2.3.2: the first of two is not there."""
        with Peer(self.realm, "GSSAPI") as peer, self.horn(peer.port, "us@HORNTEST", "right") as h:
            self.send(h)
            wait_for("the mail", lambda: peer.sink.messages)
            self.assertEqual(peer.logins(), [("GSSAPI", "us@horntest")])


if __name__ == "__main__":
    unittest.main()
