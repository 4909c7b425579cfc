"""A message all the way: in by SMTP, files and sendmail, out to Drop and to another server."""
import email
import os
import pathlib
import random
import re
import shutil
import signal
import smtplib
import subprocess
import threading
import unittest

from horn import BUILD, TREE, Client, Horn, Sink, free_port, remote, wait_for

TEXT = b"From: a@example.org\r\nTo: b@example.org\r\nSubject: hello\r\n\r\nA line.\r\n"


def without_trace(body):
    """The content behind the Received field that the service puts on top."""
    return re.sub(rb"\AReceived: (?:.*\r\n)(?:[ \t].*\r\n)*", b"", body)


class Path(unittest.TestCase):
    def test_drop_gets_the_message_with_its_envelope_on_top(self):
        with Horn() as h, h.client() as c:
            qid = c.send("a@example.org", ["x@local.example", "y@local.example"], TEXT[:-2])
            files = wait_for("a file in Drop", h.drop)
            self.assertEqual(files[0].name, f"{qid}.eml")
            text = files[0].read_bytes()
            self.assertTrue(text.startswith(b"X-Sender: <a@example.org>\r\nX-Receiver: <x@local.example>\r\nX-Receiver: <y@local.example>\r\n"))
            self.assertTrue(text.endswith(TEXT))
            wait_for("an empty queue", lambda: h.messages() == [])

    def test_relay_hands_every_shape_of_body_on_unchanged(self):
        shapes = [b"\r\n", b".\r\n..\r\n.x\r\n", b"8-bit \xe4\xf6\xfc\xff\r\n", b"x" * 5000 + b"\r\n", b"no end", b"", b"\r\n\r\n", b"tab\tnul\x00here\r\n"]
        rng = random.Random(1)
        for i in range(60):
            shapes.append(b"\r\n".join(bytes(rng.choice(b".abc\t \xe9") for _ in range(rng.randrange(0, 90))) for _ in range(rng.randrange(1, 40))) + b"\r\n")
        for extensions in (("PIPELINING", "8BITMIME"), ("PIPELINING", "8BITMIME", "CHUNKING"), ("8BITMIME",)):
            with Sink(extensions=extensions) as sink, Horn(domains=[remote(sink)]) as h, smtplib.SMTP("127.0.0.1", h.port) as s:
                for i, shape in enumerate(shapes):
                    if s.helo_resp is None and s.ehlo_resp is None:
                        s.ehlo()
                    s.docmd("MAIL", "FROM:<a@example.org> BODY=8BITMIME")
                    s.docmd("RCPT", "TO:<b@sink.example>")
                    content = b"Subject: %d\r\n\r\n" % i + shape
                    s.putcmd("DATA")
                    self.assertEqual(s.getreply()[0], 354)
                    stuffed = re.sub(rb"(?m)^\.", b"..", content)
                    if not stuffed.endswith(b"\r\n"):
                        stuffed += b"\r\n"
                    s.send(stuffed + b".\r\n")
                    self.assertEqual(s.getreply()[0], 250)
                wait_for("all at the sink", lambda: len(sink.messages) == len(shapes), 30)
                got = {}
                for _, _, body in sink.messages:
                    body = without_trace(body)
                    got[int(re.match(rb"Subject: (\d+)", body)[1])] = body
                for i, shape in enumerate(shapes):
                    want = b"Subject: %d\r\n\r\n" % i + shape
                    self.assertEqual(got[i], want if want.endswith(b"\r\n") else want + b"\r\n", (i, extensions))

    def test_chunked_content_arrives_as_sent(self):
        with Sink(extensions=("PIPELINING", "8BITMIME", "CHUNKING")) as sink, Horn(domains=[remote(sink)]) as h, h.client() as c:
            c.ask("EHLO c.example")
            c.say(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@sink.example>\r\nBDAT 16\r\nSubject: x\r\n\r\nabBDAT 4 LAST\r\nc\r\nd")
            for code in ("250", "250", "250", "250"):
                self.assertTrue(c.hear().startswith(code))
            wait_for("the message", lambda: sink.messages)
            self.assertEqual(without_trace(sink.messages[0][2]), b"Subject: x\r\n\r\nabc\r\nd")

    def test_large_message_goes_through_a_file(self):
        with Sink() as sink, Horn(server=["message_size_limit=20M", "session_size_limit=40M"], domains=[remote(sink)]) as h, h.client() as c:
            body = TEXT + b"0123456789abcdef\r\n" * 200000
            c.send("a@example.org", "b@sink.example", body[:-2])
            c.send("a@example.org", "b@local.example", body[:-2], ehlo=False)
            wait_for("the message", lambda: sink.messages, 30)
            self.assertEqual(without_trace(sink.messages[0][2]), body)
            drop = wait_for("the file", h.drop)[0].read_bytes()
            self.assertTrue(drop.endswith(body))
            wait_for("the body files to go", lambda: not [p for p in (h.server_dir / "Queue/body").glob("??/*")])

    def test_relay_is_denied_by_default(self):
        with Horn(domains=[("never.example", "type=remote", "relay=never"), ("server.example", "type=remote")]) as h, h.client() as c:
            c.ask("EHLO c.example")
            c.ask("MAIL FROM:<a@example.org>")
            for domain in ("elsewhere.example", "never.example", "server.example", "[127.0.0.2]"):
                self.assertTrue(c.ask(f"RCPT TO:<b@{domain}>").startswith("550 5.7.1"), domain)
            self.assertTrue(c.ask("RCPT TO:<postmaster>").startswith("250"))
        with Horn(server=["relay_exceptions=127.0.0.0/255.0.0.0"], domains=[("never.example", "type=remote", "relay=never")]) as h, h.client() as c:
            c.ask("EHLO c.example")
            c.ask("MAIL FROM:<a@example.org>")
            self.assertTrue(c.ask("RCPT TO:<b@elsewhere.example>").startswith("250"))
            self.assertTrue(c.ask("RCPT TO:<b@never.example>").startswith("550 5.7.1"))

    def test_pickup_takes_a_file_and_refuses_a_bad_one(self):
        with Sink() as sink, Horn(domains=[remote(sink)]) as h:
            pick = h.server_dir / "Pickup"
            for name, text in (("one", b"X-Sender: a@example.org\nX-Receiver: b@sink.example\nSubject: p\nBcc: secret@x.example\n\nbody\n"),
                               ("two", b"From: Me <a@example.org>\nTo: B <b@sink.example>, c@sink.example\nBcc: d@sink.example\n\nbody\n"),
                               ("bad", b"Subject: nobody\n\nbody\n")):
                (h.root / name).write_bytes(text)
                os.chmod(h.root / name, 0o644)
                os.rename(h.root / name, pick / name)
            wait_for("both at the sink", lambda: len(sink.messages) == 2)
            bodies = b"".join(m[2] for m in sink.messages)
            self.assertNotIn(b"Bcc", bodies)
            self.assertEqual(bodies.count(b"Message-ID:"), 2)
            self.assertEqual(sorted(len(m[1]) for m in sink.messages), [1, 3])
            self.assertIn(b"no recipient", wait_for("the bad one", lambda: h.badmail("BDR"))[0].read_bytes())
            wait_for("an empty .taken", lambda: not list((pick / ".taken").iterdir()))

    def test_a_burst_into_pickup_waits_for_no_rescan(self):
        """More files than are on their way at once: those that are told of while no place is free have their turn."""
        with Horn(["test_mode=yes"], ["pickup_settle=1h"]) as h:
            pick, pid = h.server_dir / "Pickup", h.pids("pickup")[0]
            os.kill(pid, signal.SIGSTOP) # it is told of all at once
            for i in range(700):
                (pick / f".{i}").write_bytes(b"X-Sender: a@example.org\r\nX-Receiver: b@local.example\r\nSubject: %d\r\n\r\nx\r\n" % i)
                os.chmod(pick / f".{i}", 0o644)
                os.rename(pick / f".{i}", pick / str(i))
            os.kill(pid, signal.SIGCONT)
            wait_for("all are delivered", lambda: len(h.drop()) == 700)

    def test_a_large_file_on_its_way_outlives_those_who_are_replaced(self):
        """New ends come while its body goes to mover: it is not begun again there, and goes on when mover is the one."""
        with Horn(["test_mode=yes"], ["message_size_limit=unlimited", "session_size_limit=unlimited"]) as h:
            pick, body = h.server_dir / "Pickup", b"x" * 70 + b"\r\n"
            def drop_in(name):
                (h.root / name).write_bytes(b"X-Sender: a@example.org\r\nX-Receiver: b@local.example\r\nSubject: large\r\n\r\n" + body * 40000)
                os.chmod(h.root / name, 0o644)
                os.rename(h.root / name, pick / name)
                wait_for("it is taken", lambda: not (pick / name).exists())
            for role in ("cleanup", "mover"):
                mover, gone = h.pids("mover")[0], h.pids(role)[0]
                os.kill(mover, signal.SIGSTOP)
                drop_in(role)
                os.kill(gone, signal.SIGKILL)
                wait_for("its successor", lambda: h.pids(role) not in ([], [gone]))
                if role == "cleanup":
                    os.kill(mover, signal.SIGCONT)
                drop_in(role + "2")
                wait_for("both", lambda: len(h.drop()) == (2 if role == "cleanup" else 4))
            for p in h.drop():
                self.assertEqual(p.read_bytes().count(body), 40000)

    def test_garbage_in_pickup_disturbs_nothing(self):
        with Sink() as sink, Horn(["test_mode=yes"], ["pickup_settle=1s"], [remote(sink)]) as h:
            pick, good = h.server_dir / "Pickup", b"X-Sender: a@example.org\r\nX-Receiver: b@sink.example\r\nSubject: good\r\n\r\nx\r\n"
            garbage = {"binary": bytes(range(256)) * 40, "empty": b"", "endless": b"X-Receiver: " + b"a" * 200000, "nul": b"From: a@b\0c\nTo: d@e\n\n",
                       "address": b"X-Sender: a@@b\nX-Receiver: <c\n\nx", "markup": b"<html><body>no mail</body></html>\n"}
            for name, text in garbage.items():
                (h.root / name).write_bytes(text)
                os.chmod(h.root / name, 0o644)
                os.rename(h.root / name, pick / name)
            (h.root / "outside").write_bytes(good)
            os.symlink(h.root / "outside", pick / "link")
            os.mkdir(pick / "folder")
            os.mkfifo(pick / "fifo")
            (pick / "twice").write_bytes(good)
            os.link(pick / "twice", h.root / "other-name")
            (h.root / "g").write_bytes(good)
            os.chmod(h.root / "g", 0o644)
            os.rename(h.root / "g", pick / "good")
            wait_for("the good one", lambda: len(sink.messages) == 1)
            wait_for("a reason for each", lambda: len(h.badmail("BDR")) >= len(garbage))
            reasons = b"\n".join(p.read_bytes() for p in h.badmail("BDR"))
            for words in (b"not an address", b"no recipient"):
                self.assertIn(words, reasons)
            wait_for("words about each of the others", lambda: all(re.search(rf"pickup.*{n}", h.log()) for n in ("link", "fifo", "folder", "twice")))
            self.assertEqual(len(sink.messages), 1)
            self.assertEqual((h.root / "outside").read_bytes(), good)

    def test_drop_under_load_gets_each_message_once_and_whole(self):
        sessions, each = 20, 100
        with Horn() as h:
            def send(n):
                with h.client() as c:
                    for i in range(each):
                        c.send("a@example.org", "x@local.example", b"Subject: %d-%d\r\n\r\n" % (n, i) + b"y" * (i * 37) + b"\r\nend", ehlo=i == 0)
            threads = [threading.Thread(target=send, args=(n,)) for n in range(sessions)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            wait_for("all in Drop", lambda: len(h.drop()) == sessions * each, 60)
            names = {re.search(rb"Subject: (\S+)", p.read_bytes())[1] for p in h.drop()}
            self.assertEqual(len(names), sessions * each)
            self.assertTrue(all(p.read_bytes().endswith(b"\r\nend\r\n") for p in h.drop()))
            self.assertEqual([p for p in (h.server_dir / "Drop").iterdir() if p.suffix != ".eml"], [])

    @unittest.skipIf(os.environ.get("POSTHORN_SANITIZED"), "a sanitized program does not run setgid")
    @unittest.skipIf(os.geteuid() != 0, "users are root's to change")
    def test_the_installed_sendmail_writes_into_maildrop_and_nowhere_else(self):
        with Sink() as sink, Horn(domains=[remote(sink)]) as h:
            subprocess.run(["make", "-s", "install", f"DESTDIR={h.root}/root", f"B={BUILD}"], cwd=TREE, check=True, capture_output=True)
            program = h.root / "root/usr/sbin/sendmail"
            self.assertEqual(program.stat().st_mode & 0o7777, 0o2755)
            plain = h.root / "plain"
            shutil.copyfile(program, plain)
            plain.chmod(0o755)

            def run(which):
                return subprocess.run(["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", str(which), "-C", str(h.dir), "b@sink.example"],
                                      input=b"From: boss@example.org\n\nhello\n", capture_output=True, timeout=60)
            self.assertEqual(run(program).returncode, 0)
            wait_for("at the sink", lambda: sink.messages)
            self.assertIn("nobody@", sink.messages[0][0]) # the owner, whatever the header says
            refused = run(plain)
            self.assertNotEqual(refused.returncode, 0)
            self.assertIn(b"maildrop", refused.stderr)

    def test_sendmail_hands_in(self):
        with Sink() as sink, Horn(domains=[remote(sink)]) as h:
            h.sendmail("-i", "-f", "me@example.org", "b@sink.example", input=b"Subject: s\n\n.\nafter the dot\n")
            h.sendmail("-t", input=b"To: c@sink.example\nSubject: t\n\ntext\n")
            h.sendmail("-bs", input=b"EHLO x\r\nMAIL FROM:<q@example.org>\r\nRCPT TO:<d@sink.example>\r\nDATA\r\nSubject: u\r\n\r\n..x\r\n.\r\nQUIT\r\n")
            wait_for("three messages", lambda: len(sink.messages) == 3)
            bodies = b"".join(m[2] for m in sink.messages)
            self.assertIn(b"\r\n.\r\nafter the dot\r\n", bodies)
            self.assertIn(b"\r\n.x\r\n", bodies)
            self.assertEqual(h.sendmail("nobody here@", input=b"", check=False).returncode, 67)
            # what is not offered is refused, not taken and forgotten
            self.assertIn(b"\n555 ", h.sendmail("-bs", input=b"EHLO x\r\nMAIL FROM:<q@example.org> REQUIRETLS\r\nQUIT\r\n").stdout)

    def test_starttls_in_and_out(self):
        with Horn(domains=[remote(free_port(), "local.example.net")]) as inner, Horn(domains=[remote(inner.port, "local.example.net")]) as h:
            with smtplib.SMTP("127.0.0.1", h.port) as s:
                import ssl
                context = ssl.create_default_context()
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                s.starttls(context=context)
                s.sendmail("a@example.org", ["b@local.example.net"], "Subject: tls\r\n\r\nx\r\n")
            text = wait_for("the message at the next hop", lambda: [m for m in inner.messages()])
            body = inner.queue("cat", text[0]["id"]).stdout
            self.assertEqual(body.count(b"using TLSv1.3"), 2, body)

    def test_second_start_is_refused(self):
        with Horn() as h:
            done = h.run("posthorn", "-c", str(h.dir), "start", check=False)
            self.assertEqual(done.returncode, 75)
            self.assertIn(b"running already", done.stderr)

    def test_a_taken_port_is_named_at_start(self):
        with Sink() as other:
            h = Horn()
            h.conf("-e", f"listen=127.0.0.1:{other.port}")
            done = h.run("posthorn", "-c", str(h.dir), "start", check=False)
            self.assertEqual(done.returncode, 69)
            self.assertIn(f"127.0.0.1:{other.port}".encode(), done.stderr)
            h.__exit__(None)


if __name__ == "__main__":
    unittest.main()
