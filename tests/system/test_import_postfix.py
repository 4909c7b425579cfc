"""horn-import-postfix: the configuration that Postfix's files become, and mail that waits in Postfix's queue."""
import contextlib
import json
import smtplib
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from horn import BUILD, TMP, Horn, Sink, wait_for
from postfix import Postfix

MAIN = """myhostname = mx.shop.example
mydomain = shop.example
myorigin = $mydomain
mydestination = $myhostname, $mydomain, localhost.$mydomain,
# a comment within
   localhost, ${myhostname?{two}:{three}}.example
mynetworks = 127.0.0.0/8 [::1]/128 10.1.0.0/16, hash:/etc/postfix/networks
relayhost = [smtp.provider.example]:587
smtp_sasl_auth_enable = yes
smtp_sasl_password_maps = texthash:{DIR}/sasl
smtp_tls_security_level = encrypt
smtp_tls_policy_maps = hash:{DIR}/policy
transport_maps = hash:{DIR}/transport
relay_domains = partner.example
relay_recipient_maps = hash:{DIR}/partners
virtual_mailbox_domains = box.example
virtual_mailbox_base = /srv/mail
virtual_mailbox_maps = hash:{DIR}/boxes
virtual_uid_maps = static:8
virtual_alias_maps = hash:{DIR}/virtual, ldap:{DIR}/ldap.cf
smtpd_recipient_restrictions = permit_mynetworks, check_recipient_access hash:{DIR}/access, reject_rbl_client zen.example
smtpd_tls_cert_file = /etc/ssl/certs/mx.pem
smtpd_tls_key_file = /etc/ssl/private/mx.key
smtpd_tls_security_level = may
smtpd_milters = inet:localhost:8891
smtpd_client_message_rate_limit = 100
maximal_queue_lifetime = 3
recipient_delimiter = +-
home_mailbox = Maildir/
alias_maps = hash:{DIR}/aliases
biff = no
maillog_file = /var/log/x
strange_name = 1
"""
MASTER = """smtp inet n - y - - smtpd
10.1.0.1:2525 inet n - y - - smtpd
submission inet n - y - - smtpd
  -o syslog_name=postfix/submission
  -o smtpd_tls_security_level=encrypt
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
smtps inet n - y - - smtpd
  -o smtpd_tls_wrappermode=yes
  -o content_filter=x
pickup unix n - y 60 1 pickup
filter unix - n n - - pipe
  user=filter argv=/usr/bin/filter
"""
TABLES = {"sasl": "[smtp.provider.example]:587 user@shop.example:pass:word\nother.example a:b\n", "policy": "bank.example secure match=x\n",
          "transport": "partner.example smtp:[10.1.0.5]:26\n.below.example relay:mx.below.example\nodd.example error:no\nbox2.example lmtp:unix:private/lmtp\n", "partners": "a@partner.example x\n",
          "boxes": "a@box.example box.example/a/\nb@box.example box.example/b/\n", "virtual": "alias.example x\ninfo@alias.example root\n", "access": "x OK\n", "aliases": "root: a\n"}
# what the files above say, in Posthorn's words
SERVER = {"fqdn": "mx.shop.example", "default_domain": "shop.example", "listen": "*:25, 10.1.0.1:2525", "listen_submission": "*:587", "listen_tls": "*:465", "smart_host": "[smtp.provider.example]:587",
          "relay_exceptions": "127.0.0.0/8 [::1]/128 10.1.0.0/16", "trusted_networks": "127.0.0.0/8 [::1]/128 10.1.0.0/16", "outbound_tls": "require", "outbound_auth": "basic",
          "outbound_user": "user@shop.example", "recipient_access_maps": "hash:{DIR}/access", "relay_recipient_maps": "hash:{DIR}/partners", "virtual_alias_maps": "hash:{DIR}/virtual",
          "tls_certificate_file": "/etc/ssl/certs/mx.pem", "tls_key_file": "/etc/ssl/private/mx.key", "client_message_rate": "100/60s", "expiry": "3d", "local_expiry": "3d", "recipient_delimiter": "+",
          "local_delivery": "maildir", "maildir": "Maildir", "alias_maps": "hash:{DIR}/aliases", "message_size_limit": "10240000B", "hop_limit": "50", "retry_first": "300s", "retry_subsequent": "4000s"}
DOMAINS = {"mx.shop.example": {"type": "alias"}, "two.example": {"type": "alias"}, "partner.example": {"type": "remote", "route": "[10.1.0.5]:26", "relay": "yes"},
           "*.partner.example": {"type": "remote", "relay": "yes"}, "*.below.example": {"type": "remote", "route": "mx.below.example"},
           "box2.example": {"type": "local", "local_delivery": "lmtp:unix:/var/spool/postfix/private/lmtp"}, "alias.example": {"type": "alias"},
           "box.example": {"type": "local", "local_delivery": "maildir", "maildir": "/srv/mail/%d/%u", "local_recipient_maps": "hash:{DIR}/boxes", "mailbox_user": "mail"},
           "bank.example": {"type": "remote", "outbound_tls": "verify", "outbound_dane": "no"}}
DIFFERS = ["master.cf: smtps inet smtpd", "recipient_delimiter = ", "smtp_sasl_password_maps: other.example", "virtual_alias_maps = ", "smtp_tls_policy_maps: bank.example", "maillog_file = "]
NONE = ["mynetworks = ", "transport_maps: odd.example", "smtpd_recipient_restrictions = ", "smtpd_milters = ", "strange_name = ", "master.cf: filter unix pipe"]


def program(*args):
    return subprocess.run([BUILD / "horn-import-postfix", *args], capture_output=True, timeout=120)


def sections(text):
    """The settings of a server's file: {"": its own, DOMAIN: ...}."""
    found, at = {"": {}}, ""
    for line in text.splitlines():
        if line.startswith("[domain "):
            at = line[8:-1]
            found[at] = {}
        elif " = " in line and line[0] != "#":
            name, value = line.split(" = ", 1)
            found[at][name] = value
    return found


class Files(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="import-", dir=TMP))
        self.addCleanup(shutil.rmtree, self.dir)
        self.write(MAIN, MASTER)
        for name, text in TABLES.items():
            (self.dir / name).write_text(text)

    def write(self, main, master):
        (self.dir / "main.cf").write_text(main.replace("{DIR}", str(self.dir)))
        (self.dir / "master.cf").write_text(master)

    def imported(self, *more):
        done = program("-c", self.dir / "horn", "--from", self.dir, "--json", *more)
        self.assertEqual(done.returncode, 0, done.stderr)
        return [json.loads(l) for l in done.stdout.splitlines()]

    def server(self):
        return sections((self.dir / "horn/servers/default.conf").read_text())

    def test_what_each_becomes(self):
        rows = self.imported()
        found = self.server()
        for name, value in SERVER.items():
            self.assertEqual(found[""].get(name), value.replace("{DIR}", str(self.dir)), name)
        del found[""]
        self.assertEqual(found, {d: {n: v.replace("{DIR}", str(self.dir)) for n, v in s.items()} for d, s in DOMAINS.items()})
        password = self.dir / "horn/smart_host.password"
        self.assertEqual((password.read_text(), password.stat().st_mode & 0o777), ("pass:word\n", 0o600))
        for fate, begins in (("differs", DIFFERS), ("none", NONE)):
            for begin in begins:
                self.assertTrue([r for r in rows if r["fate"] == fate and r["what"].startswith(begin)], begin)
        for line in MAIN.splitlines(): # nothing is passed over in silence
            name = line.split(" = ")[0]
            if " = " in line:
                self.assertTrue([r for r in rows if r["what"].startswith(name + " = ")], name)
        self.assertNotIn("pass:word", json.dumps(rows))
        check = subprocess.run([BUILD / "hornconf", "-c", self.dir / "horn", "check"], capture_output=True)
        self.assertEqual(check.returncode, 0, check.stderr)

    def test_a_report_writes_nothing_and_a_configuration_is_not_written_over(self):
        self.imported("--report")
        self.assertFalse((self.dir / "horn").exists())
        self.imported()
        before = (self.dir / "horn/servers/default.conf").read_bytes()
        done = program("-c", self.dir / "horn", "--from", self.dir)
        self.assertEqual(done.returncode, 73)
        self.assertIn(b"not written over", done.stderr)
        self.assertEqual((self.dir / "horn/servers/default.conf").read_bytes(), before)

    def test_a_null_client_delivers_nothing_for_the_domain_that_is_elsewhere(self):
        self.write("myhostname = web.shop.example\nmyorigin = shop.example\nmydestination =\nrelayhost = mail.shop.example\ninet_interfaces = loopback-only\ninet_protocols = ipv4\n", MASTER.split("10.1")[0])
        rows = self.imported()
        own = self.server()[""]
        self.assertEqual({n: own.get(n) for n in ("default_domain", "masquerade_domain", "smart_host", "listen")},
                         {"default_domain": "web.shop.example", "masquerade_domain": "shop.example", "smart_host": "mail.shop.example", "listen": "127.0.0.1:25"})
        self.assertTrue([r for r in rows if r["fate"] == "differs" and r["what"].startswith("mydestination = ")])

    def test_who_may_relay_is_said_by_one_list(self):
        """smtpd_relay_restrictions, or where it is empty smtpd_recipient_restrictions, up to the first refusal: what permits elsewhere permits no relaying."""
        for main, networks, logins in (("", "10.0.0.0/8", "yes"), ("smtpd_relay_restrictions = permit_sasl_authenticated, reject_unauth_destination\nsmtpd_client_restrictions = permit_mynetworks\n", None, "yes"),
                                       ("smtpd_relay_restrictions = defer_unauth_destination, permit_mynetworks\n", None, "no"),
                                       ("smtpd_relay_restrictions =\nsmtpd_recipient_restrictions = permit_mynetworks, reject_unauth_destination\n", "10.0.0.0/8", "no")):
            with self.subTest(main):
                shutil.rmtree(self.dir / "horn", ignore_errors=True)
                self.write(f"myhostname = mx.shop.example\nmynetworks = 10.0.0.0/8\n{main}", MASTER.split("10.1")[0])
                self.imported()
                own = self.server()[""]
                self.assertEqual((own.get("relay_exceptions"), own.get("relay_authenticated")), (networks, logins))

    def test_what_is_not_good_as_a_whole_leaves_nothing(self):
        """Two certificates and one key: each for itself is a value that Posthorn takes."""
        self.write(MAIN + "smtpd_tls_cert_file = /a.pem, /b.pem\n", MASTER)
        done = program("-c", self.dir / "horn", "--from", self.dir)
        self.assertEqual((done.returncode, b"go together" in done.stderr), (78, True), done.stderr)
        self.assertEqual([p for p in (self.dir / "horn").rglob("*") if p.is_file()], [])

    def test_what_cannot_be_used_is_left_out_and_told(self):
        """A bad value of one parameter costs that one alone; what is no configuration at all is refused."""
        self.write("myhostname = mx.shop.example\nsmtpd_timeout = long\nrelayhost = [a b]:x\nhopcount_limit = 1000000\nno line\n", MASTER.split("10.1")[0])
        rows = self.imported()
        own = self.server()[""]
        self.assertEqual([own.get(n) for n in ("connection_timeout", "smart_host", "hop_limit")], [None] * 3)
        self.assertEqual(sorted(r["what"].split(" ")[0] for r in rows if "is not taken" in r["text"]), ["hopcount_limit", "relayhost", "smtpd_timeout"])
        self.assertEqual(program("-c", self.dir / "other", "--from", self.dir / "none").returncode, 66)
        self.assertFalse((self.dir / "other").exists())


TEXT = b"Received: from x\r\nFrom: a@shop.example\r\nX-Number: 1\r\nSubject: \xc3\xa9\r\n\r\n.dot\r\n" + b"long " * 900 + b"\r\n\xff\x00\x01\r\n\r\nlast\r\n"


@unittest.skipUnless(os.geteuid() == 0, "Postfix wants root")
class Queue(unittest.TestCase):
    """Mail waits in a Postfix whose next hop takes one recipient of two; then Posthorn has it."""

    def fill(self, pf):
        with smtplib.SMTP("127.0.0.1", pf.port) as s:
            s.sendmail("a@shop.example", ["done@far.example", "wait1@far.example", '"b c"@far.example'], TEXT)
            s.sendmail("", ["null@far.example"], b"Subject: null\r\n\r\nx\r\n")
            s.sendmail("a@shop.example", ["on-hold@far.example"], b"Subject: hold\r\n\r\nx\r\n")
        subprocess.run(["sendmail", "-C", pf.dir / "conf", "-f", "b@shop.example", "local@far.example"], input=b"Subject: by sendmail\n\nx\n", check=False, capture_output=True,
                       env={**os.environ, "MAIL_CONFIG": str(pf.dir / "conf")})

    def files(self, pf, place):
        return [p for p in (pf.dir / "queue" / place).rglob("*") if p.is_file()]

    def end_postfix(self, pf):
        subprocess.run(["postfix", "-c", pf.dir / "conf", "stop"], capture_output=True, timeout=60)
        pid = pf.dir / "queue/pid/master.pid"
        wait_for("Postfix ended", lambda: not pid.exists() or not pathlib.Path(f"/proc/{pid.read_text().strip()}").exists())

    def handed_in(self, h, pf, *more):
        """What the import puts into maildrop, by name; the queue is put back as it was."""
        shutil.copytree(pf.dir / "queue", pf.dir / "kept", symlinks=True, ignore=shutil.ignore_patterns("public", "private"))
        done = program("-c", h.dir, "--from", pf.dir / "conf", "--queue", *more)
        drop = h.dir / "spool/maildrop"
        found = {p.name: p.read_bytes() for p in drop.iterdir() if p.is_file()}
        for p in drop.iterdir():
            if p.is_file():
                p.unlink()
        shutil.rmtree(pf.dir / "queue")
        shutil.move(pf.dir / "kept", pf.dir / "queue")
        return done, found

    def test_waiting_mail(self):
        hop = Sink(lambda stage, text, n: "451 4.3.0 later" if stage == "rcpt" and "done@" not in text else None)
        self.addCleanup(hop.close)
        pf = Postfix(hop.port, "minimal_backoff_time = 1h", "maximal_backoff_time = 1h")
        self.addCleanup(pf.stop)
        with contextlib.closing(Sink()) as sink, Horn(["test_mode=yes"], [f"smart_host=[127.0.0.1]:{sink.port}"]) as h:
            self.fill(pf)
            wait_for("all wait", lambda: len(self.files(pf, "deferred")) >= 3)
            held = next(p for p in self.files(pf, "deferred") if b"on-hold@" in p.read_bytes())
            subprocess.run(["postsuper", "-c", pf.dir / "conf", "-h", held.name], check=True, capture_output=True)
            done = program("-c", h.dir, "--from", pf.dir / "conf", "--queue")
            self.assertEqual((done.returncode, b"Postfix is running" in done.stderr), (75, True))
            self.end_postfix(pf)
            h.stop()
            done, direct = self.handed_in(h, pf, "--direct")
            self.assertEqual(done.returncode, 0, done.stderr)
            done, through = self.handed_in(h, pf) # postcat's words are the control of our own reading
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(direct, through)
            self.assertEqual(len(self.handed_in(h, pf, "--held")[1]), len(direct) + 1)
            bad = self.files(pf, "deferred")[0]
            kept, mode = bad.read_bytes(), bad.stat().st_mode
            bad.write_bytes(kept[:-40]) # one without its end stays where it is
            done, found = self.handed_in(h, pf, "--direct")
            self.assertEqual((done.returncode, len(found), b"left there: it has no end" in done.stdout), (65, len(direct) - 1, True))
            bad.write_bytes(kept)
            done = program("-c", h.dir, "--from", pf.dir / "conf", "--queue")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(len(list((pf.dir / "queue/posthorn").iterdir())), len(direct))
            self.assertEqual(self.files(pf, "deferred"), [])
            h.start()
            wait_for("all delivered", lambda: len(sink.messages) == len(direct))
            found = sorted((m[0].split("<")[1].split(">")[0], sorted(r.split("<")[1].split(">")[0] for r in m[1])) for m in sink.messages)
            self.assertEqual(found, [("", ["null@far.example"]), ("a@shop.example", ['"b c"@far.example', "wait1@far.example"]), ("b@shop.example", ["local@far.example"])])
            body = next(m[2] for m in sink.messages if len(m[1]) == 2)
            self.assertTrue(body.endswith(TEXT.split(b"\r\n\r\n", 1)[1]), body[-200:])
            self.assertIn(b"\r\nX-Number: 1\r\n", body)
            again = program("-c", h.dir, "--from", pf.dir / "conf", "--queue")
            self.assertIn(b"no message waits there", again.stdout)


if __name__ == "__main__":
    unittest.main()
