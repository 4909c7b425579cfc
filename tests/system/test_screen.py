"""Access tables, canonical maps, header checks: what tables say of clients, senders, recipients and headers."""
import os
import unittest

from horn import Client, Horn, Sink, remote, wait_for

TEXT = b"From: Old Name <old@local.example>\r\nTo: team@local.example, \"x, y\" <keep@else.example>\r\nSubject: hello\r\nX-Secret: 1\r\n\r\nA line.\r\n"


class Screen(unittest.TestCase):
    def horn(self, tables, *server, **kw):
        """tables: parameter: (type, text)."""
        h = Horn(["test_mode=yes"], [*server], **kw)
        (h.root / "maps").mkdir()
        os.chmod(h.root / "maps", 0o755)
        for name, (kind, text) in tables.items():
            (h.root / "maps" / name).write_text(text)
            if kind in ("hash", "cdb"):
                h.run("hornmap", "build", f"{kind}:{h.root}/maps/{name}")
            h.conf("-e", f"{name}={kind}:{h.root}/maps/{name}")
        return h

    def test_access_tables_and_their_keys(self):
        tables = {"sender_access_maps": ("hash", "bad@x.example REJECT not you\nspam.example 550 5.7.1 no spam\npostmaster@ DEFER wait\n<> OK\n"),
                  "recipient_access_maps": ("cdb", "secret@local.example REJECT\nodd@local.example WHAT\nfiltered@local.example DISCARD\nlater@local.example HOLD\n")}
        with self.horn(tables) as h, h.client() as c:
            c.ask("EHLO x.example")
            for sender, code in (("bad@x.example", "554 5.7.1 Access denied not you"), ("bad+tag@x.example", "554"), ("a@spam.example", "554 5.7.1 Access denied no spam"), ("a@deep.spam.example", "554"),
                                 ("a@notspam.example", "250"), ("postmaster@any.example", "450 4.7.1 Not now, try again later wait"), ("", "250")):
                self.assertTrue(c.ask(f"MAIL FROM:<{sender}>").startswith(code), sender)
                c.ask("RSET")
            c.ask("MAIL FROM:<a@x.example>")
            for rcpt, code in (("secret@local.example", "554 5.7.1"), ("odd@local.example", "450 4.7.1"), ("good@local.example", "250")):
                self.assertTrue(c.ask(f"RCPT TO:<{rcpt}>").startswith(code), rcpt)
            c.ask("RSET")
            c.send("a@x.example", "filtered@local.example", TEXT[:-2], ehlo=False)
            wait_for("it is said", lambda: "discarded" in h.log())
            queued = c.send("a@x.example", "later@local.example", TEXT[:-2], ehlo=False)
            held = wait_for("held", lambda: [m for m in h.messages() if m["state"] == "held"])
            self.assertEqual((held[0]["id"], h.drop()), (queued, []))
            h.queue("release", queued)
            wait_for("delivered", lambda: len(h.drop()) == 1 and not h.messages())

    def test_a_client_is_refused_at_connect(self):
        with self.horn({"client_access_maps": ("hash", "127.0 REJECT not from here\n")}) as h:
            c = Client(h.port)
            self.assertEqual(c.greeting, "554 5.7.1 Access denied not from here")
            self.assertTrue(c.closed())
            c.s.close()
            (h.root / "maps/client_access_maps").write_text("127.0.0.1 OK\n127.0 REJECT\n")
            h.run("hornmap", "build", f"hash:{h.root}/maps/client_access_maps")
            def taken():
                with Client(h.port) as again:
                    return again.greeting.startswith("220")
            wait_for("the new table holds", taken)

    def test_canonical_maps_change_envelope_and_header(self):
        tables = {"canonical_maps": ("hash", "old@local.example new.name@brand.example\nteam@local.example crew@sink.example\n"),
                  "sender_canonical_maps": ("hash", "@legacy.example @brand.example\n")}
        with Sink() as sink:
            with self.horn(tables, domains=[remote(sink)]) as h, h.client() as c:
                c.send("old@local.example", "team@local.example", TEXT[:-2])
                c.send("joe@legacy.example", "x@sink.example", b"From: joe@legacy.example\r\nTo: a@legacy.example\r\n\r\nx", ehlo=False)
                wait_for("both", lambda: len(sink.messages) == 2)
                first, second = sorted(sink.messages, key=lambda m: "new.name" not in m[0])
                self.assertIn("<new.name@brand.example>", first[0])
                self.assertIn("<crew@sink.example>", first[1][0])
                self.assertIn(b"\r\nFrom: Old Name <new.name@brand.example>\r\nTo: crew@sink.example, \"x, y\" <keep@else.example>\r\n", first[2])
                self.assertIn("<joe@brand.example>", second[0])
                self.assertIn(b"\r\nFrom: joe@brand.example\r\nTo: a@legacy.example\r\n", second[2])

    def test_header_checks(self):
        tables = {"header_checks": ("pcre", "/^Subject: .*lottery/ REJECT no lotteries\n/^X-Secret:/ IGNORE\n/^Subject: (.*)hello(.*)/ REPLACE Subject: $1good day$2\n/^From: (.*)/ PREPEND X-From-Was: $1\n/^X-Odd: / WARN odd\n")}
        with self.horn(tables, "message_size_limit=4M") as h, h.client() as c:
            c.send("a@x.example", "b@local.example", TEXT[:-2] + b"\r\n" + b"x" * 70 * 3000)
            data = wait_for("it", lambda: h.drop() and not h.messages() and h.drop())[0].read_bytes()
            self.assertIn(b"\r\nX-From-Was: Old Name <old@local.example>\r\nFrom: Old Name <old@local.example>\r\n", data)
            self.assertIn(b"\r\nSubject: good day\r\n\r\nA line.", data)
            self.assertNotIn(b"X-Secret", data)
            c.ask("MAIL FROM:<a@x.example>")
            c.ask("RCPT TO:<b@local.example>")
            c.ask("DATA")
            c.say(b"X-Odd: 1\r\nSubject: you won\r\n the big lottery\r\n\r\nx\r\n.\r\n")
            self.assertEqual(c.hear(), "554 5.7.1 Access denied no lotteries")
            wait_for("the warning", lambda: "check_warned" in h.log() and "X-Odd: 1" in h.log())


if __name__ == "__main__":
    unittest.main()
