"""Failing disks and damaged files: what could not be made durable is not acknowledged, what is damaged is set
aside and told, the rest goes on."""
import errno
import os
import re
import shutil
import signal
import threading
import time
import unittest

from horn import Horn, Sink, free_port, remote, wait_for
from inject import Failing

TEXT = b"From: a@example.org\r\nSubject: hello\r\n\r\nA line."


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0x20
    path.write_bytes(data)


@unittest.skipIf(os.geteuid() != 0, "another process's system calls are root's to change")
class Faults(unittest.TestCase):
    def refused(self, h, code):
        with h.client() as c:
            c.ask("EHLO x.example")
            c.say(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@sink.example>\r\nDATA\r\n")
            for _ in range(3):
                c.hear()
            c.say(b"Subject: refused\r\n\r\nx\r\n.\r\n")
            self.assertRegex(c.hear(), f"^{code}")

    def send(self, h, subject, to="b@sink.example", sender="a@example.org"):
        with h.client() as c:
            return c.send(sender, to, b"Subject: " + subject + b"\r\n\r\nx")

    def got(self, sink):
        with sink.lock:
            return sorted(re.search(rb"Subject: (\S+)", m[2])[1] for m in sink.messages)

    def test_a_failed_sync_of_the_journal_is_not_acknowledged_and_never_delivered(self):
        with Sink() as sink, Horn(domains=[remote(sink)]) as h:
            self.send(h, b"before")
            with Failing(h.pids("cleanup")[0], ("fdatasync",), errno.EIO, 1):
                self.refused(h, 451)
            self.send(h, b"after")
            wait_for("both at the sink", lambda: len(sink.messages) == 2)
            self.assertIn("sync_failed", h.log())
            wait_for("both are recorded as done", lambda: h.log().count("status=removed") == 2)
            h.kill_all()
            h.start()
            self.send(h, b"later")
            wait_for("the third", lambda: len(sink.messages) == 3)
            self.assertEqual(self.got(sink), [b"after", b"before", b"later"])

    def test_a_journal_that_cannot_be_written_refuses_and_goes_on_by_itself(self):
        for error in (errno.ENOSPC, errno.EIO):
            with self.subTest(errno.errorcode[error]), Sink() as sink, Horn(domains=[remote(sink)]) as h:
                with Failing(h.pids("cleanup")[0], ("pwritev", "pwrite64"), error, 1):
                    self.refused(h, 452 if error == errno.ENOSPC else 451)
                self.send(h, b"after")
                wait_for("at the sink", lambda: sink.messages)
                self.assertEqual(self.got(sink), [b"after"])

    def test_waiting_files_that_cannot_be_synced_stay_in_the_journal(self):
        with Sink() as sink, Horn(["test_mode=yes"], ["destination_probe=1s", "retry_first=1s"], [remote(sink.port)]) as h:
            sink.close()
            self.send(h, b"first", "x@local.example") # the journal has its segments, mover's syncs matter for files only
            wait_for("delivered, and a segment ahead", lambda: h.drop() and len(list((h.server_dir / "Queue/journal").glob("*.seg"))) >= 2)
            with Failing(h.pids("mover")[0], ("fsync", "fdatasync"), errno.EIO):
                name = self.send(h, b"again")
                wait_for("the failure is told", lambda: f"{name}: reason=" in h.log())
            wait_for("stored when it can be", lambda: list((h.server_dir / "Queue/wait").glob(f"??/{name}.msg")))
            with Failing(h.pids("mover")[0], ("fsync", "fdatasync"), errno.EIO):
                name = self.send(h, b"waits")
                wait_for("the failure is told", lambda: f"{name}: reason=" in h.log())
                h.kill_all()
            with Sink(port=sink.port) as again:
                h.start()
                wait_for("delivered from the journal", lambda: len(again.messages) == 2, 30)
                self.assertEqual(self.got(again), [b"again", b"waits"])

    def test_a_mover_that_is_slow_gets_each_order_once(self):
        """A second order to store would bring back the file of a message that is delivered meanwhile."""
        with Sink(lambda stage, *_: "450 4.2.0 not now" if stage == "rcpt" else None) as sink, \
                Horn(["test_mode=yes"], [f"retry_{n}=1s" for n in ("first", "second", "third", "subsequent")], [remote(sink), ("later.example", "type=remote", "relay=yes",
                     f"route=[127.0.0.1]:{sink.port}", *(f"retry_{n}=1h" for n in ("first", "second", "third", "subsequent")))]) as h:
            clock = self.send(h, b"clock") # its attempts tell how many seconds have passed for qmgr
            def attempts():
                return max((m["attempts"] for m in h.messages() if m["id"] == clock), default=0)
            wait_for("the clock goes", lambda: attempts() >= 2)
            mover, files = h.pids("mover")[0], lambda: len(list((h.server_dir / "Queue/wait").glob("??/*.msg")))
            def writes():
                with open(f"/proc/{mover}/io") as f:
                    return int(re.search(r"syscw: (\d+)", f.read())[1])
            os.kill(mover, signal.SIGSTOP)
            start, before = attempts(), writes()
            for i in range(100):
                self.send(h, b"waits", "b@later.example")
            # qmgr looks every fifth second for orders that are open; an attempt takes one or two, and twenty without a pong end the mover
            wait_for("six seconds of qmgr's", lambda: attempts() >= start + 6, 40)
            os.kill(mover, signal.SIGCONT)
            wait_for("stored", lambda: files() == 101)
            start = attempts()
            wait_for("all orders are carried out", lambda: attempts() >= start + 2, 40)
            self.assertLess(writes() - before, 160)
            self.assertEqual(h.pids("mover"), [mover])

    def test_after_all_stood_still_nobody_is_taken_for_stuck(self):
        """A machine that was paused: master's own clock went on, the others could not answer."""
        with Horn() as h:
            before = sorted(h.pids())
            tree = h.tree()

            def pass_time(what, seconds):
                until = time.monotonic() + seconds
                wait_for(what, lambda: time.monotonic() > until, 60)

            pass_time("each has been asked once", 2)
            for pid in tree:
                os.kill(pid, signal.SIGSTOP)
            pass_time("longer than a process may be silent", 22)
            for pid in tree:
                os.kill(pid, signal.SIGCONT)
            pass_time("some beats", 2)
            self.assertEqual(sorted(h.pids()), before)

    def test_facts_that_cannot_be_synced_wait_and_nothing_is_lost(self):
        with Sink() as sink, Horn(domains=[remote(sink)]) as h:
            fates = h.server_dir / "Queue/fates"
            before = {p.name for p in fates.iterdir()}
            with Failing(h.pids("qmgr")[0], ("fdatasync", "fsync"), errno.EIO):
                for i in range(3):
                    self.send(h, b"m%d" % i)
                wait_for("the failure is told", lambda: "fates_failed" in h.log())
            # a file whose sync failed is not trusted again: its lines go to a new one
            wait_for("a new file of facts", lambda: {p.name for p in fates.iterdir()} - before)
            wait_for("with the lines", lambda: max(fates.iterdir()).read_bytes().count(b"FATE") >= 3)
            self.send(h, b"m3")
            wait_for("all at the sink", lambda: set(self.got(sink)) == {b"m0", b"m1", b"m2", b"m3"})
            wait_for("an empty queue", lambda: h.status()["servers"][0]["queue"] == 0)

    def test_facts_that_do_not_get_into_a_waiting_file_go_there_again(self):
        dead = free_port()
        with Sink() as sink, Horn(["test_mode=yes"], ["destination_probe=1s"], [remote(dead, "dead.example"), remote(sink)]) as h:
            with h.client() as c:
                name = c.send("a@example.org", ["b@sink.example", "b@dead.example"], b"Subject: two\r\n\r\nx")
            path = wait_for("its file", lambda: next((h.server_dir / "Queue/wait").glob(f"??/{name}.msg"), None))
            wait_for("one delivered", lambda: sink.messages)
            size = path.stat().st_size
            with Failing(h.pids("mover")[0], ("pwrite64", "pwritev"), errno.EIO) as failing:
                os.kill(h.pids("qmgr")[0], signal.SIGKILL) # its successor folds what it finds in the files of facts
                wait_for("a fold failed", lambda: failing.failed)
                self.assertEqual(path.stat().st_size, size)
            wait_for("the facts are in the file", lambda: path.stat().st_size > size)

    def test_what_was_delivered_on_a_later_attempt_is_not_sent_again_after_a_kill(self):
        taken = set()
        def answer(stage, text, n): # nobody at first, then one of two
            return "450 4.2.1 busy" if stage == "rcpt" and not any(t in text for t in taken) else None
        with Sink(answer) as sink, Horn(["test_mode=yes"], ["destination_probe=1s", "retry_first=1h"], [remote(sink)]) as h:
            with h.client() as c:
                name = c.send("a@example.org", ["one@sink.example", "two@sink.example"], b"Subject: two\r\n\r\nx")
            wait_for("its file", lambda: list((h.server_dir / "Queue/wait").glob(f"??/{name}.msg")))
            os.kill(h.pids("mover")[0], signal.SIGSTOP) # the fact stays in the file of facts alone
            taken.add("one@")
            h.queue("flush")
            wait_for("one is delivered and written down", lambda: re.search("to=one@.*status=sent", h.log()))
            h.kill_all()
            taken.add("two@")
            h.start()
            wait_for("the other one", lambda: h.queue("flush") and len([t for m in sink.messages for t in m[1] if "two@" in t]))
            wait_for("an empty queue", lambda: not h.messages())
            self.assertEqual(sorted(re.search("<(.*?)@", t)[1] for m in sink.messages for t in m[1]), ["one", "two"])

    def test_a_report_that_was_lost_on_its_way_is_asked_for_again(self):
        """cleanup, or mover with a large one, dies with the report unread: it is made once, by their successors."""
        refuse = lambda stage, *a: "550 5.1.1 no" if stage == "rcpt" else None
        for role, size in (("cleanup", 10), ("mover", 300000)):
            with self.subTest(role=role), Sink(refuse) as sink, Horn(domains=[remote(sink)]) as h, h.client() as c:
                gate = threading.Event()
                sink.answer = lambda stage, *a: (gate.wait(30), refuse(stage, *a))[1] if stage == "rcpt" else None
                c.send("back@local.example", "b@sink.example", b"Subject: x\r\n\r\n" + b"y" * 70 + (b"\r\n" + b"y" * 70) * (size // 72))
                old = h.pids(role)[0]
                os.kill(old, signal.SIGSTOP)
                gate.set()
                wait_for("the report is asked for", lambda: [m for m in h.messages() if m["recipients"][0]["state"] == "reporting"])
                os.kill(old, signal.SIGKILL)
                wait_for("the report", h.drop, 30)
                wait_for("an empty queue", lambda: not h.messages())
                self.assertEqual(len(h.drop()), 1)

    def three_in_the_journal(self, h):
        """Three messages that lie in the journal alone, the service killed; their segment."""
        for role in ("qmgr", "mover"):
            for pid in h.pids(role):
                os.kill(pid, signal.SIGSTOP)
        for subject in (b"one", b"two", b"three"):
            self.send(h, subject)
        h.kill_all()
        return next(p for p in (h.server_dir / "Queue/journal").iterdir() if b"Subject: two" in p.read_bytes())

    def postmaster_told(self, h, name):
        def notice():
            return [p for p in h.drop() if b"Damaged mail was set aside" in p.read_bytes() and name in p.read_bytes()]
        text = wait_for("postmaster's notice", notice)[0].read_bytes()
        self.assertIn(b"To: <postmaster@local.example>", text)

    def test_a_damaged_record_of_the_journal_is_set_aside_and_the_rest_goes_on(self):
        with Sink() as sink, Horn(domains=[remote(sink)]) as h:
            segment = self.three_in_the_journal(h)
            flip(segment, segment.read_bytes().index(b"Subject: two") + 9)
            h.start()
            wait_for("the others", lambda: self.got(sink) == [b"one", b"three"])
            copy = wait_for("the copy", lambda: list((h.server_dir / "Queue/corrupt").glob("*.rec")))[0]
            self.assertIn(b"Subject: Two", copy.read_bytes())
            self.assertIn("record_damaged", h.log())
            self.postmaster_told(h, copy.name.encode())
            notices = len(h.drop())
            h.stop()
            h.start()
            self.send(h, b"four")
            wait_for("mail goes on", lambda: b"four" in self.got(sink))
            self.assertEqual(len(h.drop()), notices, "told once")

    def test_a_damaged_head_of_a_batch_is_noticed(self):
        with Sink() as sink, Horn(domains=[remote(sink)]) as h:
            segment = self.three_in_the_journal(h)
            flip(segment, segment.read_bytes().index(b"Subject: two") // 4096 * 4096 + 30)
            h.start()
            wait_for("the others", lambda: self.got(sink) == [b"one", b"three"])
            copy = wait_for("the copy", lambda: list((h.server_dir / "Queue/corrupt").glob("*.rec")))[0]
            self.assertIn(b"Subject: two", copy.read_bytes())
            self.postmaster_told(h, copy.name.encode())

    def test_a_damaged_waiting_file_is_set_aside_and_the_rest_goes_on(self):
        dead = free_port()
        with Sink() as sink, Horn(["test_mode=yes"], ["destination_probe=1s"], [remote(dead, "dead.example"), remote(sink)]) as h:
            names = [self.send(h, b"w%d" % i, "b@dead.example") for i in range(3)]
            wait_for("files", lambda: len(list((h.server_dir / "Queue/wait").glob("??/*.msg"))) == 3)
            h.stop()
            path = next((h.server_dir / "Queue/wait").glob(f"??/{names[1]}.msg"))
            flip(path, path.read_bytes().index(b"Subject:"))
            shutil.rmtree(h.server_dir / "Queue/index")
            h.start()
            copy = wait_for("set aside", lambda: list((h.server_dir / "Queue/corrupt").glob("*.msg")))[0]
            self.assertEqual(copy.name, names[1] + ".msg")
            self.postmaster_told(h, copy.name.encode())
            wait_for("the others wait", lambda: sorted(m["id"] for m in h.messages()) == sorted([names[0], names[2]]))
            self.send(h, b"fresh")
            wait_for("mail goes on", lambda: self.got(sink) == [b"fresh"])

    def test_a_body_without_a_message_is_set_aside_after_a_day(self):
        with Horn() as h:
            h.stop()
            body = h.server_dir / "Queue/body"
            old, fresh = "000000001abcdef", "zzzzzzzzzabcdef"
            for d in body.glob("??"):
                (d / old).write_bytes(b"x")
                (d / fresh).write_bytes(b"x")
            n = len(list(body.glob(f"??/{old}")))
            h.start()
            wait_for("the old one is set aside", lambda: (h.server_dir / f"Queue/corrupt/{old}.body").exists(), 60)
            self.assertEqual(len(list(body.glob(f"??/{old}"))), n - 1)
            self.assertEqual(len(list(body.glob(f"??/{fresh}"))), n)
            self.postmaster_told(h, old.encode())

    def test_the_body_of_a_refused_message_does_not_stay(self):
        with Sink() as sink, Horn(domains=[remote(sink)]) as h, h.client() as c:
            self.send(h, b"first") # the journal has its segments
            c.ask("EHLO x.example")
            c.say(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@sink.example>\r\nDATA\r\n")
            for _ in range(3):
                c.hear()
            c.say(b"Subject: large\r\n\r\n" + b"0123456789abcdef\r\n" * 20000)
            with Failing(h.pids("cleanup")[0], ("pwritev", "pwrite64"), errno.EIO, 1):
                c.say(b".\r\n")
                self.assertRegex(c.hear(), "^451")
            wait_for("no body is left", lambda: not [p for p in (h.server_dir / "Queue/body").rglob("*") if p.is_file()])

    def test_a_damaged_message_keeps_its_large_body(self):
        dead = free_port()
        with Horn(["test_mode=yes"], ["destination_probe=1s"], [remote(dead, "dead.example")]) as h:
            with h.client() as c:
                name = c.send("a@example.org", "b@dead.example", b"Subject: large\r\n\r\n" + b"0123456789abcdef\r\n" * 20000)
            path = wait_for("its file", lambda: next((h.server_dir / "Queue/wait").glob(f"??/{name}.msg"), None))
            h.stop()
            flip(path, path.stat().st_size // 2)
            shutil.rmtree(h.server_dir / "Queue/index")
            h.start()
            corrupt = h.server_dir / "Queue/corrupt"
            wait_for("both are set aside", lambda: {f"{name}.msg", f"{name}.body"} <= {p.name for p in corrupt.iterdir()})
            self.assertIn(b"0123456789abcdef\r\n" * 20000, (corrupt / f"{name}.body").read_bytes())
            self.postmaster_told(h, name.encode())

    def test_a_notice_that_could_not_be_taken_goes_again(self):
        with Sink() as sink, Horn(domains=[remote(sink)]) as h:
            segment = self.three_in_the_journal(h)
            flip(segment, segment.read_bytes().index(b"Subject: two") + 9)
            h.start()
            for pid in h.pids("bounce"):
                os.kill(pid, signal.SIGSTOP)
            wait_for("found", lambda: "record_damaged" in h.log())
            for pid in h.pids("bounce"):
                os.kill(pid, signal.SIGKILL)
            copy = wait_for("the copy, after the notice", lambda: list((h.server_dir / "Queue/corrupt").glob("*.rec")), 40)[0]
            self.postmaster_told(h, copy.name.encode())


if __name__ == "__main__":
    unittest.main()
