"""`fusemix extract` stopped by Ctrl-C and by SIGTERM."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fusemix.extract import ExtractSettings, extract
from fusemix.extract.extraction import latents_path
from fusemix.latents.file import LatentsFile
from tests.extract.colours import Colours, coloured

REPOSITORY = Path(__file__).parents[2]
ROWS, BLOCK = 400, 10
RECIPE = """
name: coloured
dataset: coloured
encoders: {image: slow, text: written-colours}
"""
PROGRAM = """
import sys, time
from pathlib import Path
import fusemix.extract.datasets
from fusemix.cli import main
from fusemix.extract import register_encoder
from tests.extract.colours import Colours, coloured

class Slow(Colours):
    def __init__(self, device):
        super().__init__("image", "slow")
    def encode(self, batch):
        time.sleep(0.02)
        return super().encode(batch)

sys.modules["slow"] = sys.modules["__main__"]
register_encoder("slow", "slow:Slow")
register_encoder("written-colours", "tests.extract.colours:of_captions")
folder = sys.argv[1]
fusemix.extract.datasets.load_dataset = lambda name: coloured(Path(folder), 400)
main(["extract", f"{folder}/recipe.yaml", "--root", folder, "--extract.block_rows", "10"])
"""


@pytest.mark.parametrize(("number", "to_group"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_a_signal_stops_cleanly_and_says_how_to_go_on(tmp_path: Path, number: signal.Signals, to_group: bool) -> None:
    dataset = coloured(tmp_path, ROWS)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    path = latents_path(tmp_path, "coloured", "image", "slow")
    running = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, tmp_path],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while running.poll() is None and not (path.exists() and LatentsFile(path).done):
        time.sleep(0.01)
    # A terminal sends Ctrl-C to the whole group; a scheduler sends SIGTERM to the process.
    (os.killpg if to_group else os.kill)(running.pid, number)
    errors = running.communicate(timeout=60)[1]
    assert running.returncode == 130, errors
    assert "Traceback" not in errors
    last = errors.splitlines()[-1]
    stopped = re.fullmatch(rf"stopped: (\d+) of {ROWS} rows of {path} are done; run the same command to go on", last)
    assert stopped, errors
    done = LatentsFile(path).done
    assert int(stopped[1]) == done
    assert 0 < done < ROWS
    assert done % BLOCK == 0
    report = extract(dataset, "image", Colours("image", "slow"), ExtractSettings(workers=1), root=tmp_path)
    assert (report.done, report.encoded) == (ROWS, ROWS - done)
