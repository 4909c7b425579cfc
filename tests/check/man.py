#!/usr/bin/env python3
"""Each option of --help is in the page and back; each page is good; each program and command has one."""
import pathlib
import re
import subprocess
import sys

build = pathlib.Path(sys.argv[1])
bad = []
pages = {p.name: p.read_text() for p in (build / "man").iterdir()}
for command in ("posthorn", "hornconf", "hornqueue", "hornmap", "hornpasswd", "horncert", "horn-import-postfix", "horn-import-iis", "sendmail"):
    help_text = subprocess.run([build / command, "--help"], capture_output=True, text=True).stdout
    page = next(t for n, t in pages.items() if n.rsplit(".", 1)[0] == command)
    in_help = set(re.findall(r"^  (--?\w[\w-]*)", help_text, re.M))
    in_page = {f.replace("\\", "") for f in re.findall(r"^\.TP\n\.B (\\-(?:\\-)?\w[\w\\-]*)", page, re.M)}
    if in_help != in_page or not in_help:
        bad.append(f"{command}: {sorted(in_help ^ in_page)}")
for program in (p for p in (build / "libexec").iterdir() if p.suffix != ".so"):
    if f"posthorn-{program.name}.8" not in pages:
        bad.append(f"no page for {program.name}")
for name, text in pages.items():
    if "@@" in text:
        bad.append(f"{name}: a part was not generated")
    if text.startswith(".so "):
        continue
    lint = subprocess.run(["mandoc", "-T", "lint", "-W", "error", build / "man" / name], capture_output=True, text=True)
    if lint.returncode:
        bad.append(lint.stdout)
print("\n".join(bad))
sys.exit(bool(bad))
