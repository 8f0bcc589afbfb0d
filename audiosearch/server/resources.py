"""Where the templates and static files lie, and how a page refers to a static file."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from audiosearch.errors import ServerError
from audiosearch.storage import resource_path

__all__ = ["asset_version", "static_folder", "template_folder"]


def template_folder() -> Path:
    """Return the folder of the Jinja templates."""
    return _web_folder("templates")


def static_folder() -> Path:
    """Return the folder of what the browser fetches: style, script, icon."""
    return _web_folder("static")


@functools.cache
def asset_version(name: str) -> str:
    """Return eight hexadecimal digits that change when the static file `name` changes.

    They go into its URL, so that a browser may keep the file for good and still gets a new one
    after an update.
    """
    return hashlib.sha256((static_folder() / name).read_bytes()).hexdigest()[:8]


@functools.cache
def _web_folder(name: str) -> Path:
    """Return a folder of ``audiosearch._web``, which is ``web/`` in a checkout.

    Raises
    ------
    ServerError
        When the installation lacks it.
    """
    try:
        folder = resource_path("audiosearch._web", name)
    except ModuleNotFoundError:
        # A checkout on the path that was never installed has no such package.
        folder = Path(__file__).resolve().parents[2] / "web" / name
    if not folder.is_dir():
        raise ServerError(
            f"The web pages are missing from this installation: {folder} is not there. "
            "Install audiosearch again."
        )
    return folder
