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
                  "recipient_access_maps": ("cdb", "secret@local.example REJECT\nodd@local.example WHAT\nfield@local.example PREPEND X: y\nfiltered@local.example DISCARD\nlater@local.example HOLD\n")}
        with self.horn(tables) as h, h.client() as c:
            c.ask("EHLO x.example")
            for sender, code in (("bad@x.example", "554 5.7.1 Access denied not you"), ("bad+tag@x.example", "554"), ("a@spam.example", "554 5.7.1 Access denied no spam"), ("a@deep.spam.example", "554"),
                                 ("a@notspam.example", "250"), ("postmaster@any.example", "450 4.7.1 Not now, try again later wait"), ("", "250")):
                self.assertTrue(c.ask(f"MAIL FROM:<{sender}>").startswith(code), sender)
                c.ask("RSET")
            c.ask("MAIL FROM:<a@x.example>")
            for rcpt, code in (("secret@local.example", "554 5.7.1"), ("odd@local.example", "450 4.7.1"), ("field@local.example", "450 4.7.1"), ("good@local.example", "250")):
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

    def test_a_canonical_value_that_is_no_address_goes_nowhere(self):
        tables = {"canonical_maps": ("hash", "odd@local.example two words\nevil@local.example a@x.example> SIZE=1\nhead@local.example <x\n")}
        with self.horn(tables) as h, h.client() as c:
            c.ask("EHLO x.example")
            self.assertTrue(c.ask("MAIL FROM:<evil@local.example>").startswith("451 4.3.0"))
            c.ask("MAIL FROM:<a@x.example>")
            self.assertTrue(c.ask("RCPT TO:<odd@local.example>").startswith("451 4.3.0"))
            self.assertTrue(c.ask("RCPT TO:<good@local.example>").startswith("250"))
            c.ask("DATA")
            c.say(b"From: head@local.example\r\n\r\nx\r\n.\r\n")
            self.assertTrue(c.hear().startswith("451 4.3.0"))
            wait_for("it is said", lambda: h.log().count("not_an_address") == 3)
            self.pick_up(h, b"From: odd@local.example\r\nTo: b@local.example\r\n\r\nx\r\n")
            wait_for("the file waits", lambda: "not_taken" in h.log())
            h.conf("-X", "canonical_maps")
            h.run("posthorn", "-c", str(h.dir), "reload")
            wait_for("without the table it goes", lambda: len(h.drop()) == 1)

    def test_header_checks(self):
        tables = {"header_checks": ("pcre", "/^Subject: .*lottery/ REJECT no lotteries\n/^X-Secret:/ IGNORE\n/^Subject: (.*)hello(.*)/ REPLACE Subject: $1good day$2\n/^From: (.*)/ PREPEND X-From-Was: $1\n/^X-Odd: / WARN odd\n/^X-Slip: / PREPEND no field\n")}
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
            for command in ("MAIL FROM:<a@x.example>", "RCPT TO:<b@local.example>", "DATA"):
                c.ask(command)
            c.say(b"X-Slip: 1\r\n\r\nx\r\n.\r\n") # it would end the header
            self.assertTrue(c.hear().startswith("450 4.7.1"))
            wait_for("the warning", lambda: "check_warned" in h.log() and "X-Odd: 1" in h.log())

    def pick_up(self, h, text):
        (h.root / "m").write_bytes(text)
        os.chmod(h.root / "m", 0o644)
        os.rename(h.root / "m", h.server_dir / "Pickup/m")

    def test_files_and_sendmail_are_asked_about_too(self):
        tables = {"canonical_maps": ("hash", "old new.name@local.example\nteam crew@sink.example\nsquad crew@sink.example\n"),
                  "header_checks": ("pcre", "/^X-Secret:/ IGNORE\n/^Subject: (.*)hello/ REPLACE Subject: $1good day\n")}
        with Sink() as sink, self.horn(tables, "masquerade_domain=public.example", domains=[remote(sink)]) as h:
            body = b"x" * 60 + b"\r\n"
            self.pick_up(h, b"X-Sender: old@local.example\r\nX-Receiver: team@local.example\r\nX-Receiver: squad@local.example\r\n" + TEXT + body * 5000)
            h.sendmail("-f", "old", "team", input=TEXT.replace(b"old@local.example", b"old").replace(b"\r\n", b"\n"))
            for sender, rcpts, data in wait_for("both", lambda: len(sink.messages) == 2 and sink.messages):
                self.assertIn("<new.name@public.example>", sender)
                self.assertEqual(len(rcpts), 1) # two names of one
                self.assertIn("<crew@sink.example>", rcpts[0])
                self.assertIn(b"\r\nFrom: Old Name <new.name@public.example>\r\nTo: crew@sink.example, \"x, y\" <keep@else.example>\r\n", data)
                self.assertIn(b"\r\nSubject: good day\r\n\r\nA line.", data)
                self.assertNotIn(b"X-Secret", data)
            self.assertEqual(sorted(m[2].count(body) for m in sink.messages), [0, 5000])

    def test_what_a_table_refuses_of_a_file_lies_in_badmail(self):
        tables = {"header_checks": ("pcre", "/^Subject: .*lottery/ REJECT no lotteries\n/^Subject: wait/ HOLD\n/^Subject: nowhere/ DISCARD\n")}
        with self.horn(tables) as h:
            for subject, file in (("a lottery", "one"), ("nowhere", "two"), ("wait", "three")):
                self.pick_up(h, f"From: a@x.example\r\nTo: b@local.example\r\nSubject: {subject}\r\n\r\nx\r\n".encode())
                wait_for("it is taken", lambda: not (h.server_dir / "Pickup/m").exists())
            held = wait_for("the held one", lambda: [m for m in h.messages() if m["state"] == "held"])
            wait_for("the discarded one", lambda: "discarded" in h.log())
            why = wait_for("the refused one", lambda: [p.read_text() for p in (h.server_dir / "Badmail").glob("*.BDR")])
            self.assertEqual(why, ["m: refused by header_checks: no lotteries\n"])
            self.assertIn("a lottery", next((h.server_dir / "Badmail").glob("*.BAD")).read_text())
            wait_for("nothing is left", lambda: not list((h.server_dir / "Pickup/.taken").iterdir()))
            self.assertEqual((len(h.messages()), h.drop(), len(held)), (1, [], 1))

    def test_files_that_are_put_off_hold_up_no_other(self):
        with self.horn({"header_checks": ("pcre", "/^Subject: later/ DEFER\n")}) as h:
            for i in range(105): # more than are on their way at once
                (h.server_dir / f"Pickup/.{i}").write_bytes(b"From: a@x.example\r\nTo: b@local.example\r\nSubject: later\r\n\r\nx\r\n")
                os.chmod(h.server_dir / f"Pickup/.{i}", 0o644)
                os.rename(h.server_dir / f"Pickup/.{i}", h.server_dir / f"Pickup/{i}")
            wait_for("all are taken", lambda: h.log().count("not_taken") >= 105)
            self.pick_up(h, b"From: a@x.example\r\nTo: b@local.example\r\nSubject: now\r\n\r\nx\r\n")
            wait_for("it goes", lambda: len(h.drop()) == 1)
            (h.root / "maps/header_checks").write_text("/^Subject: never/ DEFER\n")
            wait_for("the others go", lambda: len(h.drop()) == 106, 60)

    def test_a_table_that_cannot_be_read_keeps_the_file(self):
        with self.horn({"header_checks": ("pcre", "/x-nothing/ OK\n")}) as h:
            os.rename(h.root / "maps/header_checks", h.root / "maps/away")
            h.run("posthorn", "-c", str(h.dir), "reload")
            self.pick_up(h, b"From: a@x.example\r\nTo: b@local.example\r\n\r\nx\r\n")
            wait_for("it waits", lambda: "not_taken" in h.log())
            self.assertEqual((h.messages(), h.drop(), len(list((h.server_dir / "Pickup/.taken").iterdir()))), ([], [], 1))
            os.rename(h.root / "maps/away", h.root / "maps/header_checks")
            wait_for("it goes", lambda: len(h.drop()) == 1, 60)


if __name__ == "__main__":
    unittest.main()
