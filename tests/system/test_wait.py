"""What waits: the schedule, why, holds, reports, Badmail, restarts."""
import datetime
import email
import email.policy
import os
import re
import signal
import time
import unittest

from horn import Horn, Sink, free_port, remote, wait_for

TEXT = b"From: a@example.org\r\nTo: b@example.org\r\nSubject: hello\r\n\r\nA line."
QUICK = ["retry_first=1s", "retry_second=2s", "retry_third=4s", "retry_subsequent=16s", "destination_probe=1s"]
FAR = ["retry_first=1h", "retry_second=1h", "retry_third=1h", "retry_subsequent=1h"]


def queued(h, n=1):
    return wait_for(f"{n} deferred", lambda: [m for m in h.messages() if m["state"] == "deferred"][n - 1:] and h.messages())


class Wait(unittest.TestCase):
    def test_attempts_come_at_the_literal_times(self):
        times = []
        def answer(stage, text, n):
            if stage == "rcpt":
                times.append(time.monotonic())
                return "450 4.2.0 not now"
        with Sink(answer) as sink, Horn(["test_mode=yes"], QUICK + ["delay_notification=1h", "expiry=1h"], [remote(sink)]) as h, h.client() as c:
            qid = c.send("a@example.org", "b@sink.example", TEXT)
            wait_for("four attempts", lambda: len(times) >= 4, 15)
            # never before its time; how late a busy machine comes to it is no matter here: the times themselves are
            # those of the row, arrival and schedule
            for got, want in zip((t - times[0] for t in times), (0, 1, 3, 7)):
                self.assertGreater(got, want - 1.1, times)
            why = h.queue("why", qid).stdout.decode()
            self.assertRegex(why, r"4 attempts so far")
            self.assertRegex(why, r"next attempt: 20\d\d-")
            self.assertIn("450 4.2.0 not now", why)
            row = queued(h)[0]
            self.assertEqual((row["id"], row["attempts"], row["recipients"][0]["state"]), (qid, 4, "deferred"))
            stamp = lambda name: datetime.datetime.fromisoformat(row[name]).timestamp()
            self.assertEqual(stamp("next_attempt") - stamp("arrival"), 23)

    def test_mail_of_a_domain_with_etrn_waits_until_its_server_asks(self):
        with Sink() as sink:
            held = ("sink.example", "type=remote", "relay=yes", "etrn=yes", f"route=[127.0.0.1]:{sink.port}")
            below = ("*.sink.example", "type=remote", "relay=yes", "etrn=yes", f"route=[127.0.0.1]:{sink.port}")
            with Horn(["test_mode=yes"], QUICK, [held, below]) as h, h.client() as c:
                self.assertIn("250-ETRN", c.ask("EHLO x.example"))
                for rcpt in ("a@sink.example", "b@sink.example", "c@deep.sink.example"):
                    c.send("a@example.org", rcpt, TEXT, ehlo=False)
                waiting = queued(h, 3)
                self.assertIn("(ETRN, ATRN)", str(waiting))
                wait_for("their next attempts, too", lambda: all(m["attempts"] >= 2 for m in h.messages()))
                self.assertEqual((sink.messages, sink.connections), ([], 0))
                self.assertTrue(c.ask("ETRN sink.example").startswith("250 2.0.0"))
                wait_for("two", lambda: len(sink.messages) == 2)
                self.assertEqual([m["recipients"][0]["address"] for m in queued(h)], ["c@deep.sink.example"])
                h.kill_all()
                h.start()
                queued(h)
                with h.client() as again:
                    again.ask("EHLO x.example")
                    self.assertTrue(again.ask("ETRN @sink.example").startswith("250 2.0.0"))
                    wait_for("the last", lambda: len(sink.messages) == 3 and not h.messages())

    def test_what_is_just_being_stored_is_flushed_and_retried_as_well(self):
        """A message whose file mover has not written yet: neither act may pass it by."""
        for act in (["flush"], ["retry"]):
            busy = [True]
            with Sink(lambda stage, text, n: "450 4.2.0 not now" if stage == "rcpt" and busy[0] else None) as sink, Horn(["test_mode=yes"], FAR, [remote(sink)]) as h, h.client() as c:
                c.send("a@example.org", "b@local.example", TEXT) # cleanup has its segment
                mover = h.pids("mover")[0]
                os.kill(mover, signal.SIGSTOP)
                qid = c.send("a@example.org", "b@sink.example", TEXT, ehlo=False)
                wait_for("it waits", lambda: "not now" in str(h.messages()))
                busy[0] = False
                h.queue(*act, *([qid] if act == ["retry"] else []))
                os.kill(mover, signal.SIGCONT)
                wait_for(f"sent after {act}", lambda: sink.messages)

    def test_delay_notice_then_expiry_report_each_once(self):
        with Sink(lambda stage, *a: "450 4.2.0 not now" if stage == "rcpt" else None) as sink, \
                Horn(["test_mode=yes"], QUICK + ["delay_notification=2s", "expiry=5s"], [remote(sink)]) as h, h.client() as c:
            qid = c.send("back@local.example", "b@sink.example", TEXT)
            files = wait_for("notice and report", lambda: len(h.drop()) >= 2 and h.drop(), 15)
            wait_for("an empty queue", lambda: not h.messages())
            self.assertEqual(len(h.drop()), 2)
            actions = []
            for f in files:
                m = email.message_from_bytes(f.read_bytes(), policy=email.policy.default)
                self.assertEqual(m.get_content_type(), "multipart/report")
                self.assertEqual(m["auto-submitted"], "auto-replied")
                parts = list(m.iter_parts())
                self.assertEqual([p.get_content_type() for p in parts][:2], ["text/plain", "message/delivery-status"])
                fields = parts[1].get_payload()
                self.assertEqual(fields[0]["X-Posthorn-Queue-ID"], qid)
                self.assertEqual(fields[1]["Final-Recipient"], "rfc822;b@sink.example")
                actions.append((fields[1]["Action"], fields[1]["Status"]))
            self.assertEqual(sorted(actions), [("delayed", "4.4.7"), ("failed", "4.4.7")])

    def test_refusal_is_returned_at_once_and_keeps_the_other_recipients(self):
        with Sink(lambda stage, text, n: "550 5.1.1 no such user" if stage == "rcpt" and "bad@" in text else None) as sink, \
                Horn(domains=[remote(sink)]) as h, h.client() as c:
            c.ask("EHLO c.example")
            c.ask("MAIL FROM:<back@local.example> RET=HDRS ENVID=e+2B1")
            c.ask("RCPT TO:<bad@sink.example> ORCPT=rfc822;orig+40x.example NOTIFY=FAILURE")
            c.ask("RCPT TO:<good@sink.example>")
            c.ask("DATA")
            c.say(TEXT + b"\r\n.\r\n")
            c.hear()
            m = email.message_from_bytes(wait_for("the report", h.drop)[0].read_bytes(), policy=email.policy.default)
            text = m.as_string()
            self.assertIn("550 5.1.1 no such user", text)
            self.assertIn("Original-Recipient: rfc822;orig@x.example", text)
            self.assertIn("Original-Envelope-Id: e+1", text)
            self.assertIn("text/rfc822-headers", text)
            self.assertNotIn("good@", text)
            self.assertEqual(len(sink.messages), 1)

    def test_notify_never_and_null_sender(self):
        with Sink(lambda stage, *a: "550 5.1.1 no" if stage == "rcpt" else None) as sink, Horn(domains=[remote(sink)]) as h, h.client() as c:
            c.ask("EHLO c.example")
            c.ask("MAIL FROM:<back@local.example>")
            c.ask("RCPT TO:<b@sink.example> NOTIFY=NEVER")
            c.ask("DATA")
            c.say(TEXT + b"\r\n.\r\n")
            c.hear()
            qid = c.send("", "b@sink.example", TEXT, ehlo=False)
            wait_for("Badmail", lambda: h.badmail("BDP"))
            wait_for("an empty queue", lambda: not h.messages())
            self.assertEqual(h.drop(), [])
            self.assertEqual([p.name for p in h.badmail()], [f"{qid}.BAD"])
            self.assertIn(b"550 5.1.1 no", h.badmail("BDR")[0].read_bytes())
            self.assertIn(b"recipient=<b@sink.example>", h.badmail("BDP")[0].read_bytes())

    def test_reports_and_their_copies_hold_the_whole_original(self):
        """MISSION D11: small, larger than what fits beside an envelope, larger than memory; RET=HDRS holds for the sender alone."""
        refuse = lambda stage, *a: "550 5.1.1 no such user" if stage == "rcpt" else None
        for size, ret in ((10, ""), (100000, ""), (300000, ""), (300000, " RET=HDRS")):
            with self.subTest(size=size, ret=ret), Sink(refuse) as sink, Horn(server=["ndr_copy_to=watch@local.example"], domains=[remote(sink)]) as h, h.client() as c:
                body = TEXT + b"\r\n" + b"a line of the body\r\n" * (size // 20) + b"the end"
                c.ask("EHLO c.example")
                c.ask("MAIL FROM:<back@local.example>" + ret)
                c.ask("RCPT TO:<b@sink.example>")
                c.ask("DATA")
                c.say(body + b"\r\n.\r\n")
                c.hear()
                files = [p.read_bytes() for p in wait_for("report and copy", lambda: len(h.drop()) == 2 and h.drop())]
                for data in files:
                    copy = b"X-Receiver: <watch@" in data
                    m = email.message_from_bytes(data.split(b"\r\n", 2)[2], policy=email.policy.default)
                    part = list(m.iter_parts())[2]
                    self.assertEqual(part.get_content_type(), "message/rfc822" if copy or not ret else "text/rfc822-headers")
                    self.assertEqual(body in data, copy or not ret)
                    self.assertEqual(m["to"], "watch@local.example" if copy else "back@local.example")
                self.assertEqual(sum(b"X-Receiver: <watch@" in d for d in files), 1)
                wait_for("an empty queue", lambda: not h.messages())
                wait_for("the body files to go", lambda: not list((h.server_dir / "Queue/body").glob("??/*")))

    def test_a_report_that_cannot_be_delivered_is_kept_whole(self):
        """MISSION D12: the report of a report is three files in Badmail; ID.BAD holds the whole original."""
        refuse = lambda stage, *a: "550 5.1.1 no such user" if stage == "rcpt" else None
        with Sink(refuse) as sink, Horn(domains=[remote(sink)]) as h, h.client() as c:
            body = TEXT + b"\r\n" + b"a line of the body\r\n" * 20000 + b"the end"
            c.send("back@sink.example", "b@sink.example", body)
            bad = wait_for("Badmail", lambda: h.badmail("BAD") and h.badmail("BDP") and h.badmail("BDR") and h.badmail("BAD"))[0]
            wait_for("an empty queue", lambda: not h.messages())
            self.assertEqual(sorted(p.name.split(".")[1] for p in bad.parent.iterdir()), ["BAD", "BDP", "BDR"])
            self.assertIn(body, bad.read_bytes())
            self.assertIn(b"Content-Type: multipart/report", bad.read_bytes())
            self.assertIn(b"recipient=<back@sink.example>", h.badmail("BDP")[0].read_bytes())
            self.assertIn(b"no such user", h.badmail("BDR")[0].read_bytes())

    def test_very_many_recipients_with_long_refusals(self):
        def answer(stage, text, n):
            if stage == "rcpt":
                return ("550 5.1.1 " if int(text.split("<u")[1].split("@")[0]) % 2 else "450 4.2.1 ") + "x" * 1500
        with Sink(answer) as sink, Horn(["test_mode=yes"], [*FAR, "destination_probe=1s", "recipient_limit=unlimited"], [remote(sink)]) as h:
            (h.root / "m").write_bytes(b"X-Sender: back@local.example\n" + b"".join(b"X-Receiver: u%d@sink.example\n" % i for i in range(3000)) + b"Subject: x\n\ny\n")
            os.chmod(h.root / "m", 0o644)
            os.rename(h.root / "m", h.server_dir / "Pickup/m")
            def reported():
                return sum(p.read_bytes().count(b"Final-Recipient") for p in h.drop())
            wait_for("all refusals reported", lambda: reported() == 1500, 40)
            wait_for("the rest waits", lambda: [m["state"] for m in h.messages()] == ["deferred"] or (h.server_dir / "Queue/wait").glob("??/*.msg"))
            for restart in range(2):
                h.kill_all()
                h.start()
                self.assertEqual(reported(), 1500)
            sink.answer = lambda stage, text, n: None
            h.queue("flush")
            wait_for("the others", lambda: sum(len(m[1]) for m in sink.messages) >= 1500, 40)
            wait_for("an empty queue", lambda: not h.messages())
            self.assertEqual(sum(len(m[1]) for m in sink.messages), 1500)
            self.assertEqual(reported(), 1500)

    def test_success_report_where_the_peer_has_no_dsn(self):
        with Sink() as sink, Horn(domains=[remote(sink)]) as h, h.client() as c:
            c.ask("EHLO c.example")
            c.ask("MAIL FROM:<back@local.example>")
            c.ask("RCPT TO:<b@sink.example> NOTIFY=SUCCESS")
            c.ask("DATA")
            c.say(TEXT + b"\r\n.\r\n")
            c.hear()
            self.assertIn(b"Action: relayed", wait_for("the report", h.drop)[0].read_bytes())

    def test_too_many_hops_are_returned(self):
        hops = b"".join(b"Received: by hop%d\r\n" % i for i in range(16))
        with Horn() as h, h.client() as c:
            c.send("back@local.example", "x@local.example", hops + TEXT)
            report = wait_for("the report", h.drop)[0].read_bytes()
            self.assertIn(b"Status: 5.4.6", report)
            c.send("back@local.example", "x@local.example", hops[21:] + TEXT, ehlo=False)
            wait_for("the one that may pass", lambda: len(h.drop()) == 2)

    def test_hold_release_remove_retry(self):
        port = free_port()
        with Horn(["test_mode=yes"], FAR + ["destination_probe=1s"], [remote(port)]) as h, h.client() as c:
            a = c.send("a@example.org", "b@sink.example", TEXT)
            b = c.send("a@example.org", "b@sink.example", TEXT, ehlo=False)
            queued(h, 2)
            h.queue("hold", a)
            self.assertEqual({m["id"]: m["state"] for m in h.messages()}, {a: "held", b: "deferred"})
            h.queue("remove", b)
            wait_for("one message", lambda: [m["id"] for m in h.messages()] == [a])
            self.assertIn(b"A line.", h.queue("cat", a).stdout)
            h.stop()
            h.start()
            wait_for("still held", lambda: [m["state"] for m in h.messages()] == ["held"])
            with Sink(port=port) as sink:
                h.queue("release", a)
                wait_for("it leaves", lambda: sink.messages)
                wait_for("an empty queue", lambda: not h.messages())
            self.assertEqual(h.queue("show", a, check=False).returncode, 66)
            self.assertEqual(h.queue("retry", "nonsense", check=False).returncode, 66)

    def test_the_queue_survives_a_restart_and_a_lost_index(self):
        port = free_port()
        with Horn(["test_mode=yes"], FAR + ["destination_probe=1s"], [remote(port)]) as h, h.client() as c:
            ids = [c.send("a@example.org", "b@sink.example", TEXT, ehlo=i == 0) for i in range(30)]
            queued(h, 30)
            for wreck in (lambda p: p.unlink(), lambda p: p.write_bytes(b"\xff" * 4096), lambda p: p.write_bytes(p.read_bytes()[:1000])):
                h.stop()
                for p in (h.server_dir / "Queue/index").iterdir():
                    wreck(p)
                h.start()
                wait_for("all rows again", lambda: sorted(m["id"] for m in h.messages()) == sorted(ids))
            with Sink(port=port) as sink:
                h.queue("flush")
                wait_for("all delivered", lambda: len(sink.messages) == 30)
                wait_for("an empty queue", lambda: not h.messages())
                self.assertEqual(len(sink.messages), 30)

    def test_each_file_of_the_index_damaged_alone_is_mended(self):
        port = free_port()
        wrecks = {"gone": lambda p: p.unlink(), "cut": lambda p: p.write_bytes(p.read_bytes()[:len(p.read_bytes()) // 2]),
                  "other bytes": lambda p: p.write_bytes(b"\xff" * 8192), "a hole in the middle": self.punch}
        with Horn(["test_mode=yes"], FAR + ["destination_probe=1s"], [remote(port)]) as h, h.client() as c:
            ids = sorted(c.send("a@example.org", "b@sink.example", TEXT, ehlo=i == 0) for i in range(10))
            queued(h, 10)
            index = h.server_dir / "Queue/index"
            names = sorted(p.name for p in index.iterdir())
            self.assertGreater(len(names), 3)
            for name in names:
                for how, wreck in wrecks.items():
                    with self.subTest(file=name, damage=how):
                        h.kill_all() # as after a crash: nothing was closed in order
                        if (index / name).exists():
                            wreck(index / name)
                        h.start()
                        wait_for("all rows again", lambda: sorted(m["id"] for m in h.messages()) == ids)
            with Sink(port=port) as sink:
                h.queue("flush")
                wait_for("all delivered, once", lambda: len(sink.messages) == 10)
                wait_for("an empty queue", lambda: not h.messages())

    def test_an_index_that_breaks_during_the_pass_is_made_anew_with_every_directory(self):
        """A message in the first directory, wait/00, is found as well when the pass begins again."""
        port = free_port()
        with Horn(["test_mode=yes"], FAR + ["destination_probe=1s"], [remote(port)]) as h, h.client() as c:
            first, ids = h.server_dir / "Queue/wait/00", []
            while not list(first.glob("*.msg")) or len(ids) < 20:
                self.assertLess(len(ids), 5000)
                ids += [c.send("a@example.org", "b@sink.example", TEXT, ehlo=not ids) for _ in range(20)]
                wait_for("all wait", lambda: len(list(first.parent.glob("??/*.msg"))) == len(ids))
            for name in ("rows.db", "time.db", "dest.db"):
                h.kill_all()
                path = h.server_dir / "Queue/index" / name
                path.write_bytes(path.read_bytes()[:len(path.read_bytes()) // 2])
                h.start()
                wait_for("all rows again", lambda: sorted(m["id"] for m in h.messages()) == sorted(ids))

    def punch(self, path):
        data = bytearray(path.read_bytes())
        middle = len(data) // 2
        data[middle:middle + 512] = b"\xa5" * len(data[middle:middle + 512])
        path.write_bytes(data)

    def test_a_damaged_waiting_file_is_set_aside_and_the_rest_goes_on(self):
        port = free_port()
        with Horn(["test_mode=yes"], FAR + ["destination_probe=1s"], [remote(port)]) as h, h.client() as c:
            a = c.send("a@example.org", "b@sink.example", TEXT)
            b = c.send("a@example.org", "b@sink.example", TEXT, ehlo=False)
            queued(h, 2)
            path = next((h.server_dir / "Queue/wait").glob(f"??/{a}.msg"))
            path.write_bytes(path.read_bytes().replace(b"A line.", b"A lime."))
            with Sink(port=port) as sink:
                h.queue("flush")
                wait_for("the good one", lambda: sink.messages)
                wait_for("the bad one aside", lambda: list((h.server_dir / "Queue/corrupt").iterdir()))
                wait_for("an empty queue", lambda: not h.messages())
            self.assertIn("file_damaged", h.log())


if __name__ == "__main__":
    unittest.main()
