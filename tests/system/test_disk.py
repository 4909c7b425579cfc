"""A full disk: 452, nothing acknowledged is lost, goes on by itself when there is space again."""
import os
import pathlib
import re
import shutil
import subprocess
import unittest

from horn import Client, Horn, Sink, free_port, remote, wait_for


class Disk(unittest.TestCase):
    @unittest.skipIf(os.geteuid() != 0, "only root can mount a small file system")
    def test_a_full_file_system_refuses_and_recovers(self):
        port = free_port()
        h = Horn(["test_mode=yes"], ["retry_first=1h", "retry_second=1h", "retry_third=1h", "retry_subsequent=1h", "destination_probe=1s", "session_size_limit=unlimited"],
                 [remote(port)])
        spool = h.dir / "spool"
        spool.mkdir(exist_ok=True)
        image = h.root / "disk"
        with open(image, "wb") as f:
            f.truncate(48 * 1024 * 1024)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-F", str(image)], check=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(spool)], check=True)
        os.chmod(spool, 0o755)
        try:
            with h:
                acknowledged, refused = set(), 0
                with Client(h.port) as c:
                    c.ask("EHLO c.example")
                    for i in range(20000):
                        c.say(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@sink.example>\r\nDATA\r\n")
                        replies = [c.hear() for _ in range(3)]
                        if not replies[2].startswith("354"):
                            refused += 1
                            c.ask("RSET")
                        else:
                            c.say(b"Subject: m%d\r\n\r\n" % i + b"x" * 6000 + b"\r\n.\r\n")
                            reply = c.hear()
                            if reply.startswith("250"):
                                acknowledged.add(f"m{i}")
                            else:
                                self.assertRegex(reply, r"^45[12] 4\.3\.[01]")
                                refused += 1
                        if refused > 20:
                            break
                self.assertGreater(refused, 20)
                self.assertGreater(len(acknowledged), 500)
                with Sink(port=port) as sink:
                    def arrived():
                        h.queue("flush")
                        with sink.lock:
                            return acknowledged <= {re.search(rb"Subject: (\S+)", m[2])[1].decode() for m in sink.messages}
                    wait_for("all that was acknowledged", arrived, 60)
                    def taken_again():
                        with Client(h.port) as c:
                            try:
                                c.send("a@example.org", "b@sink.example", b"Subject: again\r\n\r\nx")
                                return True
                            except AssertionError:
                                return False
                    wait_for("it takes mail again by itself", taken_again, 30)
        finally:
            subprocess.run(["umount", str(spool)], check=False)
            shutil.rmtree(h.root, ignore_errors=True)


if __name__ == "__main__":
    unittest.main()
