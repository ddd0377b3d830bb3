"""What the released data's arithmetic added to the record of a map of integers.

Most of that is due to its coefficients (wave/released_arithmetic.py), which are rounded by as much
in every cell of a layer and at every step, like a change of the medium. It is known once the
integers are; where all of them are right, nothing of the record is left.
"""

import numpy as np
import torch

# The fraction of the mean square misfit that may be left where the rounding was taken out: of a
# record that other software made, or with a map that is not right, it is more.
EXPLAINED = 0.5


def rounding_of_coefficients(simulator, v, vmin, record):
    """(what it adds to the record of v, mean square misfit of v without and with it).

    v (nz, nx) and vmin: integers, m/s; record: numpy, (shots, rows, receivers), of which the first
    n_steps rows count; what is added has its shape, and costs two simulations
    """
    exact = simulator.forward(v[None], vmin[None])[0].double()
    shift = simulator.released(v[None], vmin[None])[0].double() - exact
    residual = exact - torch.from_numpy(record)[:, : exact.shape[1]].to(exact.device)
    shift_of_rows = np.zeros(record.shape)
    shift_of_rows[:, : exact.shape[1]] = shift.cpu().numpy()
    plain, fits = (float(r.square().mean()) for r in (residual, residual + shift))
    return shift_of_rows, plain, fits
