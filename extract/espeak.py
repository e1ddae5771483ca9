"""A program that speaks one text by eSpeak NG: text on stdin, 16-bit samples on stdout.

It is run by its path and needs nothing but the standard library, so that it starts fast.  `speech.py` runs it once
for each utterance, because only the first utterance of a process repeats.
"""

from __future__ import annotations

import ctypes
import os
import sys

RATE = 22050
SEED = 1
# From eSpeak NG's speak_lib.h: espeak_Synth returns when all is spoken, and texts are UTF-8.
_SYNCHRONOUS, _UTF8, _FROM_THE_BEGINNING = 2, 1, 0
_TakeSamples = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


class _Voice(ctypes.Structure):
    """The first fields of espeak_VOICE."""

    _fields_ = (("name", ctypes.c_char_p), ("languages", ctypes.c_char_p), ("identifier", ctypes.c_char_p))


def speak(library: str, data: str, voice: str, text: bytes) -> bytes:
    """Return the samples of a text, one channel of 22,050 Hz.

    Args:
        library: path of libespeak-ng.
        data: folder that holds espeak-ng-data.
        voice: an accent with a variant, such as `en-us+f2`.
        text: in UTF-8.

    Raises:
        ValueError: where the voice is not spoken, or nothing is.
    """
    espeak = ctypes.CDLL(library)
    rate = espeak.espeak_Initialize(_SYNCHRONOUS, 0, os.fsencode(data), 0)
    if rate != RATE:
        raise ValueError(f"eSpeak NG gives {rate} samples a second with the data in {data}, not {RATE}")
    samples = bytearray()

    def take(wave: int | None, count: int, _events: int | None) -> int:
        if wave:
            samples.extend(ctypes.string_at(wave, 2 * count))
        return 0

    callback = _TakeSamples(take)  # eSpeak NG does not keep it alive
    espeak.espeak_SetSynthCallback(callback)
    espeak.espeak_SetVoiceByName(voice.encode())
    # A variant that does not exist is left out without an error.
    espeak.espeak_GetCurrentVoice.restype = ctypes.POINTER(_Voice)
    current = espeak.espeak_GetCurrentVoice().contents.identifier or b""
    if current.decode().partition("/")[2].casefold() != voice.casefold():
        raise ValueError(f"eSpeak NG has no voice {voice!r}")
    # The noise of breath is seeded by the clock unless told otherwise.
    espeak.espeak_ng_SetRandSeed(ctypes.c_long(SEED))
    espeak.espeak_Synth(text, len(text) + 1, 0, _FROM_THE_BEGINNING, 0, _UTF8, None, None)
    if not any(samples):
        raise ValueError("eSpeak NG gives no sound")
    return bytes(samples)


def main() -> None:
    """Run as `espeak.py LIBRARY DATA VOICE`; an error is one line on stderr."""
    library, data, voice = sys.argv[1:]
    try:
        samples = speak(library, data, voice, sys.stdin.buffer.read())
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    sys.stdout.buffer.write(samples)


if __name__ == "__main__":
    main()
