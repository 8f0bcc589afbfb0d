"""Write ``audiosearch/data/audioset.json``: AudioSet's 527 classes and the tree of its ontology.

Run it once, from AudioSet's own files:

    python tools/build_labels.py class_labels_indices.csv ontology.json

Only facts are taken over: class indices, mids, display names, and which node is whose child.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "audiosearch" / "data" / "audioset.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("classes", type=Path, help="class_labels_indices.csv")
    parser.add_argument("ontology", type=Path, help="ontology.json")
    arguments = parser.parse_args()
    with arguments.classes.open(newline="", encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["index"]))
    nodes = json.loads(arguments.ontology.read_text(encoding="utf-8"))
    lines = ["{", ' "format": 1,', ' "source": "AudioSet (CC BY 4.0), ontology (CC BY-SA 4.0)",']
    lines.append(' "classes": [')
    lines.append(
        ",\n".join("  " + json.dumps([row["mid"], row["display_name"]]) for row in rows) + "\n ],"
    )
    lines.append(' "nodes": [')
    lines.append(
        ",\n".join(
            "  " + json.dumps([node["id"], node["name"], node["child_ids"]]) for node in nodes
        )
        + "\n ]\n}"
    )
    TARGET.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{TARGET}: {len(rows)} classes, {len(nodes)} nodes")


if __name__ == "__main__":
    main()
