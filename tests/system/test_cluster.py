"""Clustering (MISSION A9): a server whose home lies on shared storage runs on one node at a time; two nodes, each a full set of namespaces."""
import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import unittest

from cluster import PORT, TERM_S, Cluster
from horn import Client, Horn, Sink, wait_for

TEXT = b"Subject: x\r\n\r\n"


def send(node, number, **kw):
    with Client(PORT, host=node.address) as c:
        return c.send("a@cluster.example", "b@far.example", TEXT + b"number %d" % number, **kw)


def numbers(sink):
    return sorted(int(m[2].split(b"number ")[1].split()[0]) for m in sink.messages)


def refusing(stage, text, n):
    return "451 4.3.0 later" if stage == "mail" else None


def inside():
    t = unittest.TestCase()
    with Cluster(settings=["smart_host=[10.77.0.254]:2600", "retry_first=1s", "retry_second=1s", "retry_third=1s", "retry_subsequent=1s", "destination_probe=1s"]) as cluster:
        a, b = cluster.nodes
        a.start()
        t.assertEqual(cluster.lease(), ("node1", 1, "held"))
        refused = b.start(check=False)
        t.assertNotEqual(refused.returncode, 0)
        t.assertIn("held by the node node1", refused.stdout + refused.stderr)
        t.assertEqual(b.state(), "stopped")
        # mail that waits goes on at the other node, after an order and without
        send(a, 1)
        a.stop()
        t.assertEqual(cluster.lease()[2], "free")
        b.start()
        t.assertEqual(cluster.lease(), ("node2", 2, "held"))
        with contextlib.closing(Sink(host="10.77.0.254", port=2600)) as sink:
            wait_for("delivered by the second", lambda: numbers(sink) == [1])
        send(b, 2)
        b.kill()
        begun = time.monotonic()
        a.start()
        took = time.monotonic() - begun
        t.assertGreater(took, 2 * TERM_S)
        t.assertEqual(cluster.lease(), ("node1", 3, "held"))
        with contextlib.closing(Sink(host="10.77.0.254", port=2600)) as sink:
            wait_for("delivered by the first", lambda: numbers(sink) == [2])
            # lease killed: the server goes on under the same token
            lease, = a.inside("pgrep", "-f", "^posthorn: lease shared").stdout.split()
            a.inside("kill", "-9", lease)
            wait_for("another keeps it", lambda: a.inside("pgrep", "-f", "^posthorn: lease shared", check=False).stdout.split() not in ([], [lease]))
            send(a, 3)
            wait_for("delivered", lambda: 3 in numbers(sink))
            time_to_expire(t, cluster, a)
            t.assertEqual(cluster.lease()[1], 3)
            thawed(t, cluster, a, b, sink)


def time_to_expire(t, cluster, a):
    """Longer than a lease that nobody renews would hold."""
    before = cluster.lease()
    wait_for("renewed", lambda: (cluster.home / "Queue/lease").read_text().split()[5] != before[2])
    until = time.monotonic() + TERM_S
    wait_for("it still runs", lambda: time.monotonic() > until)
    t.assertEqual(a.state(), "running")


def thawed(t, cluster, a, b, sink):
    """A node that stood still while another took its queue: what it says after that is no 250, and nothing that it writes counts."""
    b.boot()
    b.horn("posthorn", "start")
    with Client(PORT, host=a.address) as c:
        c.ask("EHLO x")
        c.ask("MAIL FROM:<a@cluster.example>")
        c.ask("RCPT TO:<b@far.example>")
        c.ask("DATA")
        a.freeze()
        b.start()
        t.assertEqual(cluster.lease(), ("node2", 4, "held"))
        send(b, 4)
        c.s.sendall(TEXT + b"number 99\r\n.\r\n")
        a.thaw()
        try:
            answer = c.hear()
        except (OSError, EOFError):
            answer = ""
        t.assertFalse(answer.startswith("250"), answer)
    wait_for("the first has stopped its server", lambda: a.state() == "stopped")
    t.assertIn("lease_lost", a.log())
    wait_for("delivered", lambda: 4 in numbers(sink))
    t.assertNotIn(99, numbers(sink))
    t.assertEqual(cluster.lease(), ("node2", 4, "held"))
    t.assertEqual([(token, node) for token, node, *_ in cluster.tokens()], [(1, "node1"), (2, "node2"), (3, "node1"), (4, "node2")])
    send(b, 5)
    wait_for("delivered", lambda: 5 in numbers(sink))
    # an upgrade keeps the queue, under the same token
    b.horn("posthorn", "upgrade")
    time_to_expire(t, cluster, b)
    t.assertEqual(cluster.lease(), ("node2", 4, "held"))
    send(b, 6)
    wait_for("delivered", lambda: 6 in numbers(sink))
    # who takes the file away takes the queue away
    (cluster.home / "Queue/lease").unlink()
    wait_for("it stops", lambda: b.state() == "stopped")
    t.assertEqual(sorted(set(numbers(sink))), numbers(sink))


@unittest.skipUnless(os.geteuid() == 0, "makes network namespaces")
class Nodes(unittest.TestCase):
    def test_one_at_a_time(self):
        done = subprocess.run(["unshare", "-n", "sh", "-c", f"ip link set lo up && exec {sys.executable} -c 'import test_cluster; test_cluster.inside()'"], cwd=pathlib.Path(__file__).parent,
                              capture_output=True, timeout=300, env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"})
        self.assertEqual(done.returncode, 0, done.stderr.decode()[-3000:] + done.stdout.decode()[-3000:])


class Settings(unittest.TestCase):
    def test_startup_must_not_be_automatic(self):
        with Horn() as h:
            done = h.conf("-e", "cluster=yes", check=False)
            self.assertEqual(done.returncode, 78)
            self.assertIn(b"set startup = manual", done.stderr)


if __name__ == "__main__":
    unittest.main()
