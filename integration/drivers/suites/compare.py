#!/usr/bin/env python3
"""Compares two runs of a suite, test by test, and writes integration/drivers/results/NAME.md.

    compare.py NAME TITLE DIRECT PROXY [EXPECTED]

DIRECT and PROXY are JUnit XML files, or text files with a line `STATUS TEST` for each test, where the
status is passed, failed or skipped. EXPECTED, by default suites/NAME.expected, has the tests that a
pooler can't pass, a line `TEST — why` each; `#` starts a comment, and a test that ends in `*` means all
that start so. Exits with 1 if another test passes directly and not through the proxy.

With SHARDS in the environment, and SHARD_KEY, these are part of NAME and TITLE, and what EXPECTED holds for one
shard holds for several.
"""

import datetime
import os
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

# Lines about tests that are printed; the file has all.
SHOWN = 60
HERE = Path(__file__).resolve().parent


def status_of(case: ElementTree.Element) -> str:
    kinds = {child.tag for child in case}
    if kinds & {"failure", "error"}:
        return "failed"
    return "skipped" if "skipped" in kinds else "passed"


def read(path: Path) -> dict[str, str]:
    """The status of each test. A test that is reported twice passed only if it always did."""
    text = path.read_text(errors="replace")
    if text.lstrip().startswith("<"):
        # Test output may hold characters that XML can't.
        cases = ElementTree.fromstring(text).iter("testcase")
        reports = [(status_of(case), f"{case.get('classname')}.{case.get('name')}") for case in cases]
    else:
        reports = [tuple(line.split(" ", 1)) for line in text.splitlines() if " " in line]
    statuses: dict[str, str] = {}
    for status, test in reports:
        if statuses.get(test) != "failed":
            statuses[test] = status
    return statuses


def read_expected(path: Path) -> list[tuple[str, str]]:
    if not path.exists():
        return []
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(" — ", 1)) for line in lines]


def reason(test: str, expected: list[tuple[str, str]]) -> str | None:
    for name, why in expected:
        if test == name or (name.endswith("*") and test.startswith(name[:-1])):
            return why
    return None


def counts(statuses: dict[str, str]) -> str:
    number = {status: list(statuses.values()).count(status) for status in ("passed", "failed", "skipped")}
    return " | ".join(str(count) for count in number.values())


def main() -> int:
    name, title, direct_file, proxy_file, *rest = sys.argv[1:]
    direct, proxy = read(Path(direct_file)), read(Path(proxy_file))
    expected = read_expected(Path(rest[0]) if rest else HERE / f"{name}.expected")
    shards, key = os.environ.get("SHARDS", "1"), os.environ.get("SHARD_KEY")
    if shards != "1":
        name += f"-{shards}-shards"
        title += f", {shards} shards"
    if key:
        name += f"-by-{key}"
        title += f", every table with a column {key} sharded by it"
    if shards != "1" or key:
        expected = read_expected(HERE / f"{name}.expected") + expected
    lost = [test for test, status in direct.items() if status == "passed" and proxy.get(test) != "passed"]
    gained = [test for test, status in proxy.items() if status == "passed" and direct.get(test) != "passed"]
    known = [(test, why) for test in lost if (why := reason(test, expected))]
    new = [test for test in lost if not reason(test, expected)]

    lines = [f"# {title}", "", f"Run on {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}.", ""]
    lines += ["| | passed | failed | skipped |", "| --- | ---: | ---: | ---: |"]
    lines += [f"| directly | {counts(direct)} |", f"| through the proxy | {counts(proxy)} |", ""]
    lines += [f"Pass directly and not through the proxy: {len(lost)}.", ""]
    if known:
        lines += ["## What a pooler can't do", ""] + [f"- `{test}`: {why}" for test, why in known] + [""]
    if new:
        lines += ["## To be fixed", ""] + [f"- `{test}`: {proxy.get(test, 'not run')}" for test in new] + [""]
    if gained:
        lines += ["Pass only through the proxy (they depend on time, or on what ran before): ", ""]
        lines += [f"- `{test}`" for test in gained] + [""]
    results = HERE.parent / "results"
    results.mkdir(exist_ok=True)
    (results / f"{name}.md").write_text("\n".join(lines).rstrip() + "\n")
    print(f"{title}: {len(direct)} tests, {len(lost)} differ, {len(known)} of them as expected")
    for test in new[:SHOWN]:
        print(f"  {proxy.get(test, 'not run')}: {test}")
    if len(new) > SHOWN:
        print(f"  and {len(new) - SHOWN} more")
    return 1 if new else 0


if __name__ == "__main__":
    sys.exit(main())
