"""Audio files that are not whole, found out by their headers.

Decoders read what is there without a word. That a download broke off, or a
recorder was killed, is seen only where what the header promises is compared
with what the file holds.
"""

import struct

# A program that writes into a pipe cannot go back to put the length into the
# header. It leaves the largest number there, or one just below it.
_OPEN_ENDED = ((0x7FFFF000, 0x7FFFFFFF), (0xFFFFF000, 0xFFFFFFFF))
_OPEN_ENDED_64 = 0x7FFFFFFFFFFFF000
_LAST_PAGE = 4  # flag of an Ogg page
# Kilobits a second of MPEG layer III, by the version's bit and the index.
_BITRATES = (
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)
_RATES = (44100, 48000, 32000)  # Hz of MPEG 1; halved in 2, again in 2.5


def shortfall(content: bytes, kind: str) -> str:
    """Say what an audio file lacks of what its header promises.

    A length that was left open, as in a stream, promises nothing.

    Arguments
    ---------
    kind : Its format, as libsndfile calls it.

    Returns
    -------
    Empty where nothing is missing, as far as the format tells.

    Example
    -------
    >>> import io, soundfile
    >>> file = io.BytesIO()
    >>> soundfile.write(file, [0.5] * 100, 16000, format="WAV")
    >>> shortfall(file.getvalue(), "WAV")
    ''
    >>> shortfall(file.getvalue()[:-2], "WAV")
    'cut short: its header promises 200 bytes of sound, 198 are there'
    """
    try:
        return CHECKED[kind](content)
    except (struct.error, IndexError, ValueError):
        return "cut short: its header is not whole"


def _compare(promised, start, content):
    """Compare the bytes of sound that a header tells with those there."""
    there = len(content) - start
    if promised < 0 or promised >= _OPEN_ENDED_64:
        return ""
    if any(low <= promised <= high for low, high in _OPEN_ENDED):
        return ""
    if promised > there:
        return (
            f"cut short: its header promises {promised} bytes of sound, "
            f"{there} are there"
        )
    return ""


def _unfinished(there):
    return (
        f"unfinished: its header promises no sound, but {there} bytes follow "
        "it, as where a recorder was killed"
    )


def _riff(content):
    order = ">" if content[:4] in (b"RIFX", b"FORM") else "<"
    form = content[:4] == b"FORM"
    large, at = None, 12
    while True:
        name, size = struct.unpack_from(f"{order}4sI", content, at)
        at += 8
        if name == b"ds64":
            large = struct.unpack_from("<Q", content, at + 8)[0]
        if name in (b"data", b"SSND"):
            break
        at += size + size % 2
    if size == 0xFFFFFFFF and large is not None:
        size = large
    # AIFF puts two numbers before the sound and counts them.
    size, at = (size - 8, at + 8) if form else (size, at)
    if size <= 0 and not _are_chunks(content, at, order):
        return _unfinished(len(content) - at)
    return _compare(size, at, content)


def _are_chunks(content, at, order):
    """Tell whether what follows is a row of chunks, up to the end."""
    while at + 8 <= len(content):
        name, size = struct.unpack_from(f"{order}4sI", content, at)
        if not name.isascii() or not name.strip(b"\0"):
            return False
        at += 8 + size + size % 2
    return at - 1 <= len(content) <= at


def _w64(content):
    at = 40
    while True:
        name, size = struct.unpack_from("<16sQ", content, at)
        if name[:4] == b"data":
            break
        if size < 24:
            raise ValueError
        at += size + -size % 8
    if size <= 24 and len(content) > at + 24:
        return _unfinished(len(content) - at - 24)
    return _compare(size - 24, at + 24, content)


def _au(content):
    order = ">" if content[:4] == b".snd" else "<"
    start, size = struct.unpack_from(f"{order}II", content, 4)
    if not size and len(content) > start:
        return _unfinished(len(content) - start)
    return _compare(size, start, content)


def _caf(content):
    at = 8
    while True:
        name, size = struct.unpack_from(">4sq", content, at)
        at += 12
        if name == b"data":
            break
        if size < 0:
            raise ValueError
        at += size
    # The first four bytes are no sound; -1 is a length that was left open.
    if size in (0, 4) and len(content) > at + 4:
        follows = struct.unpack_from(">4sq", content, at + size)
        if not follows[0].isalnum() or follows[1] < 0:
            return _unfinished(len(content) - at - 4)
    return _compare(size - 4, at + 4, content)


def _nist(content):
    start = int(content[8:16])
    told = {}
    for line in content[16:start].decode("ascii", "replace").splitlines():
        name, _, rest = line.partition(" ")
        told[name] = rest.partition(" ")[2].strip()
    count = int(told.get("sample_count", -1))
    if not count and len(content) > start:
        return _unfinished(len(content) - start)
    width = int(told.get("sample_n_bytes", 1))
    channels = int(told.get("channel_count", 1))
    return _compare(count * width * channels, start, content)


def _ogg(content):
    at, numbers, flags = 0, {}, 0
    # What stands behind the last page is no sound: a tag, or padding.
    while content[at : at + 4] == b"OggS":
        flags, serial, number = struct.unpack_from("<B8xII", content, at + 5)
        if number != numbers.get(serial, number - 1) + 1:
            return f"page {numbers[serial] + 1} is missing"
        numbers[serial] = number
        segments = content[at + 26]
        sizes = content[at + 27 : at + 27 + segments]
        at += 27 + segments + sum(sizes)
        if at > len(content) or len(sizes) < segments:
            return "cut short: its last page is not whole"
    if b"OggS" in content[at:]:
        return f"damaged at byte {at}: no page begins there"
    return "" if flags & _LAST_PAGE else "cut short: its last page is missing"


def _mpeg(content):
    at = 0
    while content[at : at + 3] == b"ID3":
        size = content[at + 6 : at + 10]
        at += 10 + sum(byte << 7 * (3 - n) for n, byte in enumerate(size))
    first = _mpeg_frame(content, at)
    if first is None or any(
        tag in content[at : at + first[0]]
        for tag in (b"Xing", b"Info", b"VBRI")
    ):
        # What the tag says of the length is compared once it is decoded.
        return ""
    rates = set()
    while (frame := _mpeg_frame(content, at)) is not None:
        size, rate = frame
        rates.add(rate)
        at += size
        if at > len(content):
            return "cut short: its last frame is not whole"
    if len(rates) > 1:
        # Decoders guess the length by the first bit rate, and stop there.
        return (
            "of variable bit rate without a header that tells its length; "
            "convert it to FLAC"
        )
    return ""


def _mpeg_frame(content, at):
    """Return bytes and bit rate of a layer III frame, None if it is none."""
    head = content[at : at + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    version, index, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or index in (0, 15) or rate == 3:
        return None
    bitrate = _BITRATES[version == 3][index]
    hertz = _RATES[rate] // {3: 1, 2: 2, 0: 4}[version]
    size = (144 if version == 3 else 72) * bitrate * 1000 // hertz
    return size + (head[2] >> 1 & 1), bitrate


def _flac(_):
    # Its frames carry sums, and the number of samples is compared.
    return ""


# By libsndfile's names. Of its other formats it cannot be told here whether
# a file is whole, so none of them is read.
CHECKED = {
    "WAV": _riff,
    "WAVEX": _riff,
    "RF64": _riff,
    "AIFF": _riff,
    "W64": _w64,
    "AU": _au,
    "CAF": _caf,
    "NIST": _nist,
    "FLAC": _flac,
    "OGG": _ogg,
    "MP3": _mpeg,
}
