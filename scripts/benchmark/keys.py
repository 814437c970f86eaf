"""The keys of the data."""

__all__ = ["STRIDE", "key_of"]

STRIDE = 7_368_787  # a prime: i * STRIDE modulo the size visits every number once


def key_of(number: int) -> str:
    """The key with a number: 16 hexadecimal digits, in no order, as digests have."""
    return f"{number * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF:016x}"
