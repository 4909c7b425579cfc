"""Pause and resume (MISSION A3, A4): new connections are refused, everything else goes on; the memory survives stop, crash and restart."""
import os
import signal
import socket
import unittest

from horn import Client, Horn, Sink, free_port, remote, wait_for

TEXT = b"Subject: hello\r\n\r\nA line."


class Pause(unittest.TestCase):
    def horn(self, sink=None):
        """Servers default and second."""
        h = Horn(["test_mode=yes"], ["retry_first=1s", "retry_second=1s", "retry_third=1s", "destination_probe=1s"], [remote(sink)] if sink else [])
        self.second = free_port()
        h.conf("server", "add", "second", f"listen=127.0.0.1:{self.second}", "fqdn=mx2.horn.example", "default_domain=second.example")
        return h

    def posthorn(self, h, *words, check=True):
        return h.run("posthorn", "-c", str(h.dir), *words, check=check)

    def greeting(self, port):
        with Client(port) as c:
            return c.greeting[:9]

    def states(self, h):
        status = h.status()
        return status["state"], {s["name"]: s["state"] for s in status["servers"]}

    def test_sessions_pickup_and_the_queue_go_on(self):
        with Sink(answer=lambda stage, text, n: "451 4.0.0 not yet" if stage == "rcpt" and n == 1 else None) as sink, self.horn(sink) as h, h.client() as c:
            c.send("a@example.org", "b@sink.example", TEXT)
            wait_for("it waits", lambda: [m for m in h.messages() if m["state"] == "deferred"])
            self.posthorn(h, "pause", "default")
            self.assertEqual(self.greeting(h.port), "421 4.3.2")
            self.assertEqual(self.greeting(self.second)[:4], "220 ") # the other is as it was
            c.send("a@example.org", "x@local.example", TEXT, ehlo=False)
            (h.server_dir / "Pickup/a.eml").write_bytes(b"x-sender: a@example.org\r\nx-receiver: y@local.example\r\n\r\n" + TEXT)
            h.sendmail("z@local.example", input=b"Subject: z\n\nz\n")
            wait_for("a session's, Pickup's and sendmail's", lambda: len(h.drop()) == 3)
            wait_for("the queue's", lambda: sink.messages)
            self.assertEqual(self.states(h), ("running", {"default": "paused", "second": "running"}))
            self.assertIn("default          paused   listens on", self.posthorn(h, "status").stdout.decode())
            self.posthorn(h, "resume", "default")
            self.assertEqual(self.greeting(h.port)[:4], "220 ")
            self.assertIn("state_changed: state=paused, servers=default", h.log())
            self.assertIn("limit=paused", h.log())

    def test_the_service_and_one_server(self):
        """Resuming the service leaves a server paused that was paused by name."""
        with self.horn() as h:
            self.posthorn(h, "pause", "second")
            self.posthorn(h, "pause")
            self.assertEqual(self.states(h), ("paused", {"default": "paused", "second": "paused"}))
            self.assertEqual([self.greeting(p) for p in (h.port, self.second)], ["421 4.3.2"] * 2)
            said = self.posthorn(h, "resume", "default").stdout.decode()
            self.assertIn("the service itself is paused", said)
            self.assertEqual(self.greeting(h.port), "421 4.3.2")
            self.posthorn(h, "resume")
            self.assertEqual(self.states(h), ("running", {"default": "running", "second": "paused"}))
            self.assertEqual([self.greeting(p)[:4] for p in (h.port, self.second)], ["220 ", "421 "])

    def test_it_is_remembered(self):
        with self.horn() as h:
            self.posthorn(h, "pause", "second")
            os.kill(h.pids("front")[0], signal.SIGKILL) # the next front knows it too
            wait_for("a new front", lambda: self.opens(self.second) and self.greeting(self.second) == "421 4.3.2")
            h.stop()
            h.start()
            self.assertEqual([self.greeting(p)[:4] for p in (h.port, self.second)], ["220 ", "421 "])
            self.assertEqual(h.log().count("still_paused: servers=some"), 1) # said at a start, and only where it is so
            h.kill_all()
            (h.dir / "run/master.pid").unlink()
            h.start()
            self.assertEqual(self.states(h), ("running", {"default": "running", "second": "paused"}))
            self.posthorn(h, "reload")
            self.assertEqual(self.greeting(self.second), "421 4.3.2")
            self.posthorn(h, "resume", "second", "default")
            self.assertEqual((h.dir / "state/servers").read_text(), "running default\nrunning second\n")

    def opens(self, port):
        try:
            return self.greeting(port)
        except (OSError, EOFError):
            return None

    def test_what_cannot_be_done(self):
        h = self.horn()
        try:
            done = self.posthorn(h, "pause", check=False)
            self.assertEqual((done.returncode, b"the service is not running" in done.stderr), (69, True))
            with h:
                done = self.posthorn(h, "pause", "default", "secnd", check=False)
                self.assertEqual((done.returncode, b"no server 'secnd'; nothing was changed" in done.stderr), (64, True))
                self.assertEqual(self.states(h)[1]["default"], "running")
                self.assertNotIn("paused", (h.dir / "state/servers").read_text())
        finally:
            h.__exit__(None)

    def test_a_memory_that_is_damaged_or_of_others(self):
        """Servers that are there no more are forgotten; what is no line of ours counts for nothing."""
        h = self.horn()
        (h.dir / "state").mkdir(exist_ok=True)
        (h.dir / "state/servers").write_text("paused gone\npaused\n\n\0\xff\npaused second\n")
        with h:
            self.assertEqual(self.states(h), ("running", {"default": "running", "second": "paused"}))


class Many(unittest.TestCase):
    def test_more_servers_than_descriptors_in_a_message(self):
        """Each of 20 with two listeners answers at its own addresses with its own name; a front that is replaced has them all again."""
        h = Horn(["test_mode=yes"])
        port, tls = free_port(), free_port()
        names = [f"s{i}" for i in range(20)]
        for i, n in enumerate(names):
            (h.dir / f"servers/{n}.conf").write_text(f"listen = 127.0.11.{i + 1}:{port}\nlisten_submission = 127.0.11.{i + 1}:{tls}\nfqdn = {n}.horn.example\ndefault_domain = {n}.example\n")

        def greetings(at):
            found = []
            for i in range(len(names)):
                with socket.create_connection((f"127.0.11.{i + 1}", at), 10) as s:
                    found.append(s.recv(200).split()[1].decode())
            return found
        with h:
            for _ in range(2):
                self.assertEqual([greetings(p) for p in (port, tls)], [[f"{n}.horn.example" for n in names]] * 2)
                front = h.pids("front")[0]
                os.kill(front, signal.SIGKILL)
                wait_for("another front", lambda: h.pids("front") not in ([], [front]))


if __name__ == "__main__":
    unittest.main()
