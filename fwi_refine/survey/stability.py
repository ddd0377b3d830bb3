"""Limits of the finite-difference scheme: stability, and the speed of its waves.

A plane wave of angular frequency w and wave number k along an axis of the grid solves the scheme
of second order in time and fourth in space where

    4 sin^2(w dt / 2) = (v dt / dx)^2 F(k dx),   F(q) = 5/2 - 8/3 cos q + 1/6 cos 2q.

So cos(k dx) is a root of a quadratic, and w / k against v is the error of the phase velocity.
"""

import math

# Largest v dt / dx for which the 2-D scheme of fourth order in space is stable: sqrt(3/8).
CFL_LIMIT = 0.6123

# Upper frequency at which the amplitude of a Ricker wavelet is 1 / sqrt(2) of that at its peak, in
# units of the peak frequency. Alford, Kelly and Boore (Geophysics 39, 1974) ask for 5.5 points in
# a wavelength there: the phase velocity is then 0.9 % wrong.
HALF_POWER = 1.442
# Errors of the phase velocity at that frequency: with 2 % a wave is half a period late after 25
# wavelengths, with 5 % after 10, which no inversion can make good. OpenFWI has 0.3 % at 1500 m/s
# and 1.6 % at 1000 m/s, its lower bound.
DISPERSION_WARNING, DISPERSION_LIMIT = 0.02, 0.05
MIN_POINTS = 3.6  # in a wavelength there, for less than 5 %


def phase_velocity_error(velocity: float, frequency: float, spacing: float, dt: float) -> float:
    """By what fraction a wave along an axis of the grid is too fast; negative: too slow.

    Along an axis space makes it slower than in any other direction.

    Parameters
    ----------
    velocity : float
        m/s.
    frequency : float
        Hz.
    spacing : float
        Of the grid, m.
    dt : float
        Time step, s.

    Returns
    -------
    float
        -1 where the grid carries no such wave.
    """
    turn = math.pi * frequency * dt  # w dt / 2
    moved = velocity * dt
    ratio = 2 * math.sin(min(turn, math.pi / 2)) * spacing / moved if moved else math.inf
    f = ratio * ratio  # may be infinite, where a power would raise
    cosine = 4 - math.sqrt(9 + 3 * f)
    if cosine < -1:
        return -1.0
    if cosine >= 1:  # a wave so long that its error is below rounding
        return 0.0
    return 2 * math.pi * frequency * spacing / (math.acos(cosine) * velocity) - 1


def fastest_stable(spacing: float, dt: float, damping: float = 0.0) -> float:
    """Highest velocity for which the scheme is stable where it is damped.

    Parameters
    ----------
    spacing : float
        Of the grid, m.
    dt : float
        Time step, s.
    damping : float
        kappa, the damping per step.

    Returns
    -------
    float
        m/s; 0 where the damping alone makes it unstable.

    Notes
    -----
    With kappa a step of the wave that alternates from cell to cell is z^2 - (2 - kappa - a) z +
    (1 - kappa), a = 32/3 (v dt / dx)^2, whose roots are within the unit circle for a < 4 - 2 kappa.
    Where that holds in every cell, the scheme is stable in any map: the Laplacian L has no
    eigenvalue below -32/3, so sqrt(alpha) (-L) sqrt(alpha) <= 32/3 alpha < 4 - 2 kappa.
    """
    return CFL_LIMIT * spacing / dt * math.sqrt(max(1 - damping / 2, 0.0))


def remedies(velocity: float, damping: float, spacing: float, dt: float) -> tuple[float, float]:
    """What makes a damped cell stable where it is not.

    Parameters
    ----------
    velocity : float
        m/s.
    damping : float
        kappa at this spacing and dt.
    spacing, dt : float
        m and s.

    Returns
    -------
    tuple of float
        A time step, s, at this spacing; and a spacing, m, with this time step.
    """
    # damping is in proportion to dt / dx: in r = velocity dt / dx the limit
    # r^2 = CFL_LIMIT^2 (1 - kappa / 2) is a quadratic
    b = CFL_LIMIT**2 * damping / 2
    b /= velocity * dt / spacing
    courant = (math.sqrt(b * b + 4 * CFL_LIMIT**2) - b) / 2
    return 0.999 * courant * spacing / velocity, 1.001 * velocity * dt / courant


def largest_dispersion(
    velocity_bounds: tuple[float, float], frequency: float, spacing: float, dt: float
) -> float:
    """Largest error of the phase velocity where the wavelet has half of its power.

    Parameters
    ----------
    velocity_bounds : tuple of float
        Slowest and fastest velocity, m/s.
    frequency : float
        Of the wavelet's peak, Hz.
    spacing, dt : float
        m and s.

    Returns
    -------
    float
        A fraction, at the upper one of these frequencies.
    """
    upper = HALF_POWER * frequency
    return max(abs(phase_velocity_error(v, upper, spacing, dt)) for v in velocity_bounds)


def describe_dispersion(
    velocity_bounds: tuple[float, float], frequency: float, spacing: float, dt: float
) -> str:
    """The numbers of `largest_dispersion`, for a message; the same parameters."""
    upper, slowest = HALF_POWER * frequency, velocity_bounds[0]
    points = slowest / upper / spacing
    error = largest_dispersion(velocity_bounds, frequency, spacing, dt)
    return (
        f"at {slowest:g} m/s, the slowest velocity, a wave of {upper:.1f} Hz (the wavelet of "
        f"{frequency:g} Hz has half of its power there) has {points:.1f} points of {spacing:g} m "
        f"in its wavelength, and phase velocities are up to {error:.1%} wrong"
    )


def check_dispersion(
    velocity_bounds: tuple[float, float], frequency: float, spacing: float, dt: float
) -> None:
    """Check that a grid is fine enough for a wavelet.

    Parameters
    ----------
    velocity_bounds, frequency, spacing, dt
        As for `largest_dispersion`.

    Raises
    ------
    ValueError
        Where the error is larger than `DISPERSION_LIMIT`.
    """
    if largest_dispersion(velocity_bounds, frequency, spacing, dt) <= DISPERSION_LIMIT:
        return
    slowest = velocity_bounds[0]
    least = HALF_POWER * frequency * MIN_POINTS * spacing  # m/s
    finer = slowest / least
    raise ValueError(
        "the grid is too coarse: "
        f"{describe_dispersion(velocity_bounds, frequency, spacing, dt)}. Expected at most "
        f"{DISPERSION_LIMIT:.0%}: a spacing of at most {0.999 * finer * spacing:.3g} m, a wavelet "
        f"of at most {0.999 * finer * frequency:.3g} Hz, or a slowest velocity of at least "
        f"{1.001 * least:.4g} m/s"
    )
