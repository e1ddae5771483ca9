"""ImageNet's names and templates against those that open_clip has from the same source."""

from __future__ import annotations

import pytest

from fusemix.benchmarks.class_prompts import PLACE, load_class_prompts

# What open_clip imports warns.
pytestmark = [pytest.mark.extras, pytest.mark.filterwarnings("ignore")]


def test_imagenets_names_and_templates_are_those_of_open_clip() -> None:
    import open_clip

    whole, some = load_class_prompts("imagenet"), load_class_prompts("imagenet", "clip-7")
    assert whole.names == tuple(open_clip.IMAGENET_CLASSNAMES)
    assert whole.templates == tuple(template(PLACE) for template in open_clip.OPENAI_IMAGENET_TEMPLATES)
    assert some.templates == tuple(template(PLACE) for template in open_clip.SIMPLE_IMAGENET_TEMPLATES)
