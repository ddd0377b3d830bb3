"""The covariance of a Gaussian process made of scikit-learn's kernels.

A module of its own, imported where it is used: scikit-learn takes more than half a second to load,
which every process of a run would pay, and a run needs the covariance's structure only.
"""

from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, Kernel, WhiteKernel


class DepthSlope(DotProduct):
    """Covariance z z' of a straight line in the first coordinate, with unit variance of slope."""

    def __init__(self):
        super().__init__(sigma_0=0.0, sigma_0_bounds="fixed")

    def __call__(self, X, Y=None, eval_gradient=False):
        """Covariance of the points `X` (n, d) with `Y` (m, d) or with themselves."""
        return super().__call__(X[:, :1], None if Y is None else Y[:, :1], eval_gradient)

    def diag(self, X):
        """Variance at the points `X` (n, d)."""
        return super().diag(X[:, :1])


def kernel(length, sigma, noise, constant, slope) -> Kernel:
    """The kernel on points (z - middle, x - middle) in cells; see `GaussianProcess` for units."""
    return (
        ConstantKernel(sigma**2) * RBF(length)
        + WhiteKernel(noise**2)
        + ConstantKernel(constant**2)
        + ConstantKernel(slope**2) * DepthSlope()
    )
