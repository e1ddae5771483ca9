from __future__ import annotations

import pytest

from fusemix.errors import FusemixError
from fusemix.latents.provenance import (
    DatasetStamp,
    Provenance,
    content_hash,
    digest,
    spec_from_dict,
)
from tests.fusemix.synthetic import encoder


def test_json_keeps_everything() -> None:
    spec = encoder(prompt="a photo of ", preprocessing="größe 224 🗼", sha256="ab")
    provenance = Provenance(spec, DatasetStamp("toys", "f00d", "cafe", "by me"), {"torch": "2.0"})
    assert Provenance.from_json(provenance.to_json()) == provenance


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"encoder": 3}', '{"encoder": [], "dataset": {}}'])
def test_what_is_no_provenance_is_refused(text: str) -> None:
    with pytest.raises(FusemixError, match="unreadable provenance"):
        Provenance.from_json(text)


def test_fields_of_a_newer_version_are_ignored() -> None:
    assert spec_from_dict({"name": "x", "modality": "image", "dim": 2, "weights": "w", "colour": "red"}).name == "x"


def test_differences_name_the_fields_and_both_values() -> None:
    ours, theirs = encoder(dim=4, pooling="cls"), encoder(dim=8, pooling="mean")
    assert ours.differences(theirs) == "dim: 4 / 8; pooling: 'cls' / 'mean'"
    assert ours.differences(ours) == ""


def test_content_is_known_by_its_bytes_on_every_machine() -> None:
    assert content_hash(b"a dog") == 14364831733120369406
    assert len({content_hash(raw) for raw in (b"", b"a", b"b", b"ab")}) == 4
    assert 0 <= content_hash(b"a") < 2**64


def test_a_digest_tells_where_strings_end() -> None:
    assert digest(["ab", "c"]) != digest(["a", "bc"]) != digest(["abc"])
    assert digest(iter(["a", "b"])) == digest(["a", "b"])
    assert len(digest([])) == 16
