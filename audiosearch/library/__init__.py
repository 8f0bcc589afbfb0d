"""What has been indexed: catalogue, score columns, vectors, and the `Library` over them.

`Library` is opened and searched here; `audiosearch.library.indexing` fills one.
"""

from audiosearch.library.hits import Clip, Hit, Moment, SearchResult, Tag
from audiosearch.library.library import Library, LibraryInfo

__all__ = ["Clip", "Hit", "Library", "LibraryInfo", "Moment", "SearchResult", "Tag"]
