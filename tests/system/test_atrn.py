"""On-demand mail relay (RFC 2645): mail that is held for a domain is taken over the connection of its owner, who has logged in."""
import base64
import os
import signal
import socket
import ssl
import subprocess
import threading
import unittest

import impostor
from horn import Client, Horn, Sink, free_port, remote, wait_for

SLOW = int(os.environ.get("POSTHORN_SLOW", "1"))
TEXT = b"From: a@example.org\r\nSubject: hello\r\n\r\nA line."
SERVER = ["trusted_networks=", "auth_basic_cleartext=yes", "auth_failure_delay=0s", "relay=allow"]
FAST = ["retry_first=1h", "retry_second=1h", "retry_third=1h", "retry_subsequent=1h"]


class Owner:
    """A domain's server that comes for its mail: AUTH, ATRN, then it is the server, as a Sink is."""

    def __init__(self, h, sink, user="alice", tls=False):
        self.sink, self.c = sink, Client(h.port)
        self.hello = self.c.ask("EHLO owner.example")
        if tls:
            assert self.c.ask("STARTTLS").startswith("220")
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self.c.s = context.wrap_socket(self.c.s)
            self.hello = self.c.ask("EHLO owner.example")
        if user:
            reply = self.c.ask("AUTH PLAIN " + base64.b64encode(f"\0{user}\0secret".encode()).decode())
            assert reply.startswith("235"), reply

    def ask(self, domains=""):
        reply = self.c.ask(f"ATRN {domains}".strip())
        if reply.startswith("250"):
            self.thread = threading.Thread(target=self.sink.serve, args=(self.c.s,))
            self.thread.start()
        return reply

    def done(self, seconds=30):
        self.thread.join(seconds)
        return not self.thread.is_alive()


class Atrn(unittest.TestCase):
    def horn(self, *domains, users=("alice", "bob"), server=()):
        h = Horn(["test_mode=yes"], [*SERVER, *FAST, *server], [(name, "type=remote", "etrn=yes", "route=[127.0.0.1]:1", *more) for name, *more in domains])
        for user in users:
            h.run("hornpasswd", "-c", str(h.dir), "add", user, input=b"secret\n")
        return h

    def held(self, h, *recipients, n=1):
        """Messages that wait until they are asked for."""
        with h.client() as c:
            for i in range(n):
                c.send("x@example.org", list(recipients), TEXT.replace(b"hello", b"s%d" % i), ehlo=i == 0)
        def wait():
            rows = [m for m in h.messages() if m["state"] == "deferred"]
            return len(rows) >= n and all("until the domain's server asks" in r["reason"] for m in rows for r in m["recipients"])
        wait_for("it is held", wait)

    def rcpts(self, sink):
        return sorted(line.split("<")[1].split(">")[0] for m in sink.messages for line in m[1])

    def test_its_owner_takes_all_of_it(self):
        """25 messages over one connection, whatever messages_per_connection says; then QUIT (RFC 2645 5.2)."""
        with Sink() as sink, self.horn(("far.example", "atrn_users=alice"), ("else.example", "atrn_users=bob")) as h:
            self.held(h, "b@far.example", n=25)
            self.held(h, "b@else.example")
            owner = Owner(h, sink)
            self.assertIn("250-ATRN", owner.hello)
            self.assertEqual(owner.ask(), "250 2.0.0 Ok, now reversing the connection")
            self.assertTrue(owner.done())
            self.assertEqual((self.rcpts(sink), sink.connections), (["b@far.example"] * 25, 0))
            wait_for("the queue has else.example's alone", lambda: [r["address"] for m in h.messages() for r in m["recipients"]] == ["b@else.example"])
            log = wait_for("the log", lambda: h.log() if h.log().count("relay=atrn[127.0.0.1]") == 25 else None)
            self.assertIn("nodes=far.example, messages=25", log)
            self.assertEqual(Owner(h, sink).ask(), "453 4.0.0 You have no mail")

    def test_in_tls(self):
        """The outer TLS is TLS enough, though outbound_tls = require and the owner offers none within."""
        with Sink() as sink, self.horn(("far.example", "atrn_users=alice", "outbound_tls=require")) as h:
            self.held(h, "b@far.example", n=3)
            owner = Owner(h, sink, tls=True)
            self.assertTrue(owner.ask("far.example").startswith("250"))
            self.assertTrue(owner.done())
            self.assertEqual(len(sink.messages), 3)

    def test_a_large_message(self):
        with Sink() as sink, self.horn(("far.example", "atrn_users=alice"), server=["message_size_limit=8M"]) as h:
            body = b"".join(b"%062d\r\n" % i for i in range(60000))
            with h.client() as c:
                c.send("x@example.org", "b@far.example", TEXT + b"\r\n" + body[:-2])
            wait_for("it is held", lambda: [m for m in h.messages() if m["state"] == "deferred"])
            owner = Owner(h, sink, tls=True)
            self.assertTrue(owner.ask().startswith("250"))
            self.assertTrue(owner.done(60 * SLOW))
            self.assertTrue(sink.messages[0][2].endswith(body))

    def test_who_may_take_what(self):
        with Sink() as sink, self.horn(("far.example", "atrn_users=alice, carol"), ("*.wild.example", "atrn_users=alice"), ("etrn.example",)) as h:
            self.held(h, "b@far.example", "b@one.wild.example", "b@two.wild.example", "b@etrn.example")
            nobody = Owner(h, sink, user="")
            self.assertEqual(nobody.ask("far.example"), "530 5.7.0 Authentication required")
            bob, alice = Owner(h, sink, "bob"), Owner(h, sink)
            for owner, domains in ((bob, "far.example"), (bob, ""), (alice, "etrn.example"), (alice, "far.example,etrn.example"), (alice, "none.example"), (alice, "local.example"),
                                   (alice, "far..example"), (alice, "@far.example"), (alice, "wild.example")):
                self.assertEqual(owner.ask(domains), "450 4.7.1 ATRN request refused", domains)
            self.assertTrue(alice.ask("far.example, ONE.wild.example").startswith("250"))
            self.assertTrue(alice.done())
            self.assertEqual(self.rcpts(sink), ["b@far.example", "b@one.wild.example"])
            again = Owner(h, sink)
            self.assertTrue(again.ask().startswith("250"))
            self.assertTrue(again.done())
            self.assertEqual(self.rcpts(sink), ["b@far.example", "b@one.wild.example", "b@two.wild.example"])
            self.assertEqual([r["address"] for m in h.messages() for r in m["recipients"] if r["state"] == "deferred"], ["b@etrn.example"])

    def test_where_no_domain_has_it_there_is_none(self):
        with Sink() as sink, self.horn(("far.example",)) as h:
            owner = Owner(h, sink)
            self.assertNotIn("ATRN", owner.hello)
            self.assertEqual(owner.ask(), "502 5.5.1 Command not implemented")

    def test_configuration_that_could_not_work_is_refused(self):
        with self.horn(("far.example", "atrn_users=alice")) as h:
            for more in ("etrn=no", "type=local"):
                done = h.conf("-e", "-D", "far.example", more, check=False)
                self.assertEqual((done.returncode != 0, b"far.example" in done.stderr), (True, True), more)

    def test_one_at_a_time(self):
        """Two owners: the second is told to come later; what the first breaks off waits, and goes out once."""
        slow = threading.Event()
        def answer(stage, text, n):
            if stage == "dot" and not slow.is_set():
                slow.wait(30)
            return None
        with Sink(answer) as sink, self.horn(("far.example", "atrn_users=alice"), ("*.wild.example", "atrn_users=alice")) as h:
            self.held(h, "b@far.example", n=4)
            first = Owner(h, sink)
            self.assertTrue(first.ask().startswith("250"))
            wait_for("it is at it", lambda: sink.messages)
            for domains in ("", "far.example", "a.wild.example"):
                self.assertEqual(Owner(h, sink).ask(domains), "451 4.3.0 Unable to process ATRN request now", domains)
            slow.set()
            self.assertTrue(first.done())
            self.assertEqual(len(sink.messages), 4)
            with h.client() as c:
                c.ask("EHLO c.example")
                self.assertTrue(c.ask("ETRN @wild.example").startswith("250"))
            wait_for("it has begun", lambda: "node=@wild.example" in h.log())
            self.held(h, "b@far.example")
            self.assertTrue(Owner(h, sink).ask("a.wild.example").startswith("451"))

    def test_a_connection_that_breaks_loses_nothing(self):
        """At each stage of the turned session; what was not taken is held again and taken the next time."""
        for stage in ("greeting", "ehlo", "mail", "rcpt", "data", "dot"):
            with self.subTest(stage), Sink(lambda s, t, n: "close" if s == stage else None) as bad, Sink() as good, self.horn(("far.example", "atrn_users=alice")) as h:
                self.held(h, "b@far.example", n=3)
                owner = Owner(h, bad)
                self.assertTrue(owner.ask().startswith("250"))
                self.assertTrue(owner.done())
                wait_for("all wait", lambda: len([m for m in h.messages() if m["state"] == "deferred"]) == 3)
                def again():
                    owner = Owner(h, good)
                    if not owner.ask().startswith("250"):
                        return False
                    return owner.done()
                wait_for("the next time", again)
                wait_for("all there", lambda: len(good.messages) == 3 and not h.messages())

    def test_whoever_dies_nothing_is_lost(self):
        """smtpd, smtp, qmgr in the midst of it."""
        for role in ("smtpd", "smtp", "qmgr"):
            go = threading.Event()
            def answer(stage, text, n):
                if stage == "data" and not go.is_set():
                    go.wait(30)
                return None
            with self.subTest(role), Sink(answer) as sink, self.horn(("far.example", "atrn_users=alice")) as h:
                self.held(h, "b@far.example", n=5)
                owner = Owner(h, sink)
                self.assertTrue(owner.ask().startswith("250"))
                wait_for("it is at it", lambda: sink.counts.get("data", 0) > 0)
                for pid in h.pids(role):
                    os.kill(pid, signal.SIGKILL)
                go.set()
                self.assertTrue(owner.done(60))
                def rest():
                    try:
                        if not [m for m in h.messages()]:
                            return True
                        owner = Owner(h, sink)
                        if owner.ask().startswith("250"):
                            owner.done(30)
                    except (OSError, EOFError, AssertionError):
                        pass
                    return False
                wait_for("the rest", rest, 60)
                self.assertEqual({m[2].split(b"Subject: ")[1].split(b"\r")[0] for m in sink.messages}, {b"s%d" % i for i in range(5)})

    def test_a_worker_that_was_taken_over_cannot_take_mail(self):
        """qmgr wants authd's proof of the login that the worker names."""
        for proof in (b"", b"p" * 32):
            h = self.horn(("far.example", "atrn_users=alice"))
            try:
                h.start()
                self.held(h, "b@far.example")
                h.stop()
                posthorn, result = impostor.install(h.root, b"alice", proof, "QMGR")
                subprocess.run([posthorn, "-c", str(h.dir), "start"], check=True, timeout=60)
                h.started = True
                self.assertEqual(wait_for("an outcome", lambda: result.read_text() if result.exists() else None), "turn_answer 1") # EPERM
                self.assertNotIn("turn_started", h.log())
            finally:
                h.__exit__(None)

    def test_a_connection_from_before_a_new_qmgr_gets_nobody_elses_mail(self):
        go = threading.Event()
        def answer(stage, text, n):
            if stage == "dot":
                go.wait(60)
            return None
        with Sink(answer) as alices, Sink() as bobs, self.horn(("far.example", "atrn_users=alice"), ("else.example", "atrn_users=bob")) as h:
            self.held(h, "b@far.example")
            self.held(h, "b@else.example", n=3)
            alice = Owner(h, alices)
            self.assertTrue(alice.ask().startswith("250"))
            wait_for("it is at it", lambda: alices.messages)
            for pid in h.pids("qmgr"):
                os.kill(pid, signal.SIGKILL)
            def bob():
                owner = Owner(h, bobs, "bob")
                if not owner.ask().startswith("250"):
                    return False
                go.set()
                return owner.done()
            wait_for("bob has his turn", bob)
            self.assertTrue(alice.done())
            self.assertEqual((self.rcpts(bobs), set(self.rcpts(alices))), (["b@else.example"] * 3, {"b@far.example"}))

    def test_many_domains_are_one_look(self):
        """At most 100 in one ATRN: each is looked for in all that waits."""
        with Sink() as sink, self.horn(("far.example", "atrn_users=alice")) as h:
            self.held(h, "b@far.example")
            owner = Owner(h, sink)
            self.assertEqual(owner.ask(",".join(["far.example"] * 101)), "450 4.7.1 ATRN request refused")
            self.assertTrue(owner.ask(",".join(["far.example"] * 100)).startswith("250"))
            self.assertTrue(owner.done())
            self.assertEqual(len(sink.messages), 1)

    def test_an_owner_that_says_nothing_holds_up_nobody(self):
        with Sink() as sink, self.horn(("far.example", "atrn_users=alice", "outbound_greeting_timeout=1s")) as h:
            self.held(h, "b@far.example", n=2)
            silent = Owner(h, sink)
            self.assertTrue(silent.c.ask("ATRN").startswith("250"))
            wait_for("it is given up", lambda: "relay=atrn[127.0.0.1]" in h.log() and len([m for m in h.messages() if m["state"] == "deferred"]) == 2)
            self.assertTrue(silent.c.closed())
            owner = Owner(h, sink)
            self.assertTrue(owner.ask().startswith("250"))
            self.assertTrue(owner.done())
            self.assertEqual(len(sink.messages), 2)


if __name__ == "__main__":
    unittest.main()
