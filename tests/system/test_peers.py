"""The client's side of SMTP against peers that misbehave: deferred or returned, never taken for delivered."""
import unittest

from horn import Horn, Sink, free_port, remote, wait_for

TEXT = b"From: a@example.org\r\nSubject: hello\r\n\r\nA line."
SLOW = ["retry_first=1h", "retry_second=1h", "retry_third=1h", "retry_subsequent=1h"]


def at(stage, reply):
    return lambda s, text, n: reply if s == stage else None


class Peers(unittest.TestCase):
    def outcome(self, answer, extensions=("PIPELINING", "8BITMIME"), server=()):
        """What became of a message: its reason when it waits, "returned", or "sent"."""
        with Sink(answer, extensions) as sink, Horn(["test_mode=yes"], [*SLOW, "destination_probe=1s", *server], [remote(sink)]) as h, h.client() as c:
            c.send("back@local.example", "b@sink.example", TEXT)
            def known():
                rows = [m for m in h.messages() if m["sender"]]
                if rows and rows[0]["state"] == "deferred":
                    return rows[0]["recipients"][0]["reason"]
                if h.drop():
                    return "returned"
                if sink.messages and not rows:
                    return "sent"
            result = wait_for("an outcome", known, 30)
            if result != "sent":
                self.assertEqual(sink.messages, [])
            return result

    def test_drops_at_each_stage_defer(self):
        for stage in ("greeting", "ehlo", "mail", "rcpt", "data", "dot"):
            with self.subTest(stage):
                self.assertIn("closed", self.outcome(at(stage, "close")))

    def test_temporary_refusals_defer_and_final_ones_return(self):
        for stage in ("mail", "rcpt", "data", "dot"):
            with self.subTest(stage):
                self.assertIn("451 4.3.0 later", self.outcome(at(stage, "451 4.3.0 later")))
                self.assertEqual(self.outcome(at(stage, "554 5.3.0 never")), "returned")

    def test_421_anywhere_defers(self):
        for stage in ("greeting", "ehlo", "mail", "rcpt", "data", "dot"):
            with self.subTest(stage):
                self.assertIn("421 4.3.2", self.outcome(at(stage, "421 4.3.2 going down")))

    def test_garbage_and_endless_replies_defer(self):
        for junk in (b"\xff\xfe\xfd\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"250-a\r\n" * 300, b"2" * 100000, b"250-x\r\n550 y\r\n"):
            for stage in ("greeting", "mail", "dot"):
                with self.subTest((stage, junk[:10])):
                    self.assertNotIn(self.outcome(at(stage, junk)), ("sent", "returned"))

    def test_an_answer_too_many_before_the_dot_is_not_its_answer(self):
        self.assertNotEqual(self.outcome(at("data", b"354 go\r\n250 2.0.0 taken\r\n")), "sent")

    def test_a_number_of_pipelined_replies_that_is_wrong(self):
        self.assertNotEqual(self.outcome(at("rcpt", b"250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n")), "sent")

    def test_silence_is_bounded(self):
        self.assertIn("in time", self.outcome(at("mail", b""), ("8BITMIME",), ["outbound_command_timeout=1s"]))

    def test_without_pipelining_and_by_helo(self):
        self.assertEqual(self.outcome(lambda *a: None, extensions=("8BITMIME",)), "sent")
        self.assertEqual(self.outcome(at("ehlo", "502 5.5.1 what")), "sent")

    def test_354_after_all_recipients_were_refused(self):
        def answer(stage, text, n):
            return {"rcpt": "550 5.1.1 no", "data": "354 go", "dot": "250 2.0.0 empty message taken"}.get(stage)
        with Sink(answer) as sink, Horn(domains=[remote(sink)]) as h, h.client() as c:
            c.send("back@local.example", "b@sink.example", TEXT)
            self.assertIn(b"550 5.1.1 no", wait_for("the report", h.drop)[0].read_bytes())

    def test_a_message_larger_than_the_peers_size_is_returned_unsent(self):
        self.assertEqual(self.outcome(lambda *a: None, extensions=("PIPELINING", "SIZE 100")), "returned")

    def test_a_kept_connection_that_was_closed_costs_no_attempt(self):
        with Sink() as sink, Horn(domains=[remote(sink)]) as h, h.client() as c:
            c.send("a@example.org", "b@sink.example", TEXT)
            wait_for("the first", lambda: len(sink.messages) == 1)
            sink.answer = lambda stage, text, n: "close" if stage == "mail" and sink.connections == 1 else None
            c.send("a@example.org", "b@sink.example", TEXT, ehlo=False)
            wait_for("the second", lambda: len(sink.messages) == 2)
            self.assertNotIn("status=deferred", h.log())

    def test_messages_per_connection_and_recipient_split(self):
        with Sink() as sink, Horn(server=["messages_per_connection=2", "recipient_limit=100"], domains=[remote(sink)]) as h, h.client() as c:
            c.ask("EHLO c.example")
            c.ask("MAIL FROM:<a@example.org>")
            for i in range(100):
                c.ask(f"RCPT TO:<u{i}@sink.example>")
            h.conf("-e", "recipient_limit=30")
            h.run("posthorn", "-c", str(h.dir), "reload")
            wait_for("the new limit", lambda: b"RCPTMAX=30" in Peers.ehlo(h))
            c.ask("DATA")
            c.say(TEXT + b"\r\n.\r\n")
            c.hear()
            wait_for("all four parts", lambda: len(sink.messages) == 4)
            self.assertEqual(sorted(len(m[1]) for m in sink.messages), [10, 30, 30, 30])

    @staticmethod
    def ehlo(h):
        with h.client() as c:
            return c.ask("EHLO x.example").encode()


if __name__ == "__main__":
    unittest.main()
