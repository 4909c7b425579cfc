#!/usr/bin/env python3
"""Each row of an events.def is used by its program: a row that nothing logs is a lie in the manual."""
import pathlib
import re
import sys

tree = pathlib.Path(__file__).resolve().parents[2]
bad = []
for f in sorted(tree.rglob("events.def")):
    if "build" in f.parts:
        continue
    text = "".join(p.read_text() for p in f.parent.glob("*.c"))
    for name in re.findall(r"^EVENT\((\w+)", f.read_text(), re.M):
        if not re.search(rf"\b(LOG\([^;]*?,\s*{name}\b|EV_{name}\b)", text):
            bad.append(f"{f.relative_to(tree)}: {name}")
print("\n".join(bad))
sys.exit(bool(bad))
