"""J^T J by float32 products that are exact, for devices whose float64 is slow or missing.

Each column of J is scaled by a power of two to at most 1 and written as three digits of 8 bits,

    x = a / 2^7 + b / 2^15 + c / 2^23 + rest,    a, b, c whole, at most 128,    rest at most 2^-24

(K. Ozaki, T. Ogita, S. Oishi, S. M. Rump, Numer. Algorithms 59, 2012). Of 1024 rows, products of
two digits add up to at most 2^24: float32 has all of these numbers, in whatever order they are
added. Sums of more rows are kept in int32. So the result is J^T J of the rounded columns exactly:
it is positive semidefinite, and has the same bits on every device.
"""

from collections.abc import Sequence

import torch

from fwi_refine.precision import widened

DIGITS = 3
FIRST_BITS, BITS = 7, 8
BLOCK = 1024  # rows whose products float32 adds up exactly
MAX_BLOCKS = 127  # of which int32 holds the sum


def sum_of_exact_products(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The sum of part^T part over parts of J.

    Parameters
    ----------
    parts : sequence of torch.Tensor, (m, n)
        Rows of J, in float32.

    Returns
    -------
    torch.Tensor of float64, (n, n)
        Symmetric; on the device of the parts, or on the CPU where that has no float64.
    """
    largest = torch.stack([part.abs().amax(0) for part in parts]).amax(0)
    # x = mantissa * 2^exponent, mantissa in [0.5, 1); a column of zeros stays one
    exponent = torch.frexp(largest).exponent
    exponent = torch.where(largest > 0, exponent, torch.zeros_like(exponent))
    blocks = [block for part in parts for block in part.split(BLOCK)]
    n = len(largest)
    total: torch.Tensor | None = None
    for first in range(0, len(blocks), MAX_BLOCKS):
        some = _sum_of_blocks(blocks[first : first + MAX_BLOCKS], exponent, n)
        total = some if total is None else total.add_(some)
    assert total is not None
    scale = torch.exp2(widened(exponent))
    return total.mul_(scale).mul_(scale[:, None])


def _sum_of_blocks(blocks: Sequence[torch.Tensor], exponent: torch.Tensor, n: int) -> torch.Tensor:
    """Of at most MAX_BLOCKS blocks, with scaled columns."""
    pairs = [(i, j) for i in range(DIGITS) for j in range(i, DIGITS)]
    sums = [exponent.new_zeros(n, n, dtype=torch.int32) for _ in pairs]
    for block in blocks:
        digits = _digits(block, exponent)
        for own, (i, j) in zip(sums, pairs, strict=True):
            own.add_((digits[i].T @ digits[j]).to(torch.int32))
    total: torch.Tensor | None = None
    for own, (i, j) in zip(sums, pairs, strict=True):
        wide = widened(own).mul_(2.0 ** -(2 * FIRST_BITS + BITS * (i + j)))
        wide = wide if i == j else wide + wide.T
        total = wide if total is None else total.add_(wide)
    assert total is not None
    return total


def _digits(block: torch.Tensor, exponent: torch.Tensor) -> list[torch.Tensor]:
    """The digits of scaled columns, whole numbers in float32."""
    rest = torch.ldexp(block, FIRST_BITS - exponent)
    digits = [rest.round()]
    for _ in range(1, DIGITS):
        rest = (rest - digits[-1]) * 2.0**BITS
        digits.append(rest.round())
    return digits
