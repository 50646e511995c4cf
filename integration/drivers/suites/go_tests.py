#!/usr/bin/env python3
"""Runs compiled Go tests one by one, so that one that hangs or panics costs only itself.

    go_tests.py BINARY...    a line `STATUS BINARY/TEST` for each; what failing ones said goes to stderr
"""

import re
import subprocess
import sys
from pathlib import Path

LIMIT = 60
RESULT = re.compile(r"^\s*--- (PASS|FAIL|SKIP): (\S+)", re.MULTILINE)
WORDS = {"PASS": "passed", "FAIL": "failed", "SKIP": "skipped"}


def run(binary: Path, *arguments: str) -> str:
    command = [binary.resolve(), "-test.timeout", f"{LIMIT}s", *arguments]
    done = subprocess.run(
        command, cwd=binary.parent, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
    )  # fmt: skip
    return done.stdout


def main() -> None:
    for binary in map(Path, sys.argv[1:]):
        tests = [test for test in run(binary, "-test.list", "^Test").split() if test.startswith("Test")]
        for test in tests:
            said = run(binary, "-test.v", "-test.run", f"^{test}$")
            # A test that panics or hangs prints no result of its own.
            results = {"FAIL": [test]} if "panic:" in said or f": {test}" not in said else {}
            for word, name in RESULT.findall(said):
                results.setdefault(word, []).append(name)
            for word, names in results.items():
                for name in names:
                    print(f"{WORDS[word]} {binary.stem}/{name}", flush=True)
            if "FAIL" in results:
                print(f"=== {binary.stem}/{test}\n{said}", file=sys.stderr)


if __name__ == "__main__":
    main()
