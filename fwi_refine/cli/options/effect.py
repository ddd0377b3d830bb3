"""Options that have no effect beside others: a warning names each of them and says why."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import click
from click.core import ParameterSource

Values = Mapping[str, Any]  # of all options of a command, by the names of its arguments

OF_RECORDS = ("record_axes", "record_range", "record_log", "record_scale")
OF_SEARCH = ("rounds", "samples", "seed")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rule:
    """When options of some commands have no effect.

    Attributes
    ----------
    commands : tuple of str
        As they are typed, such as "plot panels"; empty for all.
    options : tuple of str
        Names of the arguments that the command gets them as.
    why : callable
        Of the values of all options: what stands behind "has no effect", such as "without
        --denoiser"; None where they have one. Asked only where one of the options was given.
    """

    commands: tuple[str, ...]
    options: tuple[str, ...]
    why: Callable[[Values], str | None]


def _without(name: str, option: str) -> Callable[[Values], str | None]:
    return lambda values: None if values[name] else f"without {option}"


def _beside(name: str, option: str) -> Callable[[Values], str | None]:
    return lambda values: f"with {option}" if values[name] else None


def _families_not_told(values: Values) -> str | None:
    return None if str(values["families"]) == "auto" else "without --families auto"


def _weights_not_sought(values: Values) -> str | None:
    return next((f"with --{name}" for name in ("median", "weights") if values[name]), None)


def _records_not_asked(values: Values) -> str | None:
    told = next((f"with --{n}" for n in ("median", "weights", "truth") if values[n]), None)
    if told is None or values["mix"] or str(values["families"]) == "auto":
        return None
    return f"{told} and without --mix or --families auto"


def _nothing_to_replace(values: Values) -> str | None:
    return None if values["out"] or values["pictures"] else "without --out or --pictures"


def _not_a_png(values: Values) -> str | None:
    suffix = values["out"].suffix.lower()
    return f"on a {suffix} file" if suffix in (".pdf", ".svg") else None


def _method(values: Values) -> tuple[str, str]:
    """The method that is meant, and how it is called."""
    from fwi_refine.cli.options.devices import gpus
    from fwi_refine.cli.options.files import load_survey
    from fwi_refine.inversion.method import choose_method
    from fwi_refine.routing import Family
    from fwi_refine.wave import Simulator

    method, survey = values["method"], load_survey(values["survey_file"])
    if method != "auto":
        return method, f"--method {method}"
    device = "cuda" if gpus(values["device"]) else "cpu"
    kernel = Simulator(survey, kernel=values["kernel"], device=device).kernel
    family = str(Family.LAYERED) if values["family"] == "auto" else values["family"]
    method, _ = choose_method(method, family, survey, kernel)
    return method, f"--method {method}, which auto stands for here"


def _no_matrix(values: Values) -> str | None:
    from fwi_refine.inversion.method import WITHOUT_MATRIX

    method, name = _method(values)
    return f"with {name}: no expected error is known" if method in WITHOUT_MATRIX else None


def _prior_not_known(values: Values) -> str | None:
    from fwi_refine.inversion.families import NAMES
    from fwi_refine.inversion.method import takes_prior

    prior, family = values["prior"], values["family"]
    method, name = _method(values)
    if not any(takes_prior(one, method, prior) for one in NAMES):
        return f"with {name}"
    if family != "auto" and not takes_prior(family, method, prior):
        return f"with --family {family}"
    return None


RULES = (
    Rule((), ("quiet",), _beside("verbose", "--verbose")),
    Rule(("refine", "start"), ("jobs",), _beside("dask", "--dask: each worker is one")),
    Rule(("refine",), ("chunk_size",), _without("run_dir", "--run-dir")),
    Rule(("refine",), ("overwrite",), _nothing_to_replace),
    Rule(("refine",), ("deviation", "keep_deviation", "samples"), _no_matrix),
    Rule(("refine",), ("prior",), _prior_not_known),
    Rule(("evaluate", "blend"), OF_RECORDS, _without("records", "--records")),
    Rule(("evaluate", "blend"), ("priors_file",), _families_not_told),
    Rule(("blend",), ("records",), _records_not_asked),
    Rule(("blend",), OF_SEARCH, _weights_not_sought),
    Rule(("blend",), ("max_simulations",), _without("mix", "--mix")),
    Rule(("plot panels", "plot samples"), ("sort",), _beside("ids", "--sample")),
    Rule(("plot panels", "plot samples", "plot contact"), ("count",), _beside("ids", "--sample")),
    Rule(("plot panels", "plot samples", "plot contact", "plot convergence"), ("dpi",), _not_a_png),
    Rule(("fit-priors",), ("steps",), _without("denoiser", "--denoiser")),
)


def warn_of_no_effect() -> None:
    """Warns of the options of the present command that have no effect, once of each."""
    for text in without_effect(click.get_current_context()):
        log.warning("%s", text)


def without_effect(context: click.Context) -> Iterator[str]:
    """What is said of each option of a command that was given in vain."""
    path = context.command_path.split(" ", 1)[-1]
    given = {p.name: p for p in context.command.params if _is_given(p, context)}
    told = set()
    for rule in RULES:
        if rule.commands and path not in rule.commands:
            continue
        for name in rule.options:
            if name in given and name not in told and (why := rule.why(context.params)):
                told.add(name)
                yield f"{max(given[name].opts, key=len)} has no effect {why}"


def _is_given(parameter: click.Parameter, context: click.Context) -> bool:
    """Whether an option was given, and not as what it is anyway."""
    name = str(parameter.name)
    typed = context.get_parameter_source(name) not in (None, ParameterSource.DEFAULT)
    return typed and context.params.get(name) != parameter.default
