#!/usr/bin/env python3
"""cover.py TARGET LCOV FILE[:FUNCTION,...]...: share of the lines that ran; fails below 90 %."""
import fnmatch
import pathlib
import re
import sys

TREE = pathlib.Path(__file__).resolve().parents[2]
LEAST = 90


def functions(path):
    """name: (first line, last line), by the layout: a body ends with a brace in the first column."""
    lines, found, start = (TREE / path).read_text().splitlines(), {}, None
    for n, line in enumerate(lines, 1):
        if line == "{" and start is None:
            for k in range(n - 1, 0, -1):
                m = re.match(r"^[a-z].*?\b(\w+)\(", lines[k - 1])
                if m:
                    start = m[1], k
                    break
        elif line == "}" and start is not None:
            found[start[0]] = start[1], n
            start = None
    return found


def counts(lcov, path):
    out, here = {}, False
    for line in open(lcov):
        if line.startswith("SF:"):
            here = line.strip().endswith("/" + path) or line.strip() == "SF:" + path
        elif here and line.startswith("DA:"):
            n, hits = line[3:].split(",")[:2]
            out[int(n)] = out.get(int(n), 0) + int(hits)
    return out


def main():
    target, lcov, *files = sys.argv[1:]
    ran, missed = 0, []
    for item in files:
        path, _, names = item.partition(":")
        spans = functions(path)
        wanted = [s for f, s in spans.items() if not names or any(fnmatch.fnmatch(f, p) for p in names.split(","))]
        if names and not wanted:
            sys.exit(f"{item}: no such function")
        for n, hits in counts(lcov, path).items():
            if names and not any(a <= n <= b for a, b in wanted):
                continue
            if hits:
                ran += 1
            else:
                missed.append(f"{path}:{n}")
    share = 100 * ran / max(1, ran + len(missed))
    print(f"{target}: {share:.1f} % of {ran + len(missed)} lines" + (f"; not reached: {' '.join(missed)}" if missed else ""))
    sys.exit(share < LEAST)


main()
