#!/usr/bin/env python3
"""The long proofs.  Each writes one JSON line into docs/evidence/NAME.jsonl, without host, path and user;
one that has a line for this commit is not run again, so an interrupted run goes on where it was.

usage: evidence.py BUILD [NAME...]
"""
import email
import email.policy
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
sys.path[:0] = [str(TREE / "tests/system"), str(TREE / "tests")]
os.environ["POSTHORN_BUILD"] = str(pathlib.Path(sys.argv[1]).resolve())

import horn  # noqa: E402
from horn import Client, Horn, Sink, free_port, remote, wait_for  # noqa: E402
from test_kill import Ledger, subjects  # noqa: E402
from delivery_proofs import mixed, recipients  # noqa: E402
from onlymta import onlymta  # noqa: E402
from cluster_proofs import clustercontrol, clusterfrozen, clusterkilled, clusterthawed  # noqa: E402
from package_proof import package, replaced  # noqa: E402
from server_proofs import fifty, pauses, reloads, upgrades  # noqa: E402
from tls_proofs import renewals, tlsidle, tlsscan  # noqa: E402

TEXT = b"From: a@example.org\r\nSubject: hello\r\n\r\nA line."


def refuse_nobody(stage, text, n):
    return "550 5.1.1 no such user" if stage == "rcpt" and "nobody" in text else None


def reports_made_twice(h):
    """Reports about one message under two Message-IDs, and messages without a report."""
    made = {}
    for p in h.drop():
        text = p.read_bytes()
        parent = re.search(rb"X-Posthorn-Queue-ID: (\S+)", text)
        if parent:
            made.setdefault(parent[1], set()).add(re.search(rb"Message-ID: <(\S+?)@", text)[1])
    return sum(len(ids) - 1 for ids in made.values()), len(made)


def kills(rounds=100):
    """Everything killed under load, again and again; the client's and the sink's ledgers compared.  Each time
    at least 10 sessions are between their final dot and its reply, 200 messages wait, 500 were acknowledged."""
    out = {"rounds": rounds, "acknowledged": 0, "lost": 0, "reports": 0, "reports made twice": 0, "repeated": 0, "most repeated in a round": 0,
           "fewest sessions between DATA and reply": 99, "rounds with more repeats than sink connections": 0}
    for _ in range(rounds):
        dead = free_port()
        with Sink(refuse_nobody) as sink, Horn(["test_mode=yes"], ["destination_probe=1s"], [remote(sink), remote(dead, "dead.example")]) as h:
            with h.client() as c:
                for i in range(200):
                    c.send("a@example.org", "b@dead.example", TEXT, ehlo=i == 0)
            ledger = Ledger(h.port, 24, refused=2)
            wait_for("500 acknowledged", lambda: len(ledger.acknowledged) >= 500, 60)
            pids = h.tree()
            wait_for("10 sessions between DATA and reply", lambda: len(ledger.inside) >= 10, 60)
            inside, connections = len(ledger.inside), len(sink.sockets)
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass # the master was first: who noticed has ended already
            h.kill_all()
            ledger.end()
            h.start()
            wait_for("200 wait", lambda: len([m for m in h.messages() if "dead" in m["recipients"][0]["address"]]) == 200, 30)
            try:
                wait_for("all there", lambda: ledger.acknowledged <= set(subjects(sink)), 30)
                wait_for("all reports", lambda: reports_made_twice(h)[1] >= len(ledger.bounced), 30)
            except AssertionError:
                pass
            got = subjects(sink)
            twice, reports = reports_made_twice(h)
            again = len(got) - len(set(got))
            out["lost"] += len(ledger.acknowledged - set(got)) + max(0, len(ledger.bounced) - reports)
            out["acknowledged"] += len(ledger.acknowledged) + len(ledger.bounced)
            out["reports"] += reports
            out["reports made twice"] += twice
            out["repeated"] += again
            out["most repeated in a round"] = max(out["most repeated in a round"], again)
            out["fewest sessions between DATA and reply"] = min(out["fewest sessions between DATA and reply"], inside)
            out["rounds with more repeats than sink connections"] += again > connections
    return out


def frozen():
    """Each process stopped for 10 s alone: what went on, what waited, what was repeated."""
    out = {}
    for role in ("logd", "resolver", "bounce", "control", "mover", "cleanup", "qmgr", "drop", "pickup", "smtp", "smtpd", "front"):
        with Sink() as sink, Horn(domains=[remote(sink)]) as h:
            ledger = Ledger(h.port, 4, pace=0.01)
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
            out[role] = {"accepted meanwhile": during[0], "delivered meanwhile": during[1], "lost": 0, "repeated": len(got) - len(set(got))}
    return out


def schedule():
    """The default times divided by 900, live: attempts, delay notice, expiry; the reports as Python's email reads them."""
    attempts = []

    def busy(stage, text, n):
        if stage != "rcpt":
            return None
        attempts.append(time.monotonic())
        return "450 4.2.1 busy"

    with Sink(busy) as sink, Horn(["test_mode=yes"], ["retry_first=1s", "retry_second=2s", "retry_third=4s", "retry_subsequent=16s",
                                  "delay_notification=48s", "expiry=192s", "destination_probe=1s"], [remote(sink)]) as h:
        start = time.monotonic()
        with h.client() as c:
            name = c.send("back@local.example", "b@sink.example", TEXT)
        wait_for("the third attempt", lambda: len(attempts) >= 3)
        why = h.queue("why", name).stdout.decode()
        wait_for("delay notice and return", lambda: len(h.drop()) >= 2, 260)
        took = time.monotonic() - start
        reports = []
        for p in h.drop():
            m = email.message_from_bytes(p.read_bytes(), policy=email.policy.default)
            fields = m.get_payload(1).get_payload(1)
            reports.append([m.get_content_type(), m["Auto-Submitted"], fields["Action"], fields["Status"], fields["Final-Recipient"]])
        return {"attempts, s": [round(t - start, 1) for t in attempts][:8], "all attempts": len(attempts), "returned after, s": round(took),
                "why after the third": why, "reports": reports}


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
    proofs = {f.__name__: f for f in (powercut, kills, frozen, schedule, idle, backlog, bigmessage, mixed, recipients, onlymta, tlsscan, renewals, tlsidle, package, replaced, reloads, pauses, upgrades, fifty, clusterkilled, clusterfrozen, clusterthawed, clustercontrol)}
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
