"""Tagging: the best classes of a file or of a row of a packed file."""

from audiosearch.tagging.tags import TagResult, tag, tag_files, tag_packed

__all__ = ["TagResult", "tag", "tag_files", "tag_packed"]
