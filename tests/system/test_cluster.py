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
from horn import BUILD, TREE, Client, Horn, Sink, wait_for

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
    t.assertIn("server=shared, reason=the lease of its queue", a.log()) # lease or master, whoever looks first
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
    # what the other node has is not this one's to delete or rename; its own configuration is
    queue = sorted(p.name for p in (cluster.home / "Queue/journal").iterdir())
    for act in (("remove", "shared", "--discard"), ("remove", "shared", "--drain"), ("rename", "shared", "other")):
        done = a.horn("hornconf", "server", *act, check=False)
        t.assertEqual((done.returncode, "held by node2" in done.stderr), (69, True), done.stderr)
    t.assertIn("stays: it is held by node2", a.horn("hornconf", "server", "remove", "shared").stdout)
    t.assertEqual((a.state(), sorted(p.name for p in (cluster.home / "Queue/journal").iterdir())), (None, queue))
    send(b, 7)
    wait_for("delivered", lambda: 7 in numbers(sink))
    # who takes the file away takes the queue away
    (cluster.home / "Queue/lease").unlink()
    wait_for("it stops", lambda: b.state() == "stopped")
    b.start()
    t.assertEqual((cluster.lease(), cluster.tokens()[-1][2]), (("node2", 5, "held"), "new")) # tokens go on
    t.assertEqual(sorted(set(numbers(sink))), numbers(sink))


def ssh(a, *others):
    """Root of a may log in at the others, by their names."""
    for n in (a, *others):
        (n.root / "ssh").mkdir(mode=0o700)
        n.inside("sh", "-c", f"mount -t tmpfs -o mode=700 tmpfs /root && mkdir /root/.ssh && mount --bind {n.cluster.machine}/ssh /root/.ssh")
    a.inside("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", a.cluster.machine / "ssh/id_ed25519")
    config = ""
    for b in others:
        b.inside("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", b.cluster.machine / "host_key")
        (b.root / "ssh/authorized_keys").write_text((a.root / "ssh/id_ed25519.pub").read_text())
        (b.root / "sshd_config").write_text(f"HostKey {b.cluster.machine}/host_key\nSetEnv PATH={BUILD}:/usr/bin:/bin ASAN_OPTIONS=detect_leaks=0\nUsePAM no\nPidFile none\n")
        b.inside("mkdir", "-p", "/run/sshd")
        b.inside("/usr/sbin/sshd", "-f", b.cluster.machine / "sshd_config")
        config += f"Host {b.name}\n HostName {b.address}\n StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n LogLevel ERROR\n"
    (a.root / "ssh/config").write_text(config)


def recipe():
    """The guide's steps to set up an SMTP virtual server for clustering, one by one."""
    t = unittest.TestCase()
    with Cluster(configured=False) as cluster:
        a, b = cluster.nodes
        ssh(a, b)
        a.horn("hornconf", "init", "log_target=file:" + str(cluster.machine / "mail.log"), "fqdn=node1", f"listen={a.address}:25, 127.0.0.1:25")
        # 1. the service's startup type
        a.horn("hornconf", "-e", "--service", "startup=manual")
        # 2 to 5. another port for the default server
        a.horn("hornconf", "-e", f"listen={a.address}:2524")
        # 6. a new server on port 25, its home on the shared resource, started by hand
        a.horn("hornconf", "server", "add", "shared", "listen=*:25", "fqdn=mx.cluster.example", "default_domain=cluster.example", "cluster=yes", "startup=manual", f"cluster_lease_time={TERM_S}s",
               f"home_directory={cluster.home}", f"outbound_tls_ca_file={cluster.machine}/ca.pem")
        (a.root / "ca.pem").write_text("")
        a.inside("sh", "-c", f"printf 'secret\nsecret\n' | {BUILD}/hornpasswd -c {a.dir} -s shared add user@cluster.example")
        # 7. the configuration to the other node; what is of a machine is made valid, what is missing there is told
        told = a.horn("hornconf", "copy", "--to", "node2").stdout
        t.assertIn(f"server default: listen = {b.address}:2524, this machine's, for {a.address}:2524\n", told)
        t.assertIn("server default: fqdn = node2, this machine's, for node1\n", told)
        t.assertIn(f"shared outbound_tls_ca_file: {cluster.machine}/ca.pem is not there\n", told)
        theirs = (b.root / "conf/servers/shared.conf").read_text()
        t.assertEqual(theirs, (a.root / "conf/servers/shared.conf").read_text()) # it goes from node to node as it is
        t.assertFalse((b.root / "conf/servers/shared.passwd").exists())
        a.horn("hornconf", "copy", "--to", "node2", "--user", "root", "--with-secrets")
        t.assertEqual((b.root / "conf/servers/shared.passwd").read_text(), (a.root / "conf/servers/shared.passwd").read_text())
        (b.root / "ca.pem").write_text("")
        for n in (a, b):
            n.horn("posthorn", "start")
            t.assertEqual(n.state(), "stopped")
        a.start()
        with Client(25, host=a.address) as c:
            c.send("a@cluster.example", "b@cluster.example", TEXT)
        a.kill()
        b.start()
        t.assertEqual(cluster.lease()[0], "node2")
        with Client(25, host=b.address) as c:
            t.assertTrue(c.greeting.startswith("220 mx.cluster.example"))
        wait_for("the message is in Drop", lambda: list((cluster.home / "Drop").glob("*.eml"))) # two, if the first node had written it and not yet said so
        # 8. beyond the guide: what is not good, or has what would go away, changes nothing there
        b.horn("hornconf", "server", "add", "own", "listen=127.0.0.1:2600", "startup=manual")
        (b.root / "x").write_text("")
        (b.root / "x").chmod(0o644)
        b.horn("hornconf", "export", cluster.machine / "x")
        t.assertEqual((b.root / "x").stat().st_mode & 0o777, 0o600)
        b.horn("hornconf", "server", "remove", "own")
        bad = (b.root / "x").read_text()
        for text, said in ((bad.replace('"servers/own.conf"', '"../own.conf"'), "not what hornconf export writes"), (bad.replace("startup = manual", "startup = often"), "nothing was changed"),
                           (bad[:-20], "not what hornconf export writes"), (bad.replace("127.0.0.1:2600", f"{b.address}:2524"), "is named by server")):
            (b.root / "x").write_text(text)
            before = {p.name: p.read_text() for p in (b.root / "conf/servers").glob("*.conf")}
            done = b.horn("hornconf", "import", cluster.machine / "x", check=False)
            t.assertNotEqual(done.returncode, 0, said)
            t.assertIn(said, done.stderr)
            t.assertEqual(before, {p.name: p.read_text() for p in (b.root / "conf/servers").glob("*.conf")})
            t.assertEqual([p.name for p in (b.root / "conf").glob(".import*")], [])


def agent():
    """The OCF agent: ocf-tester's own acts, each refusal, the other node's turn; what is remembered does not start a clustered server."""
    t = unittest.TestCase()
    script = TREE / "conf/ocf/posthorn-server"
    with Cluster() as cluster:
        a, b = cluster.nodes
        options = [f"config={a.dir}", "server=shared", f"binary={BUILD}/posthorn"]
        done = a.inside("ocf-tester", "-v", "-n", "shared", *[w for o in options for w in ("-o", o)], script, check=False)
        t.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        t.assertIn("passed all tests", done.stdout)

        def ask(n, act, **keys):
            env = {"OCF_ROOT": "/usr/lib/ocf", "OCF_RESOURCE_INSTANCE": "shared", **{f"OCF_RESKEY_{k}": v for k, v in {**dict(o.split("=") for o in options), **keys}.items()}}
            return n.inside("env", *[f"{k}={v}" for k, v in env.items()], script, act, check=False).returncode

        t.assertEqual([ask(a, "monitor"), ask(b, "monitor")], [7, 7])
        t.assertEqual([ask(a, "validate-all", server="default"), ask(a, "validate-all", server="none"), ask(a, "validate-all", binary="/none")], [6, 6, 5])
        t.assertEqual([ask(a, "start"), ask(a, "start"), ask(a, "monitor"), ask(b, "monitor")], [0, 0, 0, 7])
        for stonith, status in (("false", 6), ("true", 0)): # a cluster that fences nobody is refused
            (a.root / "bin").mkdir(exist_ok=True)
            (a.root / "bin/crm_attribute").write_text(f"#!/bin/sh\necho {stonith}\n")
            (a.root / "bin/crm_attribute").chmod(0o755)
            path = f"{cluster.machine}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
            env = [f"PATH={path}", "OCF_ROOT=/usr/lib/ocf", "OCF_RESOURCE_INSTANCE=shared", *[f"OCF_RESKEY_{o}" for o in options]]
            t.assertEqual(a.inside("env", *env, script, "validate-all", check=False).returncode, status, stonith)
            t.assertEqual(a.inside("env", *env, "OCF_RESKEY_unfenced=yes", script, "validate-all", check=False).returncode, 0)
        t.assertEqual([ask(a, "stop"), ask(a, "stop"), ask(a, "monitor"), ask(b, "start"), ask(b, "monitor")], [0, 0, 7, 0, 0])
        b.horn("posthorn", "stop")
        b.horn("posthorn", "start")
        t.assertEqual([b.state(), ask(b, "monitor"), ask(a, "start")], ["stopped", 7, 0])
        a.horn("posthorn", "stop")
        t.assertEqual([ask(a, "monitor"), ask(a, "stop"), ask(a, "start")], [7, 0, 0]) # the service too


@unittest.skipUnless(os.geteuid() == 0, "makes network namespaces")
class Nodes(unittest.TestCase):
    def test_one_at_a_time(self):
        self.inside("inside")

    def test_the_guides_recipe(self):
        self.inside("recipe")

    def test_the_resource_agent(self):
        self.inside("agent")

    def inside(self, what):
        done = subprocess.run(["unshare", "-n", "sh", "-c", f"ip link set lo up && exec {sys.executable} -c 'import test_cluster; test_cluster.{what}()'"], cwd=pathlib.Path(__file__).parent,
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
