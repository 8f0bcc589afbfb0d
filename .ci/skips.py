"""Print the skipped tests of a pytest report by reason, and fail where one must not be skipped.

Usage: python3 skips.py REPORT.xml [REASON ...]

Each REASON is the beginning of one more reason that is let pass.
"""

import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

# Beginnings of the reasons that an environment may have; everything else is a test left out.
ALLOWED = ("no data", "no GPU")


def skip_reasons(report: Path) -> Counter[str]:
    """Return how often each reason was given in a junit report; expected failures do not count."""
    reasons: Counter[str] = Counter()
    for skipped in ElementTree.parse(report).iter("skipped"):
        if skipped.get("type") != "pytest.xfail":
            reasons[(skipped.get("message") or "no reason given").strip()] += 1
    return reasons


def main(report: Path, allowed_too: tuple[str, ...]) -> int:
    """Print the reasons and return the exit code."""
    if not report.is_file():
        print(f"There is no report {report}: pytest did not run to its end.")
        return 1
    reasons = skip_reasons(report)
    refused = 0
    for reason, count in reasons.most_common():
        allowed = reason.startswith((*ALLOWED, *allowed_too))
        refused += 0 if allowed else count
        print(f"{count:5}  {reason}{'' if allowed else '   <- not allowed'}")
    if not reasons:
        print("none")
    return 1 if refused else 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), tuple(sys.argv[2:])))
