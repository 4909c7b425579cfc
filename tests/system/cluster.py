"""Nodes of a cluster: each a set of namespaces of its own (network, processes, host name, mounts), all with one shared directory."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

from horn import BUILD, TMP, wait_for

TERM_S = 4
PORT = 2525


class Node:
    """A machine: 10.77.0.N, its own configuration and spool; the server "shared" has its home on the shared directory."""

    def __init__(self, cluster, number, configured=True):
        self.cluster, self.number, self.name = cluster, number, f"node{number}"
        self.root = cluster.dir / self.name # mounted on cluster.machine there: all nodes have the same paths
        self.dir = cluster.machine / "conf"
        self.address = f"10.77.0.{number}"
        self.root.mkdir(mode=0o755, exist_ok=True)
        self.up = False
        self.boot()
        if not (self.root / "conf").exists() and configured:
            self.configure()

    def boot(self):
        self.init = subprocess.Popen(["unshare", "-npumf", "--kill-child", "--mount-proc", "sh", "-c", f"hostname {self.name}; ip link set lo up; mount --bind {self.root} {self.cluster.machine}; mount -t tmpfs tmpfs /run; echo ready; exec sleep infinity"],
                                     stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.init.stdout.readline()
        self.pid = int(subprocess.run(["pgrep", "-P", str(self.init.pid)], capture_output=True, text=True, check=True).stdout.split()[0])
        link = f"v{os.getpid() % 10000}n{self.number}"
        run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(self.pid))
        run("ip", "link", "set", link, "master", "cluster0", "up")
        self.inside("ip", "addr", "add", f"{self.address}/24", "dev", "eth0")
        self.inside("ip", "link", "set", "eth0", "up")
        self.up = True

    def inside(self, *args, check=True, timeout=120):
        done = subprocess.run(["nsenter", "-t", str(self.pid), "-a", *map(str, args)], capture_output=True, text=True, timeout=timeout)
        if check and done.returncode:
            raise AssertionError(f"{self.name}: {args}: {done.returncode} {done.stderr} {done.stdout}")
        return done

    def horn(self, program, *args, **kw):
        return self.inside(BUILD / program, "-c", self.dir, *args, **kw)

    def configure(self):
        self.horn("hornconf", "init", "listen=127.0.0.1:2524", f"fqdn={self.name}.example", "default_domain=local.example", "test_mode=yes",
                  f"log_target=file:{self.cluster.machine}/mail.log")
        self.horn("hornconf", "server", "add", "shared", f"listen=*:{PORT}", "fqdn=mx.cluster.example", "default_domain=cluster.example", "cluster=yes", "startup=manual",
                  f"cluster_lease_time={self.cluster.term_s}s", f"home_directory={self.cluster.home}", "trusted_networks=10.77.0.0/24", "relay_exceptions=10.77.0.0/24", *self.cluster.settings)

    def start(self, **kw):
        return self.horn("posthorn", "start", "shared", **kw)

    def stop(self, **kw):
        return self.horn("posthorn", "stop", "shared", **kw)

    def state(self):
        done = self.horn("posthorn", "status", "--json", check=False)
        return {s["name"]: s for s in json.loads(done.stdout)["servers"]}.get("shared", {}).get("state") if done.returncode == 0 else None

    def log(self):
        path = self.root / "mail.log"
        return path.read_text() if path.exists() else ""

    def processes(self):
        """All of the node, but its first."""
        mine = os.readlink(f"/proc/{self.pid}/ns/pid")
        found = []
        for p in pathlib.Path("/proc").iterdir():
            try:
                if p.name.isdigit() and int(p.name) != self.pid and os.readlink(p / "ns/pid") == mine:
                    found.append(int(p.name))
            except OSError:
                pass
        return found

    def signal(self, number):
        for pid in self.processes():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def freeze(self):
        self.signal(signal.SIGSTOP)

    def thaw(self):
        self.signal(signal.SIGCONT)

    def kill(self):
        """The power is cut: nothing of it runs any more, nor comes back by itself."""
        if self.up:
            os.kill(self.pid, signal.SIGKILL)
            self.init.wait()
            self.init.stdout.close()
            self.up = False
            wait_for("its network is gone", lambda: not pathlib.Path(f"/proc/{self.pid}").exists())


def run(*args):
    subprocess.run(args, check=True, capture_output=True)


class Cluster:
    """In a network namespace that is the caller's alone; 10.77.0.254 is the caller."""

    def __init__(self, nodes=2, settings=(), configured=True, term_s=TERM_S):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="cluster-", dir=TMP))
        os.chmod(self.dir, 0o755)
        self.home = self.dir / "shared"
        self.machine = self.dir / "machine"
        self.machine.mkdir()
        self.settings = settings
        self.term_s = term_s
        run("ip", "link", "add", "cluster0", "type", "bridge")
        run("ip", "addr", "add", "10.77.0.254/24", "dev", "cluster0")
        run("ip", "link", "set", "cluster0", "up")
        self.nodes = [Node(self, i + 1, configured) for i in range(nodes)]
        for n in self.nodes if configured else ():
            n.horn("posthorn", "start")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for n in self.nodes:
            n.kill()
        run("ip", "link", "del", "cluster0")
        shutil.rmtree(self.dir, ignore_errors=True)

    def lease(self):
        """node, token, held or free"""
        words = (self.home / "Queue/lease").read_text().split()
        return words[2], int(words[4]), words[6]

    def tokens(self):
        """The log of tokens: token, node, from, {segment: (epoch, end)}."""
        rows = []
        for line in (self.home / "Queue/tokens").read_text().splitlines():
            token, node, _, why, *segments = line.split()
            rows.append((int(token), node, why, {int(s, 16): (int(e), int(n)) for s, e, n in (x.split(":") for x in segments)}))
        return rows
