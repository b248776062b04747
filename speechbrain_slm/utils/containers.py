"""Audio files that are not whole, found out by what their headers promise."""

# Decoders read what is there without a word. libsndfile sees that a download
# broke off, but tells it only in a log for people, and there not of NIST, Ogg
# and MP3; soundfile's ``frames`` are those that are there.

import struct
from collections.abc import Callable

# A program that writes into a pipe cannot go back to put the length into the
# header. It leaves the largest number there, or one just below it.
_OPEN_ENDED = (
    *((0x7FFFF000, 0x7FFFFFFF), (0xFFFFF000, 0xFFFFFFFF)),
    (0x7FFFFFFFFFFFF000, float("inf")),
)
_LAST_PAGE = 4  # flag of an Ogg page
# Kilobits a second of MPEG layer III, by the version's bit and the index.
_BITRATES = (
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)
_RATES = (44100, 48000, 32000)  # Hz of MPEG 1; halved in 2, again in 2.5
# Bytes of sound that a header promises, and where they begin; or else what is
# wrong, empty where nothing is.
_Found = tuple[int, int] | str


def shortfall(content: bytes, kind: str) -> str:
    """Say what an audio file lacks of what its header promises, or nothing.

    ``kind`` is its format, as libsndfile calls it.
    """
    try:
        found = CHECKED[kind](content)
    except (struct.error, IndexError, OverflowError, ValueError):
        return "cut short: its header is not whole"
    if isinstance(found, str):
        return found
    promised, there = found[0], len(content) - found[1]
    if not promised and there > 0:
        return (
            f"unfinished: its header promises no sound, but {there} bytes "
            "follow it, as where a recorder was killed"
        )
    # A length that was left open, as in a stream, promises nothing.
    open_ended = any(low <= promised <= high for low, high in _OPEN_ENDED)
    if promised <= there or open_ended:
        return ""
    told = f"its header promises {promised} bytes of sound, {there} are there"
    return f"cut short: {told}"


def _chunked(content, at, header, counted=0, align=1, before=0):
    """Walk over chunks, from ``at`` on, to that of the sound."""
    # A chunk's size counts so many bytes of its header, chunks begin at
    # multiples of ``align``, and ``before`` bytes of the sound's are no sound.
    wide = None
    while True:
        name, told = struct.unpack_from(header, content, at)
        at, size = at + struct.calcsize(header), told - counted
        if name == b"ds64":  # of RF64: 64 bits in place of the chunk's 32
            wide = struct.unpack_from("<Q", content, at + 8)[0]
        if name[:4] in (b"data", b"SSND"):
            break
        if size < 0:
            raise ValueError
        at += size + -size % align
    if told == -1:  # CAF's open length
        return ""
    if told == 0xFFFFFFFF and wide is not None:
        size = wide
    # A file of no sound may have tags behind it.
    if size <= before and _are_chunks(content, at + size, header, align):
        return ""
    return max(0, size - before), at + before


def _are_chunks(content, at, header, align):
    """Tell whether what follows is a row of chunks, up to the end."""
    width = struct.calcsize(header)
    while at + width <= len(content):
        name, size = struct.unpack_from(header, content, at)
        if not name.isascii() or not name.strip(b"\0") or size < 0:
            return False
        at += width + size + -size % align
    return at - 1 <= len(content) <= at


def _riff(content: bytes) -> _Found:
    order = ">" if content[:4] in (b"RIFX", b"FORM") else "<"
    # AIFF puts two numbers before the sound and counts them.
    before = 8 if content[:4] == b"FORM" else 0
    return _chunked(content, 12, f"{order}4sI", align=2, before=before)


def _w64(content: bytes) -> _Found:
    return _chunked(content, 40, "<16sQ", counted=24, align=8)


def _caf(content: bytes) -> _Found:
    # The first four bytes of the sound count how often it was edited.
    return _chunked(content, 8, ">4sq", before=4)


def _au(content: bytes) -> _Found:
    order = ">" if content[:4] == b".snd" else "<"
    start, size = struct.unpack_from(f"{order}II", content, 4)
    return size, start


def _nist(content: bytes) -> _Found:
    start, told = int(content[8:16]), {}
    for line in content[16:start].decode("ascii", "replace").splitlines():
        name, _, rest = line.partition(" ")
        told[name] = rest.partition(" ")[2].strip()
    if "sample_count" not in told:
        return ""
    width = int(told.get("sample_n_bytes", 1))
    width *= int(told.get("channel_count", 1))
    return int(told["sample_count"]) * width, start


def _ogg(content: bytes) -> _Found:
    at, flags = 0, 0
    numbers: dict[int, int] = {}
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


def _mpeg(content: bytes) -> _Found:
    at = 0
    while content[at : at + 3] == b"ID3":
        size = content[at + 6 : at + 10]
        at += 10 + sum(byte << 7 * (3 - n) for n, byte in enumerate(size))
    first = _mpeg_frame(content, at)
    tags = (b"Xing", b"Info", b"VBRI")
    if first is None or any(t in content[at : at + first[0]] for t in tags):
        # What the tag says of the length is compared once it is decoded.
        return ""
    rates = set()
    while (frame := _mpeg_frame(content, at)) is not None:
        at += frame[0]
        rates.add(frame[1])
        if at > len(content):
            return "cut short: its last frame is not whole"
    if len(rates) < 2:
        return ""
    # Decoders guess the length by the first bit rate, and stop there.
    fault = "of variable bit rate without a header that tells its length"
    return f"{fault}; convert it to FLAC"


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


# By libsndfile's names. Of its other formats it cannot be told here whether
# a file is whole, so none of them is read.
CHECKED: dict[str, Callable[[bytes], _Found]] = {
    **dict.fromkeys(("WAV", "WAVEX", "RF64", "AIFF"), _riff),
    "W64": _w64,
    "AU": _au,
    "CAF": _caf,
    "NIST": _nist,
    # Its frames carry sums, and the number of samples is compared.
    "FLAC": lambda _: "",
    "OGG": _ogg,
    "MP3": _mpeg,
}
