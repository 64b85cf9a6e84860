"""Rows of short decimal numbers from text, eight characters at a time: much faster than number by number.

A number of up to eight characters is one 64-bit word whose bytes are its digits, the last digit on top; sums
of neighbouring bytes, byte pairs and byte quadruples give its value. Whatever does not have the plain form
`[-]digits[.digits]`, one space between numbers, is not guessed at: the answer is None.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64, UInt64
from numpy import ndarray

LONGEST = 8
"""Characters of a number that fit one word."""
_POWERS = 10.0 ** np.arange(16)


def _word(value: int) -> np.uint64:
    return np.uint64(value)


_ZEROS = _word(0x3030303030303030)
_ONES = _word(0x0101010101010101)
_TOPS = _word(0x8080808080808080)
_ABOVE_NINE = _word(0x7676767676767676)
"""Added to a byte above 9, it sets the top bit."""
_POINT = _word(0x1E * 0x0101010101010101)
"""'.' and '0' differ in these bits, here in every byte."""
_MINUS = _word(0x1D)
_ENDINGS = (
    (3, _word(40), _word(0x303030)),
    (7, _word(8), _word(0x3030303030302E)),
)
"""Zeros that %f appends to millimetres, '000', and to whole numbers, '.000000': count, bits below, bytes."""
_BYTE_NUMBER = _word(0x0001020304050607)
"""Times 2 ** (8 j), the top byte is j."""


def parse_rows(text: bytes, width: int, n_decimal: int) -> Float64[ndarray, "width row"] | None:
    """Numbers of lines that all have `width` of them, the first `n_decimal` with decimals as a rule.

    Exactly the numbers that Python's float() gives. The text ends with a line end. None where it has any
    other form.
    """
    padded = np.frombuffer(b"\0" * LONGEST + text, np.uint8)
    end = _number_ends(padded[LONGEST:], width)
    if end is None:
        return None
    length = np.empty_like(end)
    length[1:] = end[1:] - end[:-1] - 1
    length[0, 1:] = end[0, 1:] - end[-1, :-1] - 1
    length[0, 0] = end[0, 0]
    if length.min() < 1:
        return None
    words: UInt64[ndarray, " word"] = np.ndarray((len(padded) - 7,), "<u8", padded, strides=(1,))
    numbers = np.empty(end.shape)
    for part in (slice(0, n_decimal), slice(n_decimal, None)):
        found = _short_numbers(words, end[part], length[part])
        if found is None:
            return _parse_long(text, end) if length.max() > LONGEST else None
        numbers[part] = found
    return numbers


def _number_ends(characters: ndarray, width: int) -> Int64[ndarray, "width row"] | None:
    """Position of the separator after each number; None where rows differ in their separators."""
    end = np.flatnonzero(characters <= 32)
    if not len(end) or len(end) % width:
        return None
    found = characters[end]
    if (
        np.count_nonzero(found == 32) != len(end) // width * (width - 1)
        or (found[width - 1 :: width] != 10).any()
    ):
        return None
    return np.ascontiguousarray(end.reshape(-1, width).T)


def _short_numbers(
    words: UInt64[ndarray, " word"], end: Int64[ndarray, "column row"], length: Int64[ndarray, "column row"]
) -> Float64[ndarray, "column row"] | None:
    """Numbers of up to eight characters, not counting zeros that all of them have at their end."""
    word = words[end]
    dropped = 0
    if length.max() > LONGEST:
        zeros = [count for count, bits, pattern in _ENDINGS if ((word >> bits) == pattern).all()]
        dropped = max(zeros, default=0)
        end, length = end - dropped, length - dropped
        if length.max() > LONGEST or length.min() < 1:
            return None
        word = words[end]
    spare = (LONGEST - length).astype(np.uint64) << _word(3)
    return _numbers(word, spare, needs_point=0 < dropped < LONGEST - 1)


def _numbers(
    word: UInt64[ndarray, "column row"], spare: UInt64[ndarray, "column row"], needs_point: bool
) -> Float64[ndarray, "column row"] | None:
    """Values of the last bytes of each word; the `spare` low bits belong to what stands before."""
    digit = (word ^ _ZEROS) >> spare
    negative = (digit & _word(0xFF)) == _MINUS
    digit ^= negative * _MINUS
    digit <<= spare
    signs = spare + negative * _word(8)  # bits without digits
    decimals = None
    if _has_others(digit):
        point = _lowest_point(digit)
        if not point.any() or (needs_point and not point.all()):
            return None
        signs += point.astype(bool) * _word(8)
        same = bool((point == point[:1, :1]).all())
        digit, decimals = _without_point(digit, point[:1, :1] if same else point)
        if _has_others(digit):
            return None
    elif needs_point:
        return None
    if signs.max() > 8 * (LONGEST - 1):  # no digit at all
        return None
    value = _value(digit).astype(np.float64)
    if decimals is not None:
        value /= _POWERS[decimals]  # one rounding of exact numbers: the nearest double, as float() gives
    value *= 1.0 - 2.0 * negative
    return value


def _has_others(digit: UInt64[ndarray, "column row"]) -> bool:
    """Whether a byte is not one of 0..9."""
    return bool((((digit + _ABOVE_NINE) | digit) & _TOPS).any())


def _lowest_point(digit: UInt64[ndarray, "column row"]) -> UInt64[ndarray, "column row"]:
    """2 ** (8 j + 7) where byte j is the first decimal point, 0 where there is none."""
    other = digit ^ _POINT
    found = (other - _ONES) & ~other & _TOPS
    return found & (~found + _word(1))


def _without_point(
    digit: UInt64[ndarray, "column row"], point: UInt64[ndarray, "#column #row"]
) -> tuple[UInt64[ndarray, "column row"], Int64[ndarray, "#column #row"]]:
    """Digits with the byte of the decimal point closed up, and how many stood behind it."""
    place = point >> _word(7)
    before = place - _word(1)
    after = ~((before << _word(8)) | _word(0xFF))
    closed = ((digit & before) << _word(8)) | (digit & after)
    decimals = 7 - ((place * _BYTE_NUMBER) >> _word(56)).astype(np.int64)
    if point.all():
        return closed, decimals
    there = place != 0
    return np.where(there, closed, digit), np.where(there, decimals, 0)


def _value(digit: UInt64[ndarray, "column row"]) -> UInt64[ndarray, "column row"]:
    """The number whose decimal digits are the bytes, the lowest byte first."""
    value = (digit * _word(10) + (digit >> _word(8))) & _word(0x00FF00FF00FF00FF)
    value = (value * _word(100) + (value >> _word(16))) & _word(0x0000FFFF0000FFFF)
    return (value * _word(10000) + (value >> _word(32))) & _word(0xFFFFFFFF)


def _parse_long(text: bytes, end: Int64[ndarray, "width row"]) -> Float64[ndarray, "width row"] | None:
    """The same for numbers of more characters: the digits as whole numbers, then the decimal point."""
    ends = end.T.ravel()
    point = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("."))
    number = np.searchsorted(ends, point)
    if (np.diff(number) == 0).any():
        return None
    decimals = np.zeros(end.size, np.int64)
    decimals[number] = ends[number] - point - 1
    whole = _whole_numbers(text.translate(None, b"."), end.size)
    if whole is None or decimals.max() >= len(_POWERS) or np.abs(whole).max() >= 2**53:
        return None
    return np.ascontiguousarray((whole / _POWERS[decimals]).reshape(-1, len(end)).T)


def _whole_numbers(text: bytes, count: int) -> Int64[ndarray, " number"] | None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # numpy warns of what it cannot read
        try:
            numbers = np.fromstring(text, np.int64, sep=" ")
        except (ValueError, DeprecationWarning):
            return None
    return numbers if len(numbers) == count else None
