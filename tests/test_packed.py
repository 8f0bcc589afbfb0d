"""Packed HDF5 files: what is read, what is refused."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import write_packed

from audiosearch.datasets.packed import PackedFile, frame_mask
from audiosearch.errors import AudioSearchError, DataError, InvalidArgumentError


def test_rows_are_read_as_they_were_written(packed_h5: Path):
    with h5py.File(packed_h5) as raw, PackedFile(packed_h5) as file:
        assert len(file) == 40
        assert file.has_labels
        rows = file.read(5, 12)
        np.testing.assert_array_equal(rows.x, raw["x"][5:12])
        np.testing.assert_array_equal(rows.y, raw["y"][5:12])
        np.testing.assert_array_equal(rows.n_frames, raw["n_frames"][5:12])
        assert file.video_ids()[7] == "clip-000007"
        np.testing.assert_allclose(file.times()[:, 0], raw["start_time_seconds"][:])
        joined = np.concatenate([block.x for _, block in file.blocks(7)])
        np.testing.assert_array_equal(joined, raw["x"][:])


def test_without_the_extra_data_sets_frames_of_zeros_are_padding(tmp_path: Path, packed_h5: Path):
    bare = write_packed(tmp_path / "bare.h5", extras=False)
    with PackedFile(packed_h5) as full, PackedFile(bare) as file:
        np.testing.assert_array_equal(file.read().n_frames, full.read().n_frames)
        np.testing.assert_array_equal(file.times(), np.tile([0.0, 10.0], (40, 1)))


def test_labels_may_be_numbers_and_ids_text(tmp_path: Path):
    path = write_packed(tmp_path / "numbers.h5")
    with h5py.File(path, "r+") as file:
        y = file["y"][:]
        del file["y"], file["video_id_list"]
        file["y"] = y.astype(np.float32)
        file["video_id_list"] = [f"vídeo {row}" for row in range(40)]
    with PackedFile(path, labels=True) as file:
        np.testing.assert_array_equal(file.read().y, y)
        assert file.video_ids()[3] == "vídeo 3"


def _broken(path: Path, what: str) -> None:
    write_packed(path)
    with h5py.File(path, "r+") as file:
        y, x = file["y"][:], file["x"][:]
        if what == "no x":
            del file["x"]
        elif what == "x of another shape":
            del file["x"]
            file["x"] = x[:, :, :64]
        elif what == "x of floats":
            del file["x"]
            file["x"] = x.astype(np.float32)
        elif what == "x is a group":
            del file["x"]
            file.create_group("x")
        elif what == "no clips":
            for name in list(file):
                del file[name]
            file["x"] = x[:0]
        elif what == "other classes":
            del file["y"]
            file["y"] = y[:, :500]
        elif what == "NaN in y":
            del file["y"]
            file["y"] = np.where(y, np.nan, 0.0)
        elif what == "text in y":
            del file["y"]
            file["y"] = np.full(y.shape, b"1")
        elif what == "n_frames of 11":
            file["n_frames"][3] = 11
        elif what == "n_frames too short":
            del file["n_frames"]
            file["n_frames"] = np.full(3, 10, np.uint8)
        elif what == "times backwards":
            file["end_time_seconds"][0] = -5


@pytest.mark.parametrize(
    "what",
    [
        "no x",
        "x of another shape",
        "x of floats",
        "x is a group",
        "no clips",
        "other classes",
        "NaN in y",
        "text in y",
        "n_frames of 11",
        "n_frames too short",
        "times backwards",
    ],
)
def test_a_file_of_another_layout_is_refused_by_name(tmp_path: Path, what: str):
    path = tmp_path / "broken.h5"
    _broken(path, what)

    def read_all() -> None:
        with PackedFile(path) as file:
            file.read()
            file.times()

    with pytest.raises(DataError, match=r"broken\.h5"):
        read_all()


def test_labels_are_asked_for_where_they_are_needed(tmp_path: Path):
    path = write_packed(tmp_path / "unlabelled.h5", labels=False)
    with PackedFile(path) as file:
        assert file.read().y is None
    with pytest.raises(DataError, match="true classes"):
        PackedFile(path, labels=True)


def test_cut_off_and_foreign_files_are_refused(tmp_path: Path, packed_h5: Path):
    whole = packed_h5.read_bytes()
    for number, content in enumerate([b"", b"no HDF5", whole[:3000], whole[: len(whole) // 2]]):
        path = tmp_path / f"{number}.h5"
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"{number}.h5"):
            PackedFile(path)
    with pytest.raises(DataError, match="no such file"):
        PackedFile(tmp_path / "missing.h5")


def test_damaged_bytes_raise_only_our_errors(tmp_path: Path, packed_h5: Path):
    """Any byte of the file's structure may be wrong."""
    whole = bytearray(packed_h5.read_bytes())
    random = np.random.default_rng(3)
    path = tmp_path / "damaged.h5"
    for _ in range(150):
        damaged = whole.copy()
        for _ in range(4):
            damaged[random.integers(0, 4096)] = random.integers(0, 256)
        path.write_bytes(damaged)
        try:
            with PackedFile(path) as file:
                file.read(0, min(3, len(file)))
                file.video_ids()
                file.times()
        except AudioSearchError:
            pass


def test_rows_that_do_not_exist_are_refused(packed_h5: Path):
    with PackedFile(packed_h5) as file:
        for start, stop in ((-1, 3), (3, 41), (5, 4)):
            with pytest.raises(InvalidArgumentError):
                file.read(start, stop)


def test_frame_mask_marks_the_frames_that_exist():
    assert frame_mask(np.array([1, 10, 3])).sum(axis=1).tolist() == [1.0, 10.0, 3.0]
    assert frame_mask(np.array([3]))[0].tolist() == [1, 1, 1, 0, 0, 0, 0, 0, 0, 0]
