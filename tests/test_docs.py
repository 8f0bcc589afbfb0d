"""The documents say what is so: every command line in them exists, and is run where it can be."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from conftest import REPOSITORY, write_packed
from lab_fixtures import class_folders

from audiosearch.cli import cli
from audiosearch.cli.root import COMMANDS

DOCUMENTS = [
    "README.md",
    *sorted(
        path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "docs").rglob("*.md")
    ),
]


def fenced_blocks(document: str, language: str) -> list[str]:
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    pattern = rf"^```{language}\n(.*?)^```"
    return re.findall(pattern, text, re.MULTILINE | re.DOTALL)


def fenced_lines(document: str) -> list[str]:
    return [line for block in fenced_blocks(document, "sh") for line in block.splitlines()]


def commands_in(line: str) -> list[list[str]]:
    """Return the audiosearch commands of a shell line, each as a list of words.

    Settings of the environment before a command are left out; torchrun starts it by ``-m``.
    """
    found = []
    for part in re.split(r"&&|\|\||;", line):
        words = list(itertools.dropwhile(re.compile(r"\w+=").match, shlex.split(part)))
        if words[:1] == ["torchrun"]:
            words = words[words.index("-m") + 1 :]
        if words and Path(words[0]).name == "audiosearch":
            found.append(words)
    return found


def check_command(words: list[str]) -> None:
    """Parse a command as the program would, without running it."""
    assert Path(words[0]).name == "audiosearch"
    context = click.Context(cli, info_name="audiosearch", **cli.context_settings)
    assert words[1] in COMMANDS, words
    command: click.Command | None = cli
    while isinstance(command, click.Group):
        name, *words = words[1:]
        command = command.get_command(context, name)
        assert command is not None, name
        words = [name, *words]
        if isinstance(command, click.Group):
            context = click.Context(command, info_name=name, parent=context)
    assert command is not None
    command.make_context(words[0], words[1:], parent=context)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_line_parses(document: str) -> None:
    for line in fenced_lines(document):
        for words in commands_in(line):
            check_command(words)


def test_the_readme_mentions_every_command() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for name in COMMANDS:
        assert f"`audiosearch {name}" in text


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_local_link_leads_somewhere(document: str) -> None:
    path = REPOSITORY / document
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def test_the_command_reference_is_in_step() -> None:
    sys.path.insert(0, str(REPOSITORY / "tools"))
    try:
        from build_cli_docs import build_document
    finally:
        sys.path.pop(0)
    text = (REPOSITORY / "docs" / "cli.md").read_text(encoding="utf-8")
    assert text == build_document(text), "run python tools/build_cli_docs.py"


def test_the_readme_has_two_install_lines_and_they_come_first() -> None:
    first, second = fenced_lines("README.md")[:2]
    assert first.endswith(".venv/bin/pip install . && .venv/bin/audiosearch demo")
    assert second.endswith('.venv/bin/pip install -e ".[test]" && .venv/bin/pytest')
    for line in (first, second):
        assert subprocess.run(["sh", "-n", "-c", line], check=False).returncode == 0
        assert line.startswith("python3 -m venv .venv || {")
    tests = [line for line in fenced_lines("README.md") if "pytest" in line]
    assert tests == [second], ".ci/run takes the one line with pytest"


def test_a_first_line_that_finds_no_venv_module_installs_it(tmp_path: Path) -> None:
    """Play a bare Debian: venv fails half-made until apt-get has installed its package."""
    tools = tmp_path / "bin"
    tools.mkdir()
    log = tmp_path / "log"
    scripts = {
        "python3": 'echo "python3 $*" >> "$LOG"; mkdir -p .venv/bin; [ -e "$LOG.venv" ] || exit 1\n'
        'printf "#!/bin/sh\\necho pip \\$* >> $LOG\\n" > .venv/bin/pip\n'
        'printf "#!/bin/sh\\necho audiosearch \\$* >> $LOG\\n" > .venv/bin/audiosearch\n'
        "chmod +x .venv/bin/*\n",
        "apt-get": 'echo "apt-get $*" >> "$LOG"\n'
        'case "$*" in *python3-venv*) : > "$LOG.venv";; esac\n',
        "sudo": 'echo sudo >> "$LOG"; exec "$@"\n',
    }
    for name, body in scripts.items():
        (tools / name).write_text(f"#!/bin/sh\n{body}", encoding="utf-8")
        (tools / name).chmod(0o755)
    for name in ("env", "mkdir", "chmod", "sh", "bash"):
        found = shutil.which(name)
        assert found
        (tools / name).symlink_to(found)
    line = fenced_lines("README.md")[0]
    expected = [
        "python3 -m venv .venv",
        "apt-get update",
        "apt-get install -y python3-venv",
        "python3 -m venv .venv",
        "pip install .",
        "audiosearch demo",
    ]
    for with_sudo in (True, False):
        for path in (log, Path(f"{log}.venv")):
            path.unlink(missing_ok=True)
        shutil.rmtree(tmp_path / ".venv", ignore_errors=True)
        if not with_sudo:
            (tools / "sudo").unlink()
        environment = {"PATH": str(tools), "LOG": str(log)}
        subprocess.run(["bash", "-ec", line], cwd=tmp_path, env=environment, check=True)
        ran = log.read_text(encoding="utf-8").splitlines()
        assert [entry for entry in ran if entry != "sudo"] == expected
        assert ran.count("sudo") == (2 if with_sudo else 0)


def runs_by_itself(words: list[str]) -> bool:
    """Tell whether a command ends by itself, within seconds, without network or TensorFlow."""
    if words[1] in ("demo", "serve"):
        return "--get" in words
    if "--watch" in words or "--devices" in words:
        return False
    fetched = any(word.startswith("vggish") for word in words)
    return words[1] not in ("train", "import-weights") and not fetched


@pytest.fixture
def playground(good_folder: Path, tmp_path: Path, command_environment: dict[str, str]) -> Path:
    """A folder in which the documents' examples find what they name."""
    (tmp_path / "Recordings").mkdir()
    for path in good_folder.rglob("*.*"):
        shutil.copy(path, tmp_path / "Recordings" / path.name)
    for name in ("rain.wav", "one.wav"):
        shutil.copy(good_folder / "tone.wav", tmp_path / name)
    shutil.copy(good_folder / "nested" / "noise.flac", tmp_path / "two.flac")
    write_packed(tmp_path / "eval.h5", clips=360)
    class_folders(tmp_path / "machine-noise", n=6)
    tools = tmp_path / "bin"
    tools.mkdir()
    program = tools / "audiosearch"
    program.write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m audiosearch "$@"\n', encoding="utf-8"
    )
    program.chmod(0o755)
    command_environment["PATH"] = f"{tools}{os.pathsep}{command_environment['PATH']}"
    command_environment["HOME"] = str(tmp_path)
    return tmp_path


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_examples_run(
    document: str, playground: Path, command_environment: dict[str, str]
) -> None:
    for line in fenced_lines(document):
        if line.startswith("docker ") or "torchrun " in line or not commands_in(line):
            continue
        if not all(runs_by_itself(words) for words in commands_in(line)):
            continue
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=playground,
            env=command_environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, (line, done.stderr.decode())
        assert done.stdout, line


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_python_examples_run(
    document: str,
    good_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(good_folder.parent)
    for block in fenced_blocks(document, "python"):
        exec(compile(block, document, "exec"), {"__name__": "example"})
        assert capsys.readouterr().out, "an example prints something"
