"""Batch tagging: a job over any number of files that may be stopped at any moment and goes on."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from audiosearch.classifier.rescoring import rescorer_of
from audiosearch.classifier.scorer import classifier_identity
from audiosearch.embedders import available_embedders, embedder_hash
from audiosearch.errors import (
    AudioError,
    AudioNotFoundError,
    InvalidArgumentError,
    JobError,
    printable,
)
from audiosearch.jobs import (
    MEMORY_LIMIT,
    TIME_LIMIT,
    AnalyzerSettings,
    Entry,
    Groups,
    Item,
    Journal,
    Meter,
    Progress,
    Segment,
    WorkerPool,
    core_count,
)
from audiosearch.jobs.inputs import InputRules, find_items
from audiosearch.models import bundled_model
from audiosearch.own.classifier import load_classifiers
from audiosearch.storage import atomic_path, write_json
from audiosearch.tagging.exports import EXPORTS, check_parquet
from audiosearch.tagging.extras import Extra, cut_extra, sidecar_extra, tags_extra
from audiosearch.tagging.formats import Format, csv_bytes, encode_rows, format_of
from audiosearch.tagging.rules import TagRules
from audiosearch.tagging.tags import Folders, folder_names
from audiosearch.version import __version__

__all__ = ["TagSummary", "tag_batch"]

_LISTED = 100  # how many skipped files a summary lists
_TICK = 0.5


@dataclass
class TagSummary:
    """What a run did.

    Attributes
    ----------
    output : str
        The file or folder that was written.
    files : int
        Inputs.
    tagged : int
        Of these, how many are tagged: by this run or an earlier one.
    earlier : int
        How many of those tagged or skipped were so before this run.
    redone : int
        Inputs that were done before this run with other settings, and were done again.
    skipped : int
        Inputs that could not be used.
    first_skipped : list of (path, reason)
        The first hundred of them; all are in `errors`.
    errors : str or None
        The file that lists them.
    seconds : float
        Seconds of sound that this run analysed.
    elapsed : float
        How long it took.
    """

    output: str
    files: int = 0
    tagged: int = 0
    earlier: int = 0
    redone: int = 0
    skipped: int = 0
    first_skipped: list[tuple[str, str]] = field(default_factory=list)
    errors: str | None = None
    seconds: float = 0.0
    elapsed: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return asdict(self) | {"seconds": round(self.seconds, 3)}


def tag_batch(
    sources: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    format: str | None = None,
    rules: TagRules | None = None,
    inputs: InputRules | None = None,
    embedder: str = "lite",
    classifier: Folders = None,
    workers: int | None = None,
    time_limit: float = TIME_LIMIT,
    memory_limit: int = MEMORY_LIMIT,
    restart: bool = False,
    retry_errors: bool = False,
    write_tags: bool = False,
    sidecars: bool = False,
    cut: str | os.PathLike[str] | None = None,
    stdin: BinaryIO | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> TagSummary:
    """Tag sound files into a file; called again with the same arguments, it goes on.

    `audiosearch.jobs.journal` says what is kept, and what a stop at any moment leaves.

    Parameters
    ----------
    sources : path-like, or several
        As `audiosearch.jobs.inputs.find_items` takes them: files, folders, patterns, lists.
    output : path-like
        The file to write, or for Audacity's label tracks and playlists the folder.
    format : str, optional
        One of `audiosearch.tagging.formats.FORMATS`; by the ending of `output` where None.
    rules : TagRules, optional
        Which tags; the five best classes of each file where None.
    inputs : InputRules, optional
        Which of the files found.
    embedder : str
        What embeds them.
    classifier : path-like, or several, optional
        Folders that `audiosearch lab train` wrote: their classes are tags too, beside AudioSet's.
    workers : int, optional
        How many processes; one a core where None.
    time_limit : float
        Seconds after which a file is given up.
    memory_limit : int
        Megabytes that a worker may take for a file beyond what the models take (Linux only).
    restart : bool
        Forget what was done, and replace `output`.
    retry_errors : bool
        Try again what was skipped.
    write_tags : bool
        Also write the tags into the files; see `audiosearch.tagging.file_tags`.
    sidecars : bool
        Also write ``FILE.json`` beside each file.
    cut : path-like, optional
        A folder into which clips or segments are written as files, by class.
    stdin : binary file, optional
        What is read for the source ``-``.
    on_progress : callable, optional
        Called with a `Progress` at the start, whenever something was committed, and now and then.

    Raises
    ------
    AudioNotFoundError
        When there is no input.
    JobError
        When another process works on `output`, or it is not this job's.
    StorageError
        When the disk is full; what was reported is safe.
    InvalidArgumentError, ModelError, DataError
        When an argument, a model or a list of inputs is not as it must be.
    """
    began = time.monotonic()
    rules = rules or TagRules()
    listed = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    names = [os.fspath(source) for source in listed]
    kind = format_of(output, format)
    target = Path(output)
    _check(names, target, kind, embedder=embedder, rules=rules, cut=cut)
    if workers is not None and workers < 1:
        raise InvalidArgumentError(f"workers must be at least 1, not {workers}.")
    if memory_limit < 1:
        raise InvalidArgumentError(f"memory_limit must be at least 1 MB, not {memory_limit}.")
    own = load_classifiers(classifier)
    digest = embedder_hash(embedder)
    rescorer = rescorer_of(embedder, digest)
    models: dict[str, Any] = {
        "embedder": {"name": embedder, "sha256": digest},
        "classifier": {"sha256": classifier_identity(bundled_model("classifier"))},
        **({} if rescorer is None else {"rescorer": {"sha256": rescorer.sha256}}),
    }
    digests = [model["sha256"] for model in models.values()]
    if own:
        models["own_classifiers"] = [
            {"name": each.name, "sha256": each.identity, "classes": list(each.classes)}
            for each in own
        ]
    fingerprint = rules.fingerprint(*digests, *(each.identity for each in own))
    settings = AnalyzerSettings(
        embedder=embedder,
        own=folder_names(classifier),
        reduction=rules,
        memory_limit=memory_limit,
    )
    extras = [
        *([tags_extra()] if write_tags else []),
        *([sidecar_extra(models)] if sidecars else []),
        *([cut_extra(Path(cut))] if cut is not None else []),
    ]
    summary = TagSummary(printable(str(target)))
    journal_path = target.with_name(target.name + ".journal")
    with Journal(journal_path, target, settings=fingerprint, restart=restart) as journal:
        totals = journal.plan(
            find_items(names, rules=inputs, stdin=stdin), retry_errors=retry_errors
        )
        if not totals.inputs:
            raise AudioNotFoundError(
                names[0] if names else "-", "Nothing is left to tag: no file is named or wanted."
            )
        if kind.render is not None:
            journal.attach(kind.head, kind.render, layout=f"{kind.name} {kind.version}")
        summary.files, summary.earlier = totals.inputs, totals.done - totals.problems
        summary.redone = journal.other_settings
        failed: list[tuple[str, str]] = []
        count = core_count() if workers is None else workers
        todo = totals.inputs - totals.done
        meter = Meter(on_progress)
        meter.expect(
            todo + totals.problems,
            size=totals.size - totals.size_done,
            earlier=summary.earlier,
            skipped=totals.skipped - totals.problems,
        )
        meter.add(totals.problems, skipped=totals.problems)
        try:
            if todo or any(extra.is_chore for extra in extras):
                with WorkerPool(
                    settings, workers=max(1, min(count, todo or count)), time_limit=time_limit
                ) as pool:
                    _analyse(journal, meter, pool)
                    for extra in extras:
                        failed.extend(_add(journal, extra, pool))
            else:
                for extra in extras:
                    failed.extend(_add(journal, extra, None))
        finally:
            # Also after Ctrl-C, and when the disk is full.
            summary.seconds = meter.seconds
            _list_skipped(journal, summary, failed, _beside(target, kind, ".errors.csv"))
        if kind.name in EXPORTS:
            EXPORTS[kind.name](journal.entries, target)
        journal.complete()
        write_json(
            _beside(target, kind, ".manifest.json"),
            {
                "format": kind.name,
                "version": kind.version,
                "made_by": f"audiosearch {__version__}",
                **models,
                "rules": asdict(rules),
                "files": summary.files,
                "tagged": summary.tagged,
                "skipped": summary.skipped,
            },
        )
    summary.elapsed = round(time.monotonic() - began, 3)
    return summary


def _check(
    names: list[str],
    target: Path,
    kind: Format,
    *,
    embedder: str,
    rules: TagRules,
    cut: str | os.PathLike[str] | None,
) -> None:
    if not names:
        raise InvalidArgumentError("Name at least one file or folder to tag.")
    if embedder not in available_embedders():
        raise InvalidArgumentError(
            f"There is no embedder '{embedder}'; there is: {', '.join(available_embedders())}."
        )
    shown = printable(str(target))
    if kind.folder and target.exists() and not target.is_dir():
        raise JobError(f"{shown} is a file, and {kind.name} writes a folder. Name another one.")
    if not kind.folder and target.is_dir():
        raise JobError(f"{shown} is a folder, and {kind.name} writes a file. Name a file in it.")
    if kind.name == "parquet":
        check_parquet()
    if cut is None:
        return
    if rules.per == "file":
        raise InvalidArgumentError("Cutting needs parts of files: per clip or per segment.")
    place = Path(cut).resolve()
    for name in names:
        if Path(name).is_dir() and place.is_relative_to(Path(name).resolve()):
            raise InvalidArgumentError(
                f"{printable(os.fspath(cut))} lies in {printable(name)}: the next run would tag "
                "what was cut. Name a folder outside."
            )


def _analyse(journal: Journal, meter: Meter, pool: WorkerPool) -> None:
    """Analyse what is not done, and commit it in groups."""
    running: dict[Segment, Item] = {}

    def tasks() -> Iterator[Segment]:
        for item in journal.todo():
            task = Segment(item.name, item.start, item.end)
            running[task] = item
            yield task

    def commit(entries: list[Entry]) -> None:
        journal.put(entries)
        meter.add(
            len(entries),
            skipped=sum(entry.reason is not None for entry in entries),
            seconds=sum(entry.seconds for entry in entries),
            size=sum(entry.item.size for entry in entries),
        )

    with Groups(commit) as groups:
        for found in pool.unordered(tasks(), tick=_TICK):
            if found is not None:
                task, result = found
                assert isinstance(task, Segment)
                groups.put(_entry(running.pop(task), result))
            else:
                groups.tick()
                meter.tell()


def _entry(item: Item, result: Any) -> Entry:
    if isinstance(result, AudioError):
        return Entry(item, reason=result.reason)
    return Entry(item, result.duration, encode_rows(result.value))


def _add(journal: Journal, extra: Extra, pool: WorkerPool | None) -> list[tuple[str, str]]:
    """Do one more thing with each result; return the files with which it was not possible."""
    failed: list[tuple[int, str, str]] = []
    with Groups[tuple[Entry, int, int]](lambda marks: journal.mark(marks, extra.name)) as groups:
        for entry, result in extra.run(journal.without(extra.name), pool):
            if isinstance(result, AudioError):
                reason = f"{extra.failure} {result.reason}"
                failed.append((entry.place, printable(entry.item.name), reason))
            else:
                size, mtime_ns = result or (entry.item.size, entry.item.mtime_ns)
                groups.put((entry, size, mtime_ns))
    return [(name, reason) for _, name, reason in sorted(failed)]


def _list_skipped(
    journal: Journal, summary: TagSummary, failed: list[tuple[str, str]], path: Path
) -> None:
    """Write the list of skipped files; where there are none, no list stays."""
    totals = journal.totals()
    summary.skipped, summary.tagged = totals.skipped, totals.done - totals.skipped
    if not totals.skipped and not failed:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        return
    summary.errors = printable(str(path))
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(csv_bytes([("path", "start", "end", "reason")]))
        for entry in journal.skipped():
            item = entry.item
            row = (printable(item.name), printable(entry.reason or ""))
            if len(summary.first_skipped) < _LISTED:
                summary.first_skipped.append(row)
            end = "" if item.end is None else item.end
            file.write(csv_bytes([(row[0], item.start, end, row[1])]))
        for name, reason in failed:
            if len(summary.first_skipped) < _LISTED:
                summary.first_skipped.append((name, reason))
            file.write(csv_bytes([(name, "", "", reason)]))
    summary.skipped += len(failed)


def _beside(target: Path, kind: Format, ending: str) -> Path:
    """Return the output's name with another ending."""
    name = target.name
    for own in kind.endings:
        if name.lower().endswith(own):
            return target.with_name(name[: -len(own)] + ending)
    return target.with_name((name if kind.folder else Path(name).stem) + ending)
