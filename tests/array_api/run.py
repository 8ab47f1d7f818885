"""Run the official suite of the array API standard on polynet's namespaces, and on those below.

    python tests/array_api/run.py COPY_OF_THE_SUITE [--examples N] [--out FILE]

It fails where a test does that is not among the expected failures of its backend, or that passes
on the bare namespace. `nox -s array_api` installs what it needs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORIES = {
    ".": ("data-apis/array-api-tests", "55fcc60179efa2680ddd6cd926ddf17b83530e2b"),
    "array-api": ("data-apis/array-api", "5f847a3858875c682ae901aa22b0413bf24be9da"),
}
"""The suite and its submodule: the folder, the public repository on GitHub, the commit."""

DRAWN = "test_special_cases.py"
"""Where a test is one example, and what is drawn decides whether an expected failure shows."""

VERSION = "2025.12"
BACKENDS = ("numpy", "strict")
NAMESPACES = {
    "bare": "exec('import polynet; xp = polynet.namespace(\"{}\").xp')",
    "polynet": "exec('import polynet; xp = polynet.namespace(\"{}\")')",
}
"""Both load the same modules, since Hypothesis draws constants that it finds there."""


def require_pinned(suite):
    """Stop, saying what to do, unless the copy is the suite at the commit it is pinned to."""
    for folder, (repository, commit) in REPOSITORIES.items():
        command = ["git", "-C", str(suite / folder), "rev-parse", "HEAD"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.stdout.strip() != commit:
            sys.exit(
                f"{suite / folder} is at {done.stdout.strip() or 'no commit'}; expected a clone "
                f"of github:{repository} at {commit} (with its submodules)"
            )


def outcomes(suite, backend, which, examples):
    """The outcome of every test by its id: passed, failed, skipped, xfailed or xpassed."""
    module = NAMESPACES[which].format(backend)
    env = {
        **os.environ,
        "ARRAY_API_TESTS_MODULE": module,
        "ARRAY_API_TESTS_VERSION": VERSION,
    }
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        settings = ["--derandomize", "--disable-deadline", "--max-examples", str(examples)]
        expected = ["--xfails-file", str(HERE / f"xfails_{backend}.txt")] * (which == "polynet")
        output = ["-q", "-W", "ignore", "--tb=short", "-p", "no:cacheprovider"]
        written = ["--json-report", "--json-report-omit=log", f"--json-report-file={report}"]
        command = [sys.executable, "-m", "pytest", "array_api_tests"]
        print(backend, which, flush=True)
        subprocess.run(
            [*command, *settings, *expected, *output, *written], cwd=suite, env=env, check=False
        )
        tests = json.loads(report.read_text(encoding="utf-8"))["tests"]
    return {test["nodeid"].removeprefix("array_api_tests/"): test["outcome"] for test in tests}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("suite", type=Path, help="a clone of the suite at the pinned commit")
    parser.add_argument("--examples", type=int, default=20, help="of each property (default: 20)")
    parser.add_argument("--out", type=Path, help="write the outcome of every test there")
    options = parser.parse_args()
    suite = options.suite.resolve()
    require_pinned(suite)
    table, unexpected = {}, []
    for backend in BACKENDS:
        for which in NAMESPACES:
            found = outcomes(suite, backend, which, options.examples)
            table[f"{backend} {which}"] = found
            counts = {o: list(found.values()).count(o) for o in sorted(set(found.values()))}
            print(backend, which, counts, flush=True)
        bare, ours = table[f"{backend} bare"], table[f"{backend} polynet"]
        unexpected += [
            f"{backend}: {test} is {bare[test]} on the bare namespace, {ours[test]} on polynet's"
            for test in bare
            if ours[test] == "failed"
            or ((ours[test], bare[test]) == ("xfailed", "passed") and not test.startswith(DRAWN))
        ]
    if options.out:
        tests = dict.fromkeys(test for found in table.values() for test in found)
        lines = [f"# {name} {commit}" for name, commit in REPOSITORIES.values()]
        lines += [f"# standard {VERSION}, {options.examples} examples", "\t".join(("test", *table))]
        lines += ["\t".join((t, *(found.get(t, "-") for found in table.values()))) for t in tests]
        options.out.write_text("\n".join([*lines, ""]), encoding="utf-8")
    sys.exit("\n".join(unexpected) or None)


if __name__ == "__main__":
    main()
