"""Proofs about clustering: two nodes, each a full set of namespaces, one shared directory, mail all the while; evidence.py runs them (root)."""
import collections
import json
import os
import pathlib
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

from cluster import PORT, Cluster
from horn import TREE, Client, Sink, wait_for

HOP = 2600
SETTINGS = [f"smart_host=[10.77.0.254]:{HOP}", "retry_first=1s", "retry_second=1s", "retry_third=1s", "retry_subsequent=1s", "destination_probe=1s"]


class Load:
    """Sessions with messages to whichever node takes them; what was acknowledged, when and by whom."""

    def __init__(self, nodes, threads=4, gap=0.02):
        self.nodes, self.gap = nodes, gap
        self.acked, self.over = [], threading.Event() # name, node, when
        self.threads = [threading.Thread(target=self.feed, args=(k,), daemon=True) for k in range(threads)]
        for t in self.threads:
            t.start()

    def session(self, k, node, count):
        with Client(PORT, host=node.address) as c:
            c.s.settimeout(30)
            c.ask("EHLO client.example")
            for _ in range(3):
                name = f"m{k}-{count[0]}"
                count[0] += 1
                c.send("a@cluster.example", "b@far.example", f"Subject: {name}\r\n\r\n".encode() + b"x" * random.choice([10, 2000, 300000]), ehlo=False)
                self.acked.append((name, node.number, time.monotonic()))
                time.sleep(self.gap)

    def feed(self, k):
        count, at = [0], k
        while not self.over.is_set():
            try:
                self.session(k, self.nodes[at % len(self.nodes)], count)
            except (OSError, EOFError, AssertionError):
                at += 1
                time.sleep(0.05)

    def end(self):
        self.over.set()
        for t in self.threads:
            t.join(60)


def short_connects():
    """A node that is off does not say no."""
    usual = socket.create_connection
    socket.create_connection = lambda address, timeout=30, source_address=None: usual(address, 1 if address[0].startswith("10.77.") else timeout, source_address)


def delivered(sink):
    """Subject and queue id of each message that came."""
    found = []
    for m in list(sink.messages):
        head = m[2][:2000].decode("latin-1")
        found.append((re.search(r"Subject: (\S+)", head)[1], re.search(r"\bid ([0-9A-Za-z]{15})\b", head)[1]))
    return found


def sent_in_log(node):
    return set(re.findall(r"\b([0-9A-Za-z]{15}): (?:delivered: )?.*status=sent", node.log()))


def late_records(cluster):
    """Ids of records that stand behind what each taking of the queue found as the end of its segments."""
    found = set()
    for _, _, _, segments in cluster.tokens():
        for seq, (epoch, end) in segments.items():
            path = cluster.home / f"Queue/journal/{seq:016x}.seg"
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                continue
            if int.from_bytes(data[16:20], "little") != epoch: # its space has been given to another
                continue
            found |= {r.decode() for r in re.findall(rb"[0-9A-Za-z]{15}(?=\0)", data[end:end + 65536])}
    return found


def counts(sink):
    return collections.Counter(i for _, i in delivered(sink))


def verdict(cluster, sink, load, taken):
    """What came of all that was acknowledged.  taken: for each taking what was recorded as sent by then, and how often each had come."""
    names = {name for name, _, _ in load.acked}
    try:
        wait_for("all there", lambda: not names - {s for s, _ in delivered(sink)}, 90)
    except AssertionError:
        pass
    found = delivered(sink)
    ids = counts(sink)
    twice = {i for i, n in ids.items() if n > 1}
    again = {i for recorded, before in taken for i in recorded if ids[i] > before[i]}
    return {"acknowledged": len(names), "lost": len(names - {s for s, _ in found}), "delivered twice": len(twice),
            "of them recorded as sent before": len(again), "recorded as sent when the queue was taken": len(set().union(*(r for r, _ in taken))), "set aside as damaged": len(list((cluster.home / "Queue/corrupt").iterdir())), "records of a token that was over": len(late_records(cluster)),
            "of them delivered": len(late_records(cluster) & set(ids) - {i for s, i in found if s in names})}


def first_ack(load, node, since):
    def look():
        return next((when for _, number, when in load.acked[-2000:] if number == node.number and when > since), None)
    wait_for("mail taken", look, 60)
    return look() - since


def rounds(n, how):
    """how: what befalls the node that has the queue, and what is done once the other one has it."""
    strike, after = how
    short_connects()
    took, taken, extra = [], [], collections.Counter()
    with Cluster(settings=SETTINGS, term_s=2) as cluster:
        sink = Sink(host="10.77.0.254", port=HOP)
        active, other = cluster.nodes
        active.start()
        load = Load(cluster.nodes)
        for _ in range(n):
            mark = len(load.acked)
            wait_for("some mail", lambda m=mark: len(load.acked) > m + 30, 60)
            time.sleep(random.random())
            begun = time.monotonic()
            strike(active)
            wait_for("what was on its way has come", lambda u=time.monotonic() + 0.3: time.monotonic() > u)
            taken.append((sent_in_log(active), counts(sink)))
            other.start()
            since = time.monotonic()
            after(active)
            extra["acknowledged by the old node after that"] += sum(1 for _, number, when in list(load.acked) if number == active.number and when > since)
            took.append(first_ack(load, other, begun))
            if not active.up:
                active.boot()
                active.horn("posthorn", "start")
            active, other = other, active
        load.end()
        out = {"rounds": n, **verdict(cluster, sink, load, taken), "take-over, s": [round(min(took), 1), round(sorted(took)[n // 2], 1), round(max(took), 1)], **extra}
        tokens = [t for t, *_ in cluster.tokens()]
        out["tokens"] = len(tokens)
        out["tokens grow by one"] = tokens == list(range(1, len(tokens) + 1))
        sink.close()
    return out


def power_off(active):
    active.kill()


def freeze_and_fence(active):
    active.freeze()
    time.sleep(random.random())
    active.kill() # the fence agent


def freeze(active):
    active.freeze()


def nothing(active):
    pass


def thaw(active):
    active.thaw()
    wait_for("the node has given up its server", lambda: active.state() == "stopped", 30)


def thaw_for_a_while(active):
    """Of nodes that do not look at the lease: the old one goes on, until it is switched off."""
    active.thaw()
    time.sleep(3)
    active.kill()


killed, frozen, thawed, forgetful = (power_off, nothing), (freeze_and_fence, nothing), (freeze, thaw), (freeze, thaw_for_a_while)


def in_namespace(what, n, build=None):
    done = subprocess.run(["unshare", "-n", "sh", "-c", f"ip link set lo up && exec {sys.executable} -c 'import sys; sys.path[:0] = [\".\", \"system\"]; import json, cluster_proofs as c; print(json.dumps(c.rounds({n}, c.{what})))'"],
                          cwd=pathlib.Path(__file__).parent, capture_output=True, text=True, env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin", **({"POSTHORN_BUILD": str(build)} if build else {})})
    if done.returncode:
        raise AssertionError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def clusterkilled(n=30):
    return in_namespace("killed", n)


def clusterfrozen(n=30):
    return in_namespace("frozen", n)


def clusterthawed(n=30):
    return in_namespace("thawed", n)


def clustercontrol(n=5):
    """A build that never asks whether the lease holds, and takes every lease for its own: what the proofs above would see."""
    work = pathlib.Path(tempfile.mkdtemp(prefix="forgetful-"))
    try:
        shutil.copytree(TREE, work / "tree", ignore=shutil.ignore_patterns("build", "build-*", ".git"))
        for name, old, new in (("common/lease/lease.c", "return s == NULL || lease_clock_ms() < atomic_load_explicit(&s->until_ms, memory_order_acquire);", "(void)s; return true;"),
                               ("lease/main.c", "return r->held && r->token == k->own.token && lease_is_of(r, &k->own);", "(void)k; (void)r; return true;")):
            text = (work / "tree" / name).read_text()
            if old not in text:
                raise AssertionError(f"{name}: nothing was broken")
            (work / "tree" / name).write_text(text.replace(old, new))
        subprocess.run(["make", "-j2", "-C", work / "tree", "all"], check=True, stdout=subprocess.DEVNULL)
        os.chmod(work, 0o755)
        return in_namespace("forgetful", n, work / "tree/build")
    finally:
        shutil.rmtree(work, ignore_errors=True)
