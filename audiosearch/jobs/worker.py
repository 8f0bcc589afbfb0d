"""The process that analyses files for a `WorkerPool`; run as ``python -m audiosearch.jobs.worker``.

It reads pickled tasks from its standard input and writes pickled messages to what was its standard
output: ``("ready", None)`` once the models are loaded, ``("alive", None)`` now and then during a
file, and ``("done", result)`` or ``("failed", AudioSearchError)`` at its end. Anything that a
decoder prints goes to standard error. It ends as soon as its input does, even in the middle of a
file, so it does not outlive its parent.
"""

from __future__ import annotations

import os
import pickle
import queue
import sys
import threading
import time
import traceback
from typing import Any, BinaryIO

from audiosearch.errors import AudioDecodeError, AudioSearchError, InvalidArgumentError

_ALIVE_SECONDS = 1.0


def main() -> None:
    """Serve tasks until the input ends."""
    tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, tasks), daemon=True).start()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    code = 0
    try:
        _serve(tasks, answers)
    except (BrokenPipeError, KeyboardInterrupt):
        pass
    except BaseException:
        traceback.print_exc()
        code = 1
    # At once: a normal end would wait for the thread that reads.
    os._exit(code)


def _read(source: BinaryIO, tasks: queue.SimpleQueue[Any]) -> None:
    try:
        while True:
            tasks.put(pickle.load(source))
    finally:
        os._exit(0)


def _serve(tasks: queue.SimpleQueue[Any], answers: BinaryIO) -> None:
    def send(kind: str, value: Any = None) -> None:
        pickle.dump((kind, value), answers, protocol=pickle.HIGHEST_PROTOCOL)
        answers.flush()

    settings = tasks.get()
    try:
        from audiosearch.jobs.analysis import Analyzer, Segment

        analyzer = Analyzer(settings)
        if settings.memory_limit is not None:
            _limit_memory(settings.memory_limit)
    except AudioSearchError as error:
        send("failed", error)
        return
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        send("failed", AudioSearchError(f"A worker process cannot load its models ({what})."))
        return
    send("ready")
    last = time.monotonic()

    def alive() -> None:
        nonlocal last
        if time.monotonic() - last >= _ALIVE_SECONDS:
            last = time.monotonic()
            send("alive")

    while True:
        task = tasks.get()
        path = task if isinstance(task, str) else task.path
        result: Any
        try:
            if not isinstance(task, str | Segment):
                result = task.perform()
            elif settings.reduction is not None:
                result = analyzer.reduce(task, on_block=alive)
            else:
                result = analyzer.analyze(task, on_block=alive)
        except InvalidArgumentError as error:
            # What the file holds, not what the caller asked for.
            send("failed", AudioDecodeError(path, str(error)))
        except AudioSearchError as error:
            send("failed", error)
        except MemoryError:
            limit = settings.memory_limit
            most = "there is" if limit is None else f"{limit:,} MB, the memory limit a file"
            send("failed", AudioDecodeError(path, f"It needs more memory than {most}."))
        except BrokenPipeError:
            raise
        except Exception as error:
            reason = f"It could not be analysed ({type(error).__name__}: {error})."
            send("failed", AudioDecodeError(path, reason))
        else:
            send("done", result)


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
