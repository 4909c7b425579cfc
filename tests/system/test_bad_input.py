"""Bad input of each kind: what is answered, what the log says, what happens to the mail.  docs/bad-input.md is this table."""
import os
import pathlib
import re
import unittest

from horn import Horn, TREE, wait_for
from test_aliases import WithUser

TEXT = b"From: a@example.org\r\nTo: b@example.org\r\nSubject: hello\r\n\r\nA line."
WAITS, RETURNED, DELIVERED = "waits", "returned", "delivered"

# parameter or section: value: what hornconf says
CONFIGURED = {
    "alias_maps=aliases": "write TYPE:FILE with an absolute FILE",
    "alias_maps=dbm:/etc/aliases": "write TYPE:FILE with an absolute FILE",
    "virtual_alias_maps=inline:{ a = b": "write TYPE:FILE with an absolute FILE",
    "catch_all=nobody": "a mail address with its domain is needed",
    "smart_host=[192.0.2.300]": "write [ADDR], [NAME] or NAME",
    "smart_host=host.example:0": "write [ADDR], [NAME] or NAME",
    "local_delivery=mailbox": "write drop, maildir, mbox",
    "etrn_clients=example": "write addresses, ADDR/BITS or ADDR/MASK",
    "expiry=5": "5 has no unit: write 5m or s",
    "tls_certificate_file=mx.crt": "write absolute paths",
    "tls_certificate_file=/a.crt": "as many keys as certificates, or none of both",
    "tls_sni=mx.example=/a.crt": "write NAME=/CERTIFICATE:/KEY",
    "tls_minimum_bits=112": "128",
    "outbound_tls=dane": "opportunistic none require verify dane-only",
    "outbound_auth=basic": "needs outbound_user and one outbound_password_file",
    "outbound_auth=integrated": "needs outbound_user and one outbound_password_file",
    "dns_servers=127.0.0.1:53": "write ADDR or ADDR@PORT",
    "dns_servers=127.0.0.1 ::1@0": "write ADDR or ADDR@PORT",
    "auth_backend=shadow": "write file, pam, sql, ldap or dovecot:/SOCKET",
    "proxy_clients=lb.example": "write addresses, ADDR/BITS or ADDR/MASK",
    "sender_login_map=logins": "write TYPE:FILE with an absolute FILE",
}
# text for hornmap build: its words; the table that was there stays
TABLES = {
    ("hash", "key\n"): ":1: nothing behind the name",
    ("cdb", "a b\na c\n"): ":2: a is there twice",
    ("btree", "\n# x\n\"open quote\n"): ":3: nothing behind the name",
    ("aliases", "root alice\n"): ":1: no colon behind the name",
    ("regexp", "/a(/ x\n"): ":1: ",
    ("pcre", "/a/ x\n/b/z y\n"): ":2: no such flag: z",
    ("regexp", "if /a/\n/b/ x\n"): ":2: if and endif do not match",
}
# the right side of an alias: words of the reason, what happens to the mail
ALIASES = {
    "openquote": ('"|cat', "malformed", WAITS),
    "emptycommand": ("|", "malformed", WAITS),
    "noaddress": ("two words", "is no address", WAITS),
    "missinglist": (":include:@DIR@/nowhere", "No such file", WAITS),
    "relativelist": (":include:list", "the whole path is needed", WAITS),
    "listrunning": (":include:@DIR@/running", "commands and files are not taken from there", RETURNED),
    "listinglist": (":include:@DIR@/itself", "nested too deep", RETURNED),
    "nocommand": ('"|@DIR@/not-there"', "the command was not found", RETURNED),
    "busycommand": ('"|exit 75"', "status 75", WAITS),
    "nofile": ("@DIR@/no/such/dir/file", "No such file", WAITS),
    "circle": ("circle2", "mail forwarding loop", RETURNED),
    "circle2": ("circle", "mail forwarding loop", RETURNED),
    "nouser": ("no-such-user-here", "no user of this machine has that name", RETURNED),
}
# ~/.forward: mode, text, words in the log, what happens to the mail
FORWARDS = [
    (0o666, "away@sink.example\n", ".forward may be written by others: it was not followed", DELIVERED),
    (0o644, '"|cat\n', "malformed", RETURNED),
    (0o644, "", "delivered to maildir", DELIVERED),
    (0o644, "# nothing\n", "delivered to maildir", DELIVERED),
    (0o644, '"|exit 69"\n', "service unavailable", RETURNED),
    (0o644, "x y\n", "is no address", WAITS),
    (0o644, "a" * 70000 + "\n", ".forward is too large: it was not followed", DELIVERED),
]


class BadInput(unittest.TestCase):
    def test_what_is_written_into_the_configuration(self):
        h = Horn()
        try:
            before = (h.dir / "servers/default.conf").read_bytes()
            for setting, words in CONFIGURED.items():
                done = h.conf("-e", setting, check=False)
                self.assertNotEqual(done.returncode, 0, setting)
                self.assertIn(words, done.stderr.decode(), setting)
            self.assertEqual((h.dir / "servers/default.conf").read_bytes(), before)
        finally:
            h.__exit__(None)

    def test_tables_that_are_missing_or_old_are_warned_of(self):
        h = Horn()
        try:
            text = h.root / "al"
            text.write_text("a: b\n")
            h.conf("-e", f"alias_maps=hash:{text},regexp:{h.root}/nowhere")
            h.conf("domain", "add", "inherits.example", "type=local")
            def warnings():
                return [line for line in h.conf("check").stderr.decode().splitlines() if "_maps" in line]
            self.assertEqual([w.split("warning: ")[1] for w in warnings()],
                             [f"alias_maps: {text}.db: No such file or directory: newaliases makes it; mail that needs it waits",
                              f"alias_maps: {h.root}/nowhere: No such file or directory; mail that needs it waits"])
            h.run("newaliases", "-C", str(h.dir))
            self.assertEqual(len(warnings()), 1)
            os.utime(text, (text.stat().st_mtime + 60,) * 2)
            self.assertIn(f"alias_maps: {text} is newer than the hash table that is made of it: newaliases makes it", warnings()[0])
        finally:
            h.__exit__(None)

    def test_external_without_authorities_is_warned_of(self):
        h = Horn()
        try:
            said = lambda *settings: (h.conf("-e", *settings), h.conf("check").stderr)[1]
            self.assertIn(b"auth_mechanisms_extra = external, and no tls_client_ca_file", said("auth_mechanisms_extra=external"))
            self.assertNotIn(b"auth_mechanisms_extra", said(f"tls_client_ca_file={__file__}"))
        finally:
            h.__exit__(None)

    def test_authorities_that_are_missing_are_warned_of(self):
        """Without them a peer's certificate can't be verified: mail waits."""
        h = Horn()
        try:
            def warnings():
                return [line for line in h.conf("check").stderr.decode().splitlines() if "outbound_tls_ca_file" in line]
            h.conf("-e", "outbound_tls_ca_file=/nowhere/ca.pem")
            self.assertEqual(warnings(), [])
            h.conf("domain", "add", "bank.example", "type=remote", "outbound_tls=verify")
            self.assertIn("outbound_tls_ca_file /nowhere/ca.pem: No such file or directory: nobody is trusted", warnings()[0])
            h.conf("-e", f"outbound_tls_ca_file={__file__}")
            self.assertEqual(warnings(), [])
        finally:
            h.__exit__(None)

    def test_texts_of_tables(self):
        h = Horn()
        try:
            for n, ((kind, text), words) in enumerate(TABLES.items()):
                path = h.root / f"t{n}"
                path.write_text(text)
                spec = f"{'hash' if kind == 'aliases' else kind}:{path}"
                args = ["query", spec, "x"] if kind in ("regexp", "pcre") else ["build", *(["--aliases"] if kind == "aliases" else []), spec]
                done = h.run("hornmap", *args, check=False)
                self.assertIn(done.returncode, (65, 74), text)
                self.assertIn(str(path) + words, done.stderr.decode(), text)
                self.assertEqual([p.name for p in h.root.glob(f"t{n}*")], [f"t{n}"]) # nothing half made is left
        finally:
            h.__exit__(None)

    def fate(self, h, qid, words):
        """When the log has words about this message or what it became: what happened."""
        def said():
            lines = [line for line in h.log().splitlines() if words in line]
            return lines
        lines = wait_for(f"{words} in the log", said)
        return lines[-1]

    def test_aliases(self):
        h = Horn(["test_mode=yes"], ["local_delivery=maildir", "recipient_check=no"], [("back.example", "type=local", "local_delivery=drop")])
        d = h.root / "maps"
        d.mkdir()
        os.chmod(d, 0o755)
        (d / "running").write_text("|touch /tmp/never\n")
        (d / "itself").write_text(f":include:{d}/itself\n")
        (d / "aliases").write_text("".join(f"{name}: {right}\n".replace("@DIR@", str(d)) for name, (right, _, _) in ALIASES.items()))
        h.run("hornmap", "build", "--aliases", f"hash:{d}/aliases")
        h.conf("-e", f"alias_maps=hash:{d}/aliases")
        with h, h.client() as c:
            c.ask("EHLO x.example")
            for name, (_, words, fate) in ALIASES.items():
                before = len(h.drop())
                qid = c.send("me@back.example", f"{name}@local.example", TEXT, ehlo=False)
                with self.subTest(alias=name):
                    if fate == WAITS:
                        row = wait_for("deferred", lambda: [m for m in h.messages() if m["id"] == qid and m["state"] == "deferred"])[0]
                        self.assertIn(words, row["recipients"][0]["reason"])
                    else:
                        wait_for("returned", lambda: len(h.drop()) > before)
                        self.assertTrue(any(words.encode() in p.read_bytes() for p in h.drop()), [p.read_bytes() for p in h.drop()][-1])

    def test_an_alias_table_that_others_may_write_runs_nothing(self):
        h = Horn(["test_mode=yes"], ["local_delivery=maildir", "recipient_check=no"], [("back.example", "type=local", "local_delivery=drop")])
        d = h.root / "maps"
        d.mkdir()
        os.chmod(d, 0o755)
        (d / "aliases").write_text(f'a: "|touch {h.root}/ran"\n')
        h.run("hornmap", "build", "--aliases", f"hash:{d}/aliases")
        os.chmod(d / "aliases.db", 0o666)
        h.conf("-e", f"alias_maps=hash:{d}/aliases")
        with h, h.client() as c:
            c.send("me@back.example", "a@local.example", TEXT)
            report = wait_for("returned", h.drop)[0].read_bytes()
            self.assertIn(b"commands and files are not taken from there", report)
            self.assertFalse((h.root / "ran").exists())

    @unittest.skipIf(os.geteuid() != 0, "a user with a home of the test's own needs root")
    def test_forwards(self):
        h = WithUser(["test_mode=yes"], ["local_delivery=maildir"], [("back.example", "type=local", "local_delivery=drop")])
        home = h.root / "homes/walter"
        home.mkdir(parents=True)
        os.chmod(home.parent, 0o755)
        os.chown(home, 59999, 59999)
        with h, h.client() as c:
            c.ask("EHLO x.example")
            for mode, text, words, fate in FORWARDS:
                path = home / ".forward"
                path.write_text(text)
                os.chown(path, 59999, 59999)
                os.chmod(path, mode)
                reports, mails = len(h.drop()), len(list((home / "Maildir/new").glob("*")))
                qid = c.send("me@back.example", "walter@local.example", TEXT, ehlo=False)
                with self.subTest(forward=text[:20]):
                    wait_for(f"{words} about {qid}", lambda: any(qid in line and words in line for line in h.log().splitlines()))
                    if fate == DELIVERED:
                        wait_for("delivered", lambda: len(list((home / "Maildir/new").glob("*"))) == mails + 1)
                    elif fate == RETURNED:
                        wait_for("returned", lambda: len(h.drop()) == reports + 1)
                    else:
                        wait_for("it waits", lambda: [m for m in h.messages() if m["id"] == qid and m["state"] == "deferred"])

    def test_the_page_has_each_case(self):
        page = (TREE / "docs/bad-input.md").read_text()
        quoted = lambda s: s.replace("|", "\\|").replace("\n", "\\n")
        for setting, words in CONFIGURED.items():
            self.assertIn(f"| `{quoted(setting)}` | {words}", page)
        for (kind, text), words in TABLES.items():
            self.assertIn(f"| {kind}: `{quoted(text)}` | FILE{words}", page)
        for name, (right, words, fate) in ALIASES.items():
            self.assertIn(f"| `{quoted(right)}` | {words} | {fate} |", page)
        for mode, text, words, fate in FORWARDS:
            self.assertIn(f"| {mode:o} | `{quoted(text[:20])}` | {words} | {fate} |", page)


if __name__ == "__main__":
    unittest.main()
