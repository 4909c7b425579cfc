"""Each rule of each role's confinement, tried inside the role's own process: a forbidden act fails there and
works in a process of the same user that is not confined; a permitted act works confined."""
import errno
import os
import pathlib
import pwd
import re
import signal
import socket
import subprocess
import unittest

from horn import Horn, TREE, alive, free_port, wait_for
from inject import AT_FDCWD, Inside, Killed

O_DIRECTORY, O_CREAT, O_WRONLY = os.O_DIRECTORY, os.O_CREAT, os.O_WRONLY
MAINS = {"front": "smtpd/front", "smtpd": "smtpd/worker", **{r: r for r in
         "cleanup mover qmgr smtp drop local bounce pickup control logd resolver maps authd keyd sts gssd gssc lease".split()}}


def rights():
    """role: (user suffix, set of call groups, connects), from the rights at the top of each main.c."""
    found = {}
    for role, folder in MAINS.items():
        text = re.search(r"rights = \{([^;]*)\};", (TREE / folder / "main.c").read_text())[1]
        found[role] = (re.search(r'user_suffix = "(\w*)"', text)[1], set(re.findall(r"CALLS_(\w+)", text)), "connects" in text)
    return found


RIGHTS = rights()
# what every role is refused
FORBIDDEN = {
    "exec": ("execve", b"/bin/true", 0, 0),
    "fork": ("fork",),
    "kill": ("kill", "self", 0),
    "dumpable": ("prctl", 4, 1),
    "a socket of this machine": ("socket", socket.AF_UNIX, socket.SOCK_STREAM, 0), # no lmtp:unix: is configured
    "executable memory": ("mmap", 0, 4096, 7, 0x22, 2 ** 64 - 1, 0),
}
# what some of them are for: gssd asks winbindd; maps asks the user table, by a socket where that is its way, and reads /etc
MAY = {("maps", "a socket of this machine"), ("gssd", "a socket of this machine")}
# an act for each group of calls: works where the role has the group, is refused where it has not
GROUPS = {
    "CONNECT": ("socket", socket.AF_INET, socket.SOCK_STREAM, 0),
    "FILES": ("openat", "own", b".", O_DIRECTORY),
    "WRITE": ("fchmod", "own", 0o700),
    "RENAME": ("mkdirat", "own", b"probe.dir", 0o700),
    "PAIR": ("socketpair", socket.AF_UNIX, socket.SOCK_STREAM, 0, b"12345678"),
    "MEMFD": ("memfd_create", b"probe", 0),
    "INOTIFY": ("inotify_init1", 0),
    "POLL": ("poll", 0, 0, 0),
    "DB": ("getcwd", b" " * 4096, 4096),
    "SOCKET": ("getsockopt", 3, socket.SOL_SOCKET, socket.SO_TYPE, b"12345678", b"\4\0\0\0"),
    "ACCEPT": ("accept4", 3, 0, 0, 0),
}
ALSO = {"SOCKET": {"ACCEPT"}, "WRITE": set(), "ACCEPT": set()}  # groups that hold the act too


class Bystander:
    """A process of the role's user that waits in a system call, with the same descriptors 3 (a socket) and 4 (own)."""

    def __init__(self, user, own):
        code = "import os,socket,signal,sys\nfor f in range(3,9):\n try: os.close(f)\n except OSError: pass\n" \
               "a,b=socket.socketpair()\nos.dup2(a.fileno(),20); os.dup2(b.fileno(),21)\n" \
               f"d=os.open({str(own)!r},os.O_RDONLY); os.dup2(d,22)\nos.dup2(20,3)\n" \
               f"os.initgroups({user!r},{pwd.getpwnam(user).pw_gid}); os.setgid({pwd.getpwnam(user).pw_gid}); os.setuid({pwd.getpwnam(user).pw_uid})\n" \
               "print('ready',flush=True)\nsignal.pause()"
        self.process = subprocess.Popen(["python3", "-c", code], stdout=subprocess.PIPE, start_new_session=True)
        self.process.stdout.readline()
        wait_for("the bystander waits", lambda: self.state() == "S")
        self.pid = self.process.pid

    def state(self):
        return pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]

    def close(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()


@unittest.skipIf(os.environ.get("POSTHORN_SANITIZED"), "the sanitizers need more calls: there seccomp only logs")
@unittest.skipIf(os.geteuid() != 0, "another process's system calls are root's to make")
class Confinement(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.port, cls.closed_port = free_port(), free_port()
        cls.horn = Horn(domains=[("dest.test", "type=remote", f"route=[127.0.0.1]:{cls.port}"), ("box.test", "type=local", "local_delivery=maildir")])
        users = cls.horn.root / "ntlm"
        users.write_text("")
        with (cls.horn.dir / "posthorn.conf").open("a") as f:
            f.write(f"auth_ntlm_file = {users}\n")
        cls.horn.conf("domain", "add", "login.test", "type=remote", "route=[192.0.2.1]", "outbound_auth=integrated", "outbound_user=us", f"outbound_password_file={users}")
        cls.horn.conf("server", "add", "shared", f"listen=127.0.0.1:{free_port()}", "cluster=yes", "startup=manual", "cluster_lease_time=20s")
        cls.horn.run("posthorn", "-c", str(cls.horn.dir), "start", "shared")
        cls.horn.started = True

    @classmethod
    def tearDownClass(cls):
        cls.horn.__exit__(None)

    def fresh(self):
        """All processes there and waiting; their back-offs start anew."""
        self.horn.stop()
        self.horn.run("posthorn", "-c", str(self.horn.dir), "start", "shared")
        self.horn.started = True

    def pid_of(self, role):
        def waiting():
            pids = [p["pid"] for p in self.horn.status()["processes"] if p["role"] == role and p["seccomp"] == 2] if alive(self.horn.tree()[0]) else []
            return next((p for p in pids if pathlib.Path(f"/proc/{p}/wchan").exists() and
                         pathlib.Path(f"/proc/{p}/syscall").read_text().startswith("232 ")), None)
        return wait_for(f"{role} runs and waits", waiting)

    def own_dir(self, role):
        spool = self.horn.server_dir
        return {"cleanup": spool / "Queue" / "journal", "mover": spool / "Queue", "qmgr": spool / "Queue", "drop": spool / "Drop",
                "pickup": spool / "Pickup", "authd": self.horn.dir / "servers", "sts": self.horn.dir / "spool/sts", "gssd": self.horn.dir / "spool/gss", "gssc": self.horn.dir / "spool/gssc",
                "lease": self.horn.dir / "spool/shared/Queue"}.get(role, self.horn.root / "open")

    def descriptor(self, pid, path):
        for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
            try:
                if os.readlink(fd) == str(path):
                    return int(fd.name)
            except OSError:
                pass
        return 99

    def listener(self, pid):
        """A listening socket if the process has one, else its channel."""
        listening = {line.split()[9] for line in open("/proc/net/tcp").read().splitlines()[1:] if line.split()[3] == "0A"} | \
                    {line.split()[6] for line in open("/proc/net/unix").read().splitlines()[1:] if line.split()[3] == "00010000"}
        for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
            try:
                if re.sub(r"socket:\[(\d+)\]", r"\1", os.readlink(fd)) in listening:
                    return int(fd.name)
            except OSError:
                pass
        return 3

    def act(self, pid, act, own=22):
        """done, the errno's name, or the signal's."""
        name, *args = act
        args = [own if a == "own" else pid if a == "self" else a for a in args]
        if name == "accept4":
            args[0] = self.listener(pid) if own != 22 else 3
        try:
            with Inside(pid) as p:
                result = p.call(name, *args)
                if name == "mkdirat" and result == 0:
                    p.call("unlinkat", own, b"probe.dir", 0x200)
        except Killed as e:
            return "done" if name == "execve" and e.args[0] == 0 else signal.Signals(e.args[0]).name
        if name == "accept4" and result in (-errno.EAGAIN, -errno.EINVAL, -errno.EOPNOTSUPP):
            return "done"  # asked and answered
        return "done" if result >= 0 else errno.errorcode[-result]

    def users(self, role):
        suffix = RIGHTS[role][0]
        return "posthorn" + ("-" + suffix if suffix else "")

    def outside(self, role, act):
        """The same act, by the same user, unconfined."""
        open_dir = self.horn.root / "open"
        open_dir.mkdir(exist_ok=True)
        own = self.own_dir(role)
        if own == open_dir or role == "authd" or act[0] == "mkdirat" and not RIGHTS[role][1] & {"RENAME"}:
            own = self.horn.root / f"own-{role}"
            own.mkdir(exist_ok=True)
            os.chown(own, pwd.getpwnam(self.users(role)).pw_uid, -1)
        bystander = Bystander(self.users(role), own)
        try:
            return self.act(bystander.pid, act)
        finally:
            bystander.close()

    def try_in(self, role, act):
        pid = self.pid_of(role)
        if role == "maps" and act == GROUPS["FILES"]: # it holds no directory
            act = ("openat", AT_FDCWD, b"/etc", O_DIRECTORY)
        return self.act(pid, act, self.descriptor(pid, self.own_dir(role)))

    def test_what_every_role_is_refused(self):
        for n, (what, act) in enumerate(FORBIDDEN.items()):
            if n % 3 == 0:
                self.fresh()
            for role in MAINS:
                with self.subTest(role=role, act=what):
                    self.assertEqual(self.try_in(role, act), "done" if (role, what) in MAY else "SIGSYS")
        for role in {self.users(r): r for r in MAINS}.values():
            for what, act in FORBIDDEN.items():
                with self.subTest(outside=role, act=what):
                    # a program that was executed stops once for its tracer
                    self.assertIn(self.outside(role, act), ("done", "SIGTRAP") if what == "exec" else ("done",))

    def test_each_group_of_calls_is_there_only_for_the_roles_that_declare_it(self):
        for n, (group, act) in enumerate(GROUPS.items()):
            if n % 3 == 0:
                self.fresh()
            for role, (_, groups, _) in RIGHTS.items():
                with self.subTest(role=role, group=group):
                    if group in groups or groups & ALSO.get(group, set()):
                        self.assertEqual(self.try_in(role, act), "done")
                    else:
                        self.assertIn(self.try_in(role, act), ("SIGSYS", "EACCES"))
                        self.assertEqual(self.outside(role, act), "done")

    def test_files_outside_a_roles_directories_are_closed_to_it(self):
        self.fresh()
        queue = self.horn.server_dir / "Queue"
        other = {"cleanup": queue / "fates", "mover": self.horn.server_dir / "Badmail", "qmgr": self.horn.server_dir / "Drop",
                 "drop": queue / "wait", "lease": self.horn.server_dir / "Drop", "pickup": pathlib.Path("/etc")}
        for role in MAINS:
            with self.subTest(role=role, act="read a file of the system's"):
                act = ("openat", AT_FDCWD, b"/usr/bin/true" if role in ("maps", "gssd", "gssc") else b"/etc/passwd", 0)
                self.assertEqual(self.try_in(role, act), "EACCES")
                self.assertEqual(self.outside(role, act), "done")
            with self.subTest(role=role, act="create in /tmp"):
                act = ("openat", AT_FDCWD, f"/tmp/posthorn-probe-{os.getpid()}-{role}".encode(), O_CREAT | O_WRONLY, 0o600)
                self.assertEqual(self.try_in(role, act), "EACCES")
                self.assertEqual(self.outside(role, act), "done")
                os.unlink(act[2])
        for role, path in other.items():
            with self.subTest(role=role, act=f"list {path.name}"):
                act = ("openat", AT_FDCWD, str(path).encode(), O_DIRECTORY)
                self.assertEqual(self.try_in(role, act), "EACCES")
                self.assertEqual(self.outside(role, act), "done")

    def test_connections_go_only_to_the_ports_of_routes(self):
        self.fresh()

        def connect(pid, port):
            address = socket.AF_INET.to_bytes(2, "little") + port.to_bytes(2, "big") + bytes([127, 0, 0, 1]) + bytes(8)
            with Inside(pid) as p:
                fd = p.call("socket", socket.AF_INET, socket.SOCK_STREAM, 0)
                result = p.call("connect", fd, address, 16)
                p.call("close", fd)
            return errno.errorcode[-result]

        for role in ("smtp", "resolver", "sts", "gssc"):
            with self.subTest(role=role):
                self.assertEqual(connect(self.pid_of(role), self.closed_port), "EACCES")
                bystander = Bystander(self.users(role), "/")
                try:
                    self.assertEqual(connect(bystander.pid, self.closed_port), "ECONNREFUSED")
                finally:
                    bystander.close()
        self.assertEqual(connect(self.pid_of("smtp"), self.port), "ECONNREFUSED")
        self.assertEqual(connect(self.pid_of("resolver"), 53), "ECONNREFUSED")
        self.assertEqual(connect(self.pid_of("gssc"), 88), "ECONNREFUSED")


if __name__ == "__main__":
    unittest.main()
