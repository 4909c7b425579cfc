"""Long proofs about TLS: scanners, renewal, the size of idle sessions; evidence.py runs them."""
import json
import pathlib
import re
import resource
import smtplib
import socket
import subprocess
import threading

from certs import Authority
from horn import Horn, free_port, wait_for
from test_keys import context, make_pair, session


def scan(place, ca, port, *how):
    """testssl.sh's findings from LOW on, without those about the test's own authority; sslscan's protocols and weak ciphers."""
    out = place / f"scan.{port}"
    subprocess.run(["testssl", "--quiet", "--color", "0", "--warnings", "off", "--add-ca", ca.crt, "--severity", "LOW", "--jsonfile", out, *how, f"localhost:{port}"],
                   stdin=subprocess.DEVNULL, capture_output=True, timeout=900)
    own = {"cert_revocation", "cert_crlDistributionPoints", "cert_ocspURL", "DNS_CAArecord", "engine_problem", "service"} # of a CA that lives for a test
    rows = [(x["severity"], x["id"]) for x in json.loads(out.read_text()) if x["severity"] in ("LOW", "MEDIUM", "HIGH", "CRITICAL") and x["id"] not in own]
    text = subprocess.run(["sslscan", "--no-colour", *(["--starttls-smtp"] if how else []), f"127.0.0.1:{port}"], capture_output=True, timeout=300).stdout.decode()
    enabled = re.findall(r"^(\S+)\s+enabled", text, re.M)
    weak = [c for bits, c in re.findall(r"(?:Accepted|Preferred)\s+\S+\s+(\d+) bits\s+(\S+)", text) if int(bits) < 128 or re.search("RC4|DES|NULL|EXP|MD5|CCM8", c)]
    return {"LOW": sorted({i for s, i in rows if s == "LOW"}), "MEDIUM or above": sorted({i for s, i in rows if s != "LOW"}), "protocols": enabled, "weak ciphers": weak}


def tlsscan():
    """testssl.sh and sslscan on 25, 465 and 587; the control is a server with old protocols and ciphers."""
    tls, submission, old = free_port(), free_port(), free_port()
    h = Horn([], [f"listen_tls=127.0.0.1:{tls}", f"listen_submission=127.0.0.1:{submission}"])
    ca = Authority(h.root)
    crt, key = ca.leaf("mx", "mx.horn.example", "localhost", days=180)
    h.conf("-e", f"tls_certificate_file={crt}", f"tls_key_file={key}")
    h.run("hornpasswd", "-c", str(h.dir), "add", "alice", input=b"secret\n")
    with h:
        out = {"25": scan(h.root, ca, h.port, "--starttls", "smtp"), "465": scan(h.root, ca, tls), "587": scan(h.root, ca, submission, "--starttls", "smtp")}
        with subprocess.Popen(["openssl", "s_server", "-accept", str(old), "-cert", crt, "-key", key, "-cipher", "ALL:@SECLEVEL=0", "-min_protocol", "TLSv1", "-www"],
                              stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as weak:
            wait_for("the control", lambda: not socket.socket().connect_ex(("127.0.0.1", old)))
            control = scan(h.root, ca, old)
            weak.terminate()
    out["control: findings of MEDIUM or above"] = len(control["MEDIUM or above"])
    return out


def renewals(rounds=100):
    """Certificates renewed under load, of two kinds in turns: handshakes that failed, sessions that were lost."""
    h = Horn()
    crt, key = make_pair(h.root, "x")
    h.conf("-e", f"tls_certificate_file={crt}", f"tls_key_file={key}")
    failed, shaken, served, stop = [], [0] * 4, set(), threading.Event()
    with h:
        first = session(h)

        def load(k):
            while not stop.is_set():
                try:
                    s = session(h)
                    served.add(s.sock.getpeercert(True))
                    s.quit()
                    shaken[k] += 1
                except (OSError, smtplib.SMTPException) as e:
                    failed.append(repr(e))
        clients = [threading.Thread(target=load, args=(k,)) for k in range(4)]
        for c in clients:
            c.start()
        for i in range(rounds):
            make_pair(h.root, "x", "rsa" if i % 2 else "ec")
            h.run("posthorn", "-c", str(h.dir), "reload")
        stop.set()
        for c in clients:
            c.join()
        alive = first.noop()[0] == 250
    return {"renewals": rounds, "handshakes": sum(shaken), "failed": len(failed), "certificates seen": len(served), "the first session lives": alive}


def tlsidle(n=5000):
    """Idle sessions in TLS 1.3, and what all processes together have grown by for each."""
    top = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (top, top))
    made = context()
    with Horn() as h:
        pss = lambda: sum(int(re.search(r"^Pss:\s+(\d+)", pathlib.Path(f"/proc/{p}/smaps_rollup").read_text(), re.M)[1]) for p in h.tree())
        for _ in range(8): # what is made once is made
            session(h).quit()
        before, sessions = pss(), []
        for _ in range(n):
            s = socket.create_connection(("127.0.0.1", h.port))
            s.recv(200)
            s.sendall(b"STARTTLS\r\n")
            s.recv(200)
            s = made.wrap_socket(s)
            s.sendall(b"EHLO x.example\r\n")
            s.recv(1000)
            sessions.append(s)
        wait_for("all counted", lambda: h.status()["servers"][0]["sessions"] == n)
        after = pss()
        for s in sessions:
            s.close()
    return {"sessions": n, "PSS before, KB": before, "PSS, KB": after, "KB a session": round((after - before) / n, 2)}
