"""Sums that come out the same, bit for bit, each time and in any company, on a GPU too."""

import functools

import torch


def in_order(parts):
    """The sum over dimension 1, term by term: a reduction's order may follow the batch's size."""
    return functools.reduce(torch.add, parts.unbind(1))


def gram(rows):
    """rows rows^T, (n, n): the two halves of a product may be rounded differently, by processor."""
    product = rows @ rows.T
    return (product + product.T) / 2


def add_at(target, dim, index, values):
    """target.index_add_(dim, index, values), which adds in any order on a GPU: there the values
    that go to one place are sorted first."""
    if target.device.type == "cpu":
        return target.index_add_(dim, index, values)
    moved, values = target.movedim(dim, 0), values.movedim(dim, 0)
    moved.index_put_((index,), values, accumulate=True)
    return target
