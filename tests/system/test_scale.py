"""docs/scale-out.md: three nodes behind HAProxy, each with a queue of its own, their configuration kept equal by hornconf copy."""
import os
import pathlib
import re
import subprocess
import sys
import unittest

from cluster import Cluster, run
from horn import Client, TREE, wait_for
from test_cluster import TEXT, ssh

FRONT, OUTSIDE, OTHER = "10.77.0.254", "10.77.0.200", "10.77.0.201"


class Proxy:
    """conf/haproxy.cfg as it is, but for addresses and the time between checks."""

    def __init__(self, cluster):
        text = (TREE / "conf/haproxy.cfg").read_text().replace("/dev/log local0", "stdout format raw local0").replace("bind *:25", f"bind {FRONT}:25").replace("inter 2s", "inter 200ms").replace("maxconn 20000", "maxconn 500")
        for n in cluster.nodes:
            text = text.replace(f"10.0.0.{n.number}:25", f"{n.address}:25")
        (cluster.dir / "haproxy.cfg").write_text(text + f"listen state\n    mode http\n    bind 127.0.0.1:8404\n    stats enable\n    stats uri /\n")
        self.process = subprocess.Popen(["haproxy", "-f", cluster.dir / "haproxy.cfg"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def up(self):
        import urllib.request
        try:
            rows = urllib.request.urlopen("http://127.0.0.1:8404/;csv", timeout=5).read().decode().splitlines()
        except OSError:
            return None
        return {r.split(",")[1] for r in rows if r.startswith("nodes,node") and re.search(r",UP[ ,]", r)} # "UP 1/2" still gets connections

    def end(self):
        self.process.terminate()
        self.process.wait()


def through(n, source=OUTSIDE):
    """Connections to the one address; which node greets each, and its EHLO."""
    found = []
    for i in range(n):
        with Client(25, host=FRONT, source=source) as c:
            node = c.greeting.split()[1]
            said = c.ask("EHLO client.example")
            c.send("a@client.example", "b@scale.example", TEXT + b"number %d" % i, ehlo=False)
            found.append((node, said))
    return found


def dropped(n):
    return [p.read_text() for p in (n.root / "conf/spool/default/Drop").glob("*.eml")]


def inside():
    t = unittest.TestCase()
    run("ip", "link", "set", "lo", "up")
    with Cluster(nodes=3, configured=False) as cluster:
        a, b, c = cluster.nodes
        for address in (OUTSIDE, OTHER):
            run("ip", "addr", "add", f"{address}/24", "dev", "cluster0")
        ssh(a, b, c)
        a.horn("hornconf", "init", f"log_target=file:{cluster.machine}/mail.log", "default_domain=scale.example", "fqdn=node1", "listen=*:25", f"proxy_clients={FRONT}", "client_connection_limit=7")
        a.horn("hornconf", "copy", "--to", "node2", "--to", "node3")
        for n in cluster.nodes:
            n.horn("posthorn", "start")
        proxy = Proxy(cluster)
        try:
            wait_for("all are up", lambda: proxy.up() == {"node1", "node2", "node3"})
            found = through(9)
            t.assertEqual({node for node, _ in found}, {"node1", "node2", "node3"})
            wait_for("all delivered", lambda: sum(len(dropped(n)) for n in cluster.nodes) == 9)
            for n in cluster.nodes: # each by itself, and each knows the client
                t.assertTrue(dropped(n))
                t.assertTrue(all(re.search(rf"Received: from .*\[{OUTSIDE}\]", text) for text in dropped(n)), dropped(n)[0])
            # an edit on one, brought to the others
            a.horn("hornconf", "-e", "recipient_limit=123", f"access_exceptions={OTHER}")
            a.horn("hornconf", "copy", "--to", "node2", "--to", "node3")
            for n in cluster.nodes:
                n.horn("posthorn", "reload")
            t.assertEqual({"RCPTMAX=123" in said for _, said in through(6)}, {True})
            with Client(25, host=FRONT, source=OTHER) as refused: # by the client's address, not the proxy's
                t.assertTrue(refused.greeting.startswith("554"))
            # one paused, one killed: their turn is over, nobody is refused
            a.horn("posthorn", "pause")
            b.kill()
            wait_for("they are out", lambda: proxy.up() == {"node3"})
            t.assertEqual({node for node, _ in through(4)}, {"node3"})
            a.horn("posthorn", "resume")
            wait_for("one is back", lambda: proxy.up() == {"node1", "node3"})
            t.assertEqual({node for node, _ in through(6)}, {"node1", "node3"})
        finally:
            proxy.end()


@unittest.skipUnless(os.geteuid() == 0, "makes network namespaces")
class Scale(unittest.TestCase):
    def test_three_nodes_behind_one_address(self):
        done = subprocess.run(["unshare", "-n", sys.executable, "-c", "import test_scale; test_scale.inside()"], cwd=pathlib.Path(__file__).parent, capture_output=True, timeout=300,
                              env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"})
        self.assertEqual(done.returncode, 0, done.stderr.decode()[-3000:] + done.stdout.decode()[-3000:])


if __name__ == "__main__":
    unittest.main()
