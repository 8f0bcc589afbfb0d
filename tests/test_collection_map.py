"""The map of a collection: what lies where, and how the file of it is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import audiosearch as aus
from audiosearch.errors import InvalidArgumentError
from audiosearch.library.collection_map import MAP, collection_map
from audiosearch.library.layout import lay_out
from audiosearch.library.statistics import statistics


def groups(count: int, size: int, *, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors in well separated groups, and which group each is of."""
    random = np.random.default_rng(seed)
    middles = np.linalg.qr(random.normal(size=(32, 32)))[0][:count]
    which = np.repeat(np.arange(count), size)
    vectors = middles[which] + random.normal(0, 0.05, (count * size, 32))
    order = random.permutation(len(which))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors[order].astype(np.float32), which[order]


def test_groups_of_near_vectors_lie_apart() -> None:
    vectors, which = groups(6, 60)
    places = lay_out(vectors)
    assert places.shape == (360, 2)
    assert places.dtype == np.float32
    assert np.abs(places).max() == pytest.approx(1, abs=1e-6)
    # The ten nearest on the plane are of one's own group.
    distance = np.linalg.norm(places[:, None] - places[None], axis=2)
    near = np.argsort(distance, axis=1)[:, 1:11]
    assert (which[near] == which[:, None]).mean() > 0.99
    # No point lies upon another, so that each can be pointed at.
    np.fill_diagonal(distance, 1)
    assert distance.min() > 1e-4


def test_pushing_on_the_grid_equals_the_sum_over_all_pairs() -> None:
    from audiosearch.library.layout import _pushed_exactly, _pushed_on_grid

    places = np.random.default_rng(4).normal(0, 12, (300, 2))
    apart = places[:, None] - places[None]
    weights = 1 / (1 + (apart**2).sum(axis=2))
    np.fill_diagonal(weights, 0)
    expected = (weights[..., None] ** 2 * apart).sum(axis=1) / weights.sum()
    assert np.allclose(_pushed_exactly(places), expected, rtol=1e-9, atol=1e-12)
    error = np.linalg.norm(_pushed_on_grid(places) - expected) / np.linalg.norm(expected)
    assert error < 0.05


def test_the_same_vectors_give_the_same_layout() -> None:
    vectors, _ = groups(3, 30)
    assert np.array_equal(lay_out(vectors), lay_out(vectors.copy()))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5])
def test_few_vectors_are_laid_out_too(count: int) -> None:
    places = lay_out(np.eye(8, dtype=np.float32)[:count])
    assert places.shape == (count, 2)
    assert np.isfinite(places).all()
    assert len(np.unique(places, axis=0)) == count


def test_equal_vectors_do_not_lie_on_one_spot() -> None:
    places = lay_out(np.ones((40, 8), np.float32))
    assert len(np.unique(places.round(4), axis=0)) == 40


def test_what_is_no_table_of_numbers_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="finite"):
        lay_out(np.full((4, 3), np.nan))
    with pytest.raises(InvalidArgumentError, match="shape"):
        lay_out(np.ones(4))


def test_the_map_shows_every_clip_and_is_kept(library_folder: Path) -> None:
    with aus.open_library(library_folder) as library:
        assert collection_map(library, make=False) is None
        made = collection_map(library)
        assert made is not None
        assert len(made) == made.total == library.info().clips
        tags = [library.clip(int(clip)).tags[0].label for clip in made.clips]
        from audiosearch.labels import load_labels

        assert [load_labels()[int(index)].name for index in made.labels] == tags
    assert (library_folder / MAP).is_file()
    with aus.open_library(library_folder) as library:
        kept = collection_map(library, make=False)
        assert kept is not None
        assert np.array_equal(kept.places, made.places)
        assert np.array_equal(kept.clips, made.clips)


def test_the_shipped_library_comes_with_its_map() -> None:
    with aus.open_library(aus.shipped_library()) as library:
        found = collection_map(library, make=False)
        assert found is not None, "tools/build_shipped_library.py lays it out"
        assert len(found) == found.total == library.info().clips
        random = np.random.default_rng(3)
        some = random.choice(len(found), 300, replace=False)
        distance = np.linalg.norm(found.places[some, None] - found.places[None], axis=2)
        distance[np.arange(300), some] = np.inf
        beside = found.labels[distance.argmin(axis=1)]
        by_chance = found.labels[random.choice(len(found), 300)]
        here = found.labels[some]
        assert (beside == here).mean() > 2 * (by_chance == here).mean()


def test_new_clips_join_the_map_and_removed_ones_leave(
    library_folder: Path, sound_folder: Path, tmp_path: Path
) -> None:
    import soundfile

    with aus.open_library(library_folder) as library:
        before = collection_map(library)
        assert before is not None
    more = tmp_path / "more"
    more.mkdir()
    noise = np.random.default_rng(8).normal(0, 0.1, 16_000)
    soundfile.write(more / "new.wav", noise, 16_000)
    aus.index(more, library_folder)
    with aus.open_library(library_folder) as library:
        after = collection_map(library, make=False)
        assert after is not None
        assert len(after) == len(before) + 1
        assert np.array_equal(after.places[:-1], before.places)
        assert np.abs(after.places).max() <= 1
    (more / "new.wav").unlink()
    soundfile.write(more / "other.wav", noise[:8000], 16_000)
    aus.index(more, library_folder)
    with aus.open_library(library_folder) as library:
        last = collection_map(library, make=False)
        assert last is not None
        assert len(last) == len(before) + 1
        assert after.clips[-1] not in last.clips


@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_a_broken_map_is_made_again_and_verify_says_so(library_folder: Path, damage: str) -> None:
    with aus.open_library(library_folder) as library:
        made = collection_map(library)
        assert made is not None
    path = library_folder / MAP
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[:-200], "text": b"no map", "empty": b""}[damage])
    with aus.open_library(library_folder) as library:
        assert collection_map(library, make=False) is None
    found = aus.verify(library_folder, sounds=False)
    assert [(each.kind, each.repaired) for each in found.findings] == [("derived", True)]
    assert "map" in found.findings[0].problem
    assert found.whole
    assert not path.exists()
    with aus.open_library(library_folder) as library:
        again = collection_map(library)
        assert again is not None
        assert np.array_equal(again.places, made.places)
    assert not aus.verify(library_folder, sounds=False).findings


def test_a_writer_leaves_the_map_and_deletes_what_a_stopped_one_left(
    library_folder: Path, sound_folder: Path
) -> None:
    with aus.open_library(library_folder) as library:
        collection_map(library)
    left = library_folder / ".map.npz.x1y2.tmp"
    left.write_bytes(b"half a map")
    aus.index(sound_folder, library_folder)
    assert (library_folder / MAP).is_file()
    assert not left.exists()


def test_statistics_count_what_is_there(library_folder: Path, sound_folder: Path) -> None:
    with aus.open_library(library_folder) as library:
        found = statistics(library)
        info = library.info()
        assert (found.recordings, found.clips) == (info.recordings, info.clips)
        assert found.seconds == pytest.approx(info.seconds, abs=0.01)
        assert sum(each.recordings for each in found.lengths) == found.recordings
        for each in found.classes[:5]:
            assert library.search(f'"{each.name}"').total == each.recordings
        counts = [each.recordings for each in found.classes]
        assert counts == sorted(counts, reverse=True)
        assert sum(each.recordings for each in found.folders) == 5
        assert sum(each.recordings for each in found.years) == 5
