"""The tuning constants of the level stages, with their reasons; a recipe overrides any of them.

    LevelAssignment(rounds=8, ..., settings=LevelSettings(sure_probability=0.95))

Misfits are in the unit of OpenFWI's records; those of another survey are scaled by its unit.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class LevelReading:
    """How levels are read off a map.

    Attributes
    ----------
    area_tolerance
        m/s between neighbours of one layer.
    min_area
        Cells; smaller areas are cells along an edge.
    min_cut_area
        Cells of a layer that the surface cuts, where edges are sharp.
    same_level
        m/s: areas that differ by less share their level. Two layers may differ by 1 m/s, and taken
        as one the cells along their edges make up for it and are wrong; pieces of one layer that
        seem to differ have two levels until they are better known.
    min_inside
        Cells. A level that hardly has a cell away from edges is not known to better than tens of
        m/s, as its cells and those along the edge make up for each other: one within
        `same_level_if_small` is the same level.
    same_level_if_small
        m/s.
    interchangeable
        m/s: a cell may as well have one as the other of levels that differ by less.
    reach
        Cells from one at a level within which a cell may have it.
    snap_tolerance
        m/s from a level within which a cell is taken to have it.
    max_fraction_off
        Fraction of the cells that may be off all levels when more levels are looked for in them.
    level_tolerance
        m/s from its velocity within which cells of a level without areas are.
    scatter
        m/s. Deep areas of a few dozen cells are hardly seen: their cells scatter about their
        velocity by as much.
    """

    area_tolerance: float = 4.0
    min_area: int = 12
    min_cut_area: int = 3
    same_level: float = 0.7
    min_inside: int = 12
    same_level_if_small: float = 60.0
    interchangeable: float = 10.0
    reach: int = 3
    snap_tolerance: float = 1.5
    max_fraction_off: float = 0.05
    level_tolerance: float = 8.0
    scatter: float = 40.0


READING = LevelReading()


@dataclass(frozen=True)
class LevelSettings:
    """How levels are assigned.

    Attributes
    ----------
    between_fraction
        Fraction of the open cells that lie between levels, as where a fault cuts a cell.
    potts_coupling
        What a neighbour with a level adds to its log probability, as in a Potts model: edges are
        short.
    settled_distance
        m/s from a level within which a cell away from edges is taken to have it.
    level_width
        m/s, standard deviation of a level as it was read off the map.
    sure_probability
        Probability from which on a cell is given its level.
    unsure_step
        m/s by which a cell that is not given a level may move: of cells that are hardly seen each
        makes up for its neighbours by as much as it likes.
    same_level
        m/s: levels that differ by less are one when it is asked how sure a cell is.
    snap_tolerance
        m/s from a level within which a cell is taken to have it before any assignment.
    noise_floor_rms
        What float32 arithmetic leaves of a record once its effect on a map with some wrong cells is
        taken out: 2.7e-6 to 3.9e-6 where the coefficients agree, 0 for the right map.
    max_rms_for_rounding
        Rms misfit of integers below which it tells whether there is rounding: above, too much is
        wrong.
    integer_doubt
        m/s from an integer from which on a level may be either of its neighbours.
    max_in_doubt
        Levels in doubt, at most, of which all neighbours are tried.
    max_rms_rise
        Factor by which the rms misfit of a fit may rise once the rounding is taken out: it has
        taken up some of that. By more it rises where levels are wrong.
    explained_fraction
        Fraction of the mean square misfit that may be left where the rounding was taken out: of a
        record that other software made, or with a map that is not right, it is more.
    noise_of_misfit
        Fraction of a round's rms misfit that counts as noise in the next: the Jacobian and the
        rounding are wrong by as much as the map.
    converged_change
        m/s, mean change from round to round: what is less is the last.
    nearby_change
        m/s, mean change by a round: after more, a map that fits to the noise floor may not
        be the only one.
    divergence_factor
        A map that fits worse than this multiple of the rms misfit before all rounds, or of that of
        the likeliest fit between them if it is less, has diverged. On the one sample where that was
        seen (CurveFault_B) no later round found back, and maps became worse and worse.
    max_rms_for_fit
        Rms misfit of assigned integers above which no fit is tried from them: with levels unknown,
        cells had to take wrong ones (6.5e-3 was seen to lead on, 3e-2 not). Where all maps are
        above it nothing more is tried.
    round_cost
        Simulations that a round costs at most, besides two Jacobians and a stage.
    more_noise
        An assignment is tried with these multiples of the noise.
    better_rms_ratio
        More noise is taken where the rms misfit falls below this fraction of that with less.
    expected_rms_ratio
        No more noise is tried where the rms misfit is below this multiple of it: one wrong cell is
        that.
    fit_widths
        m/s about its level where a cell is expected in the fit between rounds, if that is sure, or
        not.
    same_integer
        m/s: integers that differ by less are the same.
    reading
        How levels are read off a map.
    """

    between_fraction: float = 0.3
    potts_coupling: float = 1.0
    settled_distance: float = 5.0
    level_width: float = 10.0
    sure_probability: float = 0.9
    unsure_step: float = 100.0
    same_level: float = 4.0
    snap_tolerance: float = 5.0
    noise_floor_rms: float = 4e-6
    max_rms_for_rounding: float = 1e-4
    integer_doubt: float = 0.25
    max_in_doubt: int = 2
    max_rms_rise: float = 1.5
    explained_fraction: float = 0.5
    noise_of_misfit: float = 0.3
    converged_change: float = 0.03
    nearby_change: float = 0.3
    divergence_factor: float = 10.0
    max_rms_for_fit: float = 1e-2
    round_cost: int = 22
    more_noise: tuple[float, ...] = (1.0, 4.0, 16.0)
    better_rms_ratio: float = 0.5
    expected_rms_ratio: float = 10.0
    fit_widths: tuple[float, float] = (1.0, 100.0)
    same_integer: float = 0.5
    reading: LevelReading = READING


SETTINGS = LevelSettings()
