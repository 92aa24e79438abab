"""Codes of 1 to 8 bits: what is packed comes back, and takes no more bytes than it must."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flyweight.tables.packing import pack, packed_bytes, unpack


@given(bits=st.integers(1, 8), count=st.integers(1, 300), seed=st.integers(0, 10_000))
@settings(max_examples=80, deadline=None)
def test_codes_come_back_in_any_order(bits: int, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 2**bits, (count,), generator=generator).to(torch.uint8)
    packed = pack(codes, bits)
    order = torch.randperm(count, generator=generator)
    assert packed.dtype == torch.uint8
    assert len(packed) == packed_bytes(count, bits) == math.ceil(count * bits / 8)
    assert torch.equal(unpack(packed, order, bits), codes[order].long())


def test_two_codes_of_4_bits_share_a_byte_the_first_in_the_low_half() -> None:
    assert pack(torch.tensor([0xA, 0x3, 0xF], dtype=torch.uint8), 4).tolist() == [0x3A, 0x0F]


def test_bits_are_laid_out_as_in_one_long_number() -> None:
    """Code i stands at bits [3i, 3i + 3) of the little-endian number that the bytes make."""
    codes = [5, 2, 7, 1, 0, 6, 3]
    packed = bytes(pack(torch.tensor(codes, dtype=torch.uint8), 3).tolist())
    assert int.from_bytes(packed, "little") == sum(code << 3 * place for place, code in enumerate(codes))


def test_positions_of_any_shape_are_read() -> None:
    packed = pack(torch.arange(8, dtype=torch.uint8), 5)
    assert unpack(packed, torch.tensor([[7, 0], [3, 3]]), 5).tolist() == [[7, 0], [3, 3]]
