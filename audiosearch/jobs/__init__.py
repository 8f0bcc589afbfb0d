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
from audiosearch.jobs.items import Entry, Item
from audiosearch.jobs.journal import Journal
from audiosearch.jobs.pool import WorkerPool, core_count
from audiosearch.jobs.progress import Progress

__all__ = [
    "Analysis",
    "Analyzer",
    "AnalyzerSettings",
    "Chore",
    "Collector",
    "Entry",
    "Item",
    "Journal",
    "Progress",
    "Reduced",
    "Reduction",
    "Segment",
    "WorkerPool",
    "core_count",
]
