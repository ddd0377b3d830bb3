"""Sums that come out the same, bit for bit, each time and in any company, on a GPU too."""

import functools

import torch


def in_order(parts: torch.Tensor) -> torch.Tensor:
    """The sum over dimension 1, term by term: a reduction's order may follow the batch's size.

    Parameters
    ----------
    parts : torch.Tensor, (B, N, ...)
        The terms.

    Returns
    -------
    torch.Tensor, (B, ...)
        Their sum.
    """
    return functools.reduce(torch.add, parts.unbind(1))


def gram(rows: torch.Tensor) -> torch.Tensor:
    """rows rows^T, of which a processor may round the two halves differently, made symmetric.

    Parameters
    ----------
    rows : torch.Tensor, (n, m)
        The rows.

    Returns
    -------
    torch.Tensor, (n, n)
        Their products.
    """
    product = rows @ rows.T
    return (product + product.T) / 2


def add_at(
    target: torch.Tensor, dim: int, index: torch.Tensor, values: torch.Tensor
) -> torch.Tensor:
    """target.index_add_(dim, index, values), which adds in any order on a GPU.

    There the values that go to one place are sorted first.

    Parameters
    ----------
    target : torch.Tensor
        What is added to, in place.
    dim : int
        The dimension that the index is for.
    index : torch.Tensor, (n,)
        Places along it.
    values : torch.Tensor
        n values along it.

    Returns
    -------
    torch.Tensor
        The target.
    """
    if target.device.type == "cpu":
        return target.index_add_(dim, index, values)
    moved, values = target.movedim(dim, 0), values.movedim(dim, 0)
    moved.index_put_((index,), values, accumulate=True)
    return target
