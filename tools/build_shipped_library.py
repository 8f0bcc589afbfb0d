"""Make ``indexes/audioset-eval``, the library that is installed with audiosearch.

    python tools/build_shipped_library.py eval.h5

It holds what the bundled classifier and the search make of AudioSet's evaluation embeddings: class
scores, one search vector a clip, the clips' ids, times and true labels, and where each clip lies on
the map. The embeddings themselves are not in it.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sqlite3
import sys
import tempfile
from pathlib import Path

import audiosearch as aus
from audiosearch.library.collection_map import collection_map

TARGET = Path(__file__).resolve().parent.parent / "indexes" / "audioset-eval"
LARGEST = 15_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packed", type=Path, help="eval.h5")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "library"
        summary = aus.index(arguments.packed, folder)
        (folder / "writer.lock").unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(folder / "catalogue.sqlite")) as db:
            # Where the file lay on this machine is nobody's business.
            db.execute("UPDATE packed_files SET path = ?", (arguments.packed.name.encode(),))
            db.commit()
            db.execute("VACUUM")
        with aus.open_library(folder) as library:
            collection_map(library)  # which keeps it in the folder
        size = sum(path.stat().st_size for path in folder.iterdir())
        if size > LARGEST:
            sys.exit(f"{size:,} bytes are more than the {LARGEST:,} that may be shipped.")
        shutil.rmtree(TARGET, ignore_errors=True)
        shutil.copytree(folder, TARGET)
    print(f"{TARGET}: {summary.added:,} clips, {size:,} bytes")


if __name__ == "__main__":
    main()
