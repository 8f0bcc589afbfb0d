"""The check script's parts that can go wrong silently: which skips it lets pass."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

TESTS = {
    "no data": "import pytest\ndef test(): pytest.skip('no data: none given')\n",
    "no GPU": "import pytest\ndef test(): pytest.skip('no GPU')\n",
    "expected": "import pytest\n@pytest.mark.xfail\ndef test(): assert False\n",
    "passed": "def test(): pass\n",
    "lazy": "import pytest\ndef test(): pytest.skip('no time')\n",
    "module": "import pytest\npytest.importorskip('there_is_no_such_package')\ndef test(): pass\n",
}


@pytest.mark.parametrize("name", TESTS)
def test_skips_pass_only_for_lack_of_data_or_gpu(tmp_path: Path, name: str) -> None:
    (tmp_path / "test_one.py").write_text(TESTS[name], encoding="utf-8")
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml=report.xml"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    done = subprocess.run(
        [sys.executable, REPOSITORY / ".ci" / "skips.py", tmp_path / "report.xml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (1 if name in ("lazy", "module") else 0), done.stdout
    if name == "lazy":
        assert "no time" in done.stdout
        assert "not allowed" in done.stdout


def test_a_reason_that_is_named_is_let_pass(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite><testcase name="a"><skipped message="no torch: not installed"/>'
        "</testcase></testsuite></testsuites>",
        encoding="utf-8",
    )
    script = [sys.executable, REPOSITORY / ".ci" / "skips.py", report]
    assert subprocess.run(script, capture_output=True, check=False).returncode == 1
    done = subprocess.run([*script, "no jax", "no torch"], capture_output=True, check=False)
    assert done.returncode == 0


def test_a_missing_report_fails(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, REPOSITORY / ".ci" / "skips.py", tmp_path / "none.xml"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1


def test_the_script_is_valid_bash_and_executable() -> None:
    script = REPOSITORY / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
