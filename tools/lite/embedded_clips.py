"""What a rescorer is fitted to: the clips of all shards, embedded, with the teacher's tags."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.datasets.packed import CLIP_FRAMES, FRAME_VALUES
from audiosearch.errors import DataError
from audiosearch.storage import atomic_path, sha256_file
from tools.lite.measures import Embed
from tools.lite.shards import Shard, decode_log_mel, shard_folders
from tools.lite.teacher import decode_embedding
from tools.lite.windows import Windows

__all__ = ["EmbeddedClips", "embed_shards"]

Hear = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]

_PATCHES_AT_ONCE = 2048


@dataclass(frozen=True)
class EmbeddedClips:
    """The clips of all shards as an embedder sees them.

    Attributes
    ----------
    x : uint8 (clips, 10, 128)
        Embedding frames.
    n_frames : int64 (clips,)
        How many frames each clip has.
    target : uint8 (clips, 527)
        The teacher's tags times 255.
    mixed : bool (clips,)
        Whether it is a mix.
    group : int64 (clips,)
        Equal for clips whose first sound is of one package.
    heard : uint8 (frames, 527)
        The teacher's scores of each frame times 255; the frames of all clips in a row.
    """

    x: npt.NDArray[np.uint8]
    n_frames: npt.NDArray[np.int64]
    target: npt.NDArray[np.uint8]
    mixed: npt.NDArray[np.bool_]
    group: npt.NDArray[np.int64]
    heard: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.x)

    def part(self, chosen: npt.NDArray[np.bool_]) -> EmbeddedClips:
        """Return the clips that are chosen, (clips,)."""
        return EmbeddedClips(
            self.x[chosen],
            self.n_frames[chosen],
            self.target[chosen],
            self.mixed[chosen],
            self.group[chosen],
            self.heard[np.repeat(chosen, self.n_frames)],
        )

    def held_out(self, share: float) -> npt.NDArray[np.bool_]:
        """Tell which clips belong to the share of packages that is held out."""
        drawn = np.random.default_rng(0).random(int(self.group.max()) + 1)
        result: npt.NDArray[np.bool_] = drawn[self.group] < share
        return result


def embed_shards(
    work: Path,
    embed: Embed,
    digest: str,
    hear: Hear,
    *,
    say: Callable[[str], None] = print,
) -> EmbeddedClips:
    """Return the clips of all shards of a work folder, as an embedder sees them.

    What was embedded is kept in ``WORK/embedded``; shards that are there are not embedded again.

    Parameters
    ----------
    work : Path
        With ``windows`` and ``shards``.
    embed : callable
        The embedder.
    digest : str
        SHA-256 of its weights.
    hear : callable
        The teacher's last layer: its embeddings (n, 1024) to scores (n, 527).
    say : callable
        Called with a line a shard.

    Raises
    ------
    DataError
        When there are no windows or clean shards.
    """
    folders = shard_folders(work / "shards", "clean")
    clean = len(folders)
    try:
        folders = [*folders, *shard_folders(work / "shards", "mixed")]
    except DataError:
        say("there are no mixed shards; clean ones are used alone")
    packages = [row.package for row in Windows(work / "windows").rows]
    known = {package: number for number, package in enumerate(sorted(set(packages)))}
    of_window = np.array([known[package] for package in packages], np.int64)
    parts: list[tuple[Any, ...]] = []
    for number, folder in enumerate(folders):
        shard = Shard(folder)
        name = f"{folder.name}-{sha256_file(folder / 'clips.npz')[:12]}-{digest[:12]}.npy"
        frames = _embedded(shard, embed, work / "embedded" / name, say)
        counts = np.minimum(np.diff(shard.start), CLIP_FRAMES)
        kept = np.arange(CLIP_FRAMES) < counts[:, None]
        rows = (shard.start[:-1, None] + np.arange(CLIP_FRAMES))[kept]
        x = np.zeros((len(shard), CLIP_FRAMES, FRAME_VALUES), np.uint8)
        x[kept] = frames[rows]
        # Clips of AudioSet stand behind the windows; each is a group of its own.
        source = shard.source
        inside = np.minimum(source, len(of_window) - 1)
        group = np.where(
            source < len(of_window), of_window[inside], len(known) + source - len(of_window)
        )
        mixed = np.full(len(shard), number >= clean)
        parts.append((x, counts, shard.target, mixed, group, _heard(shard, rows, hear)))
    return EmbeddedClips(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _heard(shard: Shard, rows: npt.NDArray[np.int64], hear: Hear) -> npt.NDArray[np.uint8]:
    """Return the teacher's scores of some patches of a shard, times 255."""
    found = [
        hear(decode_embedding(np.asarray(shard.embedding[rows[begin : begin + _PATCHES_AT_ONCE]])))
        for begin in range(0, len(rows), _PATCHES_AT_ONCE)
    ]
    return np.rint(np.concatenate(found) * 255).astype(np.uint8)


def _embedded(
    shard: Shard, embed: Embed, path: Path, say: Callable[[str], None]
) -> npt.NDArray[np.uint8]:
    """Return the embeddings of a shard's patches, (patches, 128)."""
    if not path.exists():
        parts = [
            embed(decode_log_mel(np.asarray(shard.log_mel[begin : begin + _PATCHES_AT_ONCE])))
            for begin in range(0, len(shard.log_mel), _PATCHES_AT_ONCE)
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.save(file, np.concatenate(parts))
        say(f"{path.name}: embedded {len(shard):,} clips")
    found: npt.NDArray[np.uint8] = np.load(path)
    return found
