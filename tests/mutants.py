#!/usr/bin/env python3
"""Breaks one row of the command, reply, fate, route and relay tables at a time, by fixed rules, and runs
the unit tests and replay scripts.  At least 95 % must be caught; equivalents are listed with their reasons.

usage: mutants.py BUILD
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

TREE = pathlib.Path(__file__).resolve().parents[1]
# a mutant that changes nothing, with the reason why
EQUIVALENT = {
    "schedule/fates.def:6 row gone": "no later row takes code 0, and what no row takes waits",
    "schedule/fates.def:18 row gone": "no later row takes 4yz, and what no row takes waits",
    "schedule/fates.def:20 row gone": "it is the last row, and what no row takes waits",
    "route/route.c:29 > to >=": "two patterns that fit and are equally long are one pattern, and a server has each domain once",
}


def swap(text, a, b):
    return text.replace(a, b, 1) if a in text else None


def mutants():
    """(file, line number, what, new line)"""
    for name in ("smtp/commands.def", "smtp/replies.def", "schedule/fates.def"):
        for n, line in enumerate((TREE / "common" / name).read_text().splitlines(), 1):
            if line.startswith("COMMAND("):
                verb, phases, flags, source = re.match(r'COMMAND\((\w+), ([^,]+), ([^,]+), (".*")\)', line).groups()
                yield name, n, "phases", f"COMMAND({verb}, ({phases}) ^ PHASE_RCPT, {flags}, {source})"
                yield name, n, "start", f"COMMAND({verb}, ({phases}) ^ PHASE_START, {flags}, {source})"
                for flag in ("FLUSH", "ALONE", "NOARG", "JUNK", "SWALLOW"):
                    yield name, n, flag, f"COMMAND({verb}, {phases}, ({flags}) ^ CMD_{flag}, {source})"
            elif line.startswith("REPLY("):
                head, code, rest = re.match(r"(REPLY\(\w+, )(\d+)(,.*)", line).groups()
                yield name, n, "code", f"{head}{int(code) + 1}{rest}"
                if re.match(r', "\d', rest):
                    yield name, n, "enhanced", head + code + re.sub(r'"(\d)\.(\d)\.(\d)', lambda m: f'"{m[1]}.{m[2]}.{(int(m[3]) + 1) % 10}', rest, count=1)
            elif line.startswith("REPLY_FATE("):
                yield name, n, "row gone", ""
                fate = re.search(r"FATE_\w+", line[11:])[0]
                for other in ("FATE_WAIT", "FATE_RETURN", "FATE_GO_ON", "FATE_TRY_NEXT", "FATE_DELIVERED"):
                    if other != fate:
                        yield name, n, other[5:], line.replace(fate, other)
    for n, line in enumerate((TREE / "common/route/route.c").read_text().splitlines(), 1):
        if line.lstrip().startswith(("*", "/*", "#")):
            continue
        for a, b in (("==", "!="), ("&&", "||"), (" > ", " >= "), ("!=", "=="), ("return true", "return false"), ("!allowed", "allowed"),
                     ("ROUTE_LOCAL", "ROUTE_NEXTHOP"), ("ROUTE_NEXTHOP", "ROUTE_LOCAL"), ("ROUTE_LITERAL", "ROUTE_NEXTHOP"), ("return d;", "return NULL;")):
            new = swap(line, a, b)
            if new is not None:
                yield "route/route.c", n, f"{a.strip()} to {b.strip()}", new


def run(tree, build):
    env = {**os.environ, "CK_FORK": "no", "CFLAGS": "-O0"}
    if subprocess.run(["make", "-s", "-C", str(tree), f"B={build}", *(f"{build}/tests/{t}" for t in ("unit", "replay-smtpd", "replay-smtp"))], capture_output=True, env=env).returncode:
        return "does not compile"
    steps = [([f"{build}/tests/unit"], {"CK_RUN_SUITE": suite}) for suite in ("smtp", "schedule", "route")]
    steps += [([f"{build}/tests/replay-{side}", *sorted(map(str, (TREE / "tests/replay" / side).glob("*.rpl")))], {}) for side in ("smtpd", "smtp")]
    for command, more in steps:
        try:
            if subprocess.run(command, capture_output=True, timeout=60, env={**env, **more}).returncode:
                return "caught"
        except subprocess.TimeoutExpired:
            return "caught"
    return "survived"


def main():
    with tempfile.TemporaryDirectory() as t:
        tree = pathlib.Path(t) / "tree"
        shutil.copytree(TREE, tree, ignore=shutil.ignore_patterns("build", ".git", "__pycache__"))
        build = pathlib.Path(t) / "build"
        if run(tree, build) != "survived":
            sys.exit("the tests fail without a mutant")
        caught, total, survivors, same = 0, 0, [], 0
        for name, n, what, new in mutants():
            label = f"{name}:{n} {what}"
            if label in EQUIVALENT:
                same += 1
                continue
            path = tree / "common" / name
            old = path.read_text()
            lines = old.splitlines()
            lines[n - 1] = new
            path.write_text("\n".join(lines) + "\n")
            result = run(tree, build)
            path.write_text(old)
            total += 1
            if result == "survived":
                survivors.append(label)
            else:
                caught += 1
        for label in survivors:
            print("survived:", label)
        share = 100 * caught / total
        print(f"mutants: {caught} of {total} caught ({share:.1f} %), {same} equivalent")
        sys.exit(share < 95)


main()
