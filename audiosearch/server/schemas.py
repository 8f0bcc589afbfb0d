"""The schemas of the API's answers, as JSON Schema; tests hold the answers against them.

Every object is closed: an answer that has more than its schema says fails the tests.
"""

from __future__ import annotations

from typing import Any

__all__ = ["SCHEMAS"]


def _object(properties: dict[str, Any], *, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(items: dict[str, Any], description: str) -> dict[str, Any]:
    return {"type": "array", "items": items, "description": description}


def _text(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **more}


def _whole(description: str) -> dict[str, Any]:
    return {"type": "integer", "minimum": 0, "description": description}


def _optional(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "type": [schema["type"], "null"]}


_SCORE = {
    "type": "number",
    "minimum": 0,
    "maximum": 1,
    "description": "From 0 to 1; it grows with certainty and is no probability.",
}
_SECONDS = {"type": "number", "minimum": 0, "description": "In seconds."}
_LABEL = _text("Name of a class.", examples=["Car"])
_MID = _text("Id of the class in AudioSet; empty for the user's own.", examples=["/m/0k4j"])
_OWN = {"type": "boolean", "description": "Whether it is of the user's own."}
_VERDICT = {"type": "string", "enum": ["confirmed", "rejected"]}
_PLACE = {
    "recording": _text("Path of the file as it was indexed, or id of the video or packed row."),
    "source": {"type": "string", "enum": ["file", "audioset", "packed"]},
    "recording_id": _whole("Number of the recording in the library."),
    "clip": _whole("Number of the clip in the library."),
    "start": _SECONDS,
    "end": _SECONDS,
}
_TRUE_LABELS = {
    "type": ["array", "null"],
    "items": {"type": "string"},
    "description": "True classes, where the source came with them.",
}
_CORRECTION = {
    "label": _text("A class, or a label of the user's own."),
    "mid": _optional(_text("Id of the class; null for a label of the user's own.")),
    "verdict": _VERDICT,
    "start": _SECONDS,
    "end": _SECONDS,
}

SCHEMAS: dict[str, dict[str, Any]] = {
    "Tag": _object({"label": _LABEL, "mid": _MID, "score": _SCORE}),
    "Span": _object({"start": _SECONDS, "end": _SECONDS}),
    "Moment": _object(
        {
            "clip": _PLACE["clip"],
            "start": _SECONDS,
            "end": _SECONDS,
            "score": _SCORE,
            "label": _LABEL,
        }
    ),
    "Correction": _object(_CORRECTION),
    "Reason": _object(
        {
            "term": _text("A term of the query, as it was written."),
            "score": _SCORE,
            "excluded": {"type": "boolean", "description": "Whether the query leaves it out."},
            "classes": _list(_ref("Tag"), "The classes that gave the score, at most three."),
        }
    ),
    "Hit": _object(
        {
            **_PLACE,
            "score": _SCORE,
            "label": _text("The class that matched best."),
            "tags": _list(_ref("Tag"), "The clip's five best classes."),
            "labels": _TRUE_LABELS,
            "moments": _list(_ref("Moment"), "The recording's other clips that match."),
            "copies": _list({"type": "string"}, "Exact copies, where they are folded."),
            "why": _list(_ref("Reason"), "What the scores say of each term of the query."),
            "match": {
                "oneOf": [_ref("Span"), {"type": "null"}],
                "description": "Of a search by example: what of the clip is alike, where known.",
            },
            "corrections": _list(_ref("Correction"), "What was confirmed and rejected here."),
        }
    ),
    "SearchResult": _object(
        {
            "query": _optional(_text("The query; null for a search by example alone.")),
            "total": _whole("How many recordings match."),
            "total_clips": _whole("How many clips match."),
            "grouped": {"type": "boolean", "description": "Whether a hit is a recording."},
            "offset": _whole("How many hits stand before these."),
            "limit": _whole("How many hits were asked for."),
            "hits": _list(_ref("Hit"), "Best first."),
        }
    ),
    "Clip": _object(
        {
            **_PLACE,
            "duration": _optional({**_SECONDS, "description": "Length of the recording."}),
            "tags": _list(_ref("Tag"), "Its best classes, best first."),
            "labels": _TRUE_LABELS,
            "corrections": _list(_ref("Correction"), "What was confirmed and rejected here."),
        }
    ),
    "ClipTags": _object(
        {"start": _SECONDS, "end": _SECONDS, "tags": _list(_ref("Tag"), "Best first.")}
    ),
    "FrameScores": _object(
        {
            "step": {**_SECONDS, "description": "Seconds from one frame to the next."},
            "classes": _list(
                _object(
                    {
                        "label": _LABEL,
                        "mid": _MID,
                        "score": _SCORE,
                        "scores": _list(_SCORE, "One a frame, from the start of the sound."),
                    }
                ),
                "The classes with the highest scores.",
            ),
        }
    ),
    "TagResult": _object(
        {
            "path": _text("The name of the file that was sent."),
            "start": _SECONDS,
            "end": {**_SECONDS, "description": "Length of the sound, in seconds."},
            "tags": _list(_ref("Tag"), "Best first: the highest score over the clips."),
            "clips": _list(_ref("ClipTags"), "Of each clip of 9.6 s, where asked for."),
            "frames": _ref("FrameScores"),
        },
        optional=("clips", "frames"),
    ),
    "ClassCount": _object(
        {
            "mid": _MID,
            "label": _LABEL,
            "index": {
                "type": ["integer", "null"],
                "description": "Column in score vectors; null of a group without a score.",
            },
            "children": _list(_MID, "What stands right below it in the ontology."),
            "recordings": _whole("How many recordings a search for it finds."),
            "clips": _whole("How many clips a search for it finds."),
            "own_classifier": _optional(
                _text("Of a class of the user's own, its classifier; null of AudioSet's.")
            ),
        }
    ),
    "ClassList": _object(
        {
            "classes": _list(
                _ref("ClassCount"), "In the order of the ontology's file, then the user's own."
            )
        }
    ),
    "Completion": _object(
        {
            "text": _text("A word or a name that can be searched for."),
            "label": _text("The class or group that it stands for."),
            "count": _whole("How many recordings it finds."),
            "query": _text("The whole query with it."),
            "own": _OWN,
        }
    ),
    "CompletionList": _object({"completions": _list(_ref("Completion"), "Likeliest first.")}),
    "Facet": _object(
        {
            "text": _text("What it is."),
            "narrows": _text("The piece of a query that asks for it."),
            "query": _text("The whole query with it."),
            "count": _whole("How many recordings that finds."),
            "own": _OWN,
        }
    ),
    "Facets": _object(
        {
            "scores": _list(_ref("Facet"), "How surely the query is heard."),
            "classes": _list(_ref("Facet"), "What else is heard, the most first."),
            "folders": _list(_ref("Facet"), "Where the files lie."),
            "lengths": _list(_ref("Facet"), "How long the recordings are."),
            "years": _list(_ref("Facet"), "When the files were changed last."),
            "estimated": {
                "type": "boolean",
                "description": "Whether the counts of the classes come from a sample.",
            },
        }
    ),
    "Timeline": _object(
        {
            "recording_id": _PLACE["recording_id"],
            "start": _SECONDS,
            "end": _SECONDS,
            "step": {**_SECONDS, "description": "Seconds from one score to the next."},
            "curves": _list(
                _object({"label": _LABEL, "mid": _MID, "scores": _list(_SCORE, "One a step.")}),
                "The classes that are heard most surely, best first.",
            ),
            "unheard_by": _list(
                {"type": "string"}, "The user's own classifiers that have not heard this part."
            ),
        }
    ),
    "LibraryInfo": _object(
        {
            "folder": _text("Where it lies."),
            "format": _whole("Version of its format."),
            "version": _text("Version of audiosearch that made it."),
            "recordings": _whole("Recordings in it."),
            "clips": _whole("Clips in it."),
            "seconds": {**_SECONDS, "description": "Length of all recordings, in seconds."},
            "skipped": _whole("Files that could not be indexed."),
            "embedder": _text("What embedded the sounds."),
            "embedder_hash": _optional(_text("SHA-256 of the embedder.")),
            "mixed_with": _list({"type": "string"}, "Other embedders in the same library."),
            "classifier": _text("What scored the clips."),
            "classifier_hash": _text("SHA-256 of the classifier."),
            "own_classifiers": _list({"type": "string"}, "Classifiers of the user's own."),
            "own_classifier_hashes": _list({"type": "string"}, "SHA-256 of each."),
            "scores_only": _list(
                {"type": "string"}, "Those of which only what they heard is in the library."
            ),
            "own_classes": _list({"type": "string"}, "Their classes."),
            "unheard_clips": _whole("Clips that not all of them have heard."),
            "created": _text("When, ISO 8601."),
            "updated": _optional(_text("When it was changed last, ISO 8601.")),
            "segments": _whole("Files of scores."),
            "vector_index": _text("FAISS's factory string."),
            "recall_at_10": {
                "type": ["number", "null"],
                "description": "Share of the true neighbours that the index finds.",
            },
            "bytes": _whole("Size on disk."),
        }
    ),
    "UserLabel": _object({**_PLACE, **_CORRECTION}),
    "LabelList": _object(
        {
            "total": _whole("How many labels there are."),
            "offset": _whole("How many stand before these."),
            "limit": _whole("How many were asked for."),
            "labels": _list(_ref("UserLabel"), "In the order of the clips."),
        }
    ),
    "LabelChange": _object(
        {
            "changed": {"type": "boolean", "description": "Whether that was new."},
            "clip": _whole("The clip."),
            "corrections": _list(_ref("Correction"), "All that is said of the clip now."),
        }
    ),
    "Health": _object({"status": {"type": "string", "const": "ok"}}),
    "Problem": _object(
        {
            "type": _text("Which problem; 'about:blank' where it is no more than the status."),
            "title": _text("The same for every problem of this type."),
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": _text("What happened, and what to do."),
            "query": _text("Of a query that cannot be understood: the query."),
            "position": {
                "type": ["integer", "null"],
                "description": "Index of the first character that is at fault.",
            },
            "suggestions": _list({"type": "string"}, "What may have been meant."),
        },
        optional=("query", "position", "suggestions"),
    ),
}
