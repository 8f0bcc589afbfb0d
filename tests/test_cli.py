"""The command line as a whole: help, lazy loading, failures, exit codes."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from conftest import Outcome

from audiosearch.cli import cli, failures
from audiosearch.cli.output import size
from audiosearch.cli.root import COMMANDS
from audiosearch.errors import AudioSearchError, QueryError

Run = Callable[..., subprocess.CompletedProcess[bytes]]
Invoke = Callable[..., Outcome]


def all_commands() -> list[tuple[str, click.Command]]:
    context = click.Context(cli, info_name="audiosearch", **cli.context_settings)
    return [("audiosearch", cli), *commands_of(cli, context)]


def commands_of(group: click.Group, context: click.Context) -> list[tuple[str, click.Command]]:
    found = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found.append((name, command))
        if isinstance(command, click.Group):
            inner = click.Context(command, info_name=name, parent=context)
            found += [(f"{name} {last}", each) for last, each in commands_of(command, inner)]
    return found


def modules_after(*args: str) -> set[str]:
    """Return what a process has imported when it has run a command."""
    code = (
        "import sys, json\n"
        "from audiosearch.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit:\n    pass\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, check=True, timeout=120
    )
    return {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


def test_help_lists_every_command_in_the_order_of_use(invoke: Invoke) -> None:
    done = invoke("--help")
    assert done.code == 0
    names = [line.split()[0] for line in done.out.splitlines() if line.startswith("  ")]
    assert [name for name in names if name in COMMANDS] == list(COMMANDS)
    assert "...\n" not in done.out.partition("Commands:")[2], "a short help is cut off"


def test_help_is_the_same_with_h(invoke: Invoke) -> None:
    assert invoke("-h").out == invoke("--help").out
    assert invoke("search", "-h").out == invoke("search", "--help").out


def test_version(invoke: Invoke) -> None:
    import audiosearch

    assert invoke("--version").out == f"audiosearch {audiosearch.__version__}\n"


@pytest.mark.parametrize(("name", "command"), all_commands(), ids=lambda value: str(value))
def test_every_option_has_help_default_and_type(name: str, command: click.Command) -> None:
    context = click.Context(command, info_name=name, **cli.context_settings)
    assert command.help
    for option in command.get_params(context):
        if not isinstance(option, click.Option):
            continue
        assert option.help, option.name
        assert option.help.endswith("."), option.name
        extra = option.get_help_extra(context)
        assert option.is_flag or option.required or "default" in extra, option.name
        if not option.is_flag and type(option.type) is click.types.StringParamType:
            # A bare TEXT says nothing about what to write.
            assert option.metavar, option.name


def test_every_embedder_can_be_chosen() -> None:
    from audiosearch.embedders import available_embedders

    for name in ("index", "tag"):
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        (option,) = [param for param in command.params if param.name == "embedder"]
        assert isinstance(option.type, click.Choice)
        assert tuple(option.type.choices) == available_embedders()


def test_every_order_can_be_chosen() -> None:
    from audiosearch.library.ordering import ORDERS

    command = cli.get_command(click.Context(cli), "search")
    assert command is not None
    (option,) = [param for param in command.params if param.name == "order"]
    assert isinstance(option.type, click.Choice)
    assert tuple(option.type.choices) == ORDERS


def test_help_imports_nothing_heavy() -> None:
    heavy = {"numpy", "scipy", "pandas", "flask", "onnxruntime", "faiss", "h5py", "tensorflow"}
    assert not heavy & modules_after("--help")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nonsense"], "No such command"),
        (["serch", "car"], "Did you mean 'search'?"),
        (["lab", "comapre"], "Did you mean 'compare'?"),
        (["search"], "Missing argument"),
        (["search", "car", "--limt", "3"], "--limit"),
        (["search", "car", "--limit", "0"], "--limit"),
        (["search", "car", "--limit", "many"], "--limit"),
        (["search", "car", "--offset", "-1"], "--offset"),
        (["tag", "a.wav", "--top", "528"], "--top"),
        (["similar"], "--clip"),
        (["similar", "a.wav", "--clip", "3", "--weight", "1"], "--weight"),
        (["tag", "a.h5"], "--clip"),
        (["tag", "a.wav", "--clip", "3"], "--clip"),
        (["serve", "--port", "65536"], "--port"),
        (["train", "--data", "x.h5"], "--out"),
        (["train", "--data", "x.h5", "--out", "run", "--levels", "one"], "--levels"),
    ],
)
def test_wrong_usage_exits_with_2_and_one_sentence(
    invoke: Invoke, args: list[str], said: str
) -> None:
    done = invoke(*args)
    assert done.code == 2
    assert said in done.err
    assert done.out == ""


def test_no_command_shows_the_help_and_exits_with_2(invoke: Invoke) -> None:
    done = invoke()
    assert done.code == 2
    assert "demo" in done.out + done.err


def raising(error: BaseException) -> click.Command:
    @click.command()
    def command() -> None:
        raise error

    return command


def outcome(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = failures.run_guarded(raising(error), [])
    written = capsys.readouterr()
    assert written.out == ""
    assert "Traceback" not in written.err
    return code, written.err


def test_own_errors_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = outcome(AudioSearchError("a.wav: cannot be read.\nTry another."), capsys)
    assert (code, said) == (1, "Error: a.wav: cannot be read. Try another.\n")


def test_a_query_error_points_at_the_character(capsys: pytest.CaptureFixture[str]) -> None:
    error = QueryError(
        "No class is called 'carr'.", query="犬 carr", position=2, suggestions=["Car", "Cart, old"]
    )
    code, said = outcome(error, capsys)
    assert code == 1
    assert said.splitlines() == [
        "Error: No class is called 'carr'.",
        "  犬 carr",
        "     ^",  # the first character is two columns wide
        'Did you mean: "Car", "Cart, old"?',
    ]


def test_a_long_query_is_shown_around_the_character(capsys: pytest.CaptureFixture[str]) -> None:
    error = QueryError("No.", query="a" * 5000 + "X" + "b" * 5000, position=5000)
    _, said = outcome(error, capsys)
    _, query, caret = said.splitlines()
    assert len(query) <= 80
    assert query[caret.index("^")] == "X"


def test_suggestions_in_the_sentence_are_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    error = QueryError("Nothing is called so. Did you mean Car?", suggestions=["Car"])
    assert outcome(error, capsys)[1].count("Did you mean") == 1


def test_a_full_disk_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = outcome(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out.csv"), capsys)
    assert code == 1
    assert said.startswith("Error: The disk is full: out.csv could not be written.")


def test_other_refusals_of_the_system_name_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = outcome(PermissionError(errno.EACCES, "Permission denied", "secret.wav"), capsys)
    assert (code, said) == (1, "Error: secret.wav: Permission denied.\n")


def test_an_interruption_exits_with_130(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = outcome(KeyboardInterrupt(), capsys)
    assert code == 130
    assert said.strip() == "Interrupted."


def test_what_fails_while_an_interruption_is_handled_is_part_of_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    consequence = RuntimeError("cannot join thread before it is started")
    consequence.__context__ = KeyboardInterrupt()
    code, said = outcome(consequence, capsys)
    assert (code, said.strip()) == (130, "Interrupted.")
    # But what a user can act on is said.
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out.csv")
    full.__context__ = KeyboardInterrupt()
    code, said = outcome(full, capsys)
    assert code == 1
    assert "The disk is full" in said


def test_a_fault_is_one_sentence_unless_debugging(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said = outcome(ZeroDivisionError("division by zero"), capsys)
    assert code == 70
    assert len(said.splitlines()) == 1
    assert "ZeroDivisionError: division by zero" in said
    assert "AUDIOSEARCH_DEBUG=1" in said
    monkeypatch.setenv("AUDIOSEARCH_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        failures.run_guarded(raising(ZeroDivisionError()), [])


def test_output_to_a_full_disk_is_one_sentence(run_command: Run) -> None:
    with Path("/dev/full").open("wb") as full:
        done = run_command("classes", stdout=full)
    assert done.returncode == 1
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1
    assert "The disk is full" in lines[0]


def test_a_reader_that_goes_away_is_no_error(command_environment: dict[str, str]) -> None:
    # More output than a pipe holds would be needed for the first write to fail; closing before
    # the process starts does it for any output.
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "audiosearch", "classes"],
        env=command_environment,
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert done.stderr == b""
    assert done.returncode != 0


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_names_survive_any_terminal(run_command: Run, encoding: str) -> None:
    name = b"/nowhere/B\xc3\xbcro \xe9\x9f\xb3 \xff.wav"
    done = run_command("tag", os.fsdecode(name), env={"PYTHONIOENCODING": encoding})
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert b"no such file" in done.stderr
    assert b"udcff.wav" in done.stderr


def test_classes_lists_all_527_and_those_a_word_stands_for(invoke: Invoke) -> None:
    done = invoke("classes", "--json")
    every = json.loads(done.out)
    assert len(every) == 527
    assert every[300] == {"index": 300, "mid": "/m/07yv9", "label": "Vehicle"}
    chosen = [row["label"] for row in json.loads(invoke("classes", "vehicle", "--json").out)]
    assert chosen[0] == "Vehicle"
    assert "Car" in chosen
    assert "Dog" not in chosen


def test_classes_suggests_for_an_unknown_word(invoke: Invoke) -> None:
    done = invoke("classes", "vehiclee")
    assert done.code == 1
    assert "Vehicle" in done.err


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (45_123, "45.1 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (6_150_000, "6.2 MB"),
        (12_000_000_000, "12.0 GB"),
        (4_200_000_000_000, "4,200.0 GB"),
    ],
)
def test_sizes_are_shown_in_the_unit_that_fits(number: int, shown: str) -> None:
    assert size(number) == shown
