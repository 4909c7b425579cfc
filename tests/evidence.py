#!/usr/bin/env python3
"""The long proofs.  Each writes one JSON line into docs/evidence/NAME.jsonl, without host, path and user;
one that has a line for this commit is not run again, so an interrupted run goes on where it was.

usage: evidence.py BUILD [NAME...]
"""
import json
import os
import pathlib
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time

TREE = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TREE / "tests/system"))
os.environ["POSTHORN_BUILD"] = str(pathlib.Path(sys.argv[1]).resolve())

import horn  # noqa: E402
from horn import Client, Horn, Sink, free_port, remote, wait_for  # noqa: E402
from test_kill import Ledger, subjects  # noqa: E402

TEXT = b"From: a@example.org\r\nSubject: hello\r\n\r\nA line."


def kills(rounds=100):
    """Everything killed under load, again and again; the client's and the sink's ledgers compared."""
    lost = repeated = in_flight = acknowledged = 0
    for _ in range(rounds):
        dead = free_port()
        with Sink() as sink, Horn(["test_mode=yes"], ["destination_probe=1s"], [remote(sink), remote(dead, "dead.example")]) as h:
            with h.client() as c:
                for i in range(200):
                    c.send("a@example.org", "b@dead.example", TEXT, ehlo=i == 0)
            ledger = Ledger(h.port, 12)
            wait_for("500 acknowledged", lambda: len(ledger.acknowledged) >= 500, 60)
            h.kill_all()
            with sink.lock:
                at_kill = len(sink.messages)
            ledger.end()
            h.start()
            wait_for("200 wait", lambda: len([m for m in h.messages() if "dead" in m["recipients"][0]["address"]]) == 200, 30)
            try:
                wait_for("all there", lambda: ledger.acknowledged <= set(subjects(sink)), 30)
            except AssertionError:
                pass
            got = subjects(sink)
            lost += len(ledger.acknowledged - set(got))
            repeated += len(got) - len(set(got))
            acknowledged += len(ledger.acknowledged)
            in_flight = max(in_flight, len(got) - len(set(got)))
            del at_kill
    return {"rounds": rounds, "acknowledged": acknowledged, "lost": lost, "repeated": repeated, "most repeated in a round": in_flight}


def frozen():
    """Each process stopped for 10 s alone: what went on, what waited, what was repeated."""
    out = {}
    for role in ("logd", "resolver", "bounce", "control", "mover", "cleanup", "qmgr", "drop", "pickup", "smtp", "smtpd", "front"):
        with Sink() as sink, Horn(domains=[remote(sink)]) as h:
            ledger = Ledger(h.port, 4)
            wait_for("running", lambda: len(ledger.acknowledged) > 50)
            pids = h.pids(role)
            for p in pids:
                os.kill(p, signal.SIGSTOP)
            before = len(ledger.acknowledged), len(sink.messages)
            time.sleep(10)
            during = len(ledger.acknowledged) - before[0], len(sink.messages) - before[1]
            for p in pids:
                os.kill(p, signal.SIGCONT)
            wait_for("goes on", lambda: len(ledger.acknowledged) > before[0] + during[0] + 20, 30)
            ledger.end()
            wait_for("all there", lambda: ledger.acknowledged <= set(subjects(sink)), 300)
            got = subjects(sink)
            out[role] = {"accepting went on": during[0] > 20, "delivery went on": during[1] > 20, "lost": 0, "repeated": len(got) - len(set(got))}
    return out


def pss(h):
    total = 0
    for p in h.tree():
        try:
            total += int(re.search(r"^Pss:\s+(\d+)", pathlib.Path(f"/proc/{p}/smaps_rollup").read_text(), re.M)[1])
        except OSError:
            pass
    return total


def idle(n=10000):
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with Horn() as h:
        before = pss(h)
        sockets = [socket.create_connection(("127.0.0.1", h.port)) for _ in range(n)]
        for s in sockets:
            s.recv(200)
            s.sendall(b"EHLO x.example\r\n")
        for s in sockets:
            s.recv(1000)
        wait_for("all counted", lambda: h.status()["servers"][0]["sessions"] == n)
        after = pss(h)
        for s in sockets:
            s.close()
    return {"sessions": n, "PSS before, KB": before, "PSS, KB": after, "KB a session": round((after - before) / n, 2)}


def fill(h, n, threads=20):
    def work(count):
        with Client(h.port) as c:
            c.ask("EHLO x.example")
            for _ in range(count):
                c.say(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@dead.example>\r\nDATA\r\n")
                for _ in range(3):
                    c.hear()
                c.say(TEXT + b"\r\n.\r\n")
                c.hear()
    workers = [threading.Thread(target=work, args=(n // threads,)) for _ in range(threads)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()


def backlog(n=100000):
    """Many waiting messages: memory, listing, fresh mail, restart."""
    dead = free_port()
    with Sink() as sink, Horn(domains=[remote(sink), remote(dead, "dead.example")]) as h:
        fill(h, n)
        wait_for("all wait", lambda: h.status()["servers"][0]["queue"] == n, 300)
        out = {"messages": n}
        qmgr = h.pids("qmgr")[0]
        wait_for("quiet", lambda: len(list((h.server_dir / "Queue/wait").glob("??/*.msg"))) == n, 600)
        out["qmgr PSS, MB"] = int(re.search(r"^Pss:\s+(\d+)", pathlib.Path(f"/proc/{qmgr}/smaps_rollup").read_text(), re.M)[1]) // 1024
        start = time.monotonic()
        out["listed"] = h.queue("list", "--json").stdout.count(b"\n")
        out["listing, s"] = round(time.monotonic() - start, 2)
        start = time.monotonic()
        with h.client() as c:
            c.send("a@example.org", "b@sink.example", TEXT)
        wait_for("fresh", lambda: sink.messages)
        out["fresh message, s"] = round(time.monotonic() - start, 3)
        h.stop()
        start = time.monotonic()
        h.start()
        with h.client() as c:
            c.send("a@example.org", "b@sink.example", TEXT)
        wait_for("first after restart", lambda: len(sink.messages) == 2)
        out["restart to first delivery, s"] = round(time.monotonic() - start, 2)
        return out


def bigmessage():
    """A 50 MB message: anonymous and shared memory of the service's cgroup (not of its page cache)."""
    group = next((pathlib.Path(g) / f"horn-{os.getpid()}" for g in ("/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified", "/sys/fs/cgroup") if os.access(g, os.W_OK)), None)
    group.mkdir()
    body = TEXT + b"\r\n" + (b"x" * 998 + b"\r\n") * 52000
    try:
        with Sink() as sink, Horn(server=["message_size_limit=100M", "session_size_limit=unlimited"], domains=[remote(sink)]) as h:
            for p in h.tree():
                (group / "cgroup.procs").write_text(str(p))
            h.stop()
            child = subprocess.Popen([horn.BUILD / "posthorn", "-c", str(h.dir), "start"], preexec_fn=lambda: (group / "cgroup.procs").write_text(str(os.getpid())))
            child.wait()
            h.started = True
            def memory():
                stat = (group / "memory.stat").read_text()
                names = ("anon", "shmem") if "\nanon " in "\n" + stat else ("total_rss", "total_shmem")
                return sum(int(re.search(rf"^{n} (\d+)", stat, re.M)[1]) for n in names if re.search(rf"^{n} ", stat, re.M))
            before, peak, done = memory(), 0, threading.Event()
            def watch():
                nonlocal peak
                while not done.wait(0.005):
                    peak = max(peak, memory())
            watcher = threading.Thread(target=watch)
            watcher.start()
            with h.client() as c:
                c.send("a@example.org", "b@sink.example", body)
            wait_for("the message", lambda: sink.messages, 60)
            done.set()
            watcher.join()
            return {"bytes": len(body), "growth, KB": (peak - before) // 1024}
    finally:
        wait_for("the cgroup is empty", lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


def powercut():
    out = subprocess.run([pathlib.Path(sys.argv[1]) / "tests/unit"], env={**os.environ, "CK_RUN_SUITE": "powercut"}, capture_output=True, text=True)
    states, lost, repeated = re.search(r"power cut: (\d+) states of the disk, (\d+) lost, (\d+) repeated", out.stdout).groups()
    return {"states": int(states), "lost": int(lost), "repeated": int(repeated), "controls caught": out.returncode == 0}


def commit():
    return subprocess.run(["git", "-C", str(TREE), "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()


def main():
    proofs = {f.__name__: f for f in (powercut, kills, frozen, idle, backlog, bigmessage)}
    for name in sys.argv[2:] or proofs:
        path = TREE / "docs/evidence" / f"{name}.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        if any(json.loads(line)["commit"] == commit() for line in lines):
            continue
        start = time.monotonic()
        line = {"proof": name, "commit": commit(), "date": time.strftime("%Y-%m-%d"), **proofs[name]()}
        line["took, s"] = round(time.monotonic() - start)
        path.write_text("\n".join([*lines, json.dumps(line)]) + "\n")
        print(json.dumps(line), flush=True)


main()
