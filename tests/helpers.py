"""Checks for linear operators and gradients, and choices of cases, shared by the tests."""

import numpy as np
import pytest
import torch


def inner(a, b) -> float:
    """Inner product of two tensors, or of two tuples of tensors of the same shapes."""
    if isinstance(a, tuple):
        return sum(inner(*pair) for pair in zip(a, b, strict=True))
    if a.shape != b.shape:
        raise ValueError(f"shapes {tuple(a.shape)} and {tuple(b.shape)} differ")
    return float(torch.dot(a.flatten(), b.flatten()))


def call(function, x):
    """function(x), with a tuple spread over several arguments."""
    return function(*x) if isinstance(x, tuple) else function(x)


def dot_test(forward, adjoint, x, y) -> float:
    """Relative difference between <forward(x), y> and <x, adjoint(y)>.

    It is relative to the smaller of the two products, so no large norm can hide an error. x and y
    are tensors, or tuples of tensors for operators of several arguments or results. Draw them at
    random: a symmetric x hides what a flipped axis does.
    """
    left, right = inner(call(forward, x), y), inner(x, call(adjoint, y))
    return abs(left - right) / max(min(abs(left), abs(right)), np.finfo(float).tiny)


def taylor_test(value_and_gradient, x, dx, steps) -> float:
    """Observed order in h of |f(x + h dx) - f(x) - h <gradient, dx>|: 2 for a right gradient.

    It is 1 for a wrong one. The order is the slope of a straight line through the logarithms.
    x and dx are tensors, or tuples of them. Steps should be so large that the remainder is above
    the rounding of f; raises ValueError where it is not, for then its order says nothing.
    """
    value, gradient = call(value_and_gradient, x)
    slope = inner(gradient, dx)
    remainders = []
    for h in steps:
        moved = (
            tuple(a + h * b for a, b in zip(x, dx, strict=True))
            if isinstance(x, tuple)
            else x + h * dx
        )
        remainders.append(abs(float(call(value_and_gradient, moved)[0]) - float(value) - h * slope))
    floor = 100 * np.finfo(float).eps * abs(float(value))
    if not min(remainders) > floor:
        raise ValueError(
            f"remainders {remainders} reach down to rounding, {floor}: take larger steps"
        )
    return float(np.polyfit(np.log(np.abs(steps)), np.log(remainders), 1)[0])


def others_slow(cases, mark=pytest.mark.slow):
    """Cases for `parametrize`: the first as it is, which the default run has, the others marked."""
    first, *others = cases
    return [
        first,
        *(
            pytest.param(*case, marks=mark)
            if isinstance(case, tuple)
            else pytest.param(case, marks=mark)
            for case in others
        ),
    ]
