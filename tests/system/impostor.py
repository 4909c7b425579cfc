"""A worker that has been taken over, in the place of libexec/smtpd: tells cleanup of a message, or qmgr of an ATRN, what it likes, has
keyd sign it, or begins a login with authd.

The channel's format is that of common/ipc; the numbers of messages and roles come from the tree's own tables."""
import os
import pathlib
import re
import shutil
import socket
import stat
import struct
import subprocess
import sys

from horn import BUILD, TREE, wait_for

IPC = TREE / "common" / "ipc"
ROWS = re.findall(r"^MSG\((\w+), (\d+),", (IPC / "messages.def").read_text(), re.M)
WIRE = re.findall(r"^WIRE(?:_GONE)?\((\w+)\)", (IPC / "wire.def").read_text(), re.M)
NUMBER = {name: i for i, name in enumerate(WIRE)}
VERSION = dict(ROWS)
ROLE = {name: 1 << int(bit) for name, bit in re.findall(r"X\((\w+), (\d+)\)", (IPC / "ipc.h").read_text())}
TAG = {"sender": 1, "arrived": 2, "size": 6, "client": 8, "helo": 9, "protocol": 10, "login": 11, "rcpt": 16}


def span(b):
    return struct.pack("<I", len(b)) + b


def message(name, payload):
    return struct.pack("<II", NUMBER[name] | int(VERSION[name]) << 16, len(payload)) + payload


def messages(packet):
    while packet:
        kind, n = struct.unpack_from("<II", packet)
        yield WIRE[kind & 0xffff], packet[8:8 + n]
        packet = packet[8 + n:]


def spans(payload):
    while payload:
        n, = struct.unpack_from("<I", payload)
        yield payload[4:4 + n]
        payload = payload[4 + n:]


def envelope(login):
    number = lambda tag, v: bytes([TAG[tag]]) + span(struct.pack("<Q", v))
    text = lambda tag, v: bytes([TAG[tag]]) + span(v)
    return (text("sender", b"a@example.org") + number("arrived", 1) + number("size", 10) + text("client", b"192.0.2.1") + text("helo", b"x.example") +
            text("protocol", b"ESMTP") + (text("login", login) if login else b"") + text("rcpt", b"b@local.example"))


def submission(suffix, login, proof):
    return message("submit", span(b"0000000A0" + suffix) + span(proof) + span(envelope(login)) + span(b"Subject: x\r\n\r\n"))


QUESTIONS = re.findall(r"^\t(ASK_\w+)", re.search(r"enum map_question \{(.*?)\};", (IPC / "ipc.h").read_text(), re.S)[1], re.M)


def question(name, address):
    return message("map_query", struct.pack("<QII", 1, 0, QUESTIONS.index(name)) + span(address))


def turn(login, proof):
    return message("turn", struct.pack("<Q", 1) + span(b"far.example") + span(login) + span(proof) + span(b"192.0.2.1") + struct.pack("<I", 0))


LOGINS = re.findall(r"^\tLOGIN_(\w+)", re.search(r"enum login_status \{(.*?)\};", (IPC / "ipc.h").read_text(), re.S)[1], re.M)


def login_by_scram(peer, name):
    """What authd says to the first words of SCRAM-SHA-256."""
    mechanism = 1 << int(re.search(r"X\(SCRAM_SHA_256, (\d+)", (IPC / "ipc.h").read_text())[1])
    peer.send(message("auth_begin", struct.pack("<QIIII", 1, 0, 0, mechanism, 1) + span(b"n,,n=" + name + b",r=abcdefgh") + span(b"") + span(b"") + span(b"")))
    while True:
        for kind, payload in messages(peer.recv(1 << 20)):
            if kind == "auth_answer":
                return LOGINS[struct.unpack_from("<QI", payload)[1]]


def login_by_certificate(peer, der):
    """What authd says of EXTERNAL with this certificate, as if a client had shown it."""
    mechanism = 1 << int(re.search(r"X\(EXTERNAL, (\d+)", (IPC / "ipc.h").read_text())[1])
    peer.send(message("auth_begin", struct.pack("<QIIII", 1, 0, 0, mechanism, 1) + span(b"") + span(b"") + span(b"") + span(span(der))))
    while True:
        for kind, payload in messages(peer.recv(1 << 20)):
            if kind == "auth_answer":
                return LOGINS[struct.unpack_from("<QI", payload)[1]]


def signature_of(peer, text):
    """Whether keyd signs the text by the first key that it offers, as ecdsa_secp256r1_sha256."""
    key, said = None, None
    while said is None:
        for name, payload in messages(peer.recv(1 << 20)):
            if name == "key_offer" and key is None:
                key = next(spans(payload[4:]))
                peer.send(message("sign", struct.pack("<Q", 1) + span(key) + struct.pack("<I", 0x0403) + span(text)))
            elif name == "signed":
                said = "signed" if next(spans(payload[8:])) else "refused"
    return said


def answer_of(peer):
    """What a peer says: its messages' names, the status of an ATRN, or that it has cut this worker off."""
    try:
        packet = peer.recv(1 << 20)
    except ConnectionResetError:
        packet = b""
    said = [f"{n} {struct.unpack_from('<QI', p)[1]}" if n == "turn_answer" else n for n, p in messages(packet)]
    return " ".join(said) or "closed"


def run(login, proof, result, wanted="CLEANUP"):
    """As a worker: one word to the role that is wanted, once it is there; what came of it goes to the file result.  For keyd the
    word is what it shall sign, in the place of login, for authd the login itself, or with a proof a certificate; for maps the address that it asks about, and in the place of proof the question."""
    control = socket.socket(fileno=3)
    control.setblocking(True)
    packet, fds, _, _ = socket.recv_fds(control, 1 << 20, 16)
    (name, payload), = messages(packet)
    suffix = list(spans(payload[12:]))[1]
    control.send(message("ready", struct.pack("<I", 0) + span(b"")))
    submitted = False
    while True:
        packet, fds, _, _ = socket.recv_fds(control, 1 << 20, 16)
        if not packet:
            return
        for name, payload in messages(packet):
            if name == "ping":
                control.send(message("pong", payload + struct.pack("<Q", 0)))
            elif name == "stop":
                return
            elif name == "link" and struct.unpack_from("<I", payload)[0] == ROLE[wanted] and not submitted:
                submitted = True
                peer = socket.socket(fileno=fds[0])
                peer.setblocking(True)
                if wanted == "QMGR":
                    ours, theirs = socket.socketpair()
                    word = bytearray(turn(login, proof))
                    word[3] = 1 # a descriptor comes with it
                    socket.send_fds(peer, [bytes(word)], [theirs.fileno()])
                elif wanted == "MAPS":
                    peer.send(question(proof.decode(), login))
                elif wanted == "CLEANUP":
                    peer.send(submission(suffix, login, proof))
                said = signature_of(peer, login) if wanted == "KEYD" else (login_by_certificate if proof else login_by_scram)(peer, login) if wanted == "AUTHD" else answer_of(peer)
                aside = f"{result}.{os.getpid()}" # there are two workers
                pathlib.Path(aside).write_text(said)
                os.rename(aside, result)


def outcome(h, login, proof, wanted="CLEANUP"):
    """Starts the service with this in its workers' place; what came of it.  The caller ends the service."""
    posthorn, result = install(h.root, login, proof, wanted)
    subprocess.run([posthorn, "-c", str(h.dir), "start"], check=True, capture_output=True, timeout=60)
    h.started = True
    return wait_for("an outcome", lambda: result.read_text() if result.exists() else None)


def install(root, login, proof, wanted="CLEANUP"):
    """The programs with this in smtpd's place below root; returns the path of posthorn, and the file of what came of it."""
    place, result = root / "libexec", root / "said"
    place.mkdir()
    for f in (BUILD / "libexec").iterdir():
        if f.name != "smtpd":
            (place / f.name).symlink_to(f)
    program = place / "smtpd"
    program.write_text(f"#!{sys.executable} -B\nimport sys\nsys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})\nimport impostor\nimpostor.run({login!r}, {proof!r}, {str(result)!r}, {wanted!r})\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    shutil.copy(BUILD / "posthorn", root / "posthorn")
    return root / "posthorn", result
