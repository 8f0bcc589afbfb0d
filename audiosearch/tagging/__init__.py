"""Tagging: the best classes of files, clips and segments, printed or written by a job."""

from audiosearch.tagging.batch import TagSummary, tag_batch
from audiosearch.tagging.events import EventRules
from audiosearch.tagging.rules import TagRules, class_keys
from audiosearch.tagging.tags import TagResult, tag, tag_files, tag_packed

__all__ = [
    "EventRules",
    "TagResult",
    "TagRules",
    "TagSummary",
    "class_keys",
    "tag",
    "tag_batch",
    "tag_files",
    "tag_packed",
]
