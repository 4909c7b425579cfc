"""Badmail: its limits, and what hornqueue badmail does with it."""
import json
import os
import time
import unittest

from horn import Horn, Sink, free_port, remote, wait_for

TEXT = b"From: a@example.org\r\nTo: b@example.org\r\nSubject: hello\r\n\r\nA line."


def refuse(stage, *a):
    return "550 5.1.1 no such user" if stage == "rcpt" else None


def send_null(h, c, data=TEXT, ehlo=True):
    """A message from <> that nobody takes: Badmail."""
    qid = c.send("", "b@sink.example", data, ehlo=ehlo)
    wait_for("its fate", lambda: f"{qid}: status=removed" in h.log())
    return qid


class Badmail(unittest.TestCase):
    def bad(self, h, *args, **kw):
        return h.queue("badmail", *args, **kw)

    def rows(self, h):
        return [json.loads(r) for r in self.bad(h, "list", "--json").stdout.decode().splitlines()]

    def test_list_show_remove_and_requeue(self):
        with Sink(refuse) as sink, Horn(domains=[remote(sink)]) as h, h.client() as c:
            first, second = send_null(h, c), send_null(h, c, ehlo=False)
            rows = self.rows(h)
            self.assertEqual({r["id"] for r in rows}, {first, second})
            self.assertEqual((rows[0]["sender"], rows[0]["recipients"], rows[0]["server"]), ("", ["b@sink.example"], "default"))
            self.assertIn("550 5.1.1 no such user", rows[0]["reason"])
            self.assertIn("no such user", self.bad(h, "list").stdout.decode())
            self.assertIn(b"\r\n\r\nA line.", self.bad(h, "show", first).stdout)
            self.bad(h, "remove", first)
            self.assertEqual([r["id"] for r in self.rows(h)], [second])
            for args in (("show", first), ("remove", "../x"), ("requeue", "nothing")):
                self.assertEqual(self.bad(h, *args, check=False).returncode, 66, args)
            self.assertEqual(self.bad(h, "show", check=False).returncode, 64)
            sink.answer = lambda *a: None
            self.bad(h, "requeue", second)
            got = wait_for("it goes again", lambda: sink.messages)[0]
            self.assertEqual((got[0], got[1]), ("MAIL FROM:<> SIZE=%d" % len(got[2]), ["RCPT TO:<b@sink.example>"]))
            self.assertIn(b"\r\n\r\nA line.", got[2])
            self.assertEqual(list((h.server_dir / "Badmail").iterdir()), [])

    def test_no_link_is_followed(self):
        """Badmail and Pickup are written by other users than the one who runs the command."""
        with Sink(refuse) as sink, Horn(domains=[remote(sink)]) as h, h.client() as c:
            qid = send_null(h, c)
            secret, victim = h.root / "secret", h.root / "victim"
            secret.write_text("for nobody's eyes")
            victim.write_text("as it was")
            bad = h.server_dir / "Badmail"
            os.rename(bad / f"{qid}.BAD", bad / "kept")
            os.link(secret, bad / f"{qid}.BAD") # a second name of a file
            self.assertNotIn(b"eyes", self.bad(h, "show", qid, check=False).stdout)
            self.assertNotEqual(self.bad(h, "requeue", qid, check=False).returncode, 0)
            (bad / f"{qid}.BAD").unlink()
            os.rename(bad / "kept", bad / f"{qid}.BAD")
            (bad / f"{qid}.BDR").unlink()
            os.symlink(secret, bad / f"{qid}.BDR")
            self.assertNotIn(b"eyes", self.bad(h, "list").stdout)
            os.symlink(victim, h.server_dir / f"Pickup/.{qid}.eml.new") # planted where the file is made
            self.bad(h, "requeue", qid)
            self.assertEqual(victim.read_text(), "as it was")

    def test_a_file_that_pickup_refused_is_listed_and_goes_back(self):
        with Horn() as h:
            (h.root / "f").write_bytes(b"Subject: nobody\n\ntext\n")
            os.chmod(h.root / "f", 0o644)
            os.rename(h.root / "f", h.server_dir / "Pickup/f")
            row = wait_for("the bad file", lambda: self.rows(h))[0]
            self.assertIsNone(row["sender"])
            self.assertIn("no recipient", row["reason"])
            self.bad(h, "requeue", row["id"])
            again = wait_for("it is refused again", lambda: [r for r in self.rows(h) if r["id"] != row["id"] and r["reason"]])
            self.assertIn("no recipient", again[0]["reason"])

    def test_at_its_size_limit_the_oldest_are_kept_and_the_newest_logged(self):
        with Sink(refuse) as sink, Horn(server=["badmail_size_limit=1M"], domains=[remote(sink)]) as h, h.client() as c:
            big = TEXT + b"\r\n" + b"x" * 70 + b"\r\n"
            kept = send_null(h, c, TEXT + (b"\r\n" + b"x" * 70) * 10000)
            lost = send_null(h, c, TEXT + (b"\r\n" + b"x" * 70) * 10000, ehlo=False)
            small = send_null(h, c, big, ehlo=False)
            self.assertEqual({r["id"] for r in self.rows(h)}, {kept, small})
            line = wait_for("the line about it", lambda: [l for l in h.log().splitlines() if "badmail_full" in l])[0]
            for part in (lost, "b@sink.example", "no such user", "lost=1"):
                self.assertIn(part, line)

    def test_at_its_age_limit_as_well(self):
        with Sink(refuse) as sink, Horn(["test_mode=yes"], ["badmail_age_limit=1h"], [remote(sink)]) as h, h.client() as c:
            kept = send_null(h, c)
            for p in (h.server_dir / "Badmail").iterdir():
                os.utime(p, (time.time() - 7200,) * 2)
            h.stop()
            h.start()
            with h.client() as d:
                lost = send_null(h, d)
            self.assertEqual([r["id"] for r in self.rows(h)], [kept])
            wait_for("the line about it", lambda: [l for l in h.log().splitlines() if "badmail_full" in l and lost in l])


if __name__ == "__main__":
    unittest.main()
