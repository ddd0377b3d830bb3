"""Options that have no effect beside others: each is named, with the reason, and nothing else is.

Files need not exist: only options are looked at.
"""

import logging

import click
import numpy as np
import pytest
from small_survey_cases import SURVEY

from fwi_refine import refine, simulate
from fwi_refine.cli import program, run
from fwi_refine.cli.options.effect import RULES, without_effect

REFINE = "refine p.npy seismic --out o.npy"
BLEND = "blend a.npy b.npy --out o.npy"
EVALUATE = "evaluate a.npy t.npy"
PANELS = "plot panels run --out o.png"
FIT = "fit-priors . --out p.toml"

# (the command, what is said)
CASES = [
    (f"{REFINE} -v -q", "--quiet has no effect with --verbose"),
    (f"{REFINE} --dask tcp://h:1 --jobs 4", "--jobs has no effect with --dask: each worker is one"),
    ("start seismic --out s.npy --dask tcp://h:1 --jobs 4", "--jobs has no effect with --dask"),
    (f"{REFINE} --chunk-size 2", "--chunk-size has no effect without --run-dir"),
    ("refine p.npy seismic --run-dir r --overwrite",
     "--overwrite has no effect without --out or --pictures"),
    (f"{REFINE} --method lbfgs --deviation d.npy",
     "--deviation has no effect with --method lbfgs: no expected error is known"),
    ("refine p.npy seismic --run-dir r --method matrix-free --keep-deviation",
     "--keep-deviation has no effect with --method matrix-free"),
    (f"{REFINE} --method lbfgs --samples 3", "--samples has no effect with --method lbfgs"),
    (f"{REFINE} --kernel reference --device cpu --samples 3",
     "--samples has no effect with --method lbfgs, which auto stands for here"),
    ("refine p.npy seismic --run-dir r --samples 3", None),
    (f"{REFINE} --family layered --prior learned", "--prior has no effect with --family layered"),
    (f"{REFINE} --family Style_A --prior tv", "--prior has no effect with --family style-a"),
    (f"{REFINE} --family general --prior gp", "--prior has no effect with --family general"),
    (f"{REFINE} --method lbfgs --prior learned", "--prior has no effect with --method lbfgs"),
    (f"{REFINE} --method matrix-free --prior tv", "--prior has no effect with --method matrix"),
    (f"{REFINE} --family style-a --prior gp", None),
    (f"{REFINE} --family style-b --prior learned --samples 2 --deviation d.npy", None),
    (f"{REFINE} --prior tv --method preconditioned-lbfgs", None),
    (f"{REFINE} --family layered --prior auto --method lbfgs --samples 0", None),
    *((f"{EVALUATE} {option}", f"{option.split()[0]} has no effect without --records")
      for option in ("--record-axes tsr", "--record-range -1 1", "--record-log 2",
                     "--record-scale -1")),
    (f"{BLEND} --truth t.npy --record-scale -1", "--record-scale has no effect without --records"),
    (f"{EVALUATE} --records seismic --record-scale -1", None),
    (f"{EVALUATE} --priors p.toml --families f.csv",
     "--priors has no effect without --families auto"),
    (f"{BLEND} --median --priors p.toml", "--priors has no effect without --families auto"),
    (f"{EVALUATE} --priors p.toml --families auto --records seismic", None),
    (f"{BLEND} --truth t.npy --records seismic",
     "--records has no effect with --truth and without --mix or --families auto"),
    (f"{BLEND} --truth t.npy --records seismic --mix", None),
    (f"{BLEND} --truth t.npy --records seismic --families auto", None),
    *((f"{BLEND} --median {option}", f"{option.split()[0]} has no effect with --median")
      for option in ("--rounds 3", "--samples 4", "--seed 2")),
    (f"{BLEND} --weights w.json --seed 2", "--seed has no effect with --weights"),
    (f"{BLEND} --truth t.npy --rounds 3 --samples 4 --seed 2", None),
    (f"{BLEND} --truth t.npy --max-simulations 9", "--max-simulations has no effect without --mix"),
    (f"{PANELS} --sample a --sort misfit", "--sort has no effect with --sample"),
    ("plot contact run --out o.png --sample a --count 3", "--count has no effect with --sample"),
    ("plot contact run --out o.png --sample a --sort misfit", None),  # captions show it
    ("plot convergence h.csv --out o.svg --dpi 90", "--dpi has no effect on a .svg file"),
    (f"{PANELS} --dpi 90 --count 2 --sort misfit", None),
    (f"{FIT} --steps 9", "--steps has no effect without --denoiser"),
    (f"{FIT} --steps 9 --denoiser d.npz", None),
]  # fmt: skip


def context(words):
    """The context of a command as it is typed."""
    command, path, args = program, "fwi-refine", words.split()
    while isinstance(command, click.Group):
        name = args.pop(0)
        command = command.get_command(click.Context(command), name)
        path = f"{path} {name}"
    return command.make_context(path, args)


@pytest.mark.parametrize(("typed", "said"), CASES, ids=[typed for typed, _ in CASES])
def test_each_option_without_effect_is_named_once(typed, said):
    found = list(without_effect(context(typed)))
    if said is None:
        assert found == []
    else:
        assert len(found) == 1
        assert found[0].startswith(said)


def test_every_option_of_every_rule_has_a_case():
    """Also of each command; --quiet is one of them all."""
    said = [(context(typed), text.split()[0]) for typed, text in CASES if text]
    tried = {(each.command_path.split(" ", 1)[1], option) for each, option in said}
    for rule in RULES:
        for option in rule.options:
            name = f"--{option.removesuffix('_file').replace('_', '-')}"
            commands = [command for command, other in tried if other == name]
            assert commands, f"{name} of {rule.commands or 'any command'}"
            assert not rule.commands or {*rule.commands} & {*commands}


def test_it_is_a_warning_of_the_command(tmp_path, monkeypatch, caplog, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.full((2, 70, 70), 2000.0))
    np.save("b.npy", np.full((2, 70, 70), 2100.0))
    caplog.set_level(logging.WARNING)
    assert run(["blend", "a.npy", "b.npy", "--median", "--seed", "3", "--out", "o.npy"]) == 0
    assert caplog.messages == ["--seed has no effect with --median"]
    assert "--seed has no effect with --median" in capsys.readouterr().err


def test_defaults_of_a_configuration_count_as_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.toml").write_text("chunk-size = 2\n")
    found = list(without_effect(context(f"{REFINE} --config c.toml")))
    assert found == ["--chunk-size has no effect without --run-dir"]


def test_functions_tell_it_too(caplog):
    maps = np.full((1, *SURVEY.shape), 2000.0)
    maps[:, 10:] = 2500.0
    refine(maps, simulate(maps, survey=SURVEY), survey=SURVEY, family="layered", method="lbfgs",
           prior="tv", samples=2, max_evaluations=1)  # fmt: skip
    assert [text for text in caplog.messages if "has no effect" in text] == [
        "prior has no effect with method lbfgs and family layered",
        "samples has no effect with method lbfgs: no expected error is known",
    ]
