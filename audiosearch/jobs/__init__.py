"""What indexing, tagging and uploads run on: analysis of a file, isolated workers, progress."""

from audiosearch.jobs.analysis import Analysis, Analyzer, AnalyzerSettings, Segment
from audiosearch.jobs.pool import WorkerPool, core_count
from audiosearch.jobs.progress import Progress

__all__ = [
    "Analysis",
    "Analyzer",
    "AnalyzerSettings",
    "Progress",
    "Segment",
    "WorkerPool",
    "core_count",
]
