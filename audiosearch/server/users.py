"""The users file: who may sign in, a line each, with a hash of the password (scrypt).

::

    # name:hash, or name:hash:listener
    ada:scrypt:32768:8:1$...
    eve:scrypt:32768:8:1$...:listener

A listener may search and hear everything, and change nothing. `add_user` writes such a line. The
file is read again when it changes; a user whose line is gone, or whose password was changed, is
signed out with the next request.
"""

from __future__ import annotations

import functools
import os
import re
import secrets
import threading
import unicodedata
from pathlib import Path
from typing import NamedTuple

from werkzeug.security import check_password_hash, generate_password_hash

from audiosearch.errors import InvalidArgumentError, ServerError, printable
from audiosearch.storage import atomic_path

__all__ = ["SHORTEST_PASSWORD", "Users", "add_user"]

SHORTEST_PASSWORD = 10
"""How many characters a password has at least."""

_LONGEST_PASSWORD = 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_HASH = re.compile(r"scrypt:(\d{1,8}):(\d{1,3}):(\d{1,3})\$[^$\s]{8,}\$[0-9a-f]{128}")
_MOST_MEMORY = 256 * 2**20
_LISTENER = ":listener"


class _User(NamedTuple):
    hash: str
    listens: bool


class Users:
    """Those who may sign in.

    Parameters
    ----------
    path : path-like
        The users file.

    Raises
    ------
    ServerError
        When it cannot be read, a line of it is wrong, or it names nobody.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        # Checking a password takes 32 MB and a tenth of a second: one at a time.
        self._checking = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._known: dict[str, _User] = {}
        if not self._current():
            raise ServerError(
                f"{printable(str(self.path))} names no user. Add one: "
                f"audiosearch serve --users {printable(str(self.path))} --add-user NAME"
            )

    def proof(self, name: str) -> str | None:
        """Return what a session of a user rests on; None where there is no such user."""
        known = self._current().get(name)
        return known.hash if known else None

    def listens(self, name: str) -> bool:
        """Tell whether a user may only search and hear; so may one that there is not."""
        known = self._current().get(name)
        return known is None or known.listens

    def check(self, name: str, password: str) -> str | None:
        """Return the `proof` of a user who knows the password, else None.

        It takes as long for a name that there is not.
        """
        known = self.proof(name)
        if len(password) > _LONGEST_PASSWORD:
            return None
        with self._checking:
            right = check_password_hash(known or _nobody(), _same(password))
        return known if right and known is not None else None

    def _current(self) -> dict[str, _User]:
        """Return the users by name, read again where the file changed."""
        with self._lock:
            try:
                state = self.path.stat()
                stamp = (state.st_mtime_ns, state.st_size, state.st_ino)
                if stamp != self._stamp:
                    self._known = _read(self.path)
                    self._stamp = stamp
            except FileNotFoundError:
                if self._stamp is None:
                    raise ServerError(
                        f"{printable(str(self.path))}: there is no such users file. Make it: "
                        f"audiosearch serve --users {printable(str(self.path))} --add-user NAME"
                    ) from None
                # A file that was deleted lets nobody in.
                self._known, self._stamp = {}, (0, 0, 0)
            except OSError as error:
                raise ServerError(
                    f"{printable(str(self.path))} cannot be read: {error.strerror}."
                ) from error
            return self._known


def add_user(
    path: str | os.PathLike[str], name: str, password: str, *, listener: bool = False
) -> bool:
    """Add a user to a users file, or give one a new password; the file is made where needed.

    Nobody but its owner can read the file then.

    Parameters
    ----------
    path : path-like
        The file.
    name, password : str
        The user's.
    listener : bool
        Whether the user may only search and hear; a user who is there already becomes what is said.

    Returns
    -------
    bool
        Whether the user is new.

    Raises
    ------
    InvalidArgumentError
        When nobody can be called so, or the password is too short or too long.
    ServerError
        When the file is no users file.
    StorageError
        When it cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise InvalidArgumentError(
            f"A user's name has 1 to 64 letters (a to z), digits and . _ @ -, not '{name}'."
        )
    if not SHORTEST_PASSWORD <= len(password) <= _LONGEST_PASSWORD:
        raise InvalidArgumentError(
            f"A password has {SHORTEST_PASSWORD} to {_LONGEST_PASSWORD:,} characters, not "
            f"{len(password):,}."
        )
    target = Path(path)
    lines: list[str] = []
    if target.exists():
        _read(target)
        lines = target.read_text(encoding="utf-8").splitlines()
    line = f"{name}:{generate_password_hash(_same(password))}{_LISTENER if listener else ''}"
    kept = [each for each in lines if each.partition(":")[0].strip() != name]
    with atomic_path(target, private=True) as temporary:
        temporary.write_text("\n".join([*kept, line]) + "\n", encoding="utf-8")
    return len(kept) == len(lines)


def _same(password: str) -> str:
    """Return a password as it is hashed: keyboards write one letter in several ways."""
    return unicodedata.normalize("NFC", password)


@functools.cache
def _nobody() -> str:
    """Return the hash of a password that nobody knows."""
    return generate_password_hash(secrets.token_urlsafe(16))


def _read(path: Path) -> dict[str, _User]:
    users: dict[str, _User] = {}
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ServerError(f"{printable(str(path))} is no users file: it is not UTF-8.") from error
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, _, hashed = (part.strip() for part in line.partition(":"))
        listens = hashed.endswith(_LISTENER)
        hashed = hashed.removesuffix(_LISTENER)
        cost = _HASH.fullmatch(hashed)
        if not _NAME.fullmatch(name) or not cost or name in users:
            raise ServerError(
                f"{printable(str(path))}, line {number}: a line is a name that stands once, a "
                "colon and the hash of a password, for a listener followed by ':listener'. Let it "
                "be written: "
                f"audiosearch serve --users {printable(str(path))} --add-user NAME"
            )
        n, r, p = map(int, cost.groups())
        if n < 2 or n & (n - 1) or r < 1 or p < 1 or 128 * n * r * p > _MOST_MEMORY:
            raise ServerError(
                f"{printable(str(path))}, line {number}: the cost of the hash is not usable."
            )
        users[name] = _User(hashed, listens)
    return users
