"""Killed and frozen processes: nothing acknowledged is lost, ledgers on both sides."""
import os
import re
import signal
import socket
import threading
import time
import unittest

from horn import Client, Horn, Sink, alive, free_port, remote, wait_for

SLOW = int(os.environ.get("POSTHORN_SLOW", "1"))  # a sanitized build takes its time
ROUNDS = int(os.environ.get("POSTHORN_KILL_ROUNDS", "6"))


class Ledger:
    """Sessions that send numbered messages and write down what was acknowledged.  pace: seconds between a
    session's messages; every tenth message of the sessions in refused goes to an address that the sink refuses."""

    def __init__(self, port, sessions, pace=0, refused=0):
        self.port, self.pace, self.refused = port, pace, refused
        self.acknowledged, self.bounced, self.inside = set(), set(), set()
        self.stop, self.lock = False, threading.Lock()
        self.threads = [threading.Thread(target=self.session, args=(i,), daemon=True) for i in range(sessions)]
        for t in self.threads:
            t.start()

    def session(self, i):
        n = 0
        while not self.stop:
            try:
                with Client(self.port) as c:
                    c.ask("EHLO c.example")
                    while not self.stop:
                        n += 1
                        name = f"{i}-{n}-{id(self)}"
                        bad = i < self.refused and n % 10 == 0
                        sender, to = ("back@local.example", "nobody") if bad else ("a@example.org", "b")
                        c.say(f"MAIL FROM:<{sender}>\r\nRCPT TO:<{to}@sink.example>\r\nDATA".encode() + b"\r\n")
                        if not all([c.hear()[0] in "23" for _ in range(3)]):
                            break
                        with self.lock:
                            self.inside.add(i)
                        c.say(f"Subject: {name}\r\n\r\n".encode() + b"x" * 2000 + b"\r\n.\r\n")
                        taken = c.hear().startswith("250")
                        with self.lock:
                            self.inside.discard(i)
                            if taken:
                                (self.bounced if bad else self.acknowledged).add(name)
                        time.sleep(self.pace)
            except (OSError, EOFError):
                time.sleep(0.02)
            with self.lock:
                self.inside.discard(i)

    def end(self):
        self.stop = True
        for t in self.threads:
            t.join(20)


def subjects(sink):
    with sink.lock:
        return [re.search(rb"Subject: (\S+)", m[2])[1].decode() for m in sink.messages]


class Kill(unittest.TestCase):
    def check_ledgers(self, h, sink, ledger, in_flight):
        try:
            wait_for("all that was acknowledged", lambda: ledger.acknowledged <= set(subjects(sink)), 30)
            wait_for("the queue is empty", lambda: not h.messages(), 30)
        except AssertionError as e:
            lost = ledger.acknowledged - set(subjects(sink))
            raise AssertionError(f"{e}: {len(lost)} of {len(ledger.acknowledged)} acknowledged are not at the sink; in the queue {len(h.messages())}")
        got = subjects(sink)
        self.assertLessEqual(len(got) - len(set(got)), in_flight, "repeated")

    def test_kill_of_everything_under_load_loses_nothing(self):
        with Sink() as sink, Horn(["test_mode=yes"], ["destination_probe=1s"], [remote(sink)]) as h:
            for round_ in range(ROUNDS):
                ledger = Ledger(h.port, 12)
                wait_for("acknowledged", lambda: len(ledger.acknowledged) > 200)
                h.kill_all()
                ledger.end()
                h.start()
                self.check_ledgers(h, sink, ledger, 500)
                with sink.lock:
                    sink.messages.clear()

    def test_each_process_killed_alone_is_replaced_and_nothing_is_lost(self):
        for role in ("logd", "resolver", "sts", "bounce", "control", "mover", "cleanup", "qmgr", "drop", "pickup", "smtp", "smtpd", "front"):
            with self.subTest(role), Sink() as sink, Horn(["test_mode=yes"], ["destination_probe=1s"], [remote(sink)]) as h:
                ledger = Ledger(h.port, 12)
                wait_for("acknowledged", lambda: len(ledger.acknowledged) > 100)
                before = h.pids(role)
                for pid in before:
                    os.kill(pid, signal.SIGKILL)
                def replaced():
                    try:
                        after = h.pids(role)
                    except (AssertionError, ValueError):
                        return False
                    return len(after) == len(before) and not set(after) & set(before)
                wait_for(f"{role} replaced", replaced, 5 * SLOW)
                n = len(ledger.acknowledged)
                wait_for("mail goes on", lambda: len(ledger.acknowledged) > n + 50)
                ledger.end()
                self.check_ledgers(h, sink, ledger, 500 if role == "smtp" else 0)

    def test_cleanup_dies_before_its_first_message(self):
        """Its segment stays empty for ever: qmgr, which has been told of it, goes on with its successor's."""
        with Horn() as h, h.client() as c:
            for n in (1, 2): # the second time behind a segment that has some
                for _ in range(2):
                    old = h.pids("cleanup")
                    os.kill(old[0], signal.SIGKILL)
                    wait_for("its successor", lambda: h.pids("cleanup") not in ([], old), 10 * SLOW)
                c.send("a@example.org", "x@local.example", b"Subject: x\r\n\r\ny", ehlo=n == 1)
                wait_for("delivered", lambda: len(h.drop()) == n)

    def test_without_master_all_end(self):
        with Horn() as h:
            pids = h.tree()
            os.kill(pids[0], signal.SIGKILL)
            wait_for("all ended", lambda: not any(alive(p) for p in pids), 5 * SLOW)
            h.start()
            with h.client() as c:
                c.send("a@example.org", "x@local.example", b"Subject: x\r\n\r\ny")
            wait_for("delivered", h.drop)

    def test_report_is_made_once_over_kills(self):
        with Sink(lambda stage, *a: "550 5.1.1 no" if stage == "rcpt" else None) as sink, Horn(domains=[remote(sink)]) as h:
            sent = 0
            for role in ("bounce", "qmgr", "cleanup", "mover"):
                with h.client() as c:
                    for i in range(20):
                        c.send("back@local.example", "b@sink.example", b"Subject: r%d\r\n\r\nx" % sent, ehlo=i == 0)
                        sent += 1
                for pid in h.pids(role):
                    os.kill(pid, signal.SIGKILL)
            wait_for("all reports", lambda: len(h.drop()) >= sent, 40)
            wait_for("an empty queue", lambda: h.status()["servers"][0]["queue"] == 0, 40)
            ids = [re.search(rb"Message-ID: <(\S+?)@", p.read_bytes())[1] for p in h.drop()]
            parents = [re.search(rb"X-Posthorn-Queue-ID: (\S+)", p.read_bytes())[1] for p in h.drop()]
            self.assertEqual(len(set(ids)), len(set(parents)), "a second report about one message")
            self.assertEqual(len(set(parents)), sent)


if __name__ == "__main__":
    unittest.main()
