"""
Ask whether anything that is pinned for deployment has a known vulnerability: status 1 if so.

    python .ci/audit.py

Where the database of advisories cannot be asked, that is said, and no failure.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PINS = Path(__file__).parent.parent / "packaging" / "requirements-nats.txt"  # all there are
#: Seconds for all of the answers.
PATIENCE = 20
#: The pins are complete, so there is nothing to resolve. PyPI's own service would be silent about what it does not
#: know, and about everything where it is a mirror.
COMMAND = ["--requirement", str(PINS), "--require-hashes", "--disable-pip", "--vulnerability-service", "osv"]


def ask() -> list[dict[str, object]] | None:
    """What is known of each pin; None where nobody answers."""
    words = [sys.executable, "-m", "pip_audit", *COMMAND, "--format", "json", "--progress-spinner", "off"]
    try:
        done = subprocess.run([*words, "--timeout", "5"], capture_output=True, text=True, check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return None
    if "requests.exceptions." in done.stderr:  # it dies of them
        return None
    try:
        pins: list[dict[str, object]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        raise SystemExit(done.stderr) from None  # it could not even ask
    return pins


def main() -> None:
    pins = ask()
    if pins is None:
        print("skipped: pip-audit cannot reach the database of advisories")
        return
    unknown = [pin["name"] for pin in pins if "vulns" not in pin]
    bad = [pin for pin in pins if pin.get("vulns")]
    for pin in bad:
        print(json.dumps(pin, indent=1))
    print(f"{len(pins)} pins: {len(bad)} with known vulnerabilities, {len(unknown)} not looked at {unknown or ''}")
    raise SystemExit(bool(bad or unknown))


main()
