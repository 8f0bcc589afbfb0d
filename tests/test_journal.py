"""The journal of a job: what counts as done, what the output holds, what a stop leaves."""

from __future__ import annotations

import itertools
import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiosearch.errors import JobError
from audiosearch.jobs import Entry, Item, Journal

HEAD = b"head\n"


def render(entry: Entry) -> bytes:
    assert entry.result is not None
    return os.fsencode(entry.item.name) + b"=" + entry.result + b"\n"


def items(*names: str, **values: int) -> list[Item]:
    return [Item(f"/sounds/{name}", **({"size": 5, "mtime_ns": 7} | values)) for name in names]


def done(item: Item, text: str = "") -> Entry:
    return Entry(item, 1.0, (text or item.name[-1].upper()).encode())


def failed(item: Item) -> Entry:
    return Entry(item, reason="It is broken.")


class Job:
    """A job in a folder; each `open` is what a process does when it is started."""

    def __init__(self, folder: Path) -> None:
        self.out = folder / "out.txt"

    def open(self, *, settings: str = "s", restart: bool = False, layout: str = "l") -> Journal:
        self.layout = layout
        return Journal(str(self.out) + ".journal", self.out, settings=settings, restart=restart)

    def run(self, wanted: list[Item], *, stop_after: int | None = None, **options: bool) -> list:
        """Do what is to do, one commit each; return the names that were done."""
        retry = options.pop("retry_errors", False)
        with self.open(**options) as journal:
            journal.plan(wanted, retry_errors=retry)
            journal.attach(HEAD, render, layout=self.layout)
            names = []
            for item in itertools.islice(journal.todo(), stop_after):
                journal.put([done(item)])
                names.append(item.name)
            return names


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def lines(job: Job) -> list[str]:
    text = job.out.read_bytes()
    assert text.startswith(HEAD)
    return text[len(HEAD) :].decode().split()


def test_rows_follow_the_sorted_inputs_whatever_comes_first(job: Job) -> None:
    wanted = items("b/x", "a", "b.c", "c", "a")
    with job.open() as journal:
        totals = journal.plan(wanted)
        assert (totals.inputs, totals.done, totals.size) == (4, 0, 20)
        journal.attach(HEAD, render, layout="l")
        order = list(journal.todo())
        # As a folder is listed: what is in b comes before what only begins like it.
        assert [item.name[8:] for item in order] == ["a", "b/x", "b.c", "c"]
        journal.put([done(order[2]), done(order[1])])
        assert lines(job) == [], "a is missing, so nothing after it is written"
        journal.put([done(order[0])])
        assert lines(job) == ["/sounds/a=A", "/sounds/b/x=X", "/sounds/b.c=C"]


def test_what_is_done_is_not_done_again(job: Job) -> None:
    wanted = items(*"abcd")
    assert job.run(wanted, stop_after=2) == ["/sounds/a", "/sounds/b"]
    assert job.run(wanted) == ["/sounds/c", "/sounds/d"]
    assert job.run(wanted) == []
    assert lines(job) == [f"/sounds/{n}={n.upper()}" for n in "abcd"]


@pytest.mark.parametrize("change", [{"size": 6}, {"mtime_ns": 8}])
def test_a_file_that_changed_is_done_again(job: Job, change: dict[str, int]) -> None:
    a, b, c = items(*"abc")
    job.run([a, b, c])
    assert job.run([a, replace(b, **change), c]) == ["/sounds/b"]


def test_settings_that_change_results(job: Job) -> None:
    wanted = items(*"ab")
    job.run(wanted)
    with job.open(settings="other") as journal:
        assert journal.plan(wanted).done == 0
        assert journal.other_settings == 2
        journal.attach(HEAD, render, layout="l")
        assert lines(job) == []
    assert job.run(wanted) == [], "going back loses nothing"
    assert len(lines(job)) == 2
    with job.open() as journal:
        journal.plan(wanted)
        journal.complete()
    with job.open(settings="other") as journal:
        journal.plan(wanted)
        assert journal.other_settings == 2


def test_inputs_that_come_and_go(job: Job) -> None:
    job.run(items(*"bdf"))
    assert job.run(items(*"abcdf")) == ["/sounds/a", "/sounds/c"]
    assert lines(job) == [f"/sounds/{n}={n.upper()}" for n in "abcdf"]
    assert job.run(items(*"bd")) == []
    assert lines(job) == ["/sounds/b=B", "/sounds/d=D"]


def test_skipped_files_and_problems(job: Job) -> None:
    a, b, c = items(*"abc")
    gone = Item("/sounds/bb", problem="There is no such file.")
    with job.open() as journal:
        journal.plan([a, b, c, gone])
        journal.attach(HEAD, render, layout="l")
        journal.put([done(a), failed(b), done(c)])
        totals = journal.totals()
        assert (totals.inputs, totals.done, totals.skipped) == (4, 4, 2)
        assert [(e.item.name[8:], e.reason) for e in journal.skipped()] == [
            ("b", "It is broken."),
            ("bb", "There is no such file."),
        ]
        assert [e.item.name[8:] for e in journal.entries()] == ["a", "c"]
    assert lines(job) == ["/sounds/a=A", "/sounds/c=C"]
    assert job.run([a, b, c]) == []
    assert job.run([a, b, c], retry_errors=True) == ["/sounds/b"]
    assert lines(job) == ["/sounds/a=A", "/sounds/b=B", "/sounds/c=C"]


def test_parts_of_a_file_are_inputs_of_their_own(job: Job) -> None:
    whole = items("a")[0]
    parts = [replace(whole, start=9.0, end=12.0), whole, replace(whole, start=2.0)]
    with job.open() as journal:
        assert journal.plan(parts).inputs == 3
        assert [(i.start, i.end) for i in journal.todo()] == [(0, None), (2, None), (9, 12)]


def test_the_name_is_what_the_user_wrote_the_key_is_the_place(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    job.run([Item(str(tmp_path / "a"), 1, 1)])
    assert job.run([Item("./a", 1, 1)]) == []
    assert lines(job) == ["./a=A"]


def test_a_tail_that_was_not_committed_is_cut(job: Job) -> None:
    job.run(items(*"abc"), stop_after=2)
    with job.out.open("ab") as file:
        file.write(b"/sounds/c=hal")
    job.run(items(*"abc"))
    assert lines(job) == [f"/sounds/{n}={n.upper()}" for n in "abc"]


@pytest.mark.parametrize("harm", ["shorter", "other", "gone"])
def test_an_output_that_somebody_changed_is_written_anew(job: Job, harm: str) -> None:
    job.run(items(*"abc"))
    whole = job.out.read_bytes()
    if harm == "gone":
        job.out.unlink()
    else:
        job.out.write_bytes(whole[:-3] if harm == "shorter" else whole.replace(b"=B", b"=Z"))
    assert job.run(items(*"abc")) == [], "nothing is analysed again for that"
    assert job.out.read_bytes() == whole


def test_another_layout_is_written_from_what_is_known(job: Job) -> None:
    job.run(items(*"ab"))
    with job.open() as journal:
        journal.plan(items(*"ab"))
        journal.attach(b"", lambda entry: b"x" + (entry.result or b""), layout="m")
    assert job.out.read_bytes() == b"xAxB"


def test_restart_forgets(job: Job) -> None:
    job.run(items(*"ab"))
    assert job.run(items(*"ab"), restart=True) == ["/sounds/a", "/sounds/b"]


def test_somebody_elses_file_is_not_overwritten(job: Job) -> None:
    job.out.write_text("a thesis\n")
    with pytest.raises(JobError, match="--restart"):
        job.open()
    assert job.out.read_text() == "a thesis\n"
    assert not Path(f"{job.out}.journal").exists()
    job.run(items("a"), restart=True)
    assert lines(job) == ["/sounds/a=A"]


def test_two_processes_do_not_share_a_journal(job: Job) -> None:
    with job.open() as journal:
        journal.plan(items("a"))
        code = (
            "import sys; from audiosearch.jobs import Journal\n"
            "Journal(sys.argv[1] + '.journal', sys.argv[1], settings='s')"
        )
        second = subprocess.run(
            [sys.executable, "-c", code, str(job.out)], capture_output=True, text=True, check=False
        )
        assert "JobError: Another process is working on" in second.stderr
    with job.open():
        pass


@pytest.mark.parametrize("restart", [False, True])
def test_a_journal_that_cannot_be_read(job: Job, restart: bool) -> None:
    place = Path(f"{job.out}.journal")
    place.write_bytes(b"this is no database at all, not even nearly one\n" * 100)
    if restart:
        assert job.run(items("a"), restart=True) == ["/sounds/a"]
        return
    with pytest.raises(JobError, match="--restart"):
        job.open()
    assert place.read_bytes().startswith(b"this is no database")


def test_a_journal_of_another_version(job: Job) -> None:
    job.run(items("a"))
    with sqlite3.connect(f"{job.out}.journal") as db:
        db.execute("UPDATE meta SET value = 99 WHERE name = 'version'")
    db.close()
    with pytest.raises(JobError, match="another version"):
        job.open()


def test_only_the_journal_stays_beside_the_output(job: Job, tmp_path: Path) -> None:
    job.run(items(*"ab"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.txt", "out.txt.journal"]


def test_names_that_are_no_text(job: Job) -> None:
    name = os.fsdecode(b"/sounds/kl\xe4nge")
    job.run([Item(name, 1, 1)])
    assert job.out.read_bytes() == HEAD + b"/sounds/kl\xe4nge=E\n"


def test_marks_outlive_the_run_and_follow_the_file(job: Job) -> None:
    wanted = items(*"ab")
    job.run(wanted)
    with job.open() as journal:
        journal.plan(wanted)
        first = next(journal.without("tags"))
        journal.mark([(first, 50, 70)], "tags")
        assert [e.item.name[-1] for e in journal.without("tags")] == ["b"]
    assert job.run([replace(wanted[0], size=50, mtime_ns=70), wanted[1]]) == []
    assert len(lines(job)) == 2


@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_any_stops_and_orders_give_the_bytes_of_one_run(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    wanted = items(*"abcdefgh")
    bad = data.draw(st.sets(st.sampled_from("abcdefgh"), max_size=3))
    whole = Job(tmp_path_factory.mktemp("whole"))
    parts = Job(tmp_path_factory.mktemp("parts"))

    def entry(item: Item) -> Entry:
        return failed(item) if item.name[-1] in bad else done(item)

    with whole.open() as journal:
        journal.plan(wanted)
        journal.attach(HEAD, render, layout="l")
        journal.put([entry(item) for item in wanted])
    while True:
        with parts.open() as journal:
            journal.plan(data.draw(st.permutations(wanted)))
            journal.attach(HEAD, render, layout="l")
            todo = data.draw(st.permutations(list(journal.todo())))
            if not todo:
                break
            for item in todo[: data.draw(st.integers(1, len(todo)))]:
                journal.put([entry(item)])
            if data.draw(st.booleans()):
                # As after kill -9: rows are in the file, but not in the journal.
                parts.out.write_bytes(parts.out.read_bytes() + b"/sounds/q=half a ro")
    assert parts.out.read_bytes() == whole.out.read_bytes()


def test_restart_replaces_a_journal_of_another_version(job: Job) -> None:
    job.run(items("a"))
    with sqlite3.connect(f"{job.out}.journal") as db:
        db.execute("UPDATE meta SET value = 99 WHERE name = 'version'")
    db.close()
    assert job.run(items("a"), restart=True) == ["/sounds/a"]
    assert job.run(items("a")) == []
