"""Audio that somebody else made: whole, bounded, heard, and a file at all."""

import io
import os

import numpy as np
import pytest
import soundfile

from speechbrain_slm.utils.audio import BadAudio, read_audio, resampled
from speechbrain_slm.utils.containers import _mpeg_frame

RATE = 16000
KINDS = """WAV PCM_16 LITTLE, WAV PCM_16 BIG, WAV MS_ADPCM, WAVEX PCM_24,
RF64 PCM_16, W64 FLOAT, AIFF PCM_16, AIFF FLOAT, AU PCM_16 BIG,
AU PCM_16 LITTLE, NIST PCM_16, CAF PCM_16, FLAC PCM_16, OGG VORBIS, OGG OPUS,
MP3 MPEG_LAYER_III"""


def noise(seconds=2.0, level=0.1, channels=1):
    shape = int(seconds * RATE), channels
    return np.random.default_rng(0).normal(size=shape) * level


def encoded(wav, kind="WAV", subtype=None, endian=None, rate=RATE):
    file = io.BytesIO()
    soundfile.write(file, wav, rate, subtype, endian, kind)
    return file.getvalue()


def reason(source, **options):
    with pytest.raises(BadAudio) as caught:
        read_audio(source, **options)
    return str(caught.value)


@pytest.mark.parametrize("kind", [kind.split() for kind in KINDS.split(",")])
def test_a_part_is_told_from_the_whole(kind):
    content = encoded(noise(), *kind)
    sound = read_audio(content)
    # ADPCM fills its last block.
    more = 2000 if "MS_ADPCM" in kind else 0
    assert 2 * RATE <= sound.num_samples <= 2 * RATE + more
    assert len(sound.samples) == sound.num_samples
    for part in (content[: len(content) // 3], content[:-1], content[:-600]):
        assert reason(part)


@pytest.mark.parametrize(
    ("kind", "open_length"),
    [
        ("WAV", b"\xff\xff\xff\xff"),
        ("WAV", b"\xff\xff\xff\x7f"),
        ("WAV", b"\x00\xf0\xff\x7f"),
        ("AU", b"\xff\xff\xff\xff"),
    ],
)
def test_a_length_left_open_is_that_of_what_is_there(kind, open_length):
    endian = "BIG" if kind == "AU" else "LITTLE"
    content = encoded(noise(), kind, "PCM_16", endian)
    length = (4 * RATE).to_bytes(4, endian.lower())
    assert content.count(length) == 1
    content = content.replace(length, open_length)
    assert read_audio(content).num_samples == 2 * RATE


def flac_header(content, count):
    """Let a FLAC claim a number of samples."""
    told = int.from_bytes(content[18:26], "big") >> 36 << 36 | count
    return content[:18] + told.to_bytes(8, "big") + content[26:]


def test_flac_of_open_length_is_read_to_its_end():
    content = flac_header(encoded(noise(), "FLAC"), 0)
    assert reason(content[: len(content) // 3])
    assert read_audio(content).num_samples == 2 * RATE
    assert "expected at most 1 s" in reason(content, max_seconds=1)


@pytest.mark.parametrize(
    ("kind", "name", "size"),
    [("WAV", b"data", 4), ("AIFF", b"SSND", 4), ("AU", b".snd", 8)],
)
def test_an_unfinished_file_is_not_called_silent(kind, name, size):
    content = encoded(noise(), kind, "PCM_16", "BIG" if kind == "AU" else None)
    at = content.index(name) + size
    content = content[:at] + bytes(4) + content[at + 4 :]
    assert "unfinished" in reason(content, audible=True)
    assert "no sample" in reason(encoded(noise(0), kind))


def test_pages_that_a_decoder_would_pass_over_are_missed():
    content = encoded(noise(8), "OGG", "OPUS")
    pages = [part for part in content.split(b"OggS") if part]
    assert len(pages) > 6
    del pages[4]
    assert "missing" in reason(b"".join(b"OggS" + page for page in pages))


def test_mp3_of_unknown_length_is_not_cut_by_a_guess():
    quiet_then_loud = np.concatenate([noise(2, 1e-3), noise(2)])
    content = encoded(quiet_then_loud, "MP3")
    size, _ = _mpeg_frame(content, 0)
    assert b"Xing" in content[:size]
    assert "variable bit rate" in reason(content[size:])


@pytest.mark.parametrize(
    ("wav", "text"),
    [
        (np.zeros(8000), "every sample is 0"),
        (noise(1, 1.6e-5), "silent"),
        (np.tile(noise(1), 2) * [1, -1], "every sample is 0 once"),
        (noise(1) + 1e30 * (np.arange(RATE) == 9)[:, None], "full scale"),
        (np.append(noise(1), np.nan), "NaN"),
        (np.append(noise(1), np.inf), "infinite"),
        (noise(1) * 2**15, "full scale"),
    ],
)
def test_what_cannot_be_heard_is_refused(wav, text):
    assert text in reason(encoded(wav, subtype="FLOAT"), audible=True)


@pytest.mark.parametrize("level", [1e-3, 0.5])
def test_quiet_and_loud_speech_are_heard(level):
    """Floats may pass full scale by a little; -60 dB is no silence."""
    sound = read_audio(encoded(noise(1, level), subtype="FLOAT"), audible=True)
    assert (np.abs(sound.samples).max() > 1) == (level == 0.5)


def test_channels_are_mixed_as_their_mean():
    wav = noise(1, channels=2)
    sound = read_audio(encoded(wav, subtype="DOUBLE"), keep="mono")
    assert sound.channels == 2
    assert np.allclose(sound.samples, wav.mean(axis=1), atol=1e-7)


def test_a_header_that_lies_is_refused_before_it_is_believed(tmp_path):
    content = encoded(noise(), "FLAC")
    giant = flac_header(content, 68_000_000_000)
    assert "at most 3600 s" in reason(giant)
    told = {"num_samples": 2 * RATE, "sample_rate": RATE}
    assert "68000000000 samples" in reason(giant, expected=told)
    # A lie of a length that could be.
    assert reason(flac_header(content, 3000 * RATE))
    # A manifest that lies with the header.
    told["num_samples"] = 68_000_000_000
    assert "at most 3600 s" in reason(giant, expected=told)
    # 10 GB of nothing, and 1 GB behind a sentence.
    sparse = tmp_path / "sparse.wav"
    for head, size in ((b"", 10 << 30), (b"", 1 << 30), (content, 1 << 30)):
        sparse.write_bytes(head)
        os.truncate(sparse, size)
        assert reason(sparse)


def test_a_manifest_is_compared_with_the_file(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(encoded(noise()))
    told = read_audio(path)._asdict()
    assert read_audio(path, expected=told).sha256 == told["sha256"]
    others = {"num_samples": 9, "sample_rate": 8000, "sha256": "0" * 64}
    for name, value in others.items():
        assert "manifest" in reason(path, expected=told | {name: value})


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    assert "is a pipe" in reason(tmp_path / "pipe.wav")
    assert "is a folder" in reason(tmp_path)
    assert "is a device" in reason("/dev/zero")
    assert "0 bytes" in reason("/proc/self/status")
    assert "does not exist" in reason(tmp_path / "gone.wav")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n"
    (tmp_path / "a.wav").write_bytes(pointer)
    assert "Git LFS pointer" in reason(tmp_path / "a.wav")
    # A link, and a name in another Unicode form, lead to a file.
    (tmp_path / "Zoe\u0308.wav").write_bytes(encoded(noise(1)))
    (tmp_path / "link.wav").symlink_to("Zoe\u0308.wav")
    for name in ("link", "Zo\u00eb"):
        assert read_audio(tmp_path / f"{name}.wav").num_samples == RATE


@pytest.mark.parametrize("error", [MemoryError, OverflowError, TypeError])
def test_whatever_goes_wrong_is_the_reason_of_one_file(monkeypatch, error):
    content = encoded(noise(1))

    def fails(*_, **__):
        raise error("for once")

    monkeypatch.setattr(soundfile.SoundFile, "read", fails)
    assert reason(content)


def test_rates_without_a_common_divisor_are_refused():
    wav = noise(0.1)[:, 0].astype(np.float32)
    assert len(resampled(wav, 22050, RATE)) == 1161
    assert len(resampled(wav[:0], 24000, RATE)) == 0
    with pytest.raises(BadAudio, match="44101 Hz cannot be resampled"):
        resampled(wav, 44101, RATE)
    assert "at most 384000 Hz" in reason(encoded(noise(0.1), rate=999_983))
