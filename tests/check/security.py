#!/usr/bin/env python3
"""docs/security.md, made from the code: what each process may do.  Without --write: is the page what the code says?"""
import pathlib
import re
import sys

TREE = pathlib.Path(__file__).resolve().parents[2]
PAGE = TREE / "docs/security.md"
MAINS = {"front": "smtpd/front", "smtpd": "smtpd/worker", "expand": "child/expand"}
ORDER = ("master front smtpd authd pamd gssd gssc keyd lease cleanup mover qmgr pickup smtp drop local deliver child expand maps resolver sts bounce control config logd").split()


def head(text):
    """The comment on top of a main.c, as {"": what it is for, "User": ..., "May": ..., "Never": ...}."""
    words = re.sub(r"\n \* ?", "\n", re.match(r"/\* (.*?) ?\*/", text, re.S)[1])
    found, key = {}, ""
    for line in words.splitlines():
        m = re.match(r"(User|May|Never): (.*)", line)
        key = m[1] if m else key
        found[key] = (found[key] + " " if key in found and not m else "") + (m[2] if m else line)
    return found


def groups():
    """group: its system calls, from seccomp.c; "": those of every process."""
    text = (TREE / "common/proc/seccomp.c").read_text()
    lists = {name: re.findall(r"SCMP_SYS\((\w+)\)", body) for name, body in re.findall(r"static const int (\w+)\[\] = \{(.*?)\};", text, re.S)}
    return {"": lists["every"], **{g: lists[name] for g, name in re.findall(r"GROUP\(CALLS_(\w+), (\w+)\)", text)}, "PAIR": ["socketpair"]}


def descriptors():
    """role: the names of what master opens for it before its start, from hello.c; "" is the configuration, which all have."""
    text = (TREE / "master/hello.c").read_text()
    body = text[text.index("static void give_role("):]
    dirs = text[text.index("static void give_dirs("):text.index("static void give_log(")]
    found = {}
    for cases, block in re.findall(r"((?:\tcase R_\w+:\n)+)(.*?)break;", body, re.S):
        for role in re.findall(r"R_(\w+)", cases):
            found[role.lower()] = re.findall(r', "(\w+)"\)', block) + (["the log file, or a socket to syslog"] if "give_log" in block else [])
    for condition, block in re.findall(r"if \(((?:c->role == R_\w+(?: \|\| )?)+)\)(?: \{(.*?)\n\t\}|\n\t\t.*?;\n)", dirs, re.S):
        for role in re.findall(r"R_(\w+)", condition):
            names = re.findall(r', "(\w+)"\)', block) or re.findall(r'"(\w+)"\);', dirs[dirs.index(condition):dirs.index(condition) + 300])[:1]
            found[role.lower()] = names + [n for n in found.get(role.lower(), []) if n not in names]
    for name, to in re.findall(r"MSG\((\w+), \d+, R_MASTER, ([^,]+), [1-9],", (TREE / "common/ipc/messages.def").read_text()):
        for role in re.findall(r"R_(\w+)", to):
            if role != "ANY":
                found.setdefault(role.lower(), []).append(f"by messages: {name}")
    return found


def main_of(role):
    path = TREE / MAINS.get(role, role) / "main.c"
    return path if path.exists() else None


def row(role, path, held):
    text = path.read_text()
    words = head(text)
    rights = re.search(r"rights = \{([^;]*)\};", text)
    lines = [f"## {role}", words[""].split(": ", 1)[-1], "", f"- **User** {words['User']}", f"- **May** {words['May']}", f"- **Never** {words['Never']}"]
    if "proc_confine_root" in text:
        lines.append("- **Capabilities** CAP_SETUID, CAP_SETGID, CAP_KILL, of a service started as root; no seccomp, no Landlock: what it starts would inherit them")
    elif rights:
        calls = re.findall(r"CALLS_(\w+)", rights[1])
        more = [c for c in dict.fromkeys(re.findall(r"wanted\.calls \|= CALLS_(\w+)", text)) if c not in calls]
        lines.append(f"- **System calls** every process's{''.join(', ' + c for c in calls)}" + (f"; where the configuration asks for it {', '.join(more)}" if more else ""))
        lines.append("- **Network** " + ("TCP to the ports that it knew at its start (Landlock), all addresses" if "connects" in rights[1] else "no connection of its own" if "CONNECT" not in calls else "as the user table and databases want it"))
    files = rights and re.search(r"\.files = (\d+)", rights[1])
    if files:
        lines.append(f"- **Descriptors at most** {files[1]}")
    if held.get(role):
        lines.append(f"- **Opened for it** {', '.join(held[role])}")
    return lines + [""]


def page():
    held, calls = descriptors(), groups()
    lines = ["# What each process may do", "", "Made from the code by `tests/check/security.py --write`: the comment on top of each main.c, the rights below it, the lists of", "common/proc/seccomp.c, what master/hello.c opens. `make check` compares; tests/system/test_confine.py tries each rule inside the running process, in a", "process of the same user without the rule, and that what is allowed works.", "",
             "Every process but master, deliver, pamd, and what those two start: no capability, `no_new_privs`, not dumpable, no core file, seccomp that ends the", "process at a call that it may not make, Landlock with the directories and ports that it names and nothing else, resource limits. Memory is never executable.", "Channels between processes carry typed messages by a matrix of who may say what (common/ipc/messages.def).", ""]
    for role in ORDER:
        path = main_of(role)
        if path:
            lines += row(role, path, held)
    lines += ["## The system calls", "", "| group | calls |", "|---|---|", *(f"| {g or 'every process'} | {' '.join(c)} |" for g, c in calls.items()), "",
              "`socket` is allowed with CONNECT for IPv4 and IPv6 and with UNIX for sockets of this machine; `mmap` and `mprotect` never with PROT_EXEC, of files with DB only."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    missing = [p for p in TREE.glob("*/main.c") if p.parent.name not in ORDER]
    if missing:
        sys.exit(f"no place in ORDER: {missing}")
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(page())
    elif PAGE.read_text() != page():
        sys.exit("docs/security.md is not what the code says: tests/check/security.py --write, and read it")
