"""Where mail goes and over how many connections: the guide's worked examples, live."""
import threading
import unittest

from horn import Horn, Sink, free_port, remote, wait_for

TEXT = b"From: a@example.org\r\nTo: b@example.org\r\nSubject: hello\r\n\r\nA line."


class Gate:
    """Greetings wait until it is opened; counts connections that are there at a time."""

    def __init__(self):
        self.event, self.lock, self.now, self.most = threading.Event(), threading.Lock(), 0, 0

    def __call__(self, stage, text, n):
        if stage == "greeting":
            with self.lock:
                self.now += 1
                self.most = max(self.most, self.now)
            self.event.wait(60)
        elif stage == "quit":
            with self.lock:
                self.now -= 1


class Route(unittest.TestCase):
    def burst(self, n, limit):
        gate = Gate()
        with Sink(gate) as sink, Horn(domains=[(*remote(sink), f"messages_per_connection={limit}")]) as h, h.client() as c:
            for i in range(n):
                c.send("a@example.org", f"u{i}@sink.example", TEXT, ehlo=i == 0)
            wait_for("all wait", lambda: h.status()["servers"][0]["queue"] == n)
            gate.event.set()
            wait_for("all delivered", lambda: len(sink.messages) == n)
            return sink.connections, gate.most

    def test_a_hundred_messages_with_limit_20_take_five_connections_at_once(self):
        self.assertEqual(self.burst(100, 20), (5, 5))

    def test_thirty_messages_with_limit_50_take_one_connection(self):
        self.assertEqual(self.burst(30, 50), (1, 1))

    def test_105_recipients_go_as_100_and_5_over_two_connections(self):
        with Sink() as sink, Horn(server=["recipient_limit=unlimited"], domains=[(*remote(sink), "recipient_limit=100")]) as h, h.client() as c:
            c.send("a@example.org", [f"u{i}@sink.example" for i in range(105)], TEXT)
            wait_for("two transactions", lambda: len(sink.messages) == 2)
            self.assertEqual(sorted(len(m[1]) for m in sink.messages), [5, 100])
            self.assertEqual(sink.connections, 2)
            self.assertEqual(len({t for m in sink.messages for t in m[1]}), 105)

    def test_all_connections_of_a_server_stay_within_its_limit(self):
        gate = Gate()
        with Sink(gate) as one, Sink(gate) as two, Horn(server=["outbound_connection_limit=3", "messages_per_connection=1"], domains=[
                remote(one, "one.example"), remote(two, "two.example")]) as h, h.client() as c:
            for i in range(20):
                c.send("a@example.org", f"u{i}@{'one' if i % 2 else 'two'}.example", TEXT, ehlo=i == 0)
            wait_for("three connections", lambda: gate.now == 3)
            gate.event.set()
            wait_for("all delivered", lambda: len(one.messages) + len(two.messages) == 20)
            self.assertLessEqual(gate.most, 3)
            self.assertEqual((one.connections, two.connections), (10, 10))

    def test_smart_host_wildcard_route_and_alias(self):
        with Sink() as smart, Sink() as wild, Horn(server=[f"smart_host=[127.0.0.1]:{smart.port}", "relay_exceptions=127.0.0.0/8"], domains=[
                ("*.wild.example", "type=remote", f"route=[127.0.0.1]:{wild.port}"), ("plain.example", "type=remote"),
                ("alias.example", "type=alias")]) as h, h.client() as c:
            for i, to in enumerate(("a@else.example", "b@x.wild.example", "c@plain.example", "d@wild.example", "e@alias.example")):
                c.send("a@example.org", to, TEXT, ehlo=i == 0)
            wait_for("the smart host's", lambda: len(smart.messages) == 3)
            wait_for("the route's", lambda: len(wild.messages) == 1)
            self.assertEqual(sorted(m[1][0] for m in smart.messages), [f"RCPT TO:<{x}>" for x in ("a@else.example", "c@plain.example", "d@wild.example")])
            self.assertEqual(wild.messages[0][1], ["RCPT TO:<b@x.wild.example>"])
            drop = wait_for("the alias's", h.drop)[0].read_bytes()
            self.assertIn(b"X-Receiver: <e@local.example>", drop) # stamped with the default domain
            self.assertIn(b"To: b@example.org", drop)             # headers stay

    def test_several_next_hops_fail_over_in_their_order(self):
        with Sink() as second, Horn(domains=[("sink.example", "type=remote", "relay=yes",
                f"route=[127.0.0.1]:{free_port()}, [127.0.0.1]:{second.port}")]) as h, h.client() as c:
            c.send("a@example.org", "b@sink.example", TEXT)
            wait_for("the second has it", lambda: second.messages)

    def test_a_route_to_ourselves_is_a_loop(self):
        with Horn() as h:
            h.conf("domain", "add", "loop.example", "type=remote", "relay=yes", f"route=[127.0.0.1]:{h.port}")
            h.run("posthorn", "-c", str(h.dir), "reload")
            with h.client() as c:
                c.send("back@local.example", "b@loop.example", TEXT)
                self.assertIn(b"Status: 5.4.6", wait_for("the report", h.drop)[0].read_bytes())

    def test_a_domain_has_its_own_schedule_and_expiry(self):
        """One message to two domains that both defer: each is tried by its own times and returned at its own."""
        tries = {"slow": [], "quick": []}
        def answer(name):
            def f(stage, text, n):
                if stage == "rcpt":
                    tries[name].append(n)
                    return "450 4.2.0 not now"
            return f
        with Sink(answer("slow")) as slow, Sink(answer("quick")) as quick, Horn(["test_mode=yes"],
                ["retry_first=1h", "expiry=1d", "destination_probe=1s"], [remote(slow, "slow.example"),
                (*remote(quick, "quick.example"), "retry_first=1s", "retry_second=1s", "retry_third=1s", "retry_subsequent=1s", "expiry=12s")]) as h, h.client() as c:
            c.send("back@local.example", ["a@slow.example", "b@quick.example"], TEXT)
            wait_for("three attempts", lambda: len(tries["quick"]) >= 3) # a machine that stands still for seconds leaves room for them
            report = wait_for("the report", h.drop, 60)[0].read_bytes()
            self.assertIn(b"b@quick.example", report)
            self.assertNotIn(b"a@slow.example", report)
            self.assertEqual(len(tries["slow"]), 1)
            ours = [m for m in h.messages() if m["recipients"][0]["address"] == "a@slow.example"] # the report may be there still
            self.assertEqual([r["state"] for r in ours[0]["recipients"]], ["deferred", "closed"])

    def test_after_the_last_attempt_it_is_returned_at_once(self):
        with Sink(lambda stage, *a: "450 4.2.0 no" if stage == "rcpt" else None) as sink, Horn(["test_mode=yes"],
                ["retry_first=1s", "retry_second=1h", "retry_attempts=1", "destination_probe=1s"], [remote(sink)]) as h, h.client() as c:
            c.send("back@local.example", "b@sink.example", TEXT)
            self.assertIn(b"no attempt is left", wait_for("the report", h.drop)[0].read_bytes())
            self.assertEqual(sink.counts["rcpt"], 2)


if __name__ == "__main__":
    unittest.main()
