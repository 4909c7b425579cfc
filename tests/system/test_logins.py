"""Each mechanism of a login and each way in which it fails: the answers that docs/logins.md lists; clients that test_auth.py,
test_integrated.py and test_external.py have not: Dovecot's submission relay, msmtp with Kerberos."""
import base64
import os
import pathlib
import pwd
import shutil
import signal
import smtplib
import ssl
import subprocess
import tempfile
import unittest

from certs import Authority
from horn import TMP, TREE, Horn, Sink, free_port, remote, wait_for
from kdc import Realm

TEXT = b"From: alice@local.example\r\nSubject: hello\r\n\r\nA line.\r\n"


def code(text):
    return base64.b64encode(text.encode("latin-1")).decode()


NEGOTIATE = "TlRMTVNTUAABAAAAB4IIogAAAAAAAAAAAAAAAAAAAAAGAbEdAAAADw=="
SCRAM = code("n,,n=alice,r=fyko+d2lbbFgONRv9qkxdawL")
PLUS = code("p=tls-exporter,,n=alice,r=fyko+d2lbbFgONRv9qkxdawL")
# mechanism: what is said with AUTH and after it by somebody who has no right to come in
WRONG = {
    "PLAIN": [code("\0alice\0wrong")],
    "LOGIN": ["", code("alice"), code("wrong")],
    "SCRAM-SHA-256": [SCRAM, "proof"],
    "SCRAM-SHA-256-PLUS": [PLUS, "proof"],
    "CRAM-MD5": ["", code("alice 00112233445566778899aabbccddeeff")],
    "GSSAPI": [code("x" * 400)],
    "GS2-KRB5": [code("x" * 400)],
    "NTLM": ["", NEGOTIATE, code("NTLMSSP\0\3\0\0\0" + "\0" * 80)],
    "EXTERNAL": [code("bob@local.example")],
}
CASES = ("wrong", "cancelled", "no base64", "oversized", "without TLS")


@unittest.skipUnless(os.geteuid() == 0, "a keytab is root's")
class Logins(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.place = pathlib.Path(tempfile.mkdtemp(prefix="logins-", dir=TMP))
        cls.addClassCleanup(shutil.rmtree, cls.place, True)
        cls.realm = Realm()
        cls.addClassCleanup(cls.realm.close)
        cls.realm.user("alice", "secret")
        cls.realm.service("smtp/mx.horn.example", cls.realm.dir / "keytab")
        ca = Authority(cls.place)
        cls.alice = ca.leaf("alice", more="extendedKeyUsage=clientAuth\n", names="email:alice@local.example")
        cls.sink = Sink()
        cls.addClassCleanup(cls.sink.close)
        cls.submission = free_port()
        h = cls.h = Horn(["test_mode=yes", f"auth_keytab_file={cls.realm.dir}/keytab"], ["auth_default_domain=local.example", "auth_failure_delay=0s", f"tls_client_ca_file={ca.crt}", "trusted_networks=127.0.0.0/8",
                         "auth_mechanisms_extra=external cram-md5", f"listen_submission=127.0.0.1:{cls.submission}"], [remote(cls.sink)])
        users = h.root / "ntlm"
        users.write_text("HORN:bob:secret word\n")
        os.chmod(users, 0o640)
        os.chown(users, 0, pwd.getpwnam("posthorn-gss").pw_gid)
        h.conf("-e", f"auth_ntlm_file={users}")
        h.run("hornpasswd", "-c", str(h.dir), "add", "--cram-md5", "alice", input=b"secret\n")
        cls.addClassCleanup(h.__exit__, None)
        h.start()
        wait_for("all mechanisms", lambda: cls.offers() == set(WRONG))

    @classmethod
    def session(cls, tls=True):
        context = ssl._create_unverified_context()
        context.load_cert_chain(*cls.alice)
        s = smtplib.SMTP("127.0.0.1", cls.h.port, timeout=60)
        s.ehlo("x")
        if tls:
            s.starttls(context=context)
            s.ehlo("x")
        return s

    @classmethod
    def offers(cls):
        with cls.session() as s:
            return set(s.esmtp_features.get("auth", "").split())

    def answer(self, mechanism, case):
        with self.session(case != "without TLS") as s:
            said = {"cancelled": ["", "*"], "no base64": ["===="], "oversized": ["", "A" * 12292], "without TLS": WRONG[mechanism], "wrong": WRONG[mechanism]}[case]
            for word in said:
                if word == "proof":
                    got = dict(p.split("=", 1) for p in base64.b64decode(reply[4:]).decode().split(","))
                    binding = "biws" if mechanism == "SCRAM-SHA-256" else code("p=tls-exporter,," + "x" * 32)
                    word = code(f"c={binding},r={got['r']},p={code('x' * 32)}")
                number, text = s.docmd("AUTH", f"{mechanism} {word}".strip()) if word is said[0] else s.docmd(word)
                reply = f"{number} {text.decode()}"
                if number != 334:
                    break
            again = s.docmd("NOOP")[0] if number != 421 else 250 # the session goes on
            self.assertEqual(again, 250, (mechanism, case, reply))
        return reply

    def test_the_page_has_each_answer(self):
        page = (TREE / "docs/logins.md").read_text()
        for mechanism in WRONG:
            answers = [self.answer(mechanism, case) for case in CASES]
            with self.subTest(mechanism):
                self.assertIn(f"| {mechanism} | {' | '.join(answers)} |", page)

    def test_msmtp_by_kerberos(self):
        """Its host is the ticket's: a mount namespace has an /etc/hosts of its own."""
        hosts = self.place / "hosts"
        hosts.write_text("127.0.0.1 mx.horn.example localhost\n")
        self.realm.ticket("alice", "secret")
        done = subprocess.run(["unshare", "-m", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', hosts, "msmtp", "-C", "/dev/null", "--host=mx.horn.example", f"--port={self.h.port}", "--auth=gssapi",
                               "--user=alice", "--tls=on", "--tls-starttls=on", "--tls-certcheck=off", "--from=alice@local.example", "b@sink.example"],
                              env=self.realm.env, input=TEXT.replace(b"\r\n", b"\n"), capture_output=True, timeout=60)
        self.assertEqual(done.returncode, 0, done)
        wait_for("the mail", lambda: [m for m in self.sink.messages if "b@sink.example" in m[1][0]])
        self.assertIn("sasl_method=GSSAPI, sasl_username=alice@horn.test, status=good", self.h.log())

    def test_dovecots_submission_relay(self):
        """Its user logs in at Dovecot, and Dovecot at the port of submission."""
        with Relay(self.h.root, self.submission) as relay:
            with smtplib.SMTP("127.0.0.1", relay.port, timeout=60) as s:
                s.ehlo("x")
                s.login("user", "word")
                s.sendmail("alice@local.example", ["d@sink.example"], TEXT)
        wait_for("the mail", lambda: [m for m in self.sink.messages if "d@sink.example" in m[1][0]])
        self.assertIn("sasl_method=PLAIN, sasl_username=alice@local.example, status=good", self.h.log())


class Relay:
    """Dovecot's submission service on a port of loopback; it relays by STARTTLS and a login."""

    def __init__(self, place, to):
        self.dir = d = place / "relay"
        d.mkdir()
        os.chmod(d, 0o755)
        self.port = free_port()
        (d / "conf").write_text(f"""base_dir = {d}/run
state_dir = {d}
log_path = {d}/log
protocols = submission
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
hostname = dovecot.example
mail_location = maildir:{d}/mail
mail_uid = nobody
mail_gid = nogroup
first_valid_uid = 1
submission_relay_host = 127.0.0.1
submission_relay_port = {to}
submission_relay_ssl = starttls
submission_relay_ssl_verify = no
submission_relay_user = alice
submission_relay_password = secret
passdb {{
  driver = static
  args = password=word
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={d}
}}
service submission-login {{
  chroot =
  inet_listener submission {{
    port = {self.port}
  }}
}}
""")

    def __enter__(self):
        self.process = subprocess.Popen(["dovecot", "-F", "-c", self.dir / "conf"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)

        def answers():
            try:
                with smtplib.SMTP("127.0.0.1", self.port, timeout=10) as s:
                    return s.noop()[0] == 250
            except OSError:
                return False
        wait_for("Dovecot", answers)
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            print((self.dir / "log").read_text(), (self.dir.parent / "mail.log").read_text()[-600:])
        self.process.terminate()
        self.process.wait()
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


if __name__ == "__main__":
    unittest.main()
