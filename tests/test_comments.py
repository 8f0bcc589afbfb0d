"""Comments inside sound files: nothing but the comment changes, however the file is built."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from audiosearch import audio
from audiosearch.errors import AudioDecodeError, AudioError
from audiosearch.tagging.comments import UntouchableError, write_commented
from audiosearch.tagging.file_tags import FileTags

SECONDS = 2.0


def tone(rate: int) -> np.ndarray:
    time = np.arange(int(rate * SECONDS)) / rate
    return (0.3 * np.sin(2 * np.pi * 440 * time) * np.linspace(0, 1, len(time))).astype(np.float32)


def encode(
    path: Path, codec: str, *, metadata: dict[str, str] | None = None, **options: str
) -> Path:
    """Write a tone as FFmpeg does; `options` are those of its muxer."""
    with av.open(str(path), "w", options=options) as file:
        stream: Any = file.add_stream(codec, rate=48000, layout="mono")
        file.metadata.update(metadata or {})
        resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=48000)
        frame = av.AudioFrame.from_ndarray(tone(48000)[None], format="fltp", layout="mono")
        frame.sample_rate = 48000
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            for packet in stream.encode(part):
                file.mux(packet)
        for packet in stream.encode(None):
            file.mux(packet)
    return path


def metadata_of(path: Path) -> dict[str, str]:
    with av.open(str(path)) as file:
        found = {**file.metadata, **file.streams.audio[0].metadata}
    return {name.lower(): text for name, text in found.items()}


def comment_of(path: Path) -> str:
    return metadata_of(path)["comment"]


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as file:
        return [bytes(packet) for packet in file.demux() if packet.size]


def set_comment(path: Path, text: str, seen: list[str] | None = None) -> Path:
    """Return a copy of a file with another comment."""
    target = path.with_name("changed" + path.suffix)

    def change(old: str) -> str:
        if seen is not None:
            seen.append(old)
        return text

    write_commented(path, target, change)
    return target


KINDS: dict[str, Callable[[Path], Path]] = {
    "wav": lambda folder: encode(folder / "a.wav", "pcm_s16le"),
    "flac": lambda folder: encode(folder / "a.flac", "flac"),
    "mp3": lambda folder: encode(folder / "a.mp3", "libmp3lame"),
    "mp3 without a header": lambda folder: encode(
        folder / "a.mp3", "libmp3lame", write_xing="0", id3v2_version="0"
    ),
    "mp3, ID3 2.3": lambda folder: encode(folder / "a.mp3", "libmp3lame", id3v2_version="3"),
    "opus": lambda folder: encode(folder / "a.opus", "libopus"),
    "aac": lambda folder: encode(folder / "a.m4a", "aac"),
    "aac, moov first": lambda folder: encode(folder / "a.m4a", "aac", movflags="faststart"),
    "alac": lambda folder: encode(folder / "a.m4a", "alac"),
}
TEXTS = {"title": "Nächte", "artist": "somebody"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["[audiosearch: Dog]", "犬 ÿ " + "long " * 500])
def test_nothing_but_the_comment_changes(tmp_path: Path, kind: str, text: str) -> None:
    path = KINDS[kind](tmp_path)
    before = metadata_of(path)
    changed = set_comment(path, text)
    assert metadata_of(changed) == before | {"comment": text}
    assert packets(changed) == packets(path)
    assert np.array_equal(audio.load(changed), audio.load(path))
    again = set_comment(changed.rename(tmp_path / f"b{path.suffix}"), "short")
    assert metadata_of(again) == before | {"comment": "short"}
    assert np.array_equal(audio.load(again), audio.load(path))


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp3", "libmp3lame"), ("a.flac", "flac"), ("a.opus", "libopus"), ("a.m4a", "aac")],
)
def test_the_comment_that_is_there_is_found_and_other_texts_stay(
    tmp_path: Path, name: str, codec: str
) -> None:
    path = encode(tmp_path / name, codec, metadata=TEXTS | {"comment": "mine ü"})
    seen: list[str] = []
    changed = set_comment(path, "mine ü, and more", seen)
    assert seen == ["mine ü"]
    assert metadata_of(changed) == metadata_of(path) | {"comment": "mine ü, and more"}


@pytest.mark.parametrize("ending", ["ogg", "wav", "flac", "mp3"])
def test_what_libsndfile_wrote(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    with soundfile.SoundFile(path, "w", 48000, 1) as file:
        file.title, file.comment = "here", "there"
        for part in np.split(tone(48000), 20):  # all at once is too much for its Vorbis encoder
            file.write(part)
    seen: list[str] = []
    with soundfile.SoundFile(set_comment(path, "elsewhere", seen)) as file:
        assert (file.title, file.comment, seen) == ("here", "elsewhere", ["there"])
        assert np.array_equal(file.read(), soundfile.read(path)[0])


def crc(page: bytes) -> int:
    """As Ogg's definition says it, bit by bit."""
    value = 0
    for byte in page[:22] + bytes(4) + page[26:]:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value >> 31 else 0)) & 0xFFFFFFFF
    return value


def test_pages_of_ogg_are_numbered_and_checked_anew(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.opus", "libopus")
    data, numbers, at = set_comment(path, "x" * 200_000).read_bytes(), [], 0
    while at < len(data):
        segments = data[at + 26]
        end = at + 27 + segments + sum(data[at + 27 : at + 27 + segments])
        numbers.append(struct.unpack_from("<I", data, at + 18)[0])
        assert struct.unpack_from("<I", data, at + 22)[0] == crc(data[at:end])
        at = end
    assert numbers == list(range(len(numbers)))
    # Four pages of comments, where one was; the sound is on the same pages as before.
    assert len(numbers) == path.read_bytes().count(b"OggS") + 3


def picture() -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format="image2pipe") as file:
        stream: Any = file.add_stream("png", rate=1)
        stream.width = stream.height = 8
        stream.pix_fmt = "rgb24"
        frame = av.VideoFrame.from_ndarray(np.full((8, 8, 3), 99, np.uint8), format="rgb24")
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            file.mux(packet)
    return out.getvalue()


def frame_23(name: bytes, body: bytes) -> bytes:
    return name + len(body).to_bytes(4, "big") + b"\0\0" + body


def id3(version: int, flags: int, body: bytes) -> bytes:
    size = bytes(len(body) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3" + bytes([version, 0, flags]) + size + body


def bare_mp3(folder: Path) -> bytes:
    return KINDS["mp3 without a header"](folder).read_bytes()


def test_pictures_and_unknown_frames_stay(tmp_path: Path) -> None:
    cover = frame_23(b"APIC", b"\0image/png\0\3\0" + picture())
    private = frame_23(b"PRIV", b"somebody\0\xff\xfb\0")
    path = tmp_path / "a.mp3"
    path.write_bytes(id3(3, 0, cover + private + bytes(100)) + bare_mp3(tmp_path))
    FileTags(str(path), ("Dog",)).perform()
    after = path.read_bytes()
    assert cover + private in after
    assert comment_of(path) == "[audiosearch: Dog]"
    with av.open(str(path)) as file:
        assert [stream.type for stream in file.streams] == ["audio", "video"]


@pytest.mark.parametrize(
    ("version", "flags", "body", "old"),
    [
        (2, 0, b"COM\0\0\x0a\0eng\0hello" + b"TT2\0\0\5\0here", "hello"),
        (3, 0, frame_23(b"COMM", b"\1eng\xff\xfe\0\0\xff\xfeh\0i\0"), "hi"),
        # A comment with a description is not the comment.
        (3, 0, frame_23(b"COMM", b"\0engiTunNORM\0 0001"), ""),
        # "Unsynchronised": a zero after each 0xFF, in version 2.3 in the whole tag.
        (3, 0x80, frame_23(b"COMM", b"\0eng\0a\xff\0\xff\0b").replace(b"\x0b", b"\x09"), "aÿÿb"),
        (4, 0, b"COMM\0\0\0\x09\0\0\3eng\0\xc3\xbc\xc3\xbc", "üü"),
        (4, 0, b"COMM\0\0\0\x0c\0\3\0\0\0\x07\0eng\0a\xff\0", "aÿ"),
        # Extended headers: version 2.3 with its size apart, 2.4 with it included.
        (3, 0x40, b"\0\0\0\6" + bytes(6) + frame_23(b"COMM", b"\0eng\0yes"), "yes"),
        (4, 0x40, b"\0\0\0\6\1\0" + b"COMM\0\0\0\x08\0\0\0eng\0yes", "yes"),
    ],
)
def test_all_kinds_of_id3_tags(
    tmp_path: Path, version: int, flags: int, body: bytes, old: str
) -> None:
    sound = bare_mp3(tmp_path)
    path = tmp_path / "a.mp3"
    path.write_bytes(id3(version, flags, body) + sound)
    seen: list[str] = []
    changed = set_comment(path, "new ÿ 犬", seen)
    assert seen == [old]
    assert comment_of(changed) == "new ÿ 犬"
    assert changed.read_bytes().endswith(sound)
    assert np.array_equal(audio.load(changed), audio.load(path))


def test_what_an_id3v1_tag_says_is_in_the_new_one_too(tmp_path: Path) -> None:
    fields = b"TAG" + b"song".ljust(30, b"\0") + b"band".ljust(30) + bytes(30) + b"1999"
    path = tmp_path / "a.mp3"
    path.write_bytes(bare_mp3(tmp_path) + fields + b"mine".ljust(29, b"\0") + b"\7" + b"\x11")
    before = metadata_of(path)
    seen: list[str] = []
    after = metadata_of(set_comment(path, "mine and more", seen))
    assert seen == ["mine"]
    assert before["track"] == "7"
    for name in ("title", "artist", "date", "genre", "track"):
        assert after[name] == before[name], name


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.mp3", b"RIFF" + bytes(100), "does not begin as an mp3"),
        ("a.mp3", id3(3, 0, b"com\0\0\0\0\0\0\0") + bytes(99), "not known here"),
        ("a.mp3", id3(3, 0, frame_23(b"TIT2", b"\0x"))[:15], "cut off"),
        ("a.flac", b"ID3\3" + bytes(100), "does not begin as a FLAC"),
        ("a.flac", b"fLaC\4\0\0\x08" + b"\xff" * 8 + bytes(40), "comments are damaged"),
        ("a.ogg", b"OggS" + bytes(10), "cut off"),
        ("a.ogg", b"OggS\0\2" + bytes(20) + b"\1\5Speex", "neither Ogg Vorbis nor Opus"),
        ("a.m4a", struct.pack(">I4s", 8, b"ftyp") * 2, "no plain m4a"),
        ("a.m4a", struct.pack(">I4s", 9999, b"ftyp"), "damaged"),
        ("a.wav", b"RIFX\4\0\0\0WAVE", "no plain wav"),
        ("a.wav", b"RIFF\x10\0\0\0WAVEdata\xff\xff\0\0", "does not fit"),
    ],
)
def test_what_is_not_built_as_it_should_be_is_refused(
    tmp_path: Path, name: str, data: bytes, said: str
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(UntouchableError, match=said):
        set_comment(path, "x")
    with pytest.raises(AudioDecodeError, match=said):
        FileTags(str(path), ("Dog",)).perform()
    assert path.read_bytes() == data


@pytest.mark.parametrize("kind", ["mp3", "flac", "opus", "aac", "wav"])
def test_files_cut_anywhere_are_refused_or_keep_their_sound(tmp_path: Path, kind: str) -> None:
    whole = KINDS[kind](tmp_path)
    data = whole.read_bytes()
    path = tmp_path / f"cut{whole.suffix}"
    for length in (*range(0, 600, 7), len(data) // 2, len(data) - 5):
        path.write_bytes(data[:length])
        try:
            changed = set_comment(path, "x")
        except UntouchableError:
            continue
        try:
            sound = audio.load(path)
        except AudioError:
            continue
        assert np.array_equal(audio.load(changed), sound)
