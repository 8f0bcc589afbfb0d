"""AudioSet's TFRecord files: read as TensorFlow reads them, and refused where they are damaged."""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from released_fixtures import (
    bytes_feature,
    crc_by_bytes,
    entry,
    float_feature,
    framed,
    int_feature,
    make_clips,
    part,
    payload,
    varint,
    write_shard,
)

from audiosearch.datasets.crc32c import crc32c
from audiosearch.datasets.tfrecord import read_clips, read_records
from audiosearch.errors import DataError


@pytest.mark.parametrize(
    ("data", "value"),
    # From RFC 3720, appendix B.4, and the catalogue's check value.
    [
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"", 0),
    ],
)
def test_checksums_of_the_standard(data: bytes, value: int) -> None:
    assert crc32c(data) == value


@pytest.mark.parametrize("size", [1, 3, 31, 32, 33, 35, 36, 4095, 4096, 4097, 4099, 4100, 9000])
def test_checksums_of_any_length(size: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8).tobytes()
    assert crc32c(data) == crc_by_bytes(data)


def assert_equals_tensorflow(path: Path) -> int:
    """Compare every value of a file with what TensorFlow reads; return the number of clips."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    ours = list(read_clips(path))
    records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    assert len(ours) == len(records)
    for clip, record in zip(ours, records, strict=True):
        context, lists = tf.io.parse_single_sequence_example(
            record,
            context_features={
                "video_id": tf.io.FixedLenFeature([], tf.string),
                "start_time_seconds": tf.io.FixedLenFeature([], tf.float32),
                "end_time_seconds": tf.io.FixedLenFeature([], tf.float32),
                "labels": tf.io.VarLenFeature(tf.int64),
            },
            sequence_features={"audio_embedding": tf.io.FixedLenSequenceFeature([], tf.string)},
        )
        assert clip.video_id == context["video_id"].numpy().decode()
        assert clip.start == context["start_time_seconds"].numpy()
        assert clip.end == context["end_time_seconds"].numpy()
        assert list(clip.labels) == context["labels"].values.numpy().tolist()
        frames = tf.io.decode_raw(lists["audio_embedding"], tf.uint8).numpy()
        np.testing.assert_array_equal(clip.frames, frames.reshape(-1, 128))
    return len(ours)


@pytest.mark.data
def test_the_released_shards_equal_what_tensorflow_reads(data_dir: Path) -> None:
    shards = sorted((data_dir / "audioset" / "unbal_train_tfrecord").glob("*.tfrecord"))
    assert sum(assert_equals_tensorflow(shard) for shard in shards) == 975


def test_what_tensorflow_writes_is_read(tmp_path: Path) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    path = tmp_path / "written.tfrecord"
    clips = make_clips(20, frames=(10, 1, 0, 13))
    with tf.io.TFRecordWriter(str(path)) as writer:
        for clip in clips:
            train = tf.train
            example = train.SequenceExample(
                context=train.Features(
                    feature={
                        "labels": train.Feature(int64_list=train.Int64List(value=clip.labels)),
                        "video_id": train.Feature(
                            bytes_list=train.BytesList(value=[clip.video_id.encode()])
                        ),
                        "start_time_seconds": train.Feature(
                            float_list=train.FloatList(value=[clip.start])
                        ),
                        "end_time_seconds": train.Feature(
                            float_list=train.FloatList(value=[clip.start + 10])
                        ),
                        "something else": train.Feature(float_list=train.FloatList(value=[1, 2])),
                    }
                ),
                feature_lists=train.FeatureLists(
                    feature_list={
                        "audio_embedding": train.FeatureList(
                            feature=[
                                train.Feature(bytes_list=train.BytesList(value=[frame.tobytes()]))
                                for frame in clip.frames
                            ]
                        )
                    }
                ),
            )
            writer.write(example.SerializeToString())
    read = list(read_clips(path))
    assert [clip.video_id for clip in read] == [clip.video_id for clip in clips]
    for ours, theirs in zip(read, clips, strict=True):
        np.testing.assert_array_equal(ours.frames, theirs.frames)
        assert list(ours.labels) == list(theirs.labels)
    assert assert_equals_tensorflow(path) == 20


def test_the_ways_to_write_one_value_are_all_read(tmp_path: Path) -> None:
    """Unpacked lists, keys behind values, repeated parts, unknown fields: valid, if unusual."""
    (clip,) = make_clips(1)
    plain = payload(clip)
    unpacked = payload(
        clip,
        labels=part(3, b"".join(varint(1 << 3) + varint(label) for label in clip.labels)),
        start_time_seconds=part(2, varint(1 << 3 | 5) + struct.pack("<f", clip.start)),
    )
    unknown = varint(99 << 3) + varint(7) + part(98, b"x") + varint(97 << 3 | 1) + bytes(8) + plain
    twice = part(1, entry("video_id", bytes_feature(b"earlier"))) + plain
    swapped = plain + part(1, part(1, part(2, bytes_feature(b"later")) + part(1, b"video_id")))
    path = tmp_path / "ways.tfrecord"
    path.write_bytes(b"".join(map(framed, (plain, unpacked, unknown, twice, swapped))))
    read = list(read_clips(path))
    assert [c.video_id for c in read] == [clip.video_id] * 4 + ["later"]
    for other in read:
        assert (other.start, other.end) == (clip.start, clip.start + 10)
        assert list(other.labels) == clip.labels
        np.testing.assert_array_equal(other.frames, clip.frames)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    # The protocol buffer's own parser; that of tf.io is written by hand and takes less.
    for ours, record in zip(read, read_records(path), strict=True):
        feature = tf.train.SequenceExample.FromString(record).context.feature
        assert list(feature["labels"].int64_list.value) == list(ours.labels)
        assert list(feature["video_id"].bytes_list.value) == [ours.video_id.encode()]
        assert list(feature["start_time_seconds"].float_list.value) == [ours.start]


def test_records_can_be_passed_over(tmp_path: Path) -> None:
    clips = make_clips(6)
    path = write_shard(tmp_path / "a.tfrecord", clips)
    assert [clip.video_id for clip in read_clips(path, skip=4)] == [c.video_id for c in clips[4:]]
    assert list(read_clips(path, skip=6)) == list(read_clips(path, skip=99)) == []


def test_a_damaged_file_names_the_record(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "a.tfrecord", make_clips(3))
    whole = path.read_bytes()
    first, second, _ = (len(framed(payload(clip))) for clip in make_clips(3))
    third = first + second

    def refusal(data: bytes) -> str:
        path.write_bytes(data)
        with pytest.raises(DataError) as caught:
            list(read_clips(path))
        assert "a.tfrecord" in str(caught.value)
        return str(caught.value)

    in_payload = bytearray(whole)
    in_payload[first + 500] ^= 1
    assert "record 1 does not match its checksum" in refusal(bytes(in_payload))
    in_length = bytearray(whole)
    in_length[third] ^= 1
    assert "record 2 begins with a wrong checksum" in refusal(bytes(in_length))
    for cut in (1, 8, 12, 700, len(whole) - third - 1):
        assert "record 2 is cut off" in refusal(whole[: third + cut])
    for foreign in (b"\x1f\x8b" + whole[:900], b"RIFF" * 300, b"not a record\n"):
        assert "record 0 begins with a wrong checksum: this is no TFRecord" in refusal(foreign)
    path.unlink()
    with pytest.raises(DataError, match="no such file"):
        list(read_clips(path))
    with pytest.raises(DataError, match="cannot be read"):
        list(read_clips(tmp_path))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"labels": int_feature(3, 527)}, "the label 527"),
        ({"labels": int_feature(-1)}, "the label -1"),
        ({"labels": float_feature(1.0)}, "floats as 'labels' instead of integers"),
        ({"labels": part(3, part(1, b"\x80"))}, "a number is cut off"),
        ({"without": "labels"}, "no 'labels'"),
        ({"without": "video_id"}, "no 'video_id'"),
        ({"video_id": bytes_feature()}, "0 values of 'video_id'"),
        ({"video_id": bytes_feature(b"a", b"b")}, "2 values of 'video_id'"),
        ({"start_time_seconds": float_feature(float("nan"))}, "from nan"),
        ({"start_time_seconds": float_feature(-1)}, "from -1"),
        ({"start_time_seconds": float_feature(1e6)}, "which cannot be"),
        ({"start_time_seconds": part(2, part(1, b"abc"))}, "floats is cut off"),
        ({"without": "audio_embedding"}, "no feature list 'audio_embedding'.*labels, start"),
    ],
)
def test_what_is_no_clip_of_audioset_is_refused(
    tmp_path: Path, change: dict[str, bytes], match: str
) -> None:
    good, bad = make_clips(2)
    path = tmp_path / "odd.tfrecord"
    path.write_bytes(framed(payload(good)) + framed(payload(bad, **change)))  # type: ignore[arg-type]
    with pytest.raises(DataError, match=rf"odd.tfrecord: record 1 .*{match}"):
        list(read_clips(path))


def test_a_frame_of_another_length_is_refused(tmp_path: Path) -> None:
    clip = make_clips(1)[0]
    clip.frames = clip.frames[:, :127]
    with pytest.raises(DataError, match="record 0 has a frame that is not 128 bytes"):
        list(read_clips(write_shard(tmp_path / "a.tfrecord", [clip])))


CLIP = make_clips(1, frames=(2,))[0]
_calm = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """Return `data` with some bytes changed, cut out or put in."""
    out = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(out) - 1, 0)))
        match draw(st.integers(0, 2)):
            case 0 if out:
                out[place] = draw(st.integers(0, 255))
            case 1:
                del out[place : place + draw(st.integers(1, 40))]
            case _:
                out[place:place] = draw(st.binary(max_size=12))
    return bytes(out)


@_calm
@given(data=mutated(framed(payload(CLIP)) * 2))
def test_mutated_files_give_the_clip_or_a_data_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "mutated.tfrecord"
    path.write_bytes(data)
    # What passes its checksum is whole; any other error than this one fails the test.
    with contextlib.suppress(DataError):
        for clip in read_clips(path):
            np.testing.assert_array_equal(clip.frames, CLIP.frames)


@_calm
@given(data=mutated(payload(CLIP)) | st.binary(max_size=300))
def test_mutated_records_with_good_checksums_give_a_clip_or_a_data_error(
    tmp_path: Path, data: bytes
) -> None:
    path = tmp_path / "mutated.tfrecord"
    path.write_bytes(framed(data))
    assert list(read_records(path)) == [data]
    with contextlib.suppress(DataError):
        (clip,) = read_clips(path)
        assert clip.frames.shape[1:] == (128,)
        assert all(0 <= label < 527 for label in clip.labels)
        assert 0 <= clip.start <= clip.end
