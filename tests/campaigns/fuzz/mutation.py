"""Damaged versions of sound files: bytes, numbers, lines, members of archives and parts of images."""

from __future__ import annotations

import io
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable

LARGEST = 1 << 16
"""Bytes of an input."""
_NUMBER = re.compile(rb"-?\d+(\.\d+)?([eE][-+]?\d+)?")
_TEXT = re.compile(rb'"[^"\n]{0,200}"')
_NUMBERS = (
    b"nan", b"inf", b"-inf", b"NaN", b"Infinity", b"1e400", b"-1e308", b"1e-320", b"0", b"-1", b"1",
    b"2147483647", b"4294967296", b"9223372036854775807", b"18446744073709551615", b"9" * 400, b"1" * 5000,
    b"0x10", b"1_000", b"true", b"null", b"[]", b"{}", b'""', b'"a"', b"1.5.2", b"--3", b"",
)  # fmt: skip
_TEXTS = (
    b'""', b'"../../../etc/passwd"', b'"/etc/passwd"', b'"a\\u0000b"', b'"' + b"n" * 300 + b'"', b'"\\ud800"',
    b'"con:*?"', b"0", b"null", b"[]", b"[[]]", b"{}", b'{"a": 1}', b"[1, 2, 3]", b'"\xff\xfe"', b"true",
)  # fmt: skip
_WIDE = ("<B", "<H", ">H", "<I", ">I", "<Q", ">Q")
_VALUES = (0, 1, 2, 7, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1)
Mutation = Callable[[bytes, random.Random], bytes]


def damaged(data: bytes, kind: str, rng: random.Random) -> bytes:
    """Another file of a kind (bytes, text, zip, png), some steps away from a given one."""
    if kind == "zip" and rng.random() < 0.7:
        return _of_archive(data, rng)[:LARGEST]
    choices = (*_ANY, *_OF_TEXT) if kind == "text" else _ANY
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        data = rng.choice(choices)(data, rng)[:LARGEST]
    return with_checksums(data) if kind == "png" and rng.random() < 0.8 else data


def _flip(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8)) if out else 0):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _byte(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    if out:
        out[rng.randrange(len(out))] = rng.randrange(256)
    return bytes(out)


def _number_of_bytes(data: bytes, rng: random.Random) -> bytes:
    """A header field that lies."""
    form = rng.choice(_WIDE)
    size = struct.calcsize(form)
    at = rng.randrange(max(min(len(data), rng.choice((64, 512, LARGEST))) - size, 0) + 1)
    value = rng.choice(_VALUES) % (1 << 8 * size)
    return data[:at] + struct.pack(form, value) + data[at + size :]


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _remove(data: bytes, rng: random.Random) -> bytes:
    at, length = rng.randrange(len(data) + 1), rng.choice((1, 2, 4, 16, 100))
    return data[:at] + data[at + length :]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    at, length = rng.randrange(len(data) + 1), rng.choice((1, 4, 16, 100, 1000))
    return data[: at + length] + data[at : at + length] * rng.choice((1, 1, 2, 50)) + data[at + length :]


def _insert(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.choice((1, 2, 8, 64))) + data[at:]


def _swap_number(data: bytes, rng: random.Random) -> bytes:
    return _replaced(data, _NUMBER, _NUMBERS, rng)


def _swap_text(data: bytes, rng: random.Random) -> bytes:
    return _replaced(data, _TEXT, _TEXTS, rng)


def _replaced(
    data: bytes, pattern: re.Pattern[bytes], values: tuple[bytes, ...], rng: random.Random
) -> bytes:
    found = list(pattern.finditer(data))
    if not found:
        return data
    one = rng.choice(found)
    return data[: one.start()] + rng.choice(values) + data[one.end() :]


def _lines(data: bytes, rng: random.Random) -> bytes:
    """A line is lost, doubled, moved or emptied."""
    lines = data.split(b"\n")
    at, to = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(4):
        case 0:
            del lines[at]
        case 1:
            lines.insert(to, lines[at])
        case 2:
            lines[at], lines[to] = lines[to], lines[at]
        case _:
            lines[at] = rng.choice((b"", b"\0", b"#", b" " * 300, b"\xff\xfe\x00", b"[" * 3000, b"{" * 30))
    return b"\n".join(lines)


def _nest(data: bytes, rng: random.Random) -> bytes:
    """A value becomes a list in a list in a list."""
    found = list(_NUMBER.finditer(data))
    if not found:
        return b"[" * 2000 + data
    one, depth = rng.choice(found), rng.choice((1, 3, 30, 1500, 20000))
    return data[: one.start()] + b"[" * depth + one.group() + b"]" * depth + data[one.end() :]


_ANY: tuple[Mutation, ...] = (_flip, _byte, _number_of_bytes, _cut, _remove, _repeat, _insert)
_OF_TEXT: tuple[Mutation, ...] = (
    _swap_number,
    _swap_number,
    _swap_number,
    _swap_text,
    _swap_text,
    _lines,
    _nest,
)


def _of_archive(data: bytes, rng: random.Random) -> bytes:
    """The same archive with one member damaged, renamed, lost or doubled; checksums are right."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(one.filename, archive.read(one)) for one in archive.infolist()]
    except Exception:  # noqa: BLE001 - an archive that is damaged already
        return _flip(data, rng)
    if not members:
        return _flip(data, rng)
    at = rng.randrange(len(members))
    name, contents = members[at]
    match rng.randrange(8):
        case 0:
            del members[at]
        case 1:
            members[at] = (
                rng.choice(("../x", "/x", name + "x", "a\\b", name.upper(), "x/" + name)),
                contents,
            )
        case 2:
            members[at] = (name, b"\0" * rng.choice((0, 1000, 1 << 20)))
        case _:
            printable = sum(32 <= one < 127 or one in (9, 10, 13) for one in contents[:400])
            kind = "png" if contents[:4] == b"\x89PNG" else "text" if printable > 300 else "bytes"
            members[at] = (name, damaged(contents, kind, rng))
    target = io.BytesIO()
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(target, "w", method) as archive:
        for one, values in members:
            archive.writestr(zipfile.ZipInfo(one), values, method)
    return target.getvalue()


def with_checksums(data: bytes) -> bytes:
    """A PNG file whose parts have the checksums of their contents, so that damage is not found by them."""
    out, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        length = struct.unpack(">I", data[at : at + 4])[0]
        body = data[at + 4 : at + 8 + length]
        if at + 12 + length > len(data):
            break
        out += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return bytes(out + data[at:])
