"""Recipes to read, as text."""

from __future__ import annotations

from pathlib import Path

MINIMAL = """
name: mine
dataset: emoji
encoders: {image: efficientnet-lite0, text: minilm-l6-v2}
"""

FREE = """
name: free
dataset: {reader: coco, path: /data/coco, year: 2014}
encoders:
  image: dinov2-base
  text: {name: bge-large, pooling: cls}
  audio: [htsat, {name: whisper-base, layer: -2}]
"""

SEVERAL = """
name: several
dataset: [emoji, {reader: coco, path: /data/coco}, pairs.csv, {reader: folder, path: /a, name: mine, split: test}]
encoders: {image: dinov2-base, text: bge-large}
"""

NAMES = f"""{FREE}
fuse:
  adapters: {{text: {{kind: gated, depth: 2}}, image: {{kind: identity}}}}
  dataset_weights: {{coco: 2, cc3m.v1: 0.5}}
  edges:
  - {{a: image, b: text, temperature: own}}
  - {{a: audio, b: text, weight: 0.5, temperature: 0.05, loss: sigmoid}}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path
