"""The process that analyses files for a `WorkerPool`; run as ``python -m audiosearch.jobs.worker``.

It reads pickled tasks from its standard input and writes pickled messages to what was its standard
output: ``("ready", None)`` once the models are loaded, ``("alive", None)`` now and then during a
file, and ``("done", Analysis)`` or ``("failed", AudioSearchError)`` at its end. Anything that a
decoder prints goes to standard error. It ends when its input does, so it never outlives its parent
for longer than one block of sound.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
from typing import Any, BinaryIO

from audiosearch.errors import AudioDecodeError, AudioSearchError

_ALIVE_SECONDS = 1.0


def main() -> None:
    """Serve tasks until the input ends."""
    tasks = sys.stdin.buffer
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        _serve(tasks, answers)
    except (BrokenPipeError, EOFError, KeyboardInterrupt):
        os._exit(0)


def _serve(tasks: BinaryIO, answers: BinaryIO) -> None:
    def send(kind: str, value: Any = None) -> None:
        pickle.dump((kind, value), answers, protocol=pickle.HIGHEST_PROTOCOL)
        answers.flush()

    settings = pickle.load(tasks)
    try:
        from audiosearch.jobs.analysis import Analyzer

        analyzer = Analyzer(settings)
    except AudioSearchError as error:
        send("failed", error)
        return
    send("ready")
    last = time.monotonic()

    def alive() -> None:
        nonlocal last
        if time.monotonic() - last >= _ALIVE_SECONDS:
            last = time.monotonic()
            send("alive")

    while True:
        path = pickle.load(tasks)
        try:
            result = analyzer.analyze(path, on_block=alive)
        except AudioSearchError as error:
            send("failed", error)
        except MemoryError:
            send("failed", AudioDecodeError(path, "It needs more memory than there is."))
        except BrokenPipeError:
            raise
        except Exception as error:
            reason = f"It could not be analysed ({type(error).__name__}: {error})."
            send("failed", AudioDecodeError(path, reason))
        else:
            send("done", result)


if __name__ == "__main__":
    main()
