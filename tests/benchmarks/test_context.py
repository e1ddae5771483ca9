from __future__ import annotations

import json
from importlib.metadata import version

import torch

from fusemix.benchmarks.context import machine


def test_the_machine_and_its_versions_go_into_json() -> None:
    told = machine()
    assert json.loads(json.dumps(told)) == told
    assert (told["torch"], told["fusemix"]) == (torch.__version__, version("fusemix"))
    assert told["threads"] == torch.get_num_threads()
    assert told["processor"]
