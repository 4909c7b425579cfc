"""Operators (MISSION A8): each act by root, mail owner, operator, operator of a group, operator of another server, stranger."""
import json
import os
import pwd
import subprocess
import unittest

from horn import BUILD, Client, Horn, Sink, free_port, remote, wait_for

TEXT = b"Subject: hello\r\n\r\nA line."
WHO = {"root": "root", "owner": "posthorn", "operator": "games", "of the group": "mail", "of another": "daemon", "stranger": "nobody"}


@unittest.skipUnless(os.geteuid() == 0, "other users are needed")
class Operators(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.sink = Sink(answer=lambda stage, text, n: "451 4.0.0 not yet" if stage == "rcpt" else None)
        h = cls.h = Horn(["test_mode=yes"], [], [remote(cls.sink)])
        cls.port = free_port()
        h.conf("server", "add", "other", f"listen=127.0.0.1:{cls.port}", "fqdn=mx2.horn.example", "default_domain=second.example", "operators=daemon")
        h.conf("-e", "operators=games @mail", "relay=allow")
        h.start()

    @classmethod
    def tearDownClass(cls):
        cls.h.__exit__(None)
        cls.sink.close()

    def by(self, who, program, *words):
        """(0, text) or (status, complaint)."""
        pw = pwd.getpwnam(WHO[who])
        done = subprocess.run(["setpriv", f"--reuid={pw.pw_uid}", f"--regid={pw.pw_gid}", "--clear-groups", str(BUILD / program), "-c", str(self.h.dir), *words],
                              capture_output=True, timeout=60, cwd="/")
        return done.returncode, (done.stdout if done.returncode == 0 else done.stderr).decode()

    def message(self):
        with self.h.client() as c:
            qid = c.send("a@example.org", "b@sink.example", TEXT)
        return wait_for("it waits", lambda: [m["id"] for m in self.h.messages() if m["state"] == "deferred" and m["id"] == qid])[0]

    def test_each_act_by_each(self):
        """Own server: all but the stranger and the other's; another server, the service: root and owner alone."""
        mine = {"root", "owner", "operator", "of the group"}
        both = mine | {"of another"}
        admin = {"root", "owner"}
        acts = [
            (mine, "posthorn", "stop", "default"), (mine, "posthorn", "start", "default"), (mine, "posthorn", "pause", "default"), (mine, "posthorn", "resume", "default"),
            (admin | {"of another"}, "posthorn", "pause", "other"), (admin | {"of another"}, "posthorn", "resume", "other"),
            (admin, "posthorn", "pause", "default", "other"), (admin, "posthorn", "resume", "default", "other"),
            (admin, "posthorn", "pause"), (admin, "posthorn", "resume"),
            (both, "posthorn", "status", "--json"), (mine, "posthorn", "explain", "b@sink.example"), (admin | {"of another"}, "posthorn", "explain", "-s", "other", "b@sink.example"),
            (mine, "hornqueue", "-s", "default", "list"), (admin | {"of another"}, "hornqueue", "-s", "other", "list"),
            (mine, "hornqueue", "-s", "default", "hold", "ID"), (mine, "hornqueue", "-s", "default", "release", "ID"), (mine, "hornqueue", "-s", "default", "why", "ID"),
            (mine, "hornqueue", "-s", "default", "cat", "ID"), (mine, "hornqueue", "-s", "default", "remove", "ID"),
        ]
        before = self.h.log().count("warning: refused: act=")
        n = 0
        for may, program, *words in acts:
            for who in WHO:
                with self.subTest(who=who, act=words):
                    qid = self.message() if "ID" in words else None
                    status, text = self.by(who, program, *[qid if w == "ID" else w for w in words])
                    if who in may:
                        self.assertEqual(status, 0, text)
                    else:
                        n += 1
                        self.assertEqual((status, "may do this" in text), (77, True), text)
        wait_for("each of them is in the log", lambda: self.h.log().count("warning: refused: act=") - before == n)

    def test_reload_is_not_theirs(self):
        for who in ("operator", "of another", "stranger"):
            generation = self.h.status()["generation"]
            status, text = self.by(who, "posthorn", "reload")
            self.assertEqual((status, self.h.status()["generation"]), (77, generation))
            self.assertIn("may do this", text)

    def test_what_status_shows(self):
        names = lambda who: [s["name"] for s in json.loads(self.by(who, "posthorn", "status", "--json")[1])["servers"]]
        self.assertEqual([names(w) for w in ("root", "operator", "of another")], [["default", "other"], ["default"], ["other"]])

    def test_edit(self):
        """In force at once; root's parameters, other servers, bad values are refused and change nothing."""
        file = self.h.dir / "servers/default.conf"
        size = lambda: [line for line in self.ehlo() if line.startswith("SIZE")]
        status, text = self.by("operator", "hornconf", "-e", "message_size_limit=3M", "session_size_limit=9M")
        self.assertEqual((status, text), (0, "message_size_limit: 2048K -> 3M; session_size_limit: 10240K -> 9M\n"))
        self.assertEqual(size(), ["SIZE 3145728"])
        before = file.read_bytes()
        for who, words, said in (
                ("operator", ["relay=allow"], "relay is set by root alone"), ("operator", ["operators=games daemon"], "operators is set by root alone"),
                ("operator", ["message_size_limit=1M", "smart_host=[127.0.0.1]"], "smart_host is set by root alone"),
                ("operator", ["message_size_limit=x"], "message_size_limit"), ("operator", ["session_size_limit=1M"], "session_size_limit is smaller"),
                ("operator", ["mesage_size_limit=1M"], "did you mean message_size_limit"), ("operator", ["hop_limit=20\tlisten=*:25"], "listen is set by root alone"),
                ("of another", ["message_size_limit=1M"], "may do this"), ("stranger", ["message_size_limit=1M"], "may do this")):
            status, text = self.by(who, "hornconf", "-e", *words)
            self.assertEqual((status != 0, said in text), (True, True), (who, words, text))
            self.assertEqual(file.read_bytes(), before)
        self.assertEqual(size(), ["SIZE 3145728"])
        status, text = self.by("operator", "hornconf", "-D", "sink.example", "-e", "retry_first=5m")
        self.assertEqual(status, 0, text)
        self.assertEqual(self.by("operator", "hornconf", "-D", "sink.example", "-e", "route=[127.0.0.1]:26")[0], 77)
        self.assertEqual(self.by("operator", "hornconf", "-X", "message_size_limit", "session_size_limit")[0], 0)
        self.assertEqual(size(), ["SIZE 2097152"])

    def ehlo(self):
        with self.h.client() as c:
            return [line[4:].strip() for line in c.ask("EHLO c").splitlines()]

    def test_removal_takes_effect_at_once(self):
        h = self.h
        self.assertEqual(self.by("operator", "hornqueue", "-s", "default", "list")[0], 0)
        h.conf("-e", "operators=@mail")
        h.run("posthorn", "-c", str(h.dir), "reload")
        self.assertEqual(self.by("operator", "hornqueue", "-s", "default", "list")[0], 77)
        self.assertEqual(self.by("of the group", "hornqueue", "-s", "default", "list")[0], 0)
        h.conf("-e", "operators=games @mail")
        h.run("posthorn", "-c", str(h.dir), "reload")
        self.assertEqual(self.by("operator", "hornqueue", "-s", "default", "list")[0], 0)

    def test_names_that_nobody_has(self):
        h = self.h
        for value, said in (("games nobodi", b"no user nobodi"), ("@gruppe", b"no group gruppe")):
            done = h.conf("-e", f"operators={value}", check=False)
            self.assertEqual((done.returncode, said in done.stderr), (67, True))
        done = h.conf("-e", "operators=a/b", check=False)
        self.assertEqual((done.returncode, b"write users and @groups" in done.stderr), (64, True))
        file = h.dir / "servers/default.conf"
        old = file.read_text()
        file.write_text(old.replace("games @mail", "games @mail nobodi"))
        done = h.run("posthorn", "-c", str(h.dir), "reload", check=False)
        self.assertEqual((done.returncode, b"this machine has no user nobodi" in done.stderr), (78, True))
        file.write_text(old)

    def test_the_record(self):
        """posthorn log operators: who, what, when; root alone reads it, and those who are refused are in the mail log."""
        self.by("operator", "hornconf", "-e", "hop_limit=21")
        self.by("of another", "posthorn", "pause", "other")
        self.by("of another", "posthorn", "resume", "other")
        self.by("operator", "hornqueue", "-s", "default", "remove", "0AAAAAAAAAAAAAA")
        show = lambda *words: [json.loads(line) for line in self.by("root", "posthorn", "log", "operators", "--json", *words)[1].splitlines()]
        last = show()[-4:]
        self.assertEqual([(x["user"], x["act"], x["server"], x["status"] == 0) for x in last],
                         [("games", "edit", "default", True), ("daemon", "pause", "-", True), ("daemon", "resume", "-", True), ("games", "remove", "default", False)])
        self.assertRegex(last[0]["what"], r"^hop_limit: \d+ -> 21$")
        self.assertEqual((last[0]["uid"], last[1]["what"]), (5, "other"))
        self.assertEqual({x["user"] for x in show("-s", "other")} - {"root", "mail owner"}, {"daemon"})
        self.assertIn("games edit default hop_limit", self.by("root", "posthorn", "log", "operators")[1])
        self.assertEqual(self.by("operator", "posthorn", "log", "operators")[0], 77)
        self.by("operator", "hornconf", "-X", "hop_limit")


if __name__ == "__main__":
    unittest.main()
