"""Prints what PyYAML reads in DIR/0.yaml to DIR/N-1.yaml, as one JSON list."""

import json
import pathlib
import sys

import yaml

directory, count = pathlib.Path(sys.argv[1]), int(sys.argv[2])
documents = []
for number in range(count):
    with open(directory / f"{number}.yaml", encoding="utf-8", newline="") as file:
        documents.append(yaml.safe_load(file))
json.dump(documents, sys.stdout)
