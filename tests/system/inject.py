"""System calls made inside another process, by ptrace: what its confinement says to them is the kernel's
own answer, from the place where an intruder would sit.  amd64; needs root."""
import ctypes
import os
import signal
import struct
import threading

REGS = ("r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base "
        "ds es fs gs").split()
GETREGS, SETREGS, SINGLESTEP, ATTACH, DETACH, SYSCALL, SETOPTIONS = 12, 13, 9, 16, 17, 24, 0x4200
CALLS = {"pread64": 17, "preadv": 295, "execve": 59, "fork": 57, "kill": 62, "prctl": 157, "mmap": 9, "socket": 41, "connect": 42, "accept4": 288, "openat": 257,
         "setsockopt": 54, "getsockopt": 55, "fsync": 74, "fdatasync": 75, "fchmod": 91, "renameat": 264, "mkdirat": 258, "unlinkat": 263,
         "memfd_create": 319, "inotify_init1": 294, "getcwd": 79, "close": 3, "pwritev": 296, "pwrite64": 18, "epoll_wait": 232, "bind": 49, "getsockname": 51, "socketpair": 53, "poll": 7}
AT_FDCWD = 2 ** 64 - 100

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


class Killed(Exception):
    """The kernel ended the process for what it tried: args[0] is the signal."""


def ptrace(request, pid, address=0, data=0):
    if libc.ptrace(request, pid, address, data) == -1:
        raise OSError(ctypes.get_errno(), f"ptrace {request}")


def get_regs(pid):
    raw = ctypes.create_string_buffer(8 * len(REGS))
    ptrace(GETREGS, pid, 0, ctypes.addressof(raw))
    return dict(zip(REGS, struct.unpack(f"<{len(REGS)}Q", raw.raw)))


def set_regs(pid, regs):
    raw = ctypes.create_string_buffer(struct.pack(f"<{len(REGS)}Q", *(regs[r] for r in REGS)))
    ptrace(SETREGS, pid, 0, ctypes.addressof(raw))


def wait_stop(pid):
    _, status = os.waitpid(pid, 0x40000000)  # __WALL
    if os.WIFSIGNALED(status):
        raise Killed(os.WTERMSIG(status))
    if os.WIFEXITED(status):
        raise Killed(0)
    return os.WSTOPSIG(status)


class Inside:
    """with Inside(pid) as p: p.call("openat", AT_FDCWD, b"/etc/passwd", 0) - the result, or -errno.

    The process must sit in a system call that waits (epoll_wait, pause); it goes on there afterwards."""

    def __init__(self, pid):
        self.pid = pid

    def __enter__(self):
        ptrace(ATTACH, self.pid)
        wait_stop(self.pid)
        self.saved = get_regs(self.pid)
        with open(f"/proc/{self.pid}/mem", "rb") as mem:
            mem.seek(self.saved["rip"] - 2)
            at = mem.read(2)
        if at != b"\x0f\x05":
            ptrace(DETACH, self.pid)
            raise RuntimeError("not in a system call")
        self.dead = False
        return self

    def __exit__(self, *_):
        if not self.dead:
            set_regs(self.pid, self.saved)
            ptrace(DETACH, self.pid)

    def call(self, name, *args):
        regs = dict(self.saved)
        room = (self.saved["rsp"] - 16384) & ~0xfff
        values = []
        with open(f"/proc/{self.pid}/mem", "r+b", buffering=0) as mem:
            for a in args:
                if isinstance(a, bytes):
                    mem.seek(room)
                    mem.write(a + b"\0")
                    values.append(room)
                    room += (len(a) + 16) & ~15
                else:
                    values.append(a % 2 ** 64)
        values += [0] * (6 - len(values))
        regs.update(zip(("rdi", "rsi", "rdx", "r10", "r8", "r9"), values), rax=CALLS[name], orig_rax=2 ** 64 - 1, rip=self.saved["rip"] - 2)
        set_regs(self.pid, regs)
        try:
            ptrace(SINGLESTEP, self.pid)
            stop = wait_stop(self.pid)
            if stop != signal.SIGTRAP:
                self.dead = stop == signal.SIGSYS
                raise Killed(stop)
        except Killed:
            self.dead = True
            raise
        value = get_regs(self.pid)["rax"]
        return value - 2 ** 64 if value >= 2 ** 63 else value


class Failing:
    """with Failing(pid, ("fdatasync",), errno.EIO): the calls do nothing and give the error; count: only the first so many.

    The number of the call stays (the filter of system calls looks at it), its descriptor is taken away."""

    def __init__(self, pid, calls, error, count=None):
        self.pid, self.numbers, self.error, self.left = pid, {CALLS[c] for c in calls}, error, count
        self.failed, self.stopping, self.ready = 0, False, threading.Event()
        self.thread = threading.Thread(target=self.trace, daemon=True) # ptrace belongs to a thread

    def __enter__(self):
        self.thread.start()
        self.ready.wait(20)
        return self

    def __exit__(self, *_):
        self.stopping = True
        try:
            os.kill(self.pid, signal.SIGSTOP) # so that the tracer looks
        except ProcessLookupError:
            pass
        self.thread.join(20)

    def at_entry(self):
        regs = get_regs(self.pid)
        if regs["orig_rax"] not in self.numbers or self.left == 0:
            return None
        if self.left is not None:
            self.left -= 1
        kept = regs["rdi"]
        regs["rdi"] = 2 ** 64 - 1
        set_regs(self.pid, regs)
        return kept

    def trace(self):
        ptrace(ATTACH, self.pid)
        wait_stop(self.pid)
        ptrace(SETOPTIONS, self.pid, 0, 1) # PTRACE_O_TRACESYSGOOD
        self.ready.set()
        inside, kept, signal_number = False, None, 0
        try:
            while True:
                ptrace(SYSCALL, self.pid, 0, signal_number)
                stop, signal_number = wait_stop(self.pid), 0
                if stop == signal.SIGTRAP | 0x80:
                    inside = not inside
                    if inside:
                        kept = self.at_entry()
                    elif kept is not None:
                        regs = get_regs(self.pid)
                        regs.update(rdi=kept, rax=2 ** 64 - self.error)
                        set_regs(self.pid, regs)
                        kept = None
                        self.failed += 1
                elif stop == signal.SIGSTOP and self.stopping:
                    ptrace(DETACH, self.pid)
                    return
                else:
                    signal_number = stop
        except (Killed, OSError):
            pass # the process ended meanwhile
