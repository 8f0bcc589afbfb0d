"""What tests of own classes share: a trained classifier, recordings, a library of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import write_packed
from lab_fixtures import own_recordings, write_sound

import audiosearch as aus
from audiosearch.lab import LabConfig, read_sounds, train_lab
from audiosearch.library.library import Library

KINDS = {"my machine": "low", "the whistle": "high", "Noise": "noise"}


def trained(folder: Path, kinds: dict[str, str], model: str = "linear-lite") -> Path:
    for name, kind in kinds.items():
        for number in range(8):
            write_sound(folder / "data" / name / f"{number}.wav", kind, number, seconds=1.0)
    config = LabConfig(model=model, validation=0)
    run = train_lab(
        read_sounds(folder / "data"), folder / "machines", config=config, cache=folder / "cache"
    )
    return run.folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("own"), KINDS)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    return own_recordings(folder, {"a-low": "low", "b-high": "high"}, low=10.0, high=9.0)


@pytest.fixture(scope="module")
def master(tmp_path_factory, recordings, classifier):
    """Sounds that were heard, and rows of a packed file that were not."""
    folder = tmp_path_factory.mktemp("library") / "lib"
    packed = write_packed(folder.parent / "eval.h5", clips=3)
    aus.index([recordings, packed], folder, classifier=classifier, mix_embedders=True, workers=1)
    return folder


def found(folder, query='label:"my machine" score:>0.5'):
    with Library(folder) as library:
        return {Path(hit.recording).stem: hit.score for hit in library.search(query).hits}
