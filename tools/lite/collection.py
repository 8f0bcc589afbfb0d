"""Download of packages, and a store of the sounds in them.

A sound lies in the store under its checksum, ``ab/abcdef0123456789.ogg``, so that the same file of
two packages is kept once and what is there already is not fetched again.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from audiosearch.errors import DataError
from audiosearch.storage import atomic_path, sha256_file
from tools.lite.archives import is_sound, read_package
from tools.lite.catalogue import Package, Sound

__all__ = ["SoundStore", "collect", "configured_mirror", "fetch", "short_sha1"]

_TIMEOUT = 120.0
_GITHUB = "https://codeload.github.com"


class SoundStore:
    """A folder of sound files named by their checksum.

    Parameters
    ----------
    folder : Path
        Its place; made when something is added.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, sha1: str) -> Path | None:
        """Return the file with this checksum (16 digits), or None."""
        return next(iter(sorted((self.folder / sha1[:2]).glob(f"{sha1}.*"))), None)

    def add(self, name: str, data: bytes) -> str:
        """Keep a sound; return its checksum of 16 digits."""
        sha1 = short_sha1(data)
        if self.find(sha1) is None:
            ending = PurePosixPath(name).suffix.lower()
            with atomic_path(self.folder / sha1[:2] / f"{sha1}{ending}") as temporary:
                temporary.write_bytes(data)
        return sha1


def short_sha1(data: bytes) -> str:
    """Return the first 16 hexadecimal digits of the SHA-1 of `data`."""
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()[:16]


def collect(
    packages: Iterable[Package],
    sounds: Iterable[Sound],
    store: SoundStore,
    *,
    mirror: str | None = None,
    clones: Path | None = None,
    say: Callable[[str], None] = print,
) -> int:
    """Fetch the packages of the sounds that the store does not hold; return how many are missing.

    Parameters
    ----------
    packages, sounds
        As `read_packages` and `read_sounds` give them.
    store : SoundStore
        Where the sounds go.
    mirror : str, optional
        Address of a Debian mirror; that of the machine's own package manager where None.
    clones : Path, optional
        Folder with clones of GitHub repositories, ``owner/name``, that are taken instead of
        downloading them.
    say : callable
        Called with a line a package.
    """
    wanted: dict[str, set[str]] = {}
    for sound in sounds:
        if store.find(sound.sha1) is None:
            wanted.setdefault(sound.package, set()).add(sound.sha1)
    missing = 0
    for package in packages:
        left = wanted.get(package.package, set())
        if not left:
            continue
        count = len(left)
        try:
            with tempfile.TemporaryDirectory(dir=store.folder.parent) as scratch:
                archive = fetch(package, Path(scratch), mirror=mirror, clones=clones)
                for name, data in read_package(archive):
                    if is_sound(name) and short_sha1(data) in left:
                        left.discard(store.add(name, data))
        except DataError as error:
            say(f"{package.package}: {error}")
        missing += len(left)
        say(f"{package.package} {package.version}: {count - len(left)} of {count} sounds")
    return missing


def fetch(
    package: Package, folder: Path, *, mirror: str | None = None, clones: Path | None = None
) -> Path:
    """Download a package file into `folder` and verify its checksum where one is known.

    Raises
    ------
    DataError
        When it cannot be had, or is another file than the list says.
    """
    if package.registry in ("debian", "debian-source"):
        archive = _download(f"{mirror or configured_mirror()}/{package.file}", folder)
    elif package.registry == "npm":
        archive = _run(["npm", "pack", "--silent", f"{package.package}@{package.version}"], folder)
    elif package.registry == "pypi":
        requirement = f"{package.package}=={package.version}"
        archive = _run(["pip", "download", "-q", "--no-deps", requirement], folder)
    elif package.registry == "github":
        clone = clones / package.package if clones else None
        if clone is not None and clone.is_dir():
            archive = _cloned_sounds(clone, package, folder)
        else:
            archive = _download(f"{_GITHUB}/{package.package}/tar.gz/{package.version}", folder)
    else:
        raise DataError(f"{package.package}: there is no registry '{package.registry}'.")
    if package.sha256 and (found := sha256_file(archive)) != package.sha256:
        raise DataError(
            f"{package.package} {package.version} has the SHA-256 {found}; the list says "
            f"{package.sha256}."
        )
    return archive


@functools.cache
def configured_mirror() -> str:
    """Return the address of the Debian mirror that this machine's package manager uses.

    Raises
    ------
    DataError
        When there is none.
    """
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        done = None
    for line in done.stdout.splitlines() if done else ():
        if line.rstrip("/").endswith("/debian"):
            return line.rstrip("/")
    raise DataError("No Debian mirror is configured on this machine. Name one with --mirror.")


def _download(address: str, folder: Path) -> Path:
    scheme = urllib.parse.urlsplit(address).scheme
    if scheme not in ("http", "https", "file"):
        raise DataError(f"{address} is not the address of a Debian mirror.")
    target = folder / PurePosixPath(urllib.parse.urlsplit(address).path).name
    try:
        with (
            urllib.request.urlopen(address, timeout=_TIMEOUT) as source,
            target.open("wb") as file,
        ):
            shutil.copyfileobj(source, file)
    except (urllib.error.URLError, OSError) as error:
        raise DataError(f"{address} could not be downloaded: {error}.") from error
    return target


def _cloned_sounds(clone: Path, package: Package, folder: Path) -> Path:
    """Write the sounds of a clone's commit as a tar file, under the names that a download has.

    A clone may lack files: those are left out.
    """
    git = ["git", "-c", "safe.directory=*", "-C", os.fspath(clone)]
    top = f"{PurePosixPath(package.package).name}-{package.version}"
    target = folder / f"{top}.tar"
    try:
        listed = subprocess.run(
            [*git, "ls-tree", "-r", "-z", package.version], capture_output=True, check=True
        ).stdout.decode("utf-8", "surrogateescape")
        rows = [row.partition("\t") for row in listed.split("\0") if row]
        sounds = [(about.split()[2], name) for about, _, name in rows if is_sound(name)]
        with (
            subprocess.Popen(
                [*git, "cat-file", "--batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            ) as objects,
            tarfile.open(target, "w") as archive,
        ):
            assert objects.stdin is not None
            assert objects.stdout is not None
            for sha1, name in sounds:
                objects.stdin.write(f"{sha1}\n".encode())
                objects.stdin.flush()
                header = objects.stdout.readline().split()
                if len(header) < 3:  # "<name> missing"
                    continue
                member = tarfile.TarInfo(f"{top}/{name}")
                member.size = int(header[2])
                archive.addfile(member, io.BytesIO(objects.stdout.read(member.size)))
                objects.stdout.read(1)
            objects.stdin.close()
    except (OSError, subprocess.CalledProcessError) as error:
        raise DataError(f"{clone} cannot be read as a clone: {error}.") from error
    return target


def _run(command: list[str], folder: Path) -> Path:
    """Run a registry's own downloader in an empty folder and return the file it left there."""
    try:
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError) as error:
        raise DataError(f"{' '.join(command)} failed: {error}.") from error
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if len(files) != 1:
        raise DataError(f"{' '.join(command)} left {len(files)} files instead of one.")
    return files[0]
