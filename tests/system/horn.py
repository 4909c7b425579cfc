"""A private instance of the service, and peers for it, for the system tests.

Each test has its own directory and ports; nothing sleeps for a fixed time: wait_for polls a
condition and fails with its name.
"""
import json
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

TREE = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("POSTHORN_BUILD", TREE / "build"))
TMP = os.environ.get("POSTHORN_TEST_TMP")


GIVEN = set()


def free_port():
    """One that nobody has, and that was not given out before: the kernel may draw the same one twice."""
    while True:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        if port not in GIVEN:
            GIVEN.add(port)
            return port


def wait_for(what, condition, seconds=20):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"not within {seconds} s: {what}")


class Horn:
    """hornconf init, domains, start; stopped and removed at the end of a with block."""

    def __init__(self, service=(), server=(), domains=(), user=None):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="horn-", dir=TMP))
        os.chmod(self.root, 0o755)
        if user:
            shutil.chown(self.root, user)
        self.user = user
        self.dir = self.root / "conf"
        self.port = free_port()
        self.started = False
        self.conf("init", f"listen=127.0.0.1:{self.port}", "fqdn=mx.horn.example", "default_domain=local.example",
                  f"log_target=file:{self.root}/mail.log", *service, *server)
        for name, *settings in domains:
            self.conf("domain", "add", name, *settings)
        self.server_dir = self.dir / "spool" / "default"

    def run(self, program, *args, check=True, input=None, **kw):
        command = [str(BUILD / program), *args]
        if self.user:
            command = ["setpriv", f"--reuid={self.user}", f"--regid={pwd.getpwnam(self.user).pw_gid}", "--clear-groups", *command]
        done = subprocess.run(command, capture_output=True, input=input, timeout=150, **kw)
        if check and done.returncode:
            raise AssertionError(f"{program} {args}: {done.returncode} {done.stderr.decode()}")
        return done

    def conf(self, *args, **kw):
        return self.run("hornconf", "-c", str(self.dir), *args, **kw)

    def queue(self, *args, **kw):
        return self.run("hornqueue", "-c", str(self.dir), *args, **kw)

    def sendmail(self, *args, **kw):
        return self.run("sendmail", "-C", str(self.dir), *args, **kw)

    def start(self):
        self.run("posthorn", "-c", str(self.dir), "start")
        self.started = True
        return self

    def stop(self):
        self.run("posthorn", "-c", str(self.dir), "stop")
        self.started = False

    def status(self):
        return json.loads(self.run("posthorn", "-c", str(self.dir), "status", "--json").stdout)

    def pids(self, role=None):
        return [p["pid"] for p in self.status()["processes"] if role is None or p["role"] == role]

    def runs(self, title):
        """Is there a process of this instance with such a title?  They may end while they are looked at."""
        for p in self.tree():
            try:
                if title in pathlib.Path(f"/proc/{p}/cmdline").read_text():
                    return True
            except OSError:
                pass
        return False

    def tree(self):
        """The master and all of its processes, also when the control socket is of no use."""
        try:
            master = int((self.dir / "run" / "master.pid").read_text())
        except (OSError, ValueError):
            return []
        found = [master]
        for p in pathlib.Path("/proc").iterdir():
            if p.name.isdigit():
                try:
                    if int((p / "stat").read_text().rsplit(")", 1)[1].split()[1]) == master:
                        found.append(int(p.name))
                except OSError:
                    pass
        return found

    def kill_all(self):
        pids = self.tree()
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        wait_for("killed processes are gone", lambda: not any(alive(p) for p in pids))

    def messages(self):
        rows = self.queue("list", "--json").stdout.decode().splitlines()
        return [json.loads(r) for r in rows]

    def drop(self):
        return sorted((self.server_dir / "Drop").glob("*.eml"))

    def badmail(self, tail="BAD"):
        return sorted((self.server_dir / "Badmail").glob(f"*.{tail}"))

    def log(self):
        try:
            return (self.root / "mail.log").read_text(errors="replace")
        except OSError:
            return ""

    def client(self):
        return Client(self.port)

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, *_):
        if kind is not None:
            print(self.log()[-4000:])
        for pid in self.tree():
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass
        try:
            if self.started and self.tree() and alive(self.tree()[0]):
                self.stop()
        finally:
            self.kill_all()
            if not os.environ.get("POSTHORN_KEEP"):
                shutil.rmtree(self.root, ignore_errors=True)


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


class Client:
    """SMTP by hand: say() sends bytes as they are, hear() takes one reply."""

    def __init__(self, port, greet=True, source="", host="127.0.0.1"):
        self.s = socket.create_connection((host, port), 30, (source, 0))
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        if greet:
            self.greeting = self.hear()

    def say(self, data):
        self.s.sendall(data if isinstance(data, bytes) else data.encode() + b"\r\n")

    def line(self):
        while b"\r\n" not in self.buffer:
            data = self.s.recv(65536)
            if not data:
                raise EOFError(self.buffer)
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def hear(self):
        lines = [self.line()]
        while lines[-1][3:4] == b"-":
            lines.append(self.line())
        return b"\n".join(lines).decode()

    def ask(self, text):
        self.say(text)
        return self.hear()

    def closed(self):
        try:
            return self.s.recv(1) == b""
        except OSError:
            return True

    def send(self, sender, rcpts, data, ehlo=True):
        if ehlo:
            self.ask("EHLO client.example")
        reply = self.ask(f"MAIL FROM:<{sender}>")
        assert reply.startswith("250"), reply
        for r in rcpts if isinstance(rcpts, (list, tuple)) else [rcpts]:
            reply = self.ask(f"RCPT TO:<{r}>")
            assert reply.startswith("250"), reply
        reply = self.ask("DATA")
        assert reply.startswith("354"), reply
        self.say(data + b"\r\n.\r\n")
        reply = self.hear()
        assert reply.startswith("250"), reply
        return reply.split()[-1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.s.close()


class Sink:
    """An SMTP server for tests.  answer(stage, text, count) may change a reply: a string, None for
    the usual one, or "close"."""

    def __init__(self, answer=None, extensions=("PIPELINING", "8BITMIME", "SIZE 100000000"), port=0, host="127.0.0.1"):
        self.answer = answer or (lambda *a: None)
        self.extensions = extensions
        self.messages = []
        self.lock = threading.Lock()
        self.counts = {}
        self.connections = 0
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((host, port))
        self.port = self.listener.getsockname()[1]
        self.listener.listen(500)
        self.open = True
        self.sockets = set()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while self.open:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            self.sockets.add(s)
            threading.Thread(target=self.serve, args=(s,), daemon=True).start()

    def reply(self, s, stage, usual, text=""):
        with self.lock:
            n = self.counts[stage] = self.counts.get(stage, 0) + 1
        other = self.answer(stage, text, n)
        if other == "close":
            raise EOFError
        if isinstance(other, bytes):
            s.sendall(other)
            return False
        s.sendall(((other or usual) + "\r\n").encode())
        return (other or usual)[0] in "23"

    def serve(self, s):
        f = s.makefile("rb")
        envelope = {"from": None, "to": []}
        try:
            self.reply(s, "greeting", "220 sink.example ESMTP")
            while True:
                line = f.readline()
                if not line:
                    return
                text = line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")
                verb = text[:4].upper()
                if verb == "EHLO":
                    words = ["sink.example", *self.extensions]
                    self.reply(s, "ehlo", "\r\n".join("250" + ("-" if w is not words[-1] else " ") + w for w in words), text)
                elif verb == "HELO":
                    self.reply(s, "helo", "250 sink.example", text)
                elif verb == "MAIL":
                    envelope = {"from": text if self.reply(s, "mail", "250 2.1.0 ok", text) else None, "to": []}
                elif verb == "RCPT":
                    if envelope["from"] is None:
                        s.sendall(b"503 5.5.1 MAIL first\r\n")
                    elif self.reply(s, "rcpt", "250 2.1.5 ok", text):
                        envelope["to"].append(text)
                elif verb == "DATA":
                    if not self.reply(s, "data", "354 go" if envelope["to"] else "554 5.5.1 no recipients", text):
                        continue
                    body = bytearray()
                    while True:
                        part = f.readline()
                        if part in (b".\r\n", b""):
                            break
                        body += part[1:] if part.startswith(b".") else part
                    if part == b"":
                        return
                    self.take(s, envelope, bytes(body))
                elif verb == "BDAT":
                    _, size, *last = text.split()
                    body = f.read(int(size))
                    self.take(s, envelope, body) if envelope["to"] else self.reply(s, "dot", "554 5.5.1 no recipients")
                elif verb == "RSET":
                    self.reply(s, "rset", "250 2.0.0 ok")
                elif verb == "QUIT":
                    self.reply(s, "quit", "221 2.0.0 bye")
                    return
                else:
                    s.sendall(b"500 5.5.1 what\r\n")
        except (OSError, EOFError, ValueError):
            pass
        finally:
            f.close()
            self.sockets.discard(s)
            s.close()

    def take(self, s, envelope, body):
        message = (envelope["from"], list(envelope["to"]), body)
        with self.lock:
            self.messages.append(message)
        taken = False
        try:
            taken = self.reply(s, "dot", "250 2.0.0 taken")
        finally:
            if not taken:
                with self.lock:
                    self.messages[:] = [m for m in self.messages if m is not message]

    def close(self):
        self.open = False
        try: # closing alone leaves a listener that another thread waits on in accept(): it would take one more
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        for s in list(self.sockets):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def remote(sink_or_port, name="sink.example"):
    port = sink_or_port if isinstance(sink_or_port, int) else sink_or_port.port
    return (name, "type=remote", "relay=yes", f"route=[127.0.0.1]:{port}")
