from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import espeakng_loader
import numpy as np
import pytest
import soundfile

from fusemix.errors import FusemixError
from fusemix.extract import espeak, speech
from fusemix.extract.datasets.emoji_spoken import VOICES
from fusemix.extract.sounds import read_sound
from fusemix.extract.speech import PACKAGE, Utterance, is_whole, speak_missing, wav

CAT = Utterance("grinning cat", "en-us+f2")
LATTER = Utterance("keycap: ⛄ “façade”", "en+m3")
SPOKEN = {"en-us+f2/cat.wav": CAT, "en+m3/latter.wav": LATTER}
MANY = """
import sys
from pathlib import Path
from fusemix.extract.speech import Utterance, speak_missing
speak_missing(Path(sys.argv[1]), {f"{n}.wav": Utterance(f"number {n}", "en+m3") for n in range(int(sys.argv[2]))})
"""


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spoken")
    speak_missing(folder, SPOKEN)
    return folder


@pytest.fixture
def copy(spoken: Path, tmp_path: Path) -> Path:
    for file in SPOKEN:
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_bytes((spoken / file).read_bytes())
    return tmp_path


@pytest.fixture
def no_espeak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def many(folder: Path, count: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", MANY, folder, str(count)], stderr=subprocess.PIPE)


def first_file(folder: Path, program: subprocess.Popen[bytes]) -> Iterator[None]:
    while program.poll() is None and not list(folder.glob("*.wav")):
        yield


def test_what_is_spoken_is_a_sound_that_says_what_it_is_of(spoken: Path) -> None:
    for file, utterance in SPOKEN.items():
        sound = soundfile.SoundFile(spoken / file)
        assert (sound.samplerate, sound.channels, sound.subtype) == (22050, 1, "PCM_16")
        assert sound.comment.startswith(f"{utterance.text} ({utterance.voice} of {PACKAGE}; SHA-256")
        samples = read_sound(spoken / file, 22050)
        assert 0.3 < len(samples) / 22050 < 4
        assert 0.01 < np.abs(samples).mean() < np.abs(samples).max() < 1


def test_the_same_is_spoken_again_in_other_processes(spoken: Path, tmp_path: Path) -> None:
    # In the other order, so that nothing of the first utterance can be left in the second.
    speak_missing(tmp_path, dict(reversed(SPOKEN.items())))
    assert contents(tmp_path) == contents(spoken)
    assert len(contents(tmp_path)) == 2


def test_every_voice_is_spoken_and_no_two_are_alike() -> None:
    assert len(set(VOICES)) == len(VOICES)
    library, data = speech._espeak()
    samples = [speech._samples(library, data, Utterance("cat", voice)) for voice in VOICES]
    plain = [speech._samples(library, data, Utterance("cat", voice.partition("+")[0])) for voice in VOICES]
    assert all(one != other for one, other in combinations(samples, 2))
    assert all(one != other for one, other in zip(samples, plain, strict=True))


@pytest.mark.parametrize("voice", ["en+nonsense", "en-gb", "nonsense", "en-us+f9"])
def test_a_voice_that_does_not_exist_is_refused(voice: str, tmp_path: Path) -> None:
    with pytest.raises(FusemixError, match=re.escape(f"'cat' by {voice}: eSpeak NG has no voice {voice!r}")):
        speak_missing(tmp_path, {"cat.wav": Utterance("cat", voice)})
    assert contents(tmp_path) == {}


def test_what_gives_no_sound_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FusemixError, match="cannot speak '' by en: eSpeak NG gives no sound"):
        speak_missing(tmp_path, {"cat.wav": Utterance("", "en")})


def test_a_process_that_dies_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dies.py").write_text("import os; os.abort()")
    monkeypatch.setattr(espeak, "__file__", str(tmp_path / "dies.py"))
    with pytest.raises(FusemixError, match="cannot speak 'cat' by en: it ended with -6"):
        speak_missing(tmp_path, {"cat.wav": Utterance("cat", "en")})


def test_a_process_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hangs.py").write_text("import time; time.sleep(600)")
    monkeypatch.setattr(espeak, "__file__", str(tmp_path / "hangs.py"))
    monkeypatch.setattr(speech, "SECONDS_PER_UTTERANCE", 0.1)
    with pytest.raises(FusemixError, match=r"cannot speak 'cat' by en: it did not end after 0\.1 s"):
        speak_missing(tmp_path, {"cat.wav": Utterance("cat", "en")})


def test_whole_files_are_left_alone_and_need_no_package(copy: Path, no_espeak: None) -> None:
    before = {file: (copy / file).stat().st_mtime_ns for file in SPOKEN}
    speak_missing(copy, SPOKEN)
    assert {file: (copy / file).stat().st_mtime_ns for file in SPOKEN} == before


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "header", "changed", "longer"])
def test_a_missing_or_damaged_file_is_spoken_again(copy: Path, spoken: Path, damage: str) -> None:
    file = copy / "en-us+f2/cat.wav"
    raw = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        changed = raw[:-500] + bytes(255 - byte for byte in raw[-500:])
        damaged = {"empty": b"", "cut": raw[:-2], "header": raw[:40], "changed": changed, "longer": raw + b"\0\0"}
        file.write_bytes(damaged[damage])
    assert not is_whole(file, CAT)
    speak_missing(copy, SPOKEN)
    assert contents(copy) == contents(spoken)


def test_a_file_of_another_text_or_voice_is_spoken_again(copy: Path, spoken: Path) -> None:
    file = copy / "en-us+f2/cat.wav"
    whole = file.read_bytes()
    header = len(wav(b"", CAT))
    for other in (Utterance("pouting cat", CAT.voice), Utterance(CAT.text, "en-us+f4")):
        file.write_bytes(wav(whole[header:], other))
        assert is_whole(file, other)
        speak_missing(copy, SPOKEN)
        assert file.read_bytes() == whole


@pytest.mark.parametrize("length", [0, 1, 2, 7, 1000])
def test_a_file_is_what_another_library_reads(length: int) -> None:
    samples = np.random.default_rng(0).integers(-(2**15), 2**15, length, np.int16)
    for text in ("odd", "even", "Å “ü”"):
        raw = wav(samples.astype("<i2").tobytes(), Utterance(text, "en"))
        sound = soundfile.SoundFile(io.BytesIO(raw))
        assert (sound.read(dtype="int16") == samples).all()
        assert sound.comment.startswith(f"{text} (en of ")
        assert int.from_bytes(raw[4:8], "little") == len(raw) - 8


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_what_was_stopped_goes_on(tmp_path: Path, how: signal.Signals) -> None:
    program = many(tmp_path, 400)
    for _ in first_file(tmp_path, program):
        threading.Event().wait(0.01)
    os.kill(program.pid, how)
    program.communicate()
    before = contents(tmp_path)
    wanted = {f"{n}.wav": Utterance(f"number {n}", "en+m3") for n in range(400)}
    whole = [file for file in wanted if is_whole(tmp_path / file, wanted[file])]
    assert 0 < len(whole) < 400
    some = {file: wanted[file] for file in [*whole, "398.wav", "399.wav"]}
    speak_missing(tmp_path, some)
    assert all(is_whole(tmp_path / file, utterance) for file, utterance in some.items())
    assert {file: contents(tmp_path)[file] for file in whole} == {file: before[file] for file in whole}
    assert len(list(tmp_path.glob("*.wav"))) == len(some)


def test_two_at_once_do_not_hurt_each_other(tmp_path: Path) -> None:
    programs = [many(tmp_path, 12) for _ in range(2)]
    assert [program.communicate()[1].count(b"Error") for program in programs] == [0, 0]
    assert [program.returncode for program in programs] == [0, 0]
    assert sorted(contents(tmp_path)) == sorted(f"{n}.wav" for n in range(12))
    assert all(is_whole(tmp_path / f"{n}.wav", Utterance(f"number {n}", "en+m3")) for n in range(12))


def test_a_missing_package_is_told_with_its_extra(tmp_path: Path, no_espeak: None) -> None:
    with pytest.raises(FusemixError, match=r"'espeakng_loader': pip install 'fusemix\[emoji-spoken\]'"):
        speak_missing(tmp_path, SPOKEN)


def test_other_voices_than_those_of_this_version_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = Path(espeakng_loader.get_data_path())
    mine = tmp_path / "espeak-ng-data"
    for file in given.rglob("*"):
        if file.is_file():
            (mine / file.relative_to(given)).parent.mkdir(parents=True, exist_ok=True)
            (mine / file.relative_to(given)).symlink_to(file)
    monkeypatch.setattr(espeakng_loader, "get_data_path", lambda: str(mine))
    assert speech._espeak()[1] == str(tmp_path)
    (mine / "voices/!v/f2").unlink()
    with pytest.raises(FusemixError, match=r"not hold the voices .* pip install .* espeakng-loader==0\.2\.4"):
        speak_missing(tmp_path / "new", SPOKEN)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(FusemixError, match=r"cannot write .*taken/en.*\.wav: Not a directory"):
        speak_missing(tmp_path / "taken", SPOKEN)
