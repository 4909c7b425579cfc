#!/usr/bin/env python3
"""Breaks one row of the command, reply, fate, route and relay tables at a time, by fixed rules, and runs
the unit tests and replay scripts.  At least 95 % must be caught; equivalents are listed with their reasons.

usage: mutants.py [TABLE...], as route/routes.def; all without one
"""
import os
import pathlib
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading

TREE = pathlib.Path(__file__).resolve().parents[1]
# a mutant that changes nothing, with the reason why
EQUIVALENT = {
    "schedule/fates.def:6 row gone": "no later row takes code 0, and what no row takes waits",
    "schedule/fates.def:18 row gone": "no later row takes 4yz, and what no row takes waits",
    "schedule/fates.def:20 row gone": "it is the last row, and what no row takes waits",
    "route/route.c:25 > to >=": "two patterns that fit and are equally long are one pattern, and a server has each domain once",
    "route/routes.def:3 nowhere to own_hosts": "an address without a domain has an empty one",
    "route/routes.def:6 nowhere to domain_route": "an alias domain has no route: the configuration is refused",
    "route/routes.def:7 nowhere to domain_route": "a local domain has no route: the configuration is refused",
    "route/routes.def:11 own_hosts to own_then_smart": "behind the rules of the smart host there is none",
    "route/routes.def:12 own_hosts to own_then_smart": "behind the rules of the smart host there is none",
    "route/routes.def:13 own_hosts to own_then_smart": "behind the rules of the smart host there is none",
    **{f"route/routes.def:{n} after the next": "no address fits both rules" for n in (3, 4, 5, 6, 7, 11)},
    "route/relays.def:3 after the next": "an own domain has no relay parameter that counts",
    "route/relays.def:4 after the next": "relay is yes or never, not both",
    "lookup/lookup.c:98 > to >=": "two equal draws of 32 bits",
    "lookup/lookup.c:336 > to >=": "two equal draws of 32 bits",
    "lookup/lookup.c:202 > to >=": "the limit itself stays the limit",
    "lookup/lookup.c:294 true, \"5 to false, \"5": "an address that nexthop_parse has taken is one",
}


def swap(text, a, b):
    return text.replace(a, b, 1) if a in text else None


def mutants():
    """(file, line number, what, new lines from there on)"""
    for name in ("smtp/commands.def", "smtp/replies.def", "schedule/fates.def"):
        for n, line in enumerate((TREE / "common" / name).read_text().splitlines(), 1):
            if line.startswith("COMMAND("):
                verb, phases, flags, source = re.match(r'COMMAND\((\w+), ([^,]+), ([^,]+), (".*")\)', line).groups()
                yield name, n, "phases", [f"COMMAND({verb}, ({phases}) ^ PHASE_RCPT, {flags}, {source})"]
                yield name, n, "start", [f"COMMAND({verb}, ({phases}) ^ PHASE_START, {flags}, {source})"]
                for flag in ("FLUSH", "ALONE", "NOARG", "JUNK", "SWALLOW", "CLEAR"):
                    yield name, n, flag, [f"COMMAND({verb}, {phases}, ({flags}) ^ CMD_{flag}, {source})"]
            elif line.startswith("REPLY("):
                head, code, rest = re.match(r"(REPLY\(\w+, )(\d+)(,.*)", line).groups()
                yield name, n, "code", [f"{head}{int(code) + 1}{rest}"]
                if re.match(r', "\d', rest):
                    yield name, n, "enhanced", [head + code + re.sub(r'"(\d)\.(\d)\.(\d)', lambda m: f'"{m[1]}.{m[2]}.{(int(m[3]) + 1) % 10}', rest, count=1)]
            elif line.startswith("REPLY_FATE("):
                yield name, n, "row gone", [""]
                fate = re.search(r"FATE_\w+", line[11:])[0]
                for other in ("FATE_WAIT", "FATE_RETURN", "FATE_GO_ON", "FATE_TRY_NEXT", "FATE_DELIVERED"):
                    if other != fate:
                        yield name, n, other[5:], [line.replace(fate, other)]
    yield from rule_mutants("route/routes.def", "ROUTE", ("LOCAL", "NEXTHOP", "LITERAL"))
    yield from rule_mutants("route/relays.def", "RELAY", ("yes", "no", "as_relay", "not_as_relay"))
    for name in ("route/route.c", "route/relay.c", "lookup/lookup.c"):
        for n, line in enumerate((TREE / "common" / name).read_text().splitlines(), 1):
            if line.lstrip().startswith(("*", "/*", "#")) or "note(l" in line:
                continue
            for a, b in (("==", "!="), ("&&", "||"), (" > ", " >= "), ("!=", "=="), ("return true", "return false"), ("!open", "open"),
                         ("return d;", "return NULL;"), ("for_good ?", "!for_good ?"), ("DNS_OK", "DNS_BOGUS"), ("true, \"5", "false, \"5"), ("false, \"4", "true, \"4")):
                new = swap(line, a, b)
                if new is not None:
                    yield name, n, f"{a.strip()} to {b.strip()}", [new]


def rule_mutants(name, macro, words):
    """Of an ordered table of rules: each row's test, word and target changed, each row in the next one's place."""
    lines = (TREE / "common" / name).read_text().splitlines()
    rows = [n for n, line in enumerate(lines, 1) if line.startswith(macro + "(")]
    tests = [re.match(r"\w+\(\w+, (\w+)", lines[n - 1])[1] for n in rows]
    for i, n in enumerate(rows):
        line = lines[n - 1]
        other = tests[(i + 1) % len(tests)]
        yield name, n, f"test {other}", [line.replace(tests[i], other, 1)]
        word = re.match(r"\w+\(\w+, \w+, (\w+)", line)[1]
        for w in words:
            if w != word:
                yield name, n, f"{word} to {w}", [re.sub(r"(, \w+, )" + word + ",", rf"\g<1>{w},", line, count=1)]
        if macro == "ROUTE":
            target = re.match(r"\w+\(\w+, \w+, \w+, (\w+)", line)[1]
            for t in ("nowhere", "own_hosts", "domain_route", "smart", "own_then_smart"):
                if t != target:
                    yield name, n, f"{target} to {t}", [line.replace(f", {target},", f", {t},", 1)]
        if i + 1 < len(rows):
            yield name, n, "after the next", [lines[rows[i + 1] - 1], line]


def run(tree, build):
    env = {**os.environ, "CK_FORK": "no", "CFLAGS": "-O0"}
    if subprocess.run(["make", "-s", "-C", str(tree), f"B={build}", *(f"{build}/tests/{t}" for t in ("unit", "replay-smtpd", "replay-smtp"))], capture_output=True, env=env).returncode:
        return "does not compile"
    steps = [([f"{build}/tests/unit"], {"CK_RUN_SUITE": suite}) for suite in ("smtp", "schedule", "route", "lookup")]
    steps += [([f"{build}/tests/replay-{side}", *sorted(map(str, (TREE / "tests/replay" / side).glob("*.rpl")))], {}) for side in ("smtpd", "smtp")]
    for command, more in steps:
        try:
            if subprocess.run(command, capture_output=True, timeout=60, env={**env, **more}).returncode:
                return "caught"
        except subprocess.TimeoutExpired:
            return "caught"
    return "survived"


def work(todo, done):
    """One worker with a tree and a build of its own."""
    with tempfile.TemporaryDirectory() as t:
        tree, build = pathlib.Path(t) / "tree", pathlib.Path(t) / "build"
        shutil.copytree(TREE, tree, ignore=shutil.ignore_patterns("build", "build-asan", ".git", "__pycache__"))
        sound = run(tree, build) == "survived"
        while sound:
            try:
                name, n, what, new = todo.get_nowait()
            except queue.Empty:
                return
            path = tree / "common" / name
            old = path.read_text()
            lines = old.splitlines()
            lines[n - 1:n - 1 + len(new)] = new
            path.write_text("\n".join(lines) + "\n")
            done.append((f"{name}:{n} {what}", run(tree, build)))
            path.write_text(old)
        done.append(("no mutant", "the tests fail"))


def main():
    wanted = [m for m in mutants() if not sys.argv[1:] or m[0] in sys.argv[1:]]
    todo, done = queue.SimpleQueue(), []
    for m in wanted:
        if f"{m[0]}:{m[1]} {m[2]}" not in EQUIVALENT:
            todo.put(m)
    same = len(wanted) - todo.qsize()
    workers = [threading.Thread(target=work, args=(todo, done)) for _ in range(os.cpu_count() or 1)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    if ("no mutant", "the tests fail") in done:
        sys.exit("the tests fail without a mutant")
    for label, result in done:
        if result == "survived":
            print("survived:", label)
    caught = sum(result != "survived" for _, result in done)
    share = 100 * caught / len(done)
    print(f"mutants: {caught} of {len(done)} caught ({share:.1f} %), {same} equivalent")
    sys.exit(share < 95)


main()
