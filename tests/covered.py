"""Which share of the lines of the library the last tests with coverage ran; a floor for it."""

import json
import sys
from collections import defaultdict
from pathlib import Path

FLOOR = 95.0  # per cent of the lines
SHOWN = 90.0  # files below are listed, with the lines that nothing ran


def report(file: Path) -> bool:
    """Prints packages, and files that fall behind; returns whether the floor holds."""
    coverage = json.loads(file.read_text())
    packages: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for path, of_file in sorted(coverage["files"].items()):
        run, missing = len(of_file["executed_lines"]), len(of_file["missing_lines"])
        package = packages["/".join(Path(path).parts[:2])]
        package[0], package[1] = package[0] + run, package[1] + run + missing
        if 100 * run < SHOWN * (run + missing):
            print(f"{path}: {100 * run / (run + missing):.0f} %, not {of_file['missing_lines']}")
    for name, (run, total) in packages.items():
        print(f"{name:<32} {run:>6} of {total:>6} lines  {100 * run / max(total, 1):5.1f} %")
    whole = coverage["summary"]["percent_covered"]
    print(f"{'all':<32} {whole:.1f} %, the floor is {FLOOR:g} %")
    return whole >= FLOOR


if __name__ == "__main__":
    sys.exit(0 if report(Path(sys.argv[1])) else "Coverage failure: below the floor")
