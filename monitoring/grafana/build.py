#!/usr/bin/env python3
"""Writes the Grafana dashboards: dashboards/<name>.json from sources/<name>.py. Usage: build.py [--check]

With --check it writes nothing, and fails if a file is not what it would write.
"""

import importlib
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE))


def files():
    """Path and text of each dashboard."""
    for source in sorted((HERE / "sources").glob("*.py")):
        built = importlib.import_module(f"sources.{source.stem}").DASHBOARD
        text = json.dumps(built, indent=1, ensure_ascii=False) + "\n"
        yield HERE / "dashboards" / f"{source.stem}.json", text


def main():
    built = dict(files())
    present = set((HERE / "dashboards").glob("*.json"))
    if sys.argv[1:] == ["--check"]:
        stale = [path for path, text in built.items() if path not in present or path.read_text() != text]
        stale += present - built.keys()
        if stale:
            sys.exit("out of date, run `make dashboards`: " + ", ".join(sorted(path.name for path in stale)))
        return
    for path in present - built.keys():
        path.unlink()
    for path, text in built.items():
        path.write_text(text)


main()
