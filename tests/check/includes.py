#!/usr/bin/env python3
"""Arrows between folders go one way: a program includes its own folder and libraries; a library
includes only those listed before it."""
import pathlib
import re
import sys

ORDER = ["base", "smtp", "message", "params", "ipc", "log", "lease", "proc", "dns", "sts", "tls", "passwd", "login", "gss", "queuefile", "map", "lookup", "route", "schedule"]
MAY = {"queuefile": {"base", "smtp", "lease"}, "lease": {"base"}, "dns": {"base", "params"}, "sts": {"base"}, "tls": {"base", "dns"}, "passwd": {"base"}, "login": {"base"}, "gss": {"base"}, "message": {"base", "smtp"}, "ipc": {"base"}}
tree = pathlib.Path(__file__).resolve().parents[2]
bad = []
for f in sorted(tree.rglob("*.[ch]")):
    parts = f.relative_to(tree).parts
    if parts[0] in ("build", "build-asan", "tests", "man"):
        continue
    for name in re.findall(r'^#include "([^"]+)"', f.read_text(), re.M):
        where = name.split("/")[0]
        if parts[0] == "common":
            if where not in ORDER or (where != parts[1] and (where not in ORDER[:ORDER.index(parts[1])] or where not in MAY.get(parts[1], set(ORDER)))):
                bad.append(f"{f.relative_to(tree)}: {name}")
        elif "/" in name and where not in ORDER and where != parts[0]:
            bad.append(f"{f.relative_to(tree)}: {name}")
print("\n".join(bad))
sys.exit(bool(bad))
