"""Checksums equal those of RFC 3720 and of the definition, bit by bit, for any length."""

import numpy as np
import pytest

from flexivid.metrics.extractors.crc32c import POLYNOMIAL, crc32c, masked


def bit_by_bit(content):
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ POLYNOMIAL * (crc & 1)
    return crc ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_published_values(content, expected):
    assert crc32c(np.frombuffer(content, np.uint8)) == expected == bit_by_bit(content)


@pytest.mark.parametrize("num_words", [1, 2, 3, 5, 63, 64, 100, 777, 2049])
def test_any_length_and_order(num_words):
    words = np.random.default_rng(num_words).integers(0, 1 << 32, (num_words, 2), dtype=np.uint32)
    assert crc32c(words) == bit_by_bit(words.tobytes())
    assert crc32c(words.T) == bit_by_bit(words.T.tobytes())


def test_every_bit_counts():
    numbers = np.random.default_rng(0).random(5000, np.float32)
    damaged = numbers.copy()
    damaged.view(np.uint32)[1234] ^= 1
    assert crc32c(numbers) != crc32c(damaged)


def test_masking_can_be_undone():
    rotated = (masked(0xDEADBEEF) - 0xA282EAD8) & 0xFFFFFFFF
    assert (rotated >> 17 | rotated << 15) & 0xFFFFFFFF == 0xDEADBEEF
