"""Virtual servers (MISSION A1 to A7): started, stopped, added, renamed and removed each for itself while the others go on."""
import os
import pathlib
import shutil
import socket
import subprocess
import threading
import unittest

from horn import Client, Horn, Sink, free_port, remote, wait_for

RETRY = ["retry_first=1s", "retry_second=1s", "retry_third=1s", "destination_probe=1s"]
TEXT = b"Subject: hello\r\n\r\nA line."


def greeting(port, host="127.0.0.1"):
    """The first line; "refused" where nobody listens."""
    try:
        with socket.create_connection((host, port), 10) as s:
            return s.makefile().readline().strip()
    except ConnectionRefusedError:
        return "refused"


class Base(unittest.TestCase):
    def horn(self, names=("second", "third"), server=(), domains=()):
        h = Horn(["test_mode=yes"], [*RETRY, *server], domains)
        self.ports = {"default": h.port}
        for n in names:
            self.add(h, n)
        return h

    def add(self, h, name, *more, port=None, **kw):
        self.ports[name] = port or free_port()
        return h.conf("server", "add", name, f"listen=127.0.0.1:{self.ports[name]}", f"fqdn={name}.horn.example", f"default_domain={name}.example", *RETRY, *more, **kw)

    def posthorn(self, h, *words, check=True):
        return h.run("posthorn", "-c", str(h.dir), *words, check=check)

    def states(self, h):
        return {s["name"]: s["state"] for s in h.status()["servers"]}

    def up(self, h):
        return {n for n, s in self.states(h).items() if s == "running"}


class Memory(Base):
    def test_the_guides_exceptional_case(self):
        """Three servers, one stopped; the service stopped; one started: that one and those that ran come up.  The same after
        kill -9 of everything, and after a restart of the machine."""
        def restart(how, h):
            if how == "stop":
                h.stop()
                return
            h.kill_all()
            if how == "reboot": # what lies in /run is gone
                for f in (h.dir / "run").iterdir():
                    f.unlink()
        for how in ("stop", "kill", "reboot"):
            with self.subTest(how), self.horn() as h:
                self.posthorn(h, "stop", "second")
                self.assertEqual(self.up(h), {"default", "third"})
                self.assertEqual([greeting(self.ports[n])[:7] for n in ("default", "second", "third")], ["220 mx.", "refused", "220 thi"])
                restart(how, h)
                self.posthorn(h, "start", "third")
                self.assertEqual(self.up(h), {"default", "third"})
                self.assertEqual(greeting(self.ports["second"]), "refused")
                self.assertIn("server_stays: server=second", h.log())
                restart(how, h)
                self.posthorn(h, "start", "second") # whatever is remembered of it
                self.assertEqual(self.up(h), {"default", "second", "third"})

    def test_startup(self):
        """What is remembered decides; else automatic comes up, manual waits for a hand; disabled never starts."""
        h = self.horn(())
        self.add(h, "hand", "startup=manual")
        self.add(h, "never", "startup=disabled")
        with h:
            self.assertEqual(self.states(h), {"default": "running", "hand": "stopped", "never": "stopped"})
            done = self.posthorn(h, "start", "never", check=False)
            self.assertEqual(done.returncode, 69)
            self.assertIn(b"server never did not start: startup = disabled", done.stderr)
            self.posthorn(h, "start", "hand")
            h.stop()
            h.start()
            self.assertEqual(self.up(h), {"default", "hand"}) # it ran
            self.posthorn(h, "stop", "hand")
            h.stop()
            h.start()
            self.assertEqual(self.up(h), {"default"})

    def test_a_stopped_service_takes_only_start(self):
        h = self.horn(("second",))
        try:
            for words in (("stop",), ("stop", "second"), ("pause", "second"), ("resume",), ("reload",)):
                done = self.posthorn(h, *words, check=False)
                self.assertEqual((done.returncode, b"the service is not running" in done.stderr), (69, True), words)
            done = self.posthorn(h, "start", "secnd", check=False)
            self.assertEqual((done.returncode, b"no server 'secnd'" in done.stderr), (64, True))
            self.assertEqual(h.tree(), [])
        finally:
            h.__exit__(None)

    def test_one_that_cannot_start_leaves_the_others(self):
        """Its address is another program's, its directory is a file: the others run, the reason and the program are named; a
        service of which nothing can start does not start."""
        h = self.horn()
        h.conf("-s", "third", "-e", f"home_directory={h.root}/file/x")
        (h.root / "file").write_text("")
        with socket.create_server(("127.0.0.1", self.ports["second"])):
            try:
                done = self.posthorn(h, "start")
                h.started = True
                said = done.stderr.decode()
                self.assertIn(f"server second cannot listen on 127.0.0.1:{self.ports['second']}: Address already in use", said)
                self.assertIn(f"is held by process {os.getpid()}, ", said)
                self.assertIn("server third did not start: ", said)
                self.assertEqual(self.states(h), {"default": "running", "second": "stopped", "third": "stopped"})
                self.assertIn("it did not start: listen: server second cannot listen", self.posthorn(h, "status").stdout.decode())
                with h.client() as c:
                    c.send("a@example.org", "x@local.example", TEXT)
            except BaseException:
                h.__exit__(True)
                raise
        with _running(h):
            self.posthorn(h, "start", "second") # the address is free now
            self.assertEqual(self.up(h), {"default", "second"})
            h.stop()
            (h.root / "file").unlink()
            h.start()
            self.assertEqual(self.up(h), {"default", "second", "third"}) # all of them were meant to run

    def test_a_process_that_does_not_come_up(self):
        """The one whose queue can't be opened is stopped whole and says why; the others run."""
        h = self.horn(("second",))
        queue = h.dir / "spool/second/Queue"
        queue.mkdir(parents=True)
        (queue / "left").mkdir() # where qmgr wants none
        with h:
            wait_for("it is down", lambda: self.states(h)["second"] == "stopped")
            self.assertEqual(self.up(h), {"default"})
            self.assertIn("server_failed: server=second", h.log())
            self.assertFalse(h.runs(" second"))


class _running:
    def __init__(self, h):
        self.h = h

    def __enter__(self):
        return self.h

    def __exit__(self, *a):
        return self.h.__exit__(*a)


class Stop(Base):
    def test_only_its_sessions_end(self):
        """421 after the command; what is behind its final dot gets its true answer; the other server's session lives."""
        with Sink(answer=lambda stage, text, n: "451 4.0.0 not yet" if stage == "rcpt" else None) as sink, \
                self.horn(("second",), domains=[remote(sink)]) as h:
            h.conf("-s", "second", "domain", "add", "sink.example", "type=remote", f"route=[127.0.0.1]:{sink.port}")
            self.posthorn(h, "reload")
            with h.client() as other, Client(self.ports["second"]) as idle, Client(self.ports["second"]) as data:
                other.ask("EHLO c")
                idle.ask("EHLO c")
                data.ask("EHLO c")
                data.ask("MAIL FROM:<a@example.org>")
                data.ask("RCPT TO:<x@second.example>")
                data.ask("DATA")
                data.say(b"Subject: half")
                self.posthorn(h, "stop", "second")
                self.assertEqual(idle.hear()[:9], "421 4.3.2")
                self.assertEqual(data.hear()[:9], "421 4.3.2")
                self.assertTrue(idle.closed() and data.closed())
                self.assertEqual(greeting(self.ports["second"]), "refused")
                other.send("a@example.org", "y@local.example", TEXT, ehlo=False)
                wait_for("delivered", lambda: len(h.drop()) == 1)
                self.assertFalse(h.runs("posthorn: qmgr second"))
            self.assertEqual(list((h.dir / "spool/second/Drop").glob("*.eml")), [])
            done = h.queue("-s", "second", "list", check=False)
            self.assertEqual((done.returncode, b"the server is stopped; posthorn start" in done.stderr), (69, True))
            self.assertIn(b"second: the server is stopped", h.queue("list").stderr) # without -s the others are listed
            self.posthorn(h, "start", "second")
            self.assertEqual(greeting(self.ports["second"])[:10], "220 second")

    def test_under_load_nothing_is_lost(self):
        """Ten stops and starts while clients send: every 250 is a message, none twice."""
        with self.horn(("second",)) as h:
            sent, stop = [], threading.Event()

            def feed(k):
                n = 0
                while not stop.is_set():
                    n += 1
                    name = f"m{k}-{n}"
                    try:
                        with Client(self.ports["second"]) as c:
                            c.send("a@example.org", "x@second.example", f"Subject: {name}\r\n\r\nx".encode())
                        sent.append(name)
                    except (OSError, EOFError, AssertionError):
                        pass
            threads = [threading.Thread(target=feed, args=(k,)) for k in range(4)]
            for t in threads:
                t.start()
            for i in range(10):
                before = len(sent)
                self.posthorn(h, "stop", "second")
                self.posthorn(h, "start", "second")
                wait_for("mail", lambda: len(sent) > before + 5)
            stop.set()
            for t in threads:
                t.join()
            drop = h.dir / "spool/second/Drop"
            found = lambda: [line[9:] for f in drop.glob("*.eml") for line in f.read_text().splitlines() if line.startswith("Subject: ")]
            wait_for("all", lambda: len(set(sent) - set(found())) == 0)
            self.assertEqual(len(found()), len(set(found())))

    def test_what_an_agent_carries_ends_first(self):
        """A delivery under way when its server stops is done once, whenever the peer answers within stop_grace."""
        hold = threading.Event()

        def answer(stage, text, n):
            if stage == "dot":
                hold.wait(5)
        with Sink(answer=answer) as sink, self.horn(("second",)) as h:
            h.conf("-s", "second", "domain", "add", "sink.example", "type=remote", f"route=[127.0.0.1]:{sink.port}", "relay=yes")
            self.posthorn(h, "reload")
            with Client(self.ports["second"]) as c:
                c.send("a@example.org", "b@sink.example", TEXT)
            wait_for("it is being sent", lambda: sink.connections)
            timer = threading.Timer(1, hold.set)
            timer.start()
            self.posthorn(h, "stop", "second")
            timer.join()
            self.assertEqual((h.dir / "spool/second/Queue/left").read_text(), "0\n")
            self.posthorn(h, "start", "second")
            self.assertEqual(len(sink.messages), 1)


class Addresses(Base):
    def test_an_address_of_a_stopped_server(self):
        """"*" takes what no other server names; a named address is that server's even while it is stopped or paused."""
        h = Horn(["test_mode=yes"])
        port = h.port
        h.conf("-e", f"listen=*:{port}")
        h.conf("server", "add", "named", f"listen=127.0.12.1:{port}", "fqdn=named.horn.example", "default_domain=named.example")
        h.conf("server", "add", "six", f"listen=[::1]:{port}", "fqdn=six.horn.example", "default_domain=six.example")
        at = lambda: [greeting(port, host)[:9] for host in ("127.0.0.1", "127.0.12.1", "127.0.12.2", "::1")]
        with h:
            own = ["220 mx.ho", "220 named", "220 mx.ho", "220 six.h"]
            self.assertEqual(at(), own)
            for act, undo in (("stop", "start"), ("pause", "resume")):
                self.posthorn(h, act, "named", "six")
                self.assertEqual(at(), ["220 mx.ho", "421 4.3.2", "220 mx.ho", "421 4.3.2"], act)
                self.posthorn(h, undo, "named", "six")
                self.assertEqual(at(), own)
            self.posthorn(h, "stop", "default") # nor do they take each other's
            self.assertEqual(at(), ["refused", "220 named", "refused", "220 six.h"])
            self.posthorn(h, "start", "default")
            self.assertEqual(at(), own)
            h.conf("server", "remove", "named")
            self.assertEqual(at(), ["220 mx.ho", "220 mx.ho", "220 mx.ho", "220 six.h"])
            self.assertIn("limit=another server's address", h.log())

    def test_a_reload_moves_listeners(self):
        """A socket whose address stays is never closed; what is new is bound, what is gone is closed; an address may go from one
        server to another, from "*" to one; what can't be bound changes nothing."""
        with self.horn(("second",)) as h, h.client() as c:
            c.ask("EHLO c")
            inode = lambda port: [line.split()[9] for line in pathlib.Path(f"/proc/{h.tree()[0]}/net/tcp").read_text().splitlines() if line.split()[1] == f"0100007F:{port:04X}" and line.split()[3] == "0A"]
            before = inode(h.port)
            extra = free_port()
            h.conf("-e", f"listen=127.0.0.1:{h.port}, 127.0.0.1:{extra}")
            self.posthorn(h, "reload")
            self.assertEqual(greeting(extra)[:6], "220 mx")
            self.assertEqual(inode(h.port), before)
            h.conf("-e", f"listen=127.0.0.1:{h.port}")
            h.conf("-s", "second", "-e", f"listen=127.0.0.1:{extra}")
            self.posthorn(h, "reload")
            self.assertEqual([greeting(p)[:7] for p in (h.port, extra, self.ports["second"])], ["220 mx.", "220 sec", "refused"])
            h.conf("-s", "second", "-e", f"listen=*:{extra}")
            self.posthorn(h, "reload")
            self.assertEqual([greeting(extra, a)[:7] for a in ("127.0.0.1", "127.0.12.9")], ["220 sec"] * 2)
            with socket.create_server(("127.0.0.1", 0)) as taken:
                h.conf("-s", "second", "-e", f"listen=127.0.0.1:{taken.getsockname()[1]}")
                done = self.posthorn(h, "reload", check=False)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(f"is held by process {os.getpid()}, ", done.stderr.decode())
            self.assertEqual([greeting(p)[:7] for p in (h.port, extra)], ["220 mx.", "220 sec"])
            self.assertEqual(inode(h.port), before)
            self.assertEqual(c.ask("NOOP")[:3], "250")

    @unittest.skipUnless(os.geteuid() == 0, "other users are needed")
    def test_unsafe_directories_are_refused(self):
        """What somebody else owns, or everybody may write into, is not taken over; the command that mends it is said, and mends it."""
        h = self.horn(("second",))
        drop = h.root / "mine/Drop"
        drop.mkdir(parents=True)
        h.conf("-s", "second", "-e", f"drop_directory={drop}")
        with h:
            for spoil, said in ((lambda: shutil.chown(drop, "daemon"), "the directory belongs to daemon: look at what is in it, then "),
                                (lambda: (shutil.chown(drop, "root"), os.chmod(drop, 0o777)), "everybody may write into the directory: look at what is in it, then ")):
                self.posthorn(h, "stop", "second")
                spoil()
                before = drop.stat()
                done = self.posthorn(h, "start", "second", check=False)
                text = done.stderr.decode()
                self.assertEqual((done.returncode, said in text), (69, True), text)
                self.assertEqual((before.st_uid, before.st_mode), (drop.stat().st_uid, drop.stat().st_mode))
                self.assertEqual(self.up(h), {"default"})
                subprocess.run(text.split(" then ", 1)[1].split(), check=True)
                self.posthorn(h, "start", "second")
                self.assertEqual(self.up(h), {"default", "second"})

    def test_directories_change_by_a_reload(self):
        """Only the processes of the server whose directories they are begin anew."""
        with self.horn(("second",)) as h:
            mine, others = self.of(h, "second"), self.of(h, "default")
            h.conf("-s", "second", "-e", f"pickup_directory={h.root}/pick")
            self.posthorn(h, "reload")
            self.assertEqual(self.of(h, "default"), others)
            self.assertFalse(set(self.of(h, "second")) & set(mine))
            (h.root / "pick/a.eml").write_bytes(b"x-sender: a@example.org\r\nx-receiver: y@second.example\r\n\r\n" + TEXT)
            wait_for("picked up", lambda: list((h.dir / "spool/second/Drop").glob("*.eml")))

    def of(self, h, server):
        return [p["pid"] for p in h.status()["processes"] if p["server"] == server]


class Tree(Base):
    """hornconf server while the service runs."""

    def test_add(self):
        with self.horn(()) as h, h.client() as c:
            c.ask("EHLO c")
            self.add(h, "second")
            self.assertEqual(greeting(self.ports["second"])[:10], "220 second") # it has started by itself
            with Client(self.ports["second"]) as new:
                new.send("a@example.org", "x@second.example", TEXT)
            wait_for("its mail", lambda: list((h.dir / "spool/second/Drop").glob("*.eml")))
            self.add(h, "hand", "startup=manual")
            self.assertEqual(self.states(h)["hand"], "stopped")
            done = self.add(h, "double", port=h.port, check=False)
            self.assertEqual(done.returncode, 78)
            self.assertIn(b"is named by server default and by server double", done.stderr)
            self.assertNotIn("double", self.states(h))
            with socket.create_server(("127.0.0.1", 0)) as taken:
                done = self.add(h, "late", port=taken.getsockname()[1])
                self.assertIn(f"is held by process {os.getpid()}, ", done.stderr.decode())
                self.assertEqual(self.states(h)["late"], "stopped")
            self.posthorn(h, "start", "late")
            self.assertEqual(greeting(self.ports["late"])[:8], "220 late")
            self.assertEqual(c.ask("NOOP")[:3], "250") # nobody else has noticed

    def test_clone(self):
        with self.horn(("second",)) as h:
            h.conf("-s", "second", "-e", "message_size_limit=1M", "session_size_limit=2M")
            done = h.conf("server", "clone", "second", "third", check=False)
            self.assertEqual(done.returncode, 78)
            self.assertIn(b"is named by server second and by server third", done.stderr)
            port = free_port()
            h.conf("server", "clone", "second", "third", f"listen=127.0.0.1:{port}", "fqdn=third.horn.example")
            with Client(port) as c:
                self.assertIn("third.horn.example", c.greeting)
                self.assertIn("SIZE 1048576", c.ask("EHLO c"))
            h.conf("-s", "second", "-e", f"queue_directory={h.root}/q")
            done = h.conf("server", "clone", "second", "fourth", f"listen=127.0.0.1:{free_port()}", check=False)
            self.assertEqual((done.returncode, b"queue_directory" in done.stderr), (78, True)) # two servers never share a queue

    def test_rename_keeps_mail(self):
        for running in (True, False):
            with self.subTest(running=running):
                self.rename(running)

    def rename(self, running):
        refuse = [True]
        with Sink(answer=lambda stage, text, n: "451 4.0.0 not yet" if stage == "rcpt" and refuse[0] else None) as sink, self.horn(("second",)) as h:
            h.conf("-s", "second", "domain", "add", "sink.example", "type=remote", f"route=[127.0.0.1]:{sink.port}", "relay=yes")
            self.posthorn(h, "reload")
            h.run("hornpasswd", "-c", str(h.dir), "-s", "second", "add", "alice@second.example", input=b"a good password\na good password\n")
            with Client(self.ports["second"]) as c:
                c.send("a@example.org", "b@sink.example", TEXT)
            wait_for("it waits", lambda: [m for m in h.messages() if m["state"] == "deferred"])
            self.posthorn(h, "pause", "second")
            key = (h.dir / "state/second.crt").read_bytes()
            if not running:
                h.stop()
            h.conf("server", "rename", "second", "zwei")
            if not running:
                h.start()
            self.assertEqual(self.states(h), {"default": "running", "zwei": "paused"})
            self.assertFalse((h.dir / "spool/second").exists())
            self.assertEqual((h.dir / "state/zwei.crt").read_bytes(), key)
            self.assertIn("alice", h.run("hornpasswd", "-c", str(h.dir), "-s", "zwei", "list").stdout.decode())
            refuse[0] = False
            wait_for("its mail leaves", lambda: sink.messages)
            self.posthorn(h, "resume", "zwei")
            self.assertEqual(greeting(self.ports["second"])[:10], "220 second") # fqdn is a setting of its own
            done = h.conf("server", "rename", "zwei", "default", check=False)
            self.assertEqual((done.returncode, b"there is a server 'default' already" in done.stderr), (64, True))

    def test_a_rename_that_fails_moves_nothing(self):
        """A directory is in the way of the second one: the first goes back, the server runs as it did."""
        with self.horn(("second",)) as h:
            h.conf("-s", "second", "-e", f"queue_directory={h.root}/q/$server_name")
            self.posthorn(h, "reload")
            (h.root / "q/zwei").mkdir()
            done = h.conf("server", "rename", "second", "zwei", check=False)
            self.assertEqual((done.returncode, b"is there already: move it away first" in done.stderr), (73, True))
            self.assertEqual(self.up(h), {"default", "second"})
            self.assertTrue((h.dir / "spool/second/Drop").exists())
            self.assertFalse((h.dir / "spool/zwei").exists())

    def test_remove(self):
        """Mail in its queue asks for --drain or --discard; a name may come again and has nothing of before."""
        refuse = [True]
        with Sink(answer=lambda stage, text, n: "451 4.0.0 not yet" if stage == "rcpt" and refuse[0] else None) as sink, self.horn(("second",)) as h:
            def fill():
                refuse[0] = True
                h.conf("-s", "second", "domain", "add", "sink.example", "type=remote", f"route=[127.0.0.1]:{sink.port}", "relay=yes")
                self.posthorn(h, "reload")
                with Client(self.ports["second"]) as c:
                    c.send("a@example.org", "b@sink.example", TEXT)
                wait_for("it waits", lambda: [m for m in h.messages() if m["state"] == "deferred"])
            fill()
            done = h.conf("server", "remove", "second", check=False)
            self.assertEqual((done.returncode, b"has 1 message(s) in its queue" in done.stderr and b"--drain" in done.stderr), (75, True))
            self.assertEqual(self.states(h)["second"], "running")
            timer = threading.Timer(0.5, refuse.__setitem__, (0, False))
            timer.start()
            h.conf("server", "remove", "second", "--drain")
            timer.join()
            self.assertEqual(len(sink.messages), 1)
            self.assertEqual((list(self.states(h)), greeting(self.ports["second"])), (["default"], "refused"))
            self.assertFalse((h.dir / "spool/second/Queue").exists())
            self.add(h, "second", port=self.ports["second"])
            self.assertEqual(h.messages(), [])
            fill()
            h.conf("server", "remove", "second", "--discard")
            self.assertEqual(list(self.states(h)), ["default"])
            self.add(h, "second", port=self.ports["second"])
            fill()
            h.stop()
            done = h.conf("server", "remove", "second", check=False)
            self.assertEqual((done.returncode, b"has 1 message(s)" in done.stderr), (75, True)) # known without a service
            done = h.conf("server", "remove", "second", "--drain", check=False)
            self.assertEqual((done.returncode, b"does not run" in done.stderr), (69, True))
            h.start()
            h.kill_all()
            done = h.conf("server", "remove", "second", check=False)
            self.assertEqual((done.returncode, b"was not stopped in order" in done.stderr), (75, True))
            h.start()
            done = h.conf("server", "remove", "default", "--discard")
            self.assertEqual(list(self.states(h)), ["second"])
            h.sendmail("x@second.example", input=b"Subject: s\n\ns\n") # what programs submit is another server's now
            wait_for("sendmail's", lambda: list((h.dir / "spool/second/Drop").glob("*.eml")))
            done = h.conf("server", "remove", "second", check=False)
            self.assertEqual((done.returncode, b"the last server cannot be removed" in done.stderr), (64, True))

    def test_domains(self):
        """The default domain goes by no removal; it can be renamed, and another be made the default."""
        h = self.horn(())
        try:
            done = h.conf("domain", "remove", "local.example", check=False)
            self.assertEqual((done.returncode, b"make another one the default first" in done.stderr), (64, True))
            h.conf("domain", "rename", "local.example", "new.example")
            self.assertEqual(h.conf("-h", "default_domain").stdout, b"new.example\n")
            h.conf("domain", "add", "alias.example", "type=alias")
            h.conf("domain", "default", "alias.example")
            h.conf("domain", "remove", "new.example")
            self.assertEqual(h.conf("domain", "list").stdout, b"alias.example default\n")
        finally:
            h.__exit__(None)


if __name__ == "__main__":
    unittest.main()
