"""The service as an administrator sees it: rights of each process, private instances, bad input."""
import json
import os
import pathlib
import shutil
import subprocess
import threading
import unittest

from horn import Horn, Sink, free_port, remote, wait_for

NETWORK = {"front", "smtpd", "smtp", "resolver", "sts"}


class Service(unittest.TestCase):
    def proc_status(self, pid):
        return dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)

    def check_rights(self, h, root):
        status = h.status()
        roles = {p["role"] for p in status["processes"]}
        self.assertEqual(roles, {"logd", "resolver", "sts", "authd", "keyd", "bounce", "control", "mover", "cleanup", "qmgr", "drop", "pickup", "smtp", "smtpd", "front"})
        for p in status["processes"]:
            s = self.proc_status(p["pid"])
            self.assertEqual((s["Seccomp"], s["NoNewPrivs"]), ("2", "1"), p)
            self.assertEqual({s[k] for k in ("CapInh", "CapPrm", "CapEff", "CapAmb")}, {"0" * 16}, p)
            if root:
                self.assertNotEqual(s["Uid"].split()[0], "0", p)
                self.assertEqual(s["CapBnd"], "0" * 16)
                self.assertNotEqual(p["user"], "root")
            self.assertEqual(p["seccomp"], 2)

    def test_what_a_domain_does_not_say_is_shown_as_its_servers(self):
        h = Horn(server=["expiry=5d"], domains=[("far.example", "type=remote", "retry_first=1h")])
        try:
            show = lambda *a: h.conf("-D", "far.example", "-h", *a).stdout.decode().strip()
            self.assertEqual((show("expiry"), show("retry_first"), show("retry_second"), show("-x", "expiry")), ("5d", "1h", "30m", "5d"))
            self.assertEqual(h.conf("-D", "far.example", "-n").stdout.decode().split("\n")[:-1], ["type = remote", "retry_first = 1h"])
        finally:
            h.__exit__(None)

    def test_no_process_holds_a_right_it_does_not_need(self):
        with Horn() as h:
            self.check_rights(h, os.geteuid() == 0)

    def test_a_private_instance_needs_no_root(self):
        if os.geteuid() != 0:
            self.skipTest("is unprivileged already")
        with Sink() as sink, Horn(domains=[remote(sink)], user="nobody") as h, h.client() as c:
            c.send("a@example.org", ["x@local.example", "b@sink.example"], b"Subject: x\r\n\r\ny")
            wait_for("both", lambda: h.drop() and sink.messages)
            h.sendmail("b@sink.example", input=b"Subject: z\n\nz\n")
            wait_for("sendmail's", lambda: len(sink.messages) == 2)
            self.check_rights(h, False)

    def test_a_tree_below_a_closed_directory_works(self):
        with Horn() as h:
            os.chmod(h.root, 0o700)
            with h.client() as c:
                c.send("a@example.org", "x@local.example", b"Subject: x\r\n\r\ny")
            wait_for("the file", h.drop)

    @unittest.skipIf(os.geteuid() != 0, "only root can become another user")
    def test_another_user_may_not_act(self):
        with Horn() as h:
            done = subprocess.run(["setpriv", "--reuid=nobody", "--regid=65534", "--clear-groups", str(h_path(h, "hornqueue")), "-c", str(h.dir), "list"], capture_output=True)
            self.assertEqual(done.returncode, 77, done)

    def test_bad_configuration_is_refused_at_reload_and_the_old_one_stays(self):
        with Horn() as h:
            path = h.dir / "servers/default.conf"
            good = path.read_text()
            path.write_text(good + "recipent_limit = 5\n")
            done = h.run("posthorn", "-c", str(h.dir), "reload", check=False)
            self.assertEqual(done.returncode, 78)
            self.assertIn(b"did you mean recipient_limit", done.stderr)
            path.write_text(good)
            with h.client() as c:
                c.send("a@example.org", "x@local.example", b"Subject: x\r\n\r\ny")
            h.conf("-e", "recipient_limit=7")
            h.run("posthorn", "-c", str(h.dir), "reload")
            with h.client() as c:
                wait_for("the new value", lambda: "RCPTMAX=7" in c.ask("EHLO x.example"))

    def test_a_route_to_a_new_port_works_after_a_reload(self):
        with Horn() as h, Sink() as sink:
            h.conf("domain", "add", "sink.example", "type=remote", "relay=yes", f"route=[127.0.0.1]:{sink.port}")
            before = h.pids("smtp")
            h.run("posthorn", "-c", str(h.dir), "reload")
            wait_for("new agents", lambda: len(h.pids("smtp")) == len(before) and not set(before) & set(h.pids("smtp")))
            with h.client() as c:
                c.send("a@example.org", "b@sink.example", b"Subject: x\r\n\r\ny")
            wait_for("the message", lambda: sink.messages)

    def test_hornconf_refuses_and_changes_nothing(self):
        h = Horn()
        before = {p: p.read_bytes() for p in h.dir.rglob("*.conf")}
        for args, says in ((["-e", "recipent_limit=5"], b"did you mean recipient_limit"), (["-e", "expiry=5"], b"write 5m or s"),
                           (["-e", "relay=perhaps"], b"deny allow"), (["-e", "session_size_limit=1M"], b"nothing was changed"),
                           (["server", "add", "two", f"listen=127.0.0.1:{h.port}"], b"default"), (["server", "add", "a/b"], b"letters"),
                           (["domain", "add", "x..y", "type=remote"], b"no domain name"), (["domain", "add", "x.example"], b"type is required"),
                           (["domain", "remove", "local.example"], b"default domain"), (["init"], b"already"), (["-s", "nobody"], b"no server"),
                           (["nonsense"], b"unknown parameter")):
            done = h.conf(*args, check=False)
            self.assertNotEqual(done.returncode, 0, args)
            self.assertIn(says, done.stderr, args)
        self.assertEqual({p: p.read_bytes() for p in h.dir.rglob("*.conf")}, before)
        h.__exit__(None)

    def test_hornconf_edits_and_prints(self):
        h = Horn()
        path = h.dir / "servers/default.conf"
        path.write_text("# mine\n" + path.read_text())
        h.conf("-e", "expiry=1d", "test_mode=yes")
        self.assertEqual(h.conf("-h", "expiry").stdout, b"1d\n")
        self.assertIn("expiry = 1d", path.read_text())
        self.assertTrue(path.read_text().startswith("# mine\n"))
        self.assertIn("test_mode = yes", (h.dir / "posthorn.conf").read_text())
        h.conf("-X", "expiry")
        self.assertEqual(h.conf("-h", "expiry").stdout, b"2d\n")
        self.assertEqual(json.loads(h.conf("--json", "hop_limit").stdout), {"hop_limit": "15"})
        h.conf("domain", "add", "al.example", "type=alias")
        h.conf("domain", "default", "al.example")
        self.assertEqual(h.conf("domain", "list").stdout.split()[:4], [b"al.example", b"default", b"local.example", b"alias"])
        h.conf("server", "clone", "default", "other", check=False)
        h.__exit__(None)

    def test_several_servers_have_their_own_queues_and_addresses(self):
        h = Horn()
        port = free_port()
        h.conf("server", "add", "second", f"listen=127.0.0.1:{port}", "fqdn=second.example", "default_domain=second.example")
        with h:
            from horn import Client
            with Client(port) as c:
                self.assertIn("second.example", c.greeting)
                c.ask("EHLO x.example")
                c.ask("MAIL FROM:<a@example.org>")
                self.assertTrue(c.ask("RCPT TO:<x@local.example>").startswith("550 5.7.1"))
                self.assertTrue(c.ask("RCPT TO:<x@second.example>").startswith("250"))
                c.ask("DATA")
                c.say(b"Subject: x\r\n\r\ny\r\n.\r\n")
                c.hear()
            wait_for("its own Drop", lambda: list((h.dir / "spool/second/Drop").glob("*.eml")))
            self.assertEqual(h.drop(), [])

    def test_an_unreadable_directory_and_missing_file_are_named(self):
        h = Horn()
        shutil.rmtree(h.dir / "spool", ignore_errors=True)
        (h.dir / "spool").write_text("a file where a directory should be")
        done = h.run("posthorn", "-c", str(h.dir), "start", check=False)
        self.assertEqual(done.returncode, 73)
        self.assertIn(b"spool", done.stderr)
        (h.dir / "spool").unlink()
        done = h.run("posthorn", "-c", str(h.root / "nothing"), "start", check=False)
        self.assertEqual(done.returncode, 66)
        h.__exit__(None)

    def test_the_log_as_json_is_an_object_a_line(self):
        with Horn(["log_format=json"]) as h, h.client() as c:
            name = c.send("a@example.org", "x@local.example", b"Subject: x\r\n\r\ny")
            wait_for("delivered and said", lambda: "delivered" in h.log())
            rows = [json.loads(line) for line in h.log().splitlines()]
            mine = [r for r in rows if r.get("id") == name]
            self.assertIn("delivered", [r["event"] for r in mine])
            self.assertTrue(all({"time", "program", "level", "event"} <= set(r) for r in rows), rows[0])

    def test_status_without_a_service(self):
        h = Horn()
        done = h.run("posthorn", "-c", str(h.dir), "status", "--json", check=False)
        self.assertEqual((done.returncode, json.loads(done.stdout)["state"]), (69, "stopped"))
        h.__exit__(None)

    def test_a_stop_ends_with_the_deliveries_that_are_under_way(self):
        """A delivery behind its final dot has its answer awaited, what has not begun is left; then nothing waits for the end
        of stop_grace, which is an hour here."""
        held, answer = threading.Event(), threading.Event()
        def sink_answer(stage, text, n):
            if stage == "dot":
                held.set()
                answer.wait(60)
        with Sink(sink_answer) as sink, Horn(["test_mode=yes"], ["stop_grace=1h", "outbound_connection_limit=1"], [remote(sink)]) as h:
            with h.client() as c:
                for i in range(3):
                    c.send("a@example.org", "b@sink.example", b"Subject: x\r\n\r\nx", ehlo=i == 0)
            self.assertTrue(held.wait(20))
            done = []
            stopper = threading.Thread(target=lambda: done.append(h.run("posthorn", "-c", str(h.dir), "stop")))
            stopper.start()
            wait_for("the stop to reach those that deliver", lambda: "stopping" in h.log() and not h.runs("posthorn: bounce"))
            self.assertEqual(done, [])
            answer.set()
            stopper.join(60)
            self.assertEqual(len(done), 1, "the stop waits for something")
            taken = len(sink.messages)
            h.start()
            wait_for("the rest", lambda: not h.messages() and len(sink.messages) >= 3)
            self.assertEqual((taken, len(sink.messages)), (1, 3))


def h_path(h, program):
    from horn import BUILD
    return BUILD / program


if __name__ == "__main__":
    unittest.main()
