"""Examples of answers for the OpenAPI document; a test holds them against the schemas."""

from __future__ import annotations

from typing import Any

__all__ = ["SEARCH", "TAGS"]

_RAIN = {"label": "Rain", "mid": "/m/06mb1", "score": 0.97}
_DROPS = {"label": "Raindrop", "mid": "/t/dd00038", "score": 0.81}

SEARCH: dict[str, Any] = {
    "query": "rain -music",
    "total": 1,
    "total_clips": 2,
    "grouped": True,
    "offset": 0,
    "limit": 20,
    "hits": [
        {
            "recording": "/home/ada/Recordings/garden.wav",
            "source": "file",
            "recording_id": 3,
            "clip": 12,
            "start": 9.6,
            "end": 19.2,
            "score": 0.97,
            "label": "Rain",
            "tags": [_RAIN, _DROPS],
            "labels": None,
            "moments": [{"clip": 13, "start": 19.2, "end": 25.0, "score": 0.9, "label": "Rain"}],
            "copies": [],
            "why": [
                {"term": "rain", "score": 0.97, "excluded": False, "classes": [_RAIN]},
                {
                    "term": "music",
                    "score": 0.01,
                    "excluded": True,
                    "classes": [{"label": "Music", "mid": "/m/04rlf", "score": 0.01}],
                },
            ],
            "match": None,
            "corrections": [],
        }
    ],
}

TAGS: dict[str, Any] = {
    "path": "garden.wav",
    "start": 0.0,
    "end": 25.0,
    "tags": [_RAIN, _DROPS],
    "clips": [{"start": 0.0, "end": 9.6, "tags": [_DROPS]}],
    "frames": {
        "step": 0.96,
        "classes": [
            {"label": "Rain", "mid": "/m/06mb1", "score": 0.97, "scores": [0.4, 0.97, 0.9]}
        ],
    },
}
