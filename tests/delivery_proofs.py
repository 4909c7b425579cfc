"""Long proofs about delivery to many destinations; evidence.py runs them."""
import pathlib
import re
import socket
import subprocess
import threading
import time

from horn import Client, Horn, Sink, free_port, wait_for

TEXT = b"From: a@example.org\r\nSubject: hello\r\n\r\nA line."
DOMAINS, DEAD, SLOW, EACH = 200, 40, 20, 100


def mute_port():
    """A port where a connection is never made: its listener's queue is full."""
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    s.listen(0)
    fillers = []
    for _ in range(4):
        f = socket.socket()
        f.setblocking(False)
        f.connect_ex(s.getsockname())
        fillers.append(f)
    return s, fillers


def send_all(h, names):
    """Each domain's messages, in turns, over eight sessions; the time that it took."""
    def work(part):
        with Client(h.port) as c:
            c.ask("EHLO c.example")
            for _ in range(EACH):
                for name in part:
                    c.say(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@%s>\r\nDATA\r\n" % name.encode())
                    for _ in range(3):
                        c.hear()
                    c.say(TEXT + b"\r\n.\r\n")
                    assert c.hear().startswith("250")
    start = time.monotonic()
    threads = [threading.Thread(target=work, args=(names[i::8],)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return time.monotonic() - start


def pss_mb(pid):
    return int(re.search(r"^Pss:\s+(\d+)", pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)[1]) // 1024


def run(live, slow, dead):
    """Seconds until the last live message was out, and what was measured meanwhile."""
    now, most, lock = {}, {}, threading.Lock()
    last = {}

    def watch(name, delay):
        def answer(stage, text, n):
            if stage == "greeting":
                with lock:
                    now[name] = now.get(name, 0) + 1
                    most[name] = max(most.get(name, 0), now[name])
            if stage == "quit":
                with lock:
                    now[name] -= 1
            if stage == "rcpt" and delay == 0:
                last[re.search("@(.*)>", text)[1]] = time.monotonic()
            time.sleep(delay)
        return answer

    muted, fillers = mute_port()
    refused = free_port()
    with Sink(watch("live", 0), host="0.0.0.0") as good, Sink(watch("slow", 5), host="0.0.0.0") as bad: # every loopback address
        horn = Horn(["test_mode=yes"], ["retry_first=1h", "outbound_connection_limit=1000"])
        path = horn.dir / "servers/default.conf"
        sections = [(n, f"127.1.{i // 200}.{i % 200 + 1}", good.port) for i, n in enumerate(live)]
        sections += [(n, f"127.2.0.{i + 1}", bad.port) for i, n in enumerate(slow)]
        sections += [(n, "127.0.0.1", muted.getsockname()[1] if i % 2 else refused) for i, n in enumerate(dead)]
        path.write_text(path.read_text() + "".join(f"[domain {n}]\ntype = remote\nrelay = yes\nroute = [{a}]:{p}\nmessages_per_connection = 20\n"
                                                   for n, a, p in sections))
        with horn as h:
            start = time.monotonic()
            names = sorted(live + slow + dead, key=lambda n: n[1:]) # one of each kind in turns
            took = send_all(h, names)
            wait_for("all live mail out", lambda: len(good.messages) >= len(live) * EACH, 300)
            end = max(last.values())
            qmgr = h.pids("qmgr")[0]
            out = {"messages": len(names) * EACH, "sent in, s": round(took, 1), "live mail out after, s": round(end - start, 1),
                   "qmgr, MB": pss_mb(qmgr), "smtp, MB": sum(pss_mb(p) for p in h.pids("smtp")), "most connections": dict(most),
                   "first live domain done after, s": round(min(last.values()) - start, 1)}
    muted.close()
    for f in fillers:
        f.close()
    return out


def mixed():
    """20,000 messages to 200 domains, 40 of them dead (half refuse, half are silent), 20 slow (5 s a reply)."""
    live = [f"l{i:03}.live.example" for i in range(DOMAINS - DEAD - SLOW)]
    slow, dead = [f"s{i:03}.slow.example" for i in range(SLOW)], [f"d{i:03}.dead.example" for i in range(DEAD)]
    alone, together = run(live, [], []), run(live, slow, dead)
    return {"alone": alone, "together": together, "times as long": round(together["live mail out after, s"] / alone["live mail out after, s"], 2)}


def recipients(n=5000, domains=10):
    """One message to 5,000 recipients in 10 domains."""
    with Sink() as sink, Horn(server=["recipient_limit=100"], domains=[
            (f"d{i}.example", "type=remote", "relay=yes", f"route=[127.0.0.1]:{sink.port}") for i in range(domains)]) as h:
        data = b"X-Sender: a@example.org\n" + b"".join(b"X-Receiver: u%d@d%d.example\n" % (i, i % domains) for i in range(n)) + b"Subject: x\n\nA line.\n"
        (h.root / "m").write_bytes(data)
        (h.root / "m").chmod(0o644)
        start = time.monotonic()
        (h.root / "m").rename(h.server_dir / "Pickup/m")
        wait_for("all recipients", lambda: sum(len(m[1]) for m in sink.messages) == n, 60)
        took = time.monotonic() - start
        got = [t for m in sink.messages for t in m[1]]
        return {"recipients": n, "transactions": len(sink.messages), "most recipients in one": max(len(m[1]) for m in sink.messages),
                "connections": sink.connections, "repeated": len(got) - len(set(got)), "s": round(took, 2), "postfix": postfix_recipients(n, domains)}


def postfix_recipients(n, domains):
    """The same message through a Postfix as it comes, to the same sink; None where it can't be started."""
    from test_clients import Postfix
    server = Postfix("test_postfix_as_client_and_as_next_hop_keeps_every_byte")
    try:
        with Sink() as sink:
            server.setUp()
            server.start(sink.port)
            conf = server.dir / "conf"
            start = time.monotonic()
            subprocess.run(["/usr/sbin/sendmail", "-C", conf, "-f", "a@example.org", *(f"u{i}@d{i % domains}.example" for i in range(n))],
                           input=b"Subject: x\n\nA line.\n", check=True)
            wait_for("all recipients", lambda: sum(len(m[1]) for m in sink.messages) == n, 60)
            return {"transactions": len(sink.messages), "connections": sink.connections, "s": round(time.monotonic() - start, 2)}
    finally:
        server.doCleanups()
