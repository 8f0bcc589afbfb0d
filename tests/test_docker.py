"""The Dockerfile, read as text: no Docker engine is needed."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib

import pytest
from conftest import REPOSITORY
from test_docs import check_command, fenced_lines

from audiosearch.cli import cli

INSTRUCTIONS = {
    "ARG", "CMD", "COPY", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "RUN", "USER", "VOLUME",
    "WORKDIR",
}  # fmt: skip


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions with continued lines joined."""
    text = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    text = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(line.split()[0], line.split(None, 1)[1]) for line in lines if line.strip()]


def the(name: str) -> str:
    found = [value for key, value in instructions() if key == name]
    assert len(found) == 1, name
    return found[0]


def port() -> str:
    return the("EXPOSE")


def test_instructions_are_valid_and_begin_with_a_slim_python() -> None:
    names = [name for name, _ in instructions()]
    assert set(names) <= INSTRUCTIONS
    assert names[0] == "FROM"
    assert re.fullmatch(r"python:3\.\d+-slim", the("FROM"))


def test_everything_that_the_build_needs_is_copied_and_not_ignored() -> None:
    copied = set()
    for name, value in instructions():
        if name == "COPY":
            copied.update(value.split()[:-1])
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    needed.update(project["tool"]["setuptools"]["package-dir"].values())
    assert copied == needed
    ignored = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored
    for source in copied:
        assert (REPOSITORY / source).exists(), source
        assert f"!{source}" in ignored, source


def test_the_command_and_the_health_check_speak_of_the_same_port() -> None:
    command = json.loads(the("CMD"))
    check_command(command)
    assert command[command.index("--port") + 1] == port()
    assert command[command.index("--host") + 1] == "0.0.0.0"
    check = json.loads(the("HEALTHCHECK").split("CMD", 1)[1])
    assert check[:2] == ["python", "-c"]
    compile(check[2], "health check", "exec")
    assert f"http://127.0.0.1:{port()}/health" in check[2]


def test_the_health_check_passes_on_a_server_that_only_lets_token_holders_in() -> None:
    import threading

    from werkzeug.serving import make_server

    import audiosearch as aus
    from audiosearch.server import create_app

    code = json.loads(the("HEALTHCHECK").split("CMD", 1)[1])[2]
    with aus.open_library(aus.shipped_library()) as library:
        server = make_server("127.0.0.1", 0, create_app(library, token="secret"), threaded=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            exec(code.replace(f":{port()}/", f":{server.port}/"), {})
            with pytest.raises(OSError, match="404"):
                exec(code.replace(f":{port()}/health", f":{server.port}/static/none"), {})
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def test_any_user_may_write_and_the_default_is_not_root() -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", the("USER"))
    volume = the("VOLUME")
    environment = dict(pair.split("=", 1) for pair in the("ENV").split())
    assert environment["HOME"] == volume
    # Where the library is by default. AUDIOSEARCH_LIBRARY would have to exist from the start.
    assert environment["XDG_DATA_HOME"] == volume
    assert "AUDIOSEARCH_LIBRARY" not in environment
    assert f"chmod 1777 {volume}" in the("RUN")
    names = [name for name, _ in instructions()]
    # What is written to a volume's folder after it was declared is lost.
    assert names.index("RUN") < names.index("VOLUME") < names.index("USER")


@pytest.mark.parametrize(
    ("extras", "target"),
    [("", "."), ("tensorflow", ".[tensorflow]"), ("lab,watch", ".[lab,watch]")],
)
def test_extras_choose_what_is_installed(extras: str, target: str) -> None:
    quoted = re.search(r'pip install --no-cache-dir ("[^"]*")', the("RUN"))
    assert quoted is not None
    shell = f"EXTRAS='{extras}'; printf %s {quoted[1]}"
    assert subprocess.run(["sh", "-c", shell], capture_output=True, check=True).stdout.decode() == (
        target
    )
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    for extra in filter(None, extras.split(",")):
        assert extra in project["project"]["optional-dependencies"]


def test_the_documented_docker_lines_fit_the_file() -> None:
    documented = [line for line in fenced_lines("docs/docker.md") if line.startswith("docker ")]
    head = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    in_readme = [line for line in fenced_lines("README.md") if line.startswith("docker ")]
    assert in_readme
    for line in in_readme:
        assert line in documented
        assert f"#   {line}\n" in head
    for line in documented:
        for published in re.findall(r"-p (\S+)", line):
            assert published == f"{port()}:{port()}"
        for argument in re.findall(r"--build-arg (\w+)=", line):
            assert argument == the("ARG").split("=")[0]
        command = re.search(r" audiosearch(?:-train)? (audiosearch .*)", line)
        if command:
            check_command(command[1].split())
    assert cli.get_command(None, "serve") is not None  # type: ignore[arg-type]
