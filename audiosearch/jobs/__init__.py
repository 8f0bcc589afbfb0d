"""What indexing, tagging and uploads run on: analysis, isolated workers, journal, progress."""

from audiosearch.jobs.analysis import (
    Analysis,
    Analyzer,
    AnalyzerSettings,
    Chore,
    Collector,
    Reduced,
    Reduction,
    Segment,
)
from audiosearch.jobs.groups import Groups
from audiosearch.jobs.items import Entry, Item
from audiosearch.jobs.journal import Journal
from audiosearch.jobs.pool import MEMORY_LIMIT, TIME_LIMIT, WorkerPool, core_count
from audiosearch.jobs.progress import Meter, Progress

__all__ = [
    "MEMORY_LIMIT",
    "TIME_LIMIT",
    "Analysis",
    "Analyzer",
    "AnalyzerSettings",
    "Chore",
    "Collector",
    "Entry",
    "Groups",
    "Item",
    "Journal",
    "Meter",
    "Progress",
    "Reduced",
    "Reduction",
    "Segment",
    "WorkerPool",
    "core_count",
]
