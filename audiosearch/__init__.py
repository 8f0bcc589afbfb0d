"""audiosearch finds and tags sounds by what is in them.

>>> import audiosearch as aus
>>> library = aus.open_library()
>>> library.search("Car").hits[0].label
'Car'

Names are imported when they are first used, so importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from audiosearch.version import __version__

if TYPE_CHECKING:
    from audiosearch.api import default_library, embed, open_library, shipped_library
    from audiosearch.classifier.evaluation import Evaluation, evaluate
    from audiosearch.classifier.published import ImportedWeights, import_weights
    from audiosearch.classifier.training import TrainingConfig, TrainingRun, train
    from audiosearch.errors import AudioSearchError
    from audiosearch.jobs.progress import Progress
    from audiosearch.library.additions import add_sound
    from audiosearch.library.collection_map import CollectionMap, collection_map
    from audiosearch.library.duplicates import DuplicateGroup, duplicates
    from audiosearch.library.examples import Example
    from audiosearch.library.findings import Finding, Verification
    from audiosearch.library.hits import (
        Clip,
        Correction,
        Hit,
        Moment,
        Reason,
        SearchResult,
        Span,
        Tag,
        UserLabel,
    )
    from audiosearch.library.indexing import IndexSummary, index
    from audiosearch.library.label_files import (
        LabelExport,
        LabelImport,
        export_labels,
        import_labels,
    )
    from audiosearch.library.labelling import LabelChange
    from audiosearch.library.library import Library, LibraryInfo
    from audiosearch.library.packing import PackSummary, pack
    from audiosearch.library.relocation import Relocation, relocate
    from audiosearch.library.search_evaluation import (
        SearchEvaluation,
        SearchMeasure,
        evaluate_search,
    )
    from audiosearch.library.statistics import Share, Statistics, statistics
    from audiosearch.library.transfer import (
        ExportSummary,
        ImportSummary,
        export,
        import_clips,
        merge,
    )
    from audiosearch.library.verification import verify
    from audiosearch.library.watching import watch
    from audiosearch.tagging.batch import TagSummary, tag_batch
    from audiosearch.tagging.events import EventRules
    from audiosearch.tagging.rules import TagRules
    from audiosearch.tagging.tags import TagResult, tag, tag_files, tag_packed
    from audiosearch.weights import (
        ModelInfo,
        ModelVerification,
        fetch_model,
        list_models,
        model_path,
        verify_model,
    )

_HOMES = {
    "AudioSearchError": "errors",
    "Clip": "library.hits",
    "CollectionMap": "library.collection_map",
    "Correction": "library.hits",
    "DuplicateGroup": "library.duplicates",
    "Evaluation": "classifier.evaluation",
    "EventRules": "tagging.events",
    "Example": "library.examples",
    "ExportSummary": "library.transfer",
    "Finding": "library.findings",
    "Hit": "library.hits",
    "ImportSummary": "library.transfer",
    "ImportedWeights": "classifier.published",
    "IndexSummary": "library.indexing",
    "LabelChange": "library.labelling",
    "LabelExport": "library.label_files",
    "LabelImport": "library.label_files",
    "Library": "library.library",
    "LibraryInfo": "library.library",
    "ModelInfo": "weights",
    "ModelVerification": "weights",
    "Moment": "library.hits",
    "PackSummary": "library.packing",
    "Progress": "jobs.progress",
    "Reason": "library.hits",
    "Relocation": "library.relocation",
    "SearchEvaluation": "library.search_evaluation",
    "SearchMeasure": "library.search_evaluation",
    "SearchResult": "library.hits",
    "Share": "library.statistics",
    "Span": "library.hits",
    "Statistics": "library.statistics",
    "Tag": "library.hits",
    "TagResult": "tagging.tags",
    "TagRules": "tagging.rules",
    "TagSummary": "tagging.batch",
    "TrainingConfig": "classifier.training",
    "TrainingRun": "classifier.training",
    "UserLabel": "library.hits",
    "Verification": "library.findings",
    "add_sound": "library.additions",
    "collection_map": "library.collection_map",
    "default_library": "api",
    "duplicates": "library.duplicates",
    "embed": "api",
    "evaluate": "classifier.evaluation",
    "evaluate_search": "library.search_evaluation",
    "export": "library.transfer",
    "export_labels": "library.label_files",
    "fetch_model": "weights",
    "import_clips": "library.transfer",
    "import_labels": "library.label_files",
    "import_weights": "classifier.published",
    "index": "library.indexing",
    "list_models": "weights",
    "merge": "library.transfer",
    "model_path": "weights",
    "open_library": "api",
    "pack": "library.packing",
    "relocate": "library.relocation",
    "shipped_library": "api",
    "statistics": "library.statistics",
    "tag": "tagging.tags",
    "tag_batch": "tagging.batch",
    "tag_files": "tagging.tags",
    "tag_packed": "tagging.tags",
    "train": "classifier.training",
    "verify": "library.verification",
    "verify_model": "weights",
    "watch": "library.watching",
}

__all__ = [
    "AudioSearchError",
    "Clip",
    "CollectionMap",
    "Correction",
    "DuplicateGroup",
    "Evaluation",
    "EventRules",
    "Example",
    "ExportSummary",
    "Finding",
    "Hit",
    "ImportSummary",
    "ImportedWeights",
    "IndexSummary",
    "LabelChange",
    "LabelExport",
    "LabelImport",
    "Library",
    "LibraryInfo",
    "ModelInfo",
    "ModelVerification",
    "Moment",
    "PackSummary",
    "Progress",
    "Reason",
    "Relocation",
    "SearchEvaluation",
    "SearchMeasure",
    "SearchResult",
    "Share",
    "Span",
    "Statistics",
    "Tag",
    "TagResult",
    "TagRules",
    "TagSummary",
    "TrainingConfig",
    "TrainingRun",
    "UserLabel",
    "Verification",
    "__version__",
    "add_sound",
    "collection_map",
    "default_library",
    "duplicates",
    "embed",
    "evaluate",
    "evaluate_search",
    "export",
    "export_labels",
    "fetch_model",
    "import_clips",
    "import_labels",
    "import_weights",
    "index",
    "list_models",
    "merge",
    "model_path",
    "open_library",
    "pack",
    "relocate",
    "shipped_library",
    "statistics",
    "tag",
    "tag_batch",
    "tag_files",
    "tag_packed",
    "train",
    "verify",
    "verify_model",
    "watch",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'audiosearch' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"audiosearch.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
