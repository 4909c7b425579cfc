"""posthorn upgrade: the service becomes another build without losing a session, or stays as it was."""
import os
import pathlib
import shutil
import signal
import subprocess
import threading
import unittest

from horn import BUILD, Client, Horn, Sink, remote, wait_for

TEXT = b"Subject: hello\r\n\r\nA line."


class Upgrade(unittest.TestCase):
    def other(self, h, name="other"):
        """A second build: its programs elsewhere."""
        place = h.root / name
        place.mkdir()
        shutil.copy(BUILD / "posthorn", place)
        shutil.copytree(BUILD / "libexec", place / "libexec")
        return place

    def upgrade(self, h, place, check=True):
        done = subprocess.run([str(place / "posthorn"), "-c", str(h.dir), "upgrade"], capture_output=True, timeout=150)
        if check:
            self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def builds(self, h):
        """{role: {folder}} of all that runs."""
        found = {}
        for p in h.status()["processes"]:
            try:
                found.setdefault(p["role"], set()).add(str(pathlib.Path(os.readlink(f"/proc/{p['pid']}/exe")).parent.parent))
            except FileNotFoundError: # it has ended meanwhile
                pass
        return found

    def test_under_load(self):
        """There and back while clients send: no session fails, nothing is lost or twice, the master keeps its number, a session of
        before goes on with its worker and ends it."""
        with Sink() as sink, Horn(["test_mode=yes"], ["relay=allow", "retry_first=1s", "retry_second=1s", "retry_third=1s"], [remote(sink)]) as h:
            other, master = self.other(h), h.tree()[0]
            sent, failed, stop = [], [], threading.Event()

            def feed(k):
                n = 0
                while not stop.is_set():
                    n += 1
                    name = f"m{k}-{n}"
                    try:
                        with h.client() as c:
                            c.send("a@example.org", "b@sink.example" if n % 2 else "x@local.example", f"Subject: {name}\r\n\r\nx".encode())
                        sent.append(name)
                    except (OSError, EOFError, AssertionError) as e:
                        failed.append(repr(e))
            threads = [threading.Thread(target=feed, args=(k,)) for k in range(4)]
            with h.client() as before:
                before.ask("EHLO client.example")
                for t in threads:
                    t.start()
                for place in (other, BUILD, other):
                    n = len(sent)
                    wait_for("mail", lambda: len(sent) > n + 50)
                    self.upgrade(h, place)
                n = len(sent)
                wait_for("mail", lambda: len(sent) > n + 50)
                stop.set()
                for t in threads:
                    t.join()
                self.assertEqual(failed, [])
                self.assertEqual(h.tree()[0], master)
                new = {str(other)}
                builds = self.builds(h)
                self.assertEqual({r: b for r, b in builds.items() if b != new}, {"smtpd": {str(other), str(BUILD)}})
                before.send("a@example.org", "x@local.example", b"Subject: last\r\n\r\nx", ehlo=False)
                sent.append("last")
                before.ask("QUIT")
            wait_for("the worker of before has ended", lambda: self.builds(h)["smtpd"] == new)
            subjects = lambda: [line[9:] for f in h.drop() for line in f.read_text().splitlines() if line.startswith("Subject: ")] + \
                [line[9:].decode() for m in sink.messages for line in m[2].split(b"\r\n") if line.startswith(b"Subject: ")]
            wait_for("all is there", lambda: not set(sent) - set(subjects()))
            self.assertEqual(len(subjects()), len(set(subjects())))
            self.assertNotIn("process_ended", h.log())
            self.assertFalse((h.dir / "state/upgrade").exists())
            h.run("posthorn", "-c", str(h.dir), "reload") # the service is a whole one
            h.stop()

    def test_what_is_under_way(self):
        """A large message half sent, a pause, a stopped server, the queue: all is as it was."""
        h = Horn(["test_mode=yes"])
        h.conf("server", "add", "second", "listen=127.0.0.1:0", "default_domain=second.example", check=False)
        h.conf("server", "add", "second", "listen=127.0.13.1:2525", "default_domain=second.example")
        with h, h.client() as c:
            h.run("posthorn", "-c", str(h.dir), "stop", "second")
            h.run("posthorn", "-c", str(h.dir), "pause")
            c.ask("EHLO client.example")
            c.ask("MAIL FROM:<a@example.org>")
            c.ask("RCPT TO:<x@local.example>")
            c.ask("DATA")
            line = b"0123456789" * 7 + b"\r\n"
            c.say(b"Subject: large\r\n\r\n" + line * 4000)
            wait_for("a body on the disk", lambda: list((h.server_dir / "Queue/body").glob("*/*")))
            done = threading.Thread(target=self.upgrade, args=(h, self.other(h)))
            done.start()
            wait_for("the new master", lambda: "upgrading: " in h.log())
            c.say(line * 4000 + b".\r\n")
            self.assertEqual(c.hear()[:3], "250")
            done.join()
            wait_for("delivered", lambda: len(h.drop()) == 1)
            self.assertGreater(h.drop()[0].stat().st_size, 8000 * 72)
            status = h.status()
            self.assertEqual((status["state"], [s["state"] for s in status["servers"]]), ("paused", ["paused", "stopped"]))
            with h.client() as late:
                self.assertEqual(late.greeting[:9], "421 4.3.2")
            h.run("posthorn", "-c", str(h.dir), "resume")
            h.run("posthorn", "-c", str(h.dir), "start", "second")
            with h.client() as late:
                late.send("a@example.org", "x@local.example", TEXT)
            wait_for("delivered", lambda: len(h.drop()) == 2)

    def test_the_drain_has_an_end(self):
        with Horn(["test_mode=yes", "upgrade_drain=1s"]) as h, h.client() as c:
            c.ask("EHLO client.example")
            self.upgrade(h, self.other(h))
            self.assertEqual(c.hear()[:9], "421 4.3.2")
            wait_for("the old one is gone", lambda: len(h.pids("smtpd")) == 2)

    def test_what_is_refused(self):
        """Another build that can't take over leaves everything as it was, and says why."""
        with Horn(["test_mode=yes"]) as h, h.client() as c:
            c.ask("EHLO client.example")
            before = h.status()["processes"]
            place = self.other(h)

            def refused(said):
                done = self.upgrade(h, place, check=False)
                self.assertEqual((done.returncode, said in done.stderr.decode()), (69, True), done.stderr)
                self.assertEqual(h.status()["processes"], before)
                self.assertEqual(c.ask("NOOP")[:3], "250")
                self.assertFalse((h.dir / "state/upgrade").exists())
                self.assertIn("upgrade_refused: ", h.log())
            real = place / "libexec/master.real"
            (place / "libexec/master").rename(real)
            build = subprocess.run([str(real), "-V"], capture_output=True, check=True).stdout.decode()

            def fake(text):
                (place / "libexec/master").unlink(missing_ok=True)
                (place / "libexec/master").write_text(f"#!/bin/sh\ncat <<'E'\n{text}E\n")
                os.chmod(place / "libexec/master", 0o755)
            refused("does not run")
            fake(build.replace("posthorn-handover 2", "posthorn-handover 99"))
            refused("do not understand each other (what is handed over)")
            number, version = [line.split()[1:] for line in build.splitlines() if line.startswith("submit ")][0]
            fake(build.replace(f"submit {number} {version}\n", f"submit {number} {int(version) + 1}\n"))
            refused("do not understand each other (submit)")
            fake(build + "newer 900 1\n") # what only one of them knows does no harm; but this one can't become a master
            (place / "libexec/config").write_text("#!/bin/sh\necho servers/default.conf; echo 3; echo 'unknown parameter'; exit 78\n")
            refused("does not take the configuration: servers/default.conf: unknown parameter")
            done = h.run("posthorn", "-c", str(h.dir), "upgrade") # to itself
            self.assertEqual(c.ask("NOOP")[:3], "250")

    def test_who_may_say_where_it_is(self):
        """A request that others could have written is none."""
        with Horn(["test_mode=yes"]) as h:
            place = self.other(h)
            for mode, link in ((0o666, False), (0o600, True)):
                path = h.dir / "state/upgrade"
                target = h.root / "asked" if link else path
                target.write_text(f"libexec {place}/libexec\n")
                os.chmod(target, mode)
                if link:
                    path.unlink(missing_ok=True)
                    path.symlink_to(target)
                n = h.log().count("upgrade_refused")
                os.kill(h.tree()[0], signal.SIGUSR2)
                wait_for("refused", lambda: h.log().count("upgrade_refused") > n)
            self.assertNotIn("upgrading: ", h.log())


if __name__ == "__main__":
    unittest.main()
