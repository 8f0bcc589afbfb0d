"""What tests of the web app's pages and sounds share: a library of 45 hits, its client."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from flask.testing import FlaskClient
from server_fixtures import ScriptedLibrary, sound, video

from audiosearch.server import create_app


@pytest.fixture
def library(tmp_path: Path) -> ScriptedLibrary:
    """45 hits: videos, a wav with ten moments, and an aiff; best first."""
    files = {2: tmp_path / "Büro – 音.wav", 3: tmp_path / "old.aiff"}
    time = np.arange(44_100 * 22) / 44_100
    tone = 0.5 * np.sin(2 * np.pi * 440 * time)
    for path in files.values():
        soundfile.write(path, tone, 44_100)
    hits = [video(n, score=1 - n / 100) for n in range(1, 46)]
    hits[1] = sound(2, str(files[2]), moments=10, score=0.98)
    hits[2] = sound(3, str(files[3]), score=0.97)
    return ScriptedLibrary(hits, files)


@pytest.fixture
def client(library: ScriptedLibrary) -> FlaskClient:
    return create_app(library).test_client()
