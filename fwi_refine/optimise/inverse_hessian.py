"""The limited-memory BFGS approximation of the inverse Hessian.

A pair is s = change of x and y = change of the gradient over one iteration. The two-loop recursion
(Nocedal & Wright 2006, algorithm 7.4) multiplies a vector g by the approximation:

    q = g;   for i from the newest pair to the oldest:  a_i = (s_i . q) / (s_i . y_i),  q -= a_i y_i
    r = H0 q;  for i from the oldest to the newest:     r += s_i (a_i - (y_i . r) / (s_i . y_i))

Pairs stand in blocks, as rows of S and Y, oldest first. Inside a block each loop is the
substitution of one triangular system. With R the upper triangle of S Y^T and D its diagonal:

    first loop:  R a = S q,  q -= Y^T a            second loop:  R^T b = D a - Y r,  r += S^T b

so a thousand pairs cost a few matrix products instead of thousands of small operations, and no
memory is moved when pairs come or go.
"""

from collections.abc import Callable

import torch

BLOCK = 128  # pairs in a block
# A pair is used if the cosine of the angle between s and y is above this. For a Hessian of
# condition c the cosine is at least 2 / sqrt(c), so this only leaves out what is not convex.
MIN_COSINE = 1e-10


class Block:
    """Up to `capacity` pairs; those in use are rows `first` to `last` - 1."""

    def __init__(self, capacity: int, like: torch.Tensor):
        self.S = like.new_empty(capacity, like.numel())
        self.Y = like.new_empty(capacity, like.numel())
        self.R = like.new_zeros(capacity, capacity)  # only its upper triangle is filled and read
        self.first = self.last = 0

    def __len__(self) -> int:
        return self.last - self.first

    @property
    def full(self) -> bool:
        """Whether no further pair fits in."""
        return self.last == len(self.S)

    def append(self, s: torch.Tensor, y: torch.Tensor) -> None:
        """Add a pair s (n,), y (n,), and its column of R = S Y^T."""
        row = self.last
        self.S[row], self.Y[row] = s, y
        self.R[: row + 1, row] = self.S[: row + 1] @ y
        self.last += 1

    def rows(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """S and Y (m, n), and R (m, m), of the pairs in use."""
        used = slice(self.first, self.last)
        return self.S[used], self.Y[used], self.R[used, used]

    def first_loop(self, q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Coefficients (m,) and q (n,) after the first loop of the two-loop recursion."""
        S, Y, R = self.rows()
        a = torch.linalg.solve_triangular(R, (S @ q)[:, None], upper=True)[:, 0]
        return a, q - a @ Y

    def second_loop(self, r: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        """r (n,) after the second loop, with the coefficients of the first."""
        S, Y, R = self.rows()
        right = R.diagonal() * a - Y @ r
        b = torch.linalg.solve_triangular(R.T, right[:, None], upper=False)[:, 0]
        return r + b @ S


class Pairs:
    """The pairs of an L-BFGS run and the inverse Hessian that they stand for.

    history: number of pairs kept, None for all. A pair takes 16 n bytes for n unknowns.
    """

    def __init__(self, history: int | None = None):
        if history is not None and history < 1:
            raise ValueError(f"history is {history}, expected at least 1 pair, or None for all")
        self.history = history
        self.clear()

    def __len__(self) -> int:
        return sum(len(block) for block in self.blocks)

    def clear(self) -> None:
        """Leave out all pairs."""
        self.blocks: list[Block] = []
        self.scaling = 1.0  # s.y / y.y of the newest pair (N&W eq. 7.20)

    def add(self, s: torch.Tensor, y: torch.Tensor) -> bool:
        """Add a pair, unless the curvature along s is not positive. True if it was added."""
        sy, yy = float(torch.dot(s, y)), float(torch.dot(y, y))
        if not sy > MIN_COSINE * float(torch.linalg.vector_norm(s)) * yy**0.5:
            return False
        if not self.blocks or self.blocks[-1].full:
            self.blocks.append(Block(min(BLOCK, self.history or BLOCK), s))
        self.blocks[-1].append(s, y)
        if self.history is not None and len(self) > self.history:
            self.blocks[0].first += 1
            self.blocks = [block for block in self.blocks if len(block)]
        self.scaling = sy / yy
        return True

    def multiply(
        self, g: torch.Tensor, precondition: Callable[[torch.Tensor], torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Product of the inverse Hessian and g, (n,).

        precondition: q -> H0 q; None takes H0 = s.y / y.y of the newest pair, or 1 without pairs.
        """
        q, coefficients = g, []
        for block in reversed(self.blocks):
            a, q = block.first_loop(q)
            coefficients.append(a)
        r = precondition(q) if precondition else self.scaling * q
        for block in self.blocks:
            r = block.second_loop(r, coefficients.pop())
        return r
