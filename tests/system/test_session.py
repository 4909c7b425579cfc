"""The server's side of SMTP: each misuse gets its answer, nothing is smuggled, limits hold."""
import smtplib
import socket
import ssl
import threading
import time
import unittest

from horn import Client, Horn, Sink, remote, wait_for


class Session(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.h = Horn(server=["error_limit=200", "junk_command_limit=500", "recipient_limit=100", "message_size_limit=100K", "session_size_limit=1M"]).start()

    @classmethod
    def tearDownClass(cls):
        cls.h.__exit__(None)

    def test_each_command_out_of_place(self):
        with self.h.client() as c:
            for command, reply in (("MAIL FROM:<a@b.example>", "503"), ("RCPT TO:<a@local.example>", "503"), ("DATA", "503"), ("AUTH PLAIN", "503"), ("ATRN", "503"),
                                   ("NONSENSE", "500"), ("", "500"), ("EHLO", "501"), ("EHLO a b", "250"), ("HELO -x-", "501"), ("VRFY x", "252"),
                                   ("EXPN x", "502"), ("NOOP", "250"), ("HELP", "214"), ("RSET x", "501"), ("RSET", "250"),
                                   ("RCPT TO:<a@local.example>", "503"), ("DATA", "503"), ("MAIL FROM:<a@b.example>", "250"), ("MAIL FROM:<a@b.example>", "503"),
                                   ("DATA", "503"), ("RCPT TO:<a@local.example>", "250"), ("DATA x", "501"), ("EHLO again.example", "250"),
                                   ("RCPT TO:<a@local.example>", "503"), ("MAIL FROM:<a@b.example> SIZE=200000", "552"), ("AUTH PLAIN", "504"), ("ATRN", "502"), ("QUIT", "221")):
                self.assertTrue(c.ask(command).startswith(reply), command)
            self.assertTrue(c.closed())

    def test_greeting_and_ehlo_words(self):
        with self.h.client() as c:
            self.assertTrue(c.greeting.startswith("220 mx.horn.example ESMTP"))
            words = {line[4:] for line in c.ask("EHLO x.example").splitlines()[1:]}
            self.assertEqual(words, {"PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "CHUNKING", "BINARYMIME", "DSN", "SMTPUTF8", "STARTTLS",
                                     "LIMITS RCPTMAX=100", "SIZE 102400"})

    def test_pipelined_group_is_answered_in_order_by_few_writes(self):
        with self.h.client() as c:
            c.say(b"EHLO x.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<no@elsewhere.example>\r\nRCPT TO:<a@local.example>\r\nDATA\r\n")
            self.assertEqual([c.hear()[:3] for _ in range(5)], ["250", "250", "550", "250", "354"])
            c.say(b"x\r\n.\r\nQUIT\r\n")
            self.assertEqual([c.hear()[:3] for _ in range(2)], ["250", "221"])

    def test_replies_of_a_large_pipelined_group_all_come(self):
        with Horn(server=["junk_command_limit=unlimited"]) as h, h.client() as c:
            c.say(b"NOOP\r\n" * 20000)
            self.assertEqual({c.hear() for _ in range(20000)}, {"250 2.0.0 Ok"})

    def test_recipients_beyond_the_limit_get_452_and_keep_the_others(self):
        with self.h.client() as c:
            c.ask("EHLO x.example")
            c.ask("MAIL FROM:<a@b.example>")
            replies = [c.ask(f"RCPT TO:<u{i}@local.example>")[:9] for i in range(102)]
            self.assertEqual(replies, ["250 2.1.5"] * 100 + ["452 4.5.3"] * 2)

    def test_nothing_is_smuggled(self):
        for end in (b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r\n", b"\r\n.\r\r\n", b"\r.\r", b"\n.\r", b"\r\n.\r"):
            with self.h.client() as c:
                c.ask("EHLO x.example")
                c.ask("MAIL FROM:<a@b.example>")
                c.ask("RCPT TO:<a@local.example>")
                c.ask("DATA")
                c.say(b"Subject: one\r\n\r\nbody" + end + b"MAIL FROM:<evil@b.example>\r\nRCPT TO:<evil@local.example>\r\nDATA\r\nSubject: two\r\n\r\nx\r\n.\r\n")
                self.assertTrue(c.hear().startswith("550 5.6.0"), end)
                self.assertTrue(c.ask("NOOP").startswith("250"))
        with self.h.client() as c: # what came before this one is delivered when this one is
            qid = c.send("a@b.example", "a@local.example", b"Subject: last\r\n\r\nx")
        wait_for("the last", lambda: [p for p in self.h.drop() if qid in p.name])
        self.assertEqual([p for p in self.h.drop() if b"evil@" in p.read_bytes() or b"Subject: one" in p.read_bytes()], [])

    def test_bare_line_feed_does_not_end_a_command(self):
        with self.h.client() as c:
            c.say(b"EHLO x.example\nMAIL FROM:<a@b.example>\r\n")
            self.assertTrue(c.hear().startswith("500 5.5.2"))
            self.assertTrue(c.ask("MAIL FROM:<a@b.example>").startswith("503"))

    def test_starttls_must_be_alone_and_forgets(self):
        with self.h.client() as c:
            c.ask("EHLO x.example")
            c.say(b"STARTTLS\r\nNOOP\r\n")
            self.assertTrue(c.hear().startswith("503 5.5.0"))
            self.assertTrue(c.hear().startswith("250"))
        with smtplib.SMTP("127.0.0.1", self.h.port) as s:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            s.starttls(context=context)
            self.assertEqual(s.docmd("MAIL", "FROM:<a@b.example>")[0], 503)
            s.ehlo()
            self.assertNotIn("starttls", s.esmtp_features)

    def test_endless_line_and_junk_are_bounded(self):
        with self.h.client() as c:
            c.say(b"x" * 200000)
            self.assertTrue(c.hear().startswith("500 5.5.2"))
            c.say(b"y" * 100000 + b"\r\n")
            self.assertTrue(c.ask("NOOP").startswith("250"))
            c.say(bytes(range(256)) * 4 + b"\r\n")
            self.assertTrue(c.hear().startswith("500"))

    def test_size_limit_holds_after_the_dot_and_in_chunks(self):
        with self.h.client() as c:
            for ehlo in ("EHLO x.example", "RSET"):
                c.ask(ehlo)
                c.ask("MAIL FROM:<a@b.example>")
                c.ask("RCPT TO:<a@local.example>")
                c.ask("DATA")
                c.say((b"x" * 998 + b"\r\n") * 110 + b".\r\n")
                self.assertTrue(c.hear().startswith("552 5.3.4"))
            c.ask("MAIL FROM:<a@b.example>")
            c.ask("RCPT TO:<a@local.example>")
            c.say(b"BDAT 103000 LAST\r\n" + b"x" * 103000)
            self.assertTrue(c.hear().startswith("552 5.3.4"))
            self.assertTrue(c.ask("NOOP").startswith("250"))

    def test_session_size_limit_ends_the_session(self):
        with self.h.client() as c:
            c.ask("EHLO x.example")
            for i in range(20):
                c.ask("MAIL FROM:<a@b.example>")
                c.ask("RCPT TO:<a@local.example>")
                c.ask("DATA")
                c.say((b"x" * 998 + b"\r\n") * 90 + b".\r\n")
                reply = c.hear()
                if not reply.startswith("250"):
                    break
            self.assertTrue(reply.startswith("421 4.7.0"), reply)
            self.assertEqual(i, 11)
            self.assertTrue(c.closed())

    def test_bdat_out_of_place_takes_its_bytes(self):
        with self.h.client() as c:
            c.ask("EHLO x.example")
            c.say(b"BDAT 6 LAST\r\nNOOP\r\nNOOP\r\n")
            self.assertTrue(c.hear().startswith("503"))
            self.assertTrue(c.hear().startswith("250"))
            c.ask("MAIL FROM:<a@b.example> BODY=BINARYMIME")
            c.ask("RCPT TO:<a@local.example>")
            self.assertTrue(c.ask("DATA").startswith("503"))
            c.say(b"BDAT 3\r\na\nb")
            self.assertTrue(c.hear().startswith("250"))
            self.assertTrue(c.ask("DATA").startswith("503"))
            self.assertTrue(c.ask("BDAT 0 LAST").startswith("250"))
            c.ask("MAIL FROM:<a@b.example>")
            c.ask("RCPT TO:<a@local.example>")
            c.say(b"BDAT 3 LAST\r\na\nb")
            self.assertTrue(c.hear().startswith("550 5.6.0"))

    def test_smtputf8(self):
        with self.h.client() as c:
            c.ask("EHLO x.example")
            self.assertTrue(c.ask("MAIL FROM:<\u00e4@b.example>").startswith("553 5.6.7"))
            self.assertTrue(c.ask("MAIL FROM:<\u00e4@b.example> SMTPUTF8").startswith("250"))
            self.assertTrue(c.ask("RCPT TO:<\u00fc@local.example>").startswith("250"))


class Limits(unittest.TestCase):
    def test_a_talker_before_the_greeting_is_refused(self):
        with Horn() as h:
            held = []
            def early():
                s = socket.socket()
                s.connect(("127.0.0.1", h.port))
                s.sendall(b"EHLO early.example\r\n")
                held.append(s)
                data = b""
                while True:
                    part = s.recv(1000)
                    if not part:
                        return data
                    data += part
                    if data.startswith(b"220"):
                        s.sendall(b"QUIT\r\n")
            # it depends on who is first; it is caught when its bytes are there before our greeting
            wait_for("one that was early enough", lambda: early().startswith(b"554"), 20)

    def test_connection_limit_is_exact(self):
        with Horn(server=["connection_limit=20", "client_connection_limit=unlimited"]) as h:
            clients, refused = [], 0
            for _ in range(60):
                c = Client(h.port)
                if c.greeting.startswith("220"):
                    clients.append(c)
                else:
                    self.assertTrue(c.greeting.startswith("421 4.7.0"))
                    refused += 1
            self.assertEqual((len(clients), refused), (20, 40))
            clients.pop().ask("QUIT")
            wait_for("room for one", lambda: Client(h.port).greeting.startswith("220"))

    def test_client_limit_but_not_for_trusted_networks(self):
        with Horn(server=["client_connection_limit=3", "trusted_networks=192.0.2.1"]) as h:
            clients = [Client(h.port) for _ in range(5)]
            self.assertEqual([c.greeting[:3] for c in clients], ["220"] * 3 + ["421"] * 2)
        with Horn(server=["client_connection_limit=3"]) as h:
            self.assertEqual([Client(h.port).greeting[:3] for _ in range(5)], ["220"] * 5)

    def test_timeout_is_for_the_whole_line(self):
        with Horn(["test_mode=yes"], ["connection_timeout=2s"]) as h, h.client() as c:
            start = time.monotonic()
            stop = threading.Event()
            def drip():
                while not stop.wait(0.3):
                    try:
                        c.s.sendall(b"N")
                    except OSError:
                        return
            threading.Thread(target=drip, daemon=True).start()
            self.assertTrue(c.hear().startswith("421 4.4.2"))
            stop.set()
            self.assertLess(time.monotonic() - start, 6)

    def test_errors_and_junk_end_a_session(self):
        with Horn(server=["error_limit=5", "junk_command_limit=7", "trusted_networks="]) as h:
            with h.client() as c:
                self.assertEqual([c.ask("WRONG")[:3] for _ in range(4)], ["500"] * 4)
                c.say("WRONG")
                self.assertEqual([c.hear()[:3], c.hear()[:9]], ["500", "421 4.7.0"])
            with h.client() as c:
                self.assertEqual([c.ask("NOOP")[:3] for _ in range(6)], ["250"] * 6)
                c.say("NOOP")
                self.assertEqual([c.hear()[:3], c.hear()[:9]], ["250", "421 4.7.0"])

    def test_orderly_stop_tells_each_session(self):
        h = Horn().start()
        idle, inside = h.client(), h.client()
        inside.ask("EHLO x.example")
        inside.ask("MAIL FROM:<a@b.example>")
        inside.ask("RCPT TO:<a@local.example>")
        inside.ask("DATA")
        inside.say(b"half a mess")
        h.stop()
        self.assertTrue(idle.hear().startswith("421 4.3.2"))
        self.assertTrue(inside.hear().startswith("421 4.3.2"))
        self.assertEqual(h.drop(), [])
        h.__exit__(None)


if __name__ == "__main__":
    unittest.main()
