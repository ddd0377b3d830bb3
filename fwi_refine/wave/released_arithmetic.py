"""Records as the released data's were made: coefficients rounded to float32.

The code behind OpenFWI (KAUST a2d_mod_abc24) writes a step as

    p[n+1] = a p[n] - b p[n-1] + alpha (c2 N1 + c3 N2),   a = 2 - kappa + 2 c1 alpha,  b = 1 - kappa

and a float32 run of it rounds a, b and alpha once, for all steps. That acts like a small change
of the medium, the same in every step, and with c2 and c3, which every kernel has rounded, it is
most of what float32 does: rounded coefficients with float64 arithmetic come within 5e-6 rms of an
all-float32 run (BENCHMARKS.md). The kernels of this package keep p[n] - p[n-1], which loses less,
so they do not serve where the released data's own errors are wanted; but that of a GPU knows this
form as well.
"""

import torch

from fwi_refine.survey import OPENFWI, Survey
from fwi_refine.wave.reference import C1, C2, C3, damping, pad
from fwi_refine.wave.simulator import Simulator
from fwi_refine.wave.threads import one_thread_each


def released_record(
    v, vmin=None, survey: Survey = OPENFWI, arithmetic=torch.float64, threads: int | None = None
):
    """The record of one map v (nz, nx) m/s with float32 coefficients: (shots, n_steps, receivers).

    vmin: default the minimum of v. arithmetic: torch.float32 for a record like the released ones,
    torch.float64 for the effect of the rounded coefficients alone. threads: on the CPU, default
    torch's number. On a GPU where v is on one.
    Raises ValueError for a v of another shape.
    """
    if tuple(v.shape) != survey.shape:
        raise ValueError(f"velocity of shape {tuple(v.shape)}: expected {survey.shape}")
    v = v.detach().double()
    vmin = float(v.min() if vmin is None else vmin)
    if v.device.type != "cpu" and arithmetic == torch.float64:
        # in one launch; below there are some thirty for each step
        simulator = Simulator(survey, arithmetic, device=v.device)
        return simulator.released(v[None], torch.tensor([vmin], dtype=torch.float64))[0]
    padded = pad(v[None], survey)[0]
    alpha = (padded * survey.dt / survey.spacing) ** 2
    kappa = vmin * damping(survey).to(v.device)

    def rounded(x):
        return x.to(torch.float32).to(arithmetic)

    coefficients = [rounded(x) for x in (2 - kappa + 2 * C1 * alpha, 1 - kappa, alpha)]
    strength = rounded((padded * survey.dt) ** 2)
    wavelet = rounded(torch.from_numpy(survey.wavelet).to(v.device))
    receivers = torch.from_numpy(survey.padded_index(survey.receivers)).long().T.to(v.device)

    sources = torch.from_numpy(survey.padded_index(survey.sources)).long().to(v.device)
    pulses = strength[sources[:, 0], sources[:, 1], None] * wavelet
    if v.device.type != "cpu":
        return _shots(coefficients, sources, pulses, receivers)
    with one_thread_each(threads or torch.get_num_threads()) as pool:
        parts = pool.map(
            lambda k: _shots(coefficients, sources[k : k + 1], pulses[k : k + 1], receivers),
            range(len(sources)),
        )
        return torch.cat(list(parts))


def _shots(coefficients, sources, pulses, receivers):
    """Traces of some shots, (shots, n_steps, receivers), from what each source injects, (shots,
    n_steps)."""
    centre, decay, alpha = coefficients
    if centre.device.type == "cpu":  # in this worker alone; they would cost most of the time
        torch.set_flush_denormal(True)
    shots, columns = torch.arange(len(sources), device=centre.device), centre.shape[1]
    receivers = receivers[0] * columns + receivers[1]
    p, old, following, sums, part = (
        torch.zeros(len(sources), *centre.shape).to(centre) for _ in range(5)
    )
    traces = []
    for pulse in pulses.T:
        torch.mul(centre, p, out=following)
        following.addcmul_(decay, old, value=-1)
        sums.zero_()
        for distance, weight in ((1, C2), (2, C3)):
            part.zero_()
            for dim in (1, 2):
                _add_neighbours(part, p, distance, dim)
            sums.add_(part, alpha=weight)
        following.addcmul_(alpha, sums)
        following[shots, sources[:, 0], sources[:, 1]] += pulse
        old, p, following = p, following, old
        traces.append(p.flatten(1)[:, receivers])
    return torch.stack(traces, dim=1)


def _add_neighbours(sums, p, distance, dim):
    """Adds both neighbours at a distance along dim, on a grid that wraps around."""
    n = p.shape[dim]
    for target, origin in ((0, distance), (distance, 0)):
        sums.narrow(dim, target, n - distance).add_(p.narrow(dim, origin, n - distance))
    sums.narrow(dim, 0, distance).add_(p.narrow(dim, n - distance, distance))
    sums.narrow(dim, n - distance, distance).add_(p.narrow(dim, 0, distance))
