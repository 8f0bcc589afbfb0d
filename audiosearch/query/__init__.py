"""Queries: text to a tree of sounds and filters, with errors that point at the character.

`parse` reads the language that docs/search.md explains. `Vocabulary` knows what words stand for.
"""

from audiosearch.query.leaves import FIELDS
from audiosearch.query.parsing import MAX_LENGTH, parse
from audiosearch.query.thesaurus import THESAURUS, Thesaurus, read_thesaurus
from audiosearch.query.tokens import label_query
from audiosearch.query.tree import (
    All,
    Confirmed,
    DurationFilter,
    Either,
    Filter,
    Group,
    Node,
    Not,
    OwnLabel,
    PathFilter,
    Range,
    ScoreFilter,
    Term,
    YearFilter,
)
from audiosearch.query.vocabulary import Completion, Vocabulary, load_vocabulary

__all__ = [
    "FIELDS",
    "MAX_LENGTH",
    "THESAURUS",
    "All",
    "Completion",
    "Confirmed",
    "DurationFilter",
    "Either",
    "Filter",
    "Group",
    "Node",
    "Not",
    "OwnLabel",
    "PathFilter",
    "Range",
    "ScoreFilter",
    "Term",
    "Thesaurus",
    "Vocabulary",
    "YearFilter",
    "label_query",
    "load_vocabulary",
    "parse",
    "read_thesaurus",
]
