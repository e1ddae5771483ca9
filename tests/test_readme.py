from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fusemix.benchmarks.bootstrap import Interval
from fusemix.benchmarks.report import difference, interval
from tests.conftest import FusedEmoji

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PLUGIN = Path(__file__).parent / "plugin"


def test_the_python_of_the_readme_runs(fused_emoji: FusedEmoji, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    monkeypatch.chdir(fused_emoji.root)
    names: dict[str, Any] = {"__name__": "readme"}
    for number, block in enumerate(blocks, start=1):
        exec(compile(block, f"README.md, python block {number}", "exec"), names)


def test_the_encoder_of_the_readme_is_the_one_that_is_installed_and_checked() -> None:
    code = (PLUGIN / "fusemix_motion.py").read_text().partition('"""\n\n')[2]
    entry_point = (PLUGIN / "pyproject.toml").read_text().partition("[project.entry-points")[2].partition("\n\n")[0]
    assert f"```python\n{code}```" in README.read_text()
    assert f"```toml\n[project.entry-points{entry_point}\n```" in README.read_text()


def speed(name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((ROOT / f"benchmarks/speed/results/{name}-2-cores.json").read_text())
    return result


def test_the_speeds_of_the_readme_are_those_that_are_committed() -> None:
    rows = {}
    for line in README.read_text().splitlines():
        if re.search(r"\| [0-9.]+x \|", line):
            what, _, time, memory = (cell.strip() for cell in line.strip("|").split("|"))
            rows[what] = (time, memory)
    measured = {
        f"`info_nce`, B = {row['batch_size']:,}": (f"{row['time_ratio']:.2f}x", f"{row['memory_ratio']:.3f}x")
        for row in speed("loss")["rows"]
    }
    step = next(row for row in speed("step")["rows"] if row["batch_size"] == 2048)
    pictures, captions = speed("extraction")["rows"]
    ratios = {
        "a batch of 40,960 items": speed("batches")["time_ratio"],
        "a whole step of FuseMix's adapters": step["time_ratio"],
        "`ranks`, 5,000 x 25,000": speed("ranks")["time_ratio"],
        "1,000 bootstrap draws": speed("bootstrap")["time_ratio"],
        "`extract`, 2,000 JPEGs": pictures["time_ratio"],
        "`extract`, 20,000 captions": captions["time_ratio"],
        "loading latents": 1 / speed("latents")["speed_ratio"],
    }
    measured |= {what: (f"{ratio:.2f}x", "") for what, ratio in ratios.items()}
    assert len(rows) == len(measured)
    for what, told in measured.items():
        assert [told] == [row for start, row in rows.items() if start.startswith(what)]

    text = " ".join(README.read_text().split())
    ranks = {row["queries"]: row["extra_bytes"] / 1e6 for row in speed("ranks")["memory"] if row["work"] == "ranks"}
    assert f"takes {ranks[5000]:.0f} MB beyond the embeddings there, and {ranks[25000]:.0f} MB at 25,000" in text
    training, latents = speed("batches")["training"], speed("latents")
    more = (training["peak_bytes"] - training["latents_bytes"]) / 1e9
    assert f"takes {more:.1f} GB beyond the latents ({training['latents_bytes'] / 1e9:.1f} GB)" in text
    assert f"{100 * speed('extraction')['padding']:.1f}% of the captions' tokens are padding" in text
    assert f"is recognised in {latents['resume_seconds']:.1f} s" in text
    grown = latents["extra_bytes"]["1000000"] - latents["extra_bytes"]["10000"]
    assert f"takes {grown / 990_000:.0f} bytes a row beyond" in text


def test_the_batches_of_the_readme_are_those_that_are_committed() -> None:
    text = " ".join(README.read_text().split())
    memory = speed("memory")
    cards = {(of["card_gb"], of["precision"], of["micro_batch"]): of["batch_size"] for of in memory["cards"]}
    for card in (16, 32):
        ways = [("float16", None), ("float32", None), ("float16", 2048)]
        assert f"| {card} GB | " + " | ".join(f"{cards[card, *way]:,}" for way in ways) + " |" in text
    found = [row["ratio"] for row in memory["rows"]]
    assert f"was {min(found):.2f} to {max(found):.2f} of the measured peak" in text


def test_the_comparison_of_the_readme_is_the_one_that_is_committed() -> None:
    readme = README.read_text()
    record = json.loads((ROOT / "benchmarks/page/results/comparison-emoji.json").read_text())
    for method in record["methods"]:
        for direction in method["result"]["directions"]:
            for metric in ("R@1", "R@5", "R@10", "MRR", "MedR"):
                assert interval(metric, Interval(**direction["metrics"][metric])) in readme
        for of_direction in method["difference"].values():
            for metric in ("R@1", "R@5", "R@10", "MRR"):
                assert difference(metric, Interval(**of_direction[metric])) in readme
