"""Local delivery: maildir, mbox and commands, each as its recipient."""
import errno
import mailbox
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import threading
import time
import unittest

from horn import Horn, wait_for
from inject import AT_FDCWD, Inside, Killed

TEXT = b"From: a@example.org\r\nTo: b@example.org\r\nSubject: hello\r\n\r\nA line.\r\nFrom here on\r\n>From there\r\n"
ROOT = os.geteuid() == 0
USER = "posthorn-log" if ROOT else pwd.getpwuid(os.geteuid()).pw_name # a user of this machine that may get mail


class Local(unittest.TestCase):
    def horn(self, *server, domains=(), **kw):
        h = Horn(["test_mode=yes"], [*server], domains, **kw)
        self.home = h.root / "homes" / USER
        self.home.mkdir(parents=True)
        os.chmod(self.home.parent, 0o755)
        if ROOT:
            shutil.chown(self.home, USER)
        return h

    def new(self):
        return [p for p in (self.home / "Maildir/new").glob("*")]

    def maildir(self, *more, **kw):
        h = self.horn("local_delivery=maildir", *more, **kw)
        h.conf("-e", f"maildir={h.root}/homes/%u/Maildir")
        return h

    def test_maildir_as_the_recipient(self):
        with self.maildir() as h, h.client() as c:
            c.send("back@else.example", f"{USER.upper()}+lists@local.example", TEXT[:-2])
            path = wait_for("the file", self.new)[0]
            data = path.read_bytes()
            self.assertTrue(data.startswith(b"Return-Path: <back@else.example>\nX-Original-To: %s+lists@local.example\nDelivered-To: " % USER.upper().encode()))
            self.assertTrue(data.endswith(b"\n\n" + TEXT.split(b"\r\n\r\n", 1)[1].replace(b"\r\n", b"\n")))
            self.assertNotIn(b"\r", data)
            st = path.stat()
            self.assertEqual((st.st_uid, st.st_mode & 0o777), (pwd.getpwnam(USER).pw_uid, 0o600))
            wait_for("an empty queue", lambda: not h.messages())
            wait_for("the log", lambda: "relay=local" in h.log())
            self.assertEqual([p for p in (self.home / "Maildir/tmp").iterdir()], [])

    def test_unknown_users_and_those_below_the_limit_are_returned(self):
        with self.maildir("recipient_check=no", f"local_uid_min={pwd.getpwnam(USER).pw_uid + 1}", domains=[("drop.example", "type=local", "local_delivery=drop")]) as h, h.client() as c:
            for i, (name, status) in enumerate(((USER, b"5.7.0"), ("root", b"5.7.0"), ("no-such-user", b"5.1.1"), ("../../etc/x", b"5.1.1"))):
                c.send("back@drop.example", f"{name}@local.example" if "/" not in name else f'"{name}"@local.example', TEXT[:-2], ehlo=i == 0)
                reports = wait_for("the report", lambda: len(h.drop()) == i + 1 and h.drop())
                self.assertTrue(any(b"Status: " + status in p.read_bytes() and name.encode() in p.read_bytes() for p in reports), name)
            self.assertFalse((self.home / "Maildir").exists())

    def test_mbox_is_locked_and_quoted(self):
        with self.horn("local_delivery=mbox") as h:
            path = self.home / "mbox"
            h.conf("-e", f"mbox={h.root}/homes/%u/mbox")
            h.run("posthorn", "-c", str(h.dir), "reload")
            lock = self.home / "mbox.lock"
            lock.touch()
            with h.client() as c:
                for i in range(20):
                    c.send("back@else.example", f"{USER}@local.example", TEXT[:-2], ehlo=i == 0)
                time.sleep(0.3) # nothing may come while somebody else has the lock
                self.assertFalse(path.exists() and path.read_bytes())
                lock.unlink()
                wait_for("an empty queue", lambda: not h.messages())
            box = mailbox.mbox(path)
            self.assertEqual(len(box), 20)
            raw = path.read_bytes()
            self.assertTrue(raw.startswith(b"From back@else.example  "))
            self.assertIn(b"\n>From here on\n>>From there\n\n", raw)
            self.assertFalse(lock.exists())
            self.assertEqual(path.stat().st_uid, pwd.getpwnam(USER).pw_uid)

    @unittest.skipIf(not ROOT or os.environ.get("POSTHORN_SANITIZED"), "another process's system calls are root's to make; the sanitizers need more")
    def test_the_rights_of_deliver_and_of_what_it_starts(self):
        with self.horn("local_delivery=mbox") as h, h.client() as c:
            h.conf("-e", f"mbox={h.root}/homes/%u/mbox")
            h.run("posthorn", "-c", str(h.dir), "reload")
            deliver = h.pids("deliver")[0]
            status = dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{deliver}/status").read_text().splitlines() if ":\t" in line)
            kill_setgid_setuid = (1 << 5) + (1 << 6) + (1 << 7)
            for name in ("CapEff", "CapPrm", "CapBnd"):
                self.assertEqual(int(status[name], 16), kill_setgid_setuid, name)
            self.assertEqual((status["NoNewPrivs"], status["Groups"].split()), ("1", []))
            (self.home / "mbox.lock").touch() # the delivery waits for it, confined already
            c.send("back@else.example", f"{USER}@local.example", TEXT[:-2])
            def child():
                found = subprocess.run(["pgrep", "-P", str(deliver)], capture_output=True, text=True).stdout.split()
                return [int(p) for p in found if "Seccomp:\t2" in pathlib.Path(f"/proc/{p}/status").read_text()]
            pid = wait_for("a confined child", child)[0]
            status = dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
            self.assertEqual((set(status["Uid"].split()), int(status["CapEff"], 16), status["NoNewPrivs"]), ({str(pwd.getpwnam(USER).pw_uid)}, 0, "1"))
            with Inside(pid) as p:
                self.assertEqual(p.call("openat", AT_FDCWD, b"/etc/passwd", 0), -errno.EACCES)                     # Landlock
                self.assertEqual(p.call("openat", AT_FDCWD, str(h.root / "conf").encode(), 0), -errno.EACCES)
                self.assertGreaterEqual(p.call("openat", AT_FDCWD, str(self.home / "mbox").encode(), 0), 0)        # its own directory
            with self.assertRaises(Killed) as killed, Inside(pid) as p:
                p.call("socket", 2, 1, 0)                                                                           # seccomp
            self.assertEqual(killed.exception.args[0], signal.SIGSYS)
            (self.home / "mbox.lock").unlink()
            wait_for("its end is told", lambda: [m for m in h.messages() if "without a word" in m["recipients"][0]["reason"]])

    def test_a_mailbox_that_is_not_the_recipients_own_is_left_alone(self):
        with self.horn("local_delivery=mbox") as h, h.client() as c:
            target = h.root / "target"
            target.touch()
            os.symlink(target, self.home / "mbox")
            h.conf("-e", f"mbox={h.root}/homes/%u/mbox")
            h.run("posthorn", "-c", str(h.dir), "reload")
            c.send("back@else.example", f"{USER}@local.example", TEXT[:-2])
            wait_for("deferred", lambda: [m for m in h.messages() if m["state"] == "deferred"])
            self.assertEqual(target.read_bytes(), b"")

    def test_a_command_runs_as_the_recipient_with_its_environment(self):
        with self.horn() as h, h.client() as c:
            out = self.home / "out"
            h.conf("-e", f"local_delivery=pipe:(id -u; echo $$SENDER $$RECIPIENT $$EXTENSION $$USER; grep NoNewPrivs /proc/self/status; cat) >{out}")
            h.run("posthorn", "-c", str(h.dir), "reload")
            c.send("back@else.example", f"{USER}+ext@local.example", TEXT[:-2])
            wait_for("an empty queue", lambda: out.exists() and not h.messages())
            lines = out.read_text().splitlines()
            self.assertEqual(lines[:3], [str(pwd.getpwnam(USER).pw_uid), f"back@else.example {USER}+ext@local.example ext {USER}", "NoNewPrivs:\t1"])
            self.assertTrue(lines[3].startswith("From back@else.example  "))
            self.assertEqual(lines[-1], ">From there")

    def test_what_a_command_says_decides(self):
        """Exit status, signal, time limit, memory limit: what becomes of the message and what the sender or operator reads."""
        cases = {"exit 75": ("deferred", "status 75"), "echo no room; exit 73": ("failed", "5.2.0"), "exit 67": ("failed", "5.1.1"), "no-such-command-here": ("failed", "not found"),
                 "kill -9 $$$$": ("deferred", "signal 9"), "sleep 60": ("deferred", "local_time_limit"), "true": ("delivered", "")}
        domains = [(f"c{i}.example", "type=local", f"local_delivery=pipe:{command}", "local_time_limit=1s") for i, command in enumerate(cases)]
        with self.horn(domains=domains) as h, h.client() as c:
            for i in range(len(cases)):
                c.send("back@local.example", f"{USER}@c{i}.example", TEXT[:-2], ehlo=i == 0)
            failed = sum(fate == "failed" for fate, _ in cases.values())
            deferred = sum(fate == "deferred" for fate, _ in cases.values())
            rows = wait_for("the deferred ones", lambda: len([m for m in h.messages() if m["state"] == "deferred"]) == deferred and h.messages())
            reports = wait_for("the reports", lambda: len(h.drop()) == failed and b"".join(p.read_bytes() for p in h.drop()).decode())
            for i, (command, (fate, words)) in enumerate(cases.items()):
                with self.subTest(command=command):
                    text = reports if fate == "failed" else "".join(r["recipients"][0]["reason"] for r in rows if f"c{i}.example" in r["recipients"][0]["address"])
                    self.assertIn(words, text)
            self.assertIn("no room", reports)
            wait_for("nothing of it runs on", lambda: not subprocess.run(["pgrep", "-f", f"^sleep 60$"], capture_output=True).stdout)

    def test_a_message_that_was_here_before_goes_in_circles(self):
        with self.maildir(domains=[("drop.example", "type=local", "local_delivery=drop")]) as h, h.client() as c:
            c.send("back@drop.example", f"{USER}@local.example", b"Delivered-To: %s@local.example\r\n" % USER.encode() + TEXT[:-2])
            self.assertIn(b"Status: 5.4.6", wait_for("the report", h.drop)[0].read_bytes())

    def test_a_large_message_and_many_at_once(self):
        with self.maildir("message_size_limit=20M", "session_size_limit=unlimited", "local_process_limit=5") as h, h.client() as c:
            big = TEXT + (b"y" * 998 + b"\r\n") * 3000
            c.send("back@else.example", f"{USER}@local.example", big[:-2])
            def work():
                with h.client() as d:
                    for i in range(10):
                        d.send("back@else.example", f"{USER}@local.example", TEXT[:-2], ehlo=i == 0)
            threads = [threading.Thread(target=work) for _ in range(5)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            wait_for("all files", lambda: len(self.new()) == 51)
            wait_for("an empty queue", lambda: not h.messages())
            sizes = sorted(p.stat().st_size for p in self.new())
            self.assertGreater(sizes[-1], 2900000)
            self.assertLess(sizes[-2], 2000)

    def test_killed_in_any_process_nothing_is_lost_or_doubled_in_a_maildir(self):
        with self.maildir() as h:
            for role in ("local", "deliver", "qmgr"):
                with h.client() as c:
                    for i in range(30):
                        c.send("back@else.example", f"{USER}@local.example", TEXT[:-2], ehlo=i == 0)
                        if i == 15:
                            for pid in h.pids(role):
                                os.kill(pid, 9)
                wait_for("a new one", lambda: h.pids(role) not in ([], [0]))
                h.queue("flush", check=False)
            def flushed():
                h.queue("flush", check=False)
                return not h.messages()
            wait_for("an empty queue", flushed, 40)
            self.assertEqual(len(self.new()), 90)

    def test_a_partner_that_is_replaced_while_one_is_not_looking(self):
        """The successor's channel may come before the word that the old one is gone: what ran there is tried again."""
        with self.maildir() as h:
            for _ in range(2):
                local, deliver = h.pids("local")[0], h.pids("deliver")[0]
                os.kill(deliver, signal.SIGSTOP)
                with h.client() as c:
                    c.send("back@else.example", f"{USER}@local.example", TEXT[:-2])
                wait_for("it is on its way", lambda: [m for m in h.messages() if m["recipients"][0]["state"] == "delivering"])
                os.kill(local, signal.SIGSTOP)
                h.run("posthorn", "-c", str(h.dir), "reload") # its control channel has a word first, and so is read first
                os.kill(deliver, signal.SIGKILL)
                wait_for("a successor", lambda: h.pids("deliver") not in ([], [0], [deliver]))
                os.kill(local, signal.SIGCONT)
                def flushed():
                    h.queue("flush", check=False)
                    return not h.messages()
                wait_for("an empty queue", flushed, 15)

    def test_a_domain_has_its_own_drop_directory(self):
        with Horn() as h:
            h.conf("domain", "add", "own.example", "type=local", f"drop_directory={h.dir}/own-drop")
            h.run("posthorn", "-c", str(h.dir), "reload")
            with h.client() as c:
                c.send("a@x.example", ["u@own.example", "v@local.example"], TEXT[:-2])
                wait_for("the domain's", lambda: list(pathlib.Path(h.dir, "own-drop").glob("*.eml")))
                wait_for("the server's", h.drop)
                self.assertIn(b"X-Receiver: <u@own.example>\r\n", next(pathlib.Path(h.dir, "own-drop").glob("*.eml")).read_bytes())


if __name__ == "__main__":
    unittest.main()
