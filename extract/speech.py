"""Texts spoken by eSpeak NG into WAV files, each once and with the same samples every time.

A process in which eSpeak NG speaks a text again gets other samples, even from the same seed, because the synthesiser
goes on from where it was.  So each utterance has a process of its own.  A file says in a comment what it is of and
what its samples hash to: one that was cut short, changed, or spoken by another voice is known by that and spoken
again, and there is no list that files could fall out of step with.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from fusemix.errors import FusemixError, needs_extra
from fusemix.files import replacing
from fusemix.progress import Progress

from . import espeak
from .packaged import sha256_of

PACKAGE = "espeakng-loader==0.2.4"
# SHA-256 of `sha256sum` of what the English voices are made of, the same in the packages for all systems.
DATA_SHA256 = "6b5a3bfd9b508d93f4ad9398e5f77ed150e0834c696b0ff83cc2834ca4e1d97d"
_DATA = ("phondata", "phonindex", "phontab", "intonations", "en_dict", "lang/gmw/en*", "voices/!v/[fm][0-9]")
SECONDS_PER_UTTERANCE = 60.0


@dataclass(frozen=True)
class Utterance:
    """A text and who speaks it."""

    text: str
    """What is said."""
    voice: str
    """An accent of eSpeak NG with a variant, such as `en-us+f2`."""


def speak_missing(folder: Path, utterances: Mapping[str, Utterance]) -> None:
    """Speak what is not spoken yet.  Whole files stay, also those of a run that was stopped.

    Args:
        folder: where the files are.
        utterances: path in the folder -> what is heard there.

    Raises:
        FusemixError: where eSpeak NG is missing or not the one that this version was made with, a voice does not
            exist, or the folder cannot be written.
    """
    missing = [file for file, utterance in utterances.items() if not is_whole(folder / file, utterance)]
    if not missing:
        return
    library, data = _espeak()
    label = f"speak into {folder}"
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        with Progress(len(utterances), label, "utterances", len(utterances) - len(missing)) as progress:
            files = {pool.submit(_samples, library, data, utterances[file]): file for file in missing}
            for spoken in as_completed(files):
                file = files[spoken]
                with replacing(folder / file) as temporary:
                    temporary.write_bytes(wav(spoken.result(), utterances[file]))
                progress.advance(1)
    finally:
        pool.shutdown(cancel_futures=True)


def is_whole(path: Path, utterance: Utterance) -> bool:
    """Return whether a file holds all samples of an utterance, as they were written."""
    if not path.is_file():
        return False
    raw = path.read_bytes()
    return raw == wav(raw[len(wav(b"", utterance)) :], utterance)


def wav(samples: bytes, utterance: Utterance) -> bytes:
    """Return a WAV file of 16-bit samples at 22,050 Hz, with a comment that says what it is of."""
    said = f"{utterance.text} ({utterance.voice} of {PACKAGE}; SHA-256 of the samples {sha256(samples).hexdigest()})"
    chunks = [
        _chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, espeak.RATE, 2 * espeak.RATE, 2, 16)),
        _chunk(b"LIST", b"INFO" + _chunk(b"ICMT", said.encode() + b"\0")),
        _chunk(b"data", samples),
    ]
    return _chunk(b"RIFF", b"WAVE" + b"".join(chunks))


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def _samples(library: str, data: str, utterance: Utterance) -> bytes:
    command = [sys.executable, "-I", "-S", espeak.__file__, library, data, utterance.voice]
    what = f"eSpeak NG cannot speak {utterance.text!r} by {utterance.voice}"
    try:
        done = subprocess.run(
            command,
            input=utterance.text.encode(),
            capture_output=True,
            check=False,
            timeout=SECONDS_PER_UTTERANCE,
        )
    except subprocess.TimeoutExpired as error:
        raise FusemixError(f"{what}: it did not end after {SECONDS_PER_UTTERANCE:g} s") from error
    if done.returncode != 0:
        told = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise FusemixError(f"{what}: {told or f'it ended with {done.returncode}'}")
    return done.stdout


def _espeak() -> tuple[str, str]:
    """Return the library and the folder that holds its data."""
    with needs_extra("emoji-spoken", "speaking the names of pictograms"):
        import espeakng_loader
    data = Path(espeakng_loader.get_data_path())
    found = {path.relative_to(data).as_posix(): path for pattern in _DATA for path in data.glob(pattern)}
    listing = "".join(f"{sha256_of(found[name])}  {name}\n" for name in sorted(found))
    if sha256(listing.encode()).hexdigest() != DATA_SHA256:
        raise FusemixError(
            f"{data} does not hold the voices that this version was made with:"
            f" pip install --force-reinstall --no-deps {PACKAGE}"
        )
    return espeakng_loader.get_library_path(), str(data.parent)
