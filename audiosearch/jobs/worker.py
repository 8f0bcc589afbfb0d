"""The process that analyses files for a `WorkerPool`; run as ``python -m audiosearch.jobs.worker``.

Two threads share the work: one decodes, resamples and makes log-mel patches, file after file; the
other embeds and scores them, in batches that cross files. Both spend their time in libraries that
leave Python's lock, so they overlap: a single long file keeps two cores busy, and a disk that is
waited for does not stop the models. A few chunks of patches lie between them, no more, so memory
does not grow when one is faster.

It reads pickled tasks from its standard input, the settings first, then ``(number, task)``, and
writes pickled messages ``(kind, number, value)`` to what was its standard output:

- ``ready``: the models are loaded;
- ``alive``: now and then, while sound comes or is analysed;
- ``free``: the task is decoded, and another may come; its result follows;
- ``done``, ``failed``: the result of a task, or its `AudioSearchError`;
- ``again``: the batch that the task was in failed, and it may be another's fault.

Anything that a decoder prints goes to standard error. It ends as soon as its input does, even in
the middle of a file, so it does not outlive its parent.
"""

from __future__ import annotations

import os
import pickle
import queue
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, BinaryIO

from audiosearch.errors import AudioDecodeError, AudioSearchError, InvalidArgumentError

if TYPE_CHECKING:
    from audiosearch.jobs.analysis import Analyzer, AnalyzerSettings, Segment
    from audiosearch.jobs.batches import Work

_ALIVE_SECONDS = 1.0
_CHUNKS = 4  # chunks of 32 patches (0.8 MB) between the threads
_FLUSH_SECONDS = 0.05  # so long a decoded file waits for others to fill its batch


def main() -> None:
    """Serve tasks until the input ends."""
    tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, tasks), daemon=True).start()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    code = 0
    try:
        _serve(tasks, _Answers(answers))
    except (BrokenPipeError, KeyboardInterrupt):
        pass
    except BaseException:
        traceback.print_exc()
        code = 1
    # At once: a normal end would wait for the threads.
    os._exit(code)


def _read(source: BinaryIO, tasks: queue.SimpleQueue[Any]) -> None:
    try:
        while True:
            tasks.put(pickle.load(source))
    finally:
        os._exit(0)


class _Answers:
    """The way back to the parent, for both threads."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._last = time.monotonic()

    def send(self, kind: str, number: int = -1, value: Any = None) -> None:
        with self._lock:
            self._last = time.monotonic()
            pickle.dump((kind, number, value), self._file, protocol=pickle.HIGHEST_PROTOCOL)
            self._file.flush()

    def alive(self) -> None:
        if time.monotonic() - self._last >= _ALIVE_SECONDS:
            self.send("alive")


def _serve(tasks: queue.SimpleQueue[Any], answers: _Answers) -> None:
    settings: AnalyzerSettings = tasks.get()
    try:
        from audiosearch.jobs.analysis import Analyzer, result_of

        analyzer = Analyzer(settings)
        batches = analyzer.batches()
        chunks: queue.Queue[tuple[Work, Any]] = queue.Queue(_CHUNKS)
        decoder = _Decoder(tasks, chunks, answers, analyzer)
        threading.Thread(target=decoder.run, daemon=True).start()
        if settings.memory_limit is not None:
            _limit_memory(settings.memory_limit)
    except AudioSearchError as error:
        answers.send("failed", value=error)
        return
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        reason = f"A worker process cannot load its models ({what})."
        answers.send("failed", value=AudioSearchError(reason))
        return
    answers.send("ready")
    while True:
        try:
            work, chunk = chunks.get(timeout=_FLUSH_SECONDS if batches.waiting else None)
        except queue.Empty:
            batches.flush()
        else:
            if isinstance(chunk, Exception):
                batches.give_up(work, chunk)
            elif isinstance(chunk, float):
                batches.end(work, chunk)
            else:
                batches.add(work, chunk)
            del chunk
        answers.alive()
        for work, failure in batches.finished():
            number, part = decoder.began.pop(work)
            try:
                if failure is not None:
                    raise failure
                answers.send("done", number, result_of(part, work, settings))
            except BrokenPipeError:
                raise
            except Exception as error:
                _fail(answers, number, part, error, settings)


class _Decoder:
    """The thread that makes patches of files."""

    def __init__(
        self,
        tasks: queue.SimpleQueue[Any],
        chunks: queue.Queue[tuple[Work, Any]],
        answers: _Answers,
        analyzer: Analyzer,
    ) -> None:
        self._tasks, self._chunks = tasks, chunks
        self._answers, self._settings = answers, analyzer.settings
        self._own = analyzer.own
        self.began: dict[Work, tuple[int, Segment]] = {}
        """What is under way: the number and the file of each work."""

    def run(self) -> None:
        from audiosearch.jobs.analysis import Segment

        try:
            while True:
                number, task = self._tasks.get()
                if isinstance(task, Segment):
                    self._decode(number, task)
                else:
                    self._perform(number, task)
                self._answers.send("free", number)
        except BrokenPipeError:
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    def _decode(self, number: int, part: Segment) -> None:
        from audiosearch.jobs.analysis import Sound, work_on

        work = work_on(part, self._settings.reduction, self._own)
        self.began[work] = number, part
        sound = Sound(part, self._answers.alive, work)
        try:
            for patches in sound.patches():
                if work.is_over:
                    return
                self._chunks.put((work, patches))
        except BrokenPipeError:
            raise
        except Exception as error:
            self._chunks.put((work, error))
        else:
            self._chunks.put((work, sound.seconds))

    def _perform(self, number: int, chore: Any) -> None:
        try:
            self._answers.send("done", number, chore.perform())
        except BrokenPipeError:
            raise
        except Exception as error:
            _fail(self._answers, number, chore, error, self._settings)


def _fail(
    answers: _Answers, number: int, task: Any, error: Exception, settings: AnalyzerSettings
) -> None:
    """Say why a task failed, in words about its file."""
    from audiosearch.jobs.batches import MixedBatchError

    if isinstance(error, MixedBatchError):
        answers.send("again", number)
        return
    if isinstance(error, InvalidArgumentError):
        # What the file holds, not what the caller asked for.
        error = AudioDecodeError(task.path, str(error))
    elif isinstance(error, MemoryError):
        limit = settings.memory_limit
        most = "there is" if limit is None else f"{limit:,} MB, the memory limit a file"
        error = AudioDecodeError(task.path, f"It needs more memory than {most}.")
    elif not isinstance(error, AudioSearchError):
        reason = f"It could not be analysed ({type(error).__name__}: {error})."
        error = AudioDecodeError(task.path, reason)
    answers.send("failed", number, error)


def _limit_memory(megabytes: int) -> None:
    """Let the process take so much memory beyond what it has; where the system can do that."""
    if not sys.platform.startswith("linux"):
        return
    import resource

    with open("/proc/self/statm") as file:  # noqa: PTH123
        pages = int(file.read().split()[5])  # data and stacks
    limit = pages * resource.getpagesize() + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main()
