"""Training of the bundled embedder: sounds, teacher, student, measures.

    python -m tools.lite --help

`docs/models/lite.md` says what is done and why.
"""
