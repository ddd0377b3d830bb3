"""`fwi-refine doctor`: is the installation sound, does the physics match a record?"""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fwi_refine.cli import FAILURE, OK, options
from fwi_refine.cli.options.files import load_survey

if TYPE_CHECKING:
    from fwi_refine.analysis.installation import Check


@options.command("doctor")
@click.argument("record", type=options.PATH, required=False)
@click.argument("velocity_map", metavar="[MAP]", type=options.PATH, required=False)
@options.survey
@options.device
@options.kernel
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
@options.logging_options
def command(
    record: Path | None,
    velocity_map: Path | None,
    survey_file: Path | None,
    device: str,
    kernel: str,
    as_json: bool,
) -> int:
    """Check the installation, and whether RECORD fits its physics.

    \b
    Examples:
      fwi-refine doctor
      fwi-refine doctor seismic/3d2953a3fb.npy
      fwi-refine doctor seismic/3d2953a3fb.npy map.npy
      fwi-refine doctor --device cuda

    Prints versions, devices, which kernels compute, whether the adjoint is exact, and the speed.
    On a GPU, and with --kernel torch, every kernel there is compared with the CPU's.

    With a RECORD (.npy of (5,1000,70), or as --survey has them): do its sign, amplitude, first
    arrivals, reciprocity and the velocities at its sources match the survey that is simulated?
    Is its wavelet another one: amplitude, delay, frequency, shape? In which arithmetic was it made?
    With a MAP, m/s, of a file's first sample: is every sample of the record that of the map, so
    that the map is proven? Exit code 1 if a check fails.
    """
    from fwi_refine import io
    from fwi_refine.analysis import diagnose, installation
    from fwi_refine.wave import Simulator

    device, survey = options.torch_device(device), load_survey(survey_file)
    options.check_kernel(kernel, device)
    simulator = Simulator(survey, kernel=kernel, device=device)
    physics: list[Check] = []
    if record:
        measured = io.open_records(record, survey).read(0)
        v = io.open_predictions(velocity_map, survey).read(0) if velocity_map else None
        physics = [
            diagnose.check_inputs(measured, simulator, v),
            *diagnose.check_physics(measured, simulator),
            *diagnose.check_source(measured, simulator, v),
            *diagnose.check_arithmetic(measured, simulator, v),
        ]
    checks = [
        *installation.versions(simulator),
        *installation.self_tests(simulator),
        installation.adjoint_test(survey, options=simulator.options),
        *installation.speed(simulator),
        *physics,
    ]
    if as_json:
        click.echo(json.dumps([_plain(check) for check in checks], indent=2))
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            click.echo(_line(check, width))
    return FAILURE if any(check.passed is False for check in checks) else OK


def _line(check: "Check", width: int) -> str:
    verdict = {True: "ok", False: "FAILED", None: ""}[check.passed]
    expected = f"  (expected {check.expected})" if check.expected else ""
    return f"{check.name:{width}}  {verdict:6}  {_text(check.value)}{expected}"


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return f"{value:.7g}" if isinstance(value, float) else str(value)


def _plain(check: "Check") -> dict[str, Any]:
    """As JSON has it: no NaN."""
    values = check.value if isinstance(check.value, list) else [check.value]
    values = [None if isinstance(v, float) and math.isnan(v) else v for v in values]
    value = values if isinstance(check.value, list) else values[0]
    return {
        "name": check.name,
        "value": value,
        "expected": check.expected,
        "passed": check.passed,
    }
