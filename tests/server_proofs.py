"""Proofs about virtual servers; evidence.py runs them."""
import pathlib
import shutil
import subprocess
import threading
import time

from horn import BUILD, Client, Horn, free_port, wait_for

TEXT = b"From: a@example.org\r\nSubject: hello\r\n\r\nA line."


class Load:
    """Sessions with a message each, as many a second as the gap allows; what failed, what was acknowledged."""

    def __init__(self, port, threads=5, gap=0.03, look=None):
        self.port, self.gap, self.look = port, gap, look
        self.sent, self.failed, self.refused, self.over = [], [], 0, threading.Event()
        self.threads = [threading.Thread(target=self.feed, args=(k,)) for k in range(threads)]
        self.began = time.monotonic()
        for t in self.threads:
            t.start()

    def feed(self, k):
        n = 0
        while not self.over.is_set():
            n += 1
            try:
                with Client(self.port) as c:
                    if c.greeting.startswith("421 4.3.2"):
                        self.refused += 1
                    else:
                        said = c.ask("EHLO client.example")
                        if self.look:
                            self.look(said)
                        c.send("a@example.org", "x@local.example", f"Subject: m{k}-{n}\r\n\r\nx".encode(), ehlo=False)
                        self.sent.append(f"m{k}-{n}")
                        c.ask("QUIT")
            except (OSError, EOFError, AssertionError) as e:
                self.failed.append(repr(e))
            time.sleep(self.gap)

    def end(self):
        self.over.set()
        for t in self.threads:
            t.join()
        return round(len(self.sent) / (time.monotonic() - self.began))


def subjects(h):
    return [line[9:] for p in h.drop() for line in p.read_text().splitlines() if line.startswith("Subject: ")]


def lost_and_twice(h, load):
    try:
        wait_for("all there", lambda: not set(load.sent) - set(subjects(h)), 60)
    except AssertionError:
        pass
    found = subjects(h)
    return {"lost": len(set(load.sent) - set(found)), "twice": len(found) - len(set(found))}


def rss(h):
    """KB by role."""
    found = {}
    for p in h.status()["processes"]:
        text = pathlib.Path(f"/proc/{p['pid']}/status").read_text()
        found[p["role"]] = found.get(p["role"], 0) + int(text.split("VmRSS:")[1].split()[0])
    return found


def reloads(n=1000):
    """Each changes a value that sessions see, under 100 messages a second and more."""
    seen = set()
    with Horn(["test_mode=yes"]) as h:
        load = Load(h.port, look=lambda said: seen.add(next((w for w in said.split() if w.startswith("RCPTMAX=")), None)))
        file = h.dir / "servers/default.conf"
        text = file.read_text()
        before = None
        for i in range(n):
            file.write_text(text + f"recipient_limit = {100 + i}\n")
            h.run("posthorn", "-c", str(h.dir), "reload")
            if i == n // 10:
                before = rss(h)
        after, rate = rss(h), load.end()
        out = {"reloads": n, "messages a second": rate, "messages": len(load.sent), "failed": len(load.failed), **lost_and_twice(h, load), "values seen": len(seen)}
        grown = {r: after[r] - before[r] for r in after if r not in ("maps", "gssd", "gssc")}
        out.update({"RSS after a tenth, KB": sum(before.values()), "RSS at the end, KB": sum(after.values()), "the role that grew most": max(grown, key=grown.get), "by, KB": max(grown.values())})
    return out


def pauses(n=20):
    """A session of before goes on, what waits is delivered, who comes new is refused; then all as before."""
    with Horn(["test_mode=yes"]) as h:
        load = Load(h.port)
        during = []
        for _ in range(n):
            with h.client() as c:
                c.ask("EHLO client.example")
                h.run("posthorn", "-c", str(h.dir), "pause", "default")
                mark, refused = len(load.sent), load.refused
                wait_for("refusals", lambda: load.refused >= refused + 5)
                c.send("a@example.org", "x@local.example", b"Subject: old\r\n\r\nx", ehlo=False)
                during.append(len(load.sent) - mark) # those that were in already
                h.run("posthorn", "-c", str(h.dir), "resume", "default")
                wait_for("mail again", lambda: len(load.sent) > mark + 5)
        rate = load.end()
        out = {"pauses": n, "messages a second": rate, "messages": len(load.sent), "refused with 421 4.3.2": load.refused, "sessions that failed": len(load.failed), "most that ended after the pause began": max(during)}
        wait_for("those of sessions of before", lambda: subjects(h).count("old") == n, 60)
        out["messages of sessions of before"] = n
        found = [s for s in subjects(h) if s != "old"]
        out.update({"lost": len(set(load.sent) - set(found)), "twice": len(found) - len(set(found))})
        return out


def upgrades(n=20):
    """To a second build and back."""
    with Horn(["test_mode=yes"]) as h:
        other = h.root / "other"
        other.mkdir()
        shutil.copy(BUILD / "posthorn", other)
        shutil.copytree(BUILD / "libexec", other / "libexec")
        load = Load(h.port)
        took = []
        for i in range(n):
            mark = len(load.sent)
            wait_for("mail", lambda: len(load.sent) > mark + 50)
            began = time.monotonic()
            subprocess.run([str((BUILD if i % 2 else other) / "posthorn"), "-c", str(h.dir), "upgrade"], check=True)
            took.append(time.monotonic() - began)
        rate = load.end()
        return {"upgrades": n, "messages a second": rate, "messages": len(load.sent), "failed": len(load.failed), **lost_and_twice(h, load), "longest upgrade, s": round(max(took), 2)}


def fifty(servers=50, domains=5, flood=20000):
    """Start and memory; while one is flooded, single messages of another."""
    h = Horn(["test_mode=yes"])
    ports = [free_port() for _ in range(servers)]
    for i, port in enumerate(ports):
        text = f"listen = 127.0.0.1:{port}\nfqdn = s{i}.horn.example\ndefault_domain = s{i}.example\nrelay = allow\n"
        (h.dir / f"servers/s{i}.conf").write_text(text + "".join(f"[domain d{k}.s{i}.example]\ntype = alias\n" for k in range(domains)))
    began = time.monotonic()
    with h:
        start = time.monotonic() - began
        processes = h.status()["processes"]
        pss = 0
        for p in processes:
            pss += int(pathlib.Path(f"/proc/{p['pid']}/smaps_rollup").read_text().split("\nPss:")[1].split()[0])
        over = threading.Event()
        sent = []

        def pour():
            with Client(ports[0]) as c:
                c.ask("EHLO client.example")
                while len(sent) < flood:
                    sent.append(1)
                    c.send("a@example.org", "x@s0.example", TEXT, ehlo=False)
        threads = [threading.Thread(target=pour) for _ in range(20)]
        began = time.monotonic()
        for t in threads:
            t.start()
        accepted, through = [], []
        drop = h.dir / "spool/s1/Drop"
        while any(t.is_alive() for t in threads):
            mark = time.monotonic()
            n = len(list(drop.glob("*.eml")))
            with Client(ports[1]) as c:
                c.send("a@example.org", "x@s1.example", TEXT)
            accepted.append(time.monotonic() - mark)
            wait_for("it is through", lambda: len(list(drop.glob("*.eml"))) > n)
            through.append(time.monotonic() - mark)
            over.wait(0.1)
        took = time.monotonic() - began
        return {"servers": servers, "domains each": domains, "start, s": round(start, 2), "processes": len(processes), "PSS, MB": round(pss / 1024), "flood": len(sent), "flood took, s": round(took, 1),
                "single messages of another": len(through), "longest until accepted, s": round(max(accepted), 3), "longest until delivered, s": round(max(through), 3)}
