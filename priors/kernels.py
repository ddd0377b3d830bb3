"""The covariance of a Gaussian process made of scikit-learn's kernels.

A module of its own, imported where it is used: scikit-learn takes more than half a second to load,
which every process of a run would pay, and a run needs the covariance's structure only.
"""

from typing import Any

from numpy.typing import NDArray
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, Kernel, WhiteKernel


class DepthSlope(DotProduct):  # type: ignore[misc]  # scikit-learn has no types
    """Covariance z z' of a straight line in the first coordinate, with unit variance of slope."""

    def __init__(self) -> None:
        super().__init__(sigma_0=0.0, sigma_0_bounds="fixed")

    def __call__(
        self, X: NDArray[Any], Y: NDArray[Any] | None = None, eval_gradient: bool = False
    ) -> Any:
        """Covariance of points.

        Parameters
        ----------
        X : ndarray, shape (n, d)
            Points.
        Y : ndarray, shape (m, d), optional
            Other points; by default `X` itself.
        eval_gradient : bool
            Whether to return the gradient in the logarithms of the hyper-parameters too.

        Returns
        -------
        ndarray, shape (n, m), or (ndarray, ndarray)
        """
        return super().__call__(X[:, :1], None if Y is None else Y[:, :1], eval_gradient)

    def diag(self, X: NDArray[Any]) -> NDArray[Any]:
        """Variance (n,) at the points `X` (n, d)."""
        return super().diag(X[:, :1])


def kernel(length: float, sigma: float, noise: float, constant: float, slope: float) -> Kernel:
    """Covariance of the Gaussian process as a kernel.

    Parameters
    ----------
    length, sigma, noise, constant, slope : float
        As in `GaussianProcess`.

    Returns
    -------
    sklearn.gaussian_process.kernels.Kernel
        On points (z - middle, x - middle) in cells.
    """
    return (
        ConstantKernel(sigma**2) * RBF(length)
        + WhiteKernel(noise**2)
        + ConstantKernel(constant**2)
        + ConstantKernel(slope**2) * DepthSlope()
    )
