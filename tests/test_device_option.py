"""--device: which GPUs are meant, and how many processes work on them."""

import pytest

from fwi_refine.cli import options
from fwi_refine.cli.refine_options import Place, Recipe


@pytest.fixture
def three(monkeypatch):
    """A machine with three GPUs, as far as options can tell."""
    monkeypatch.setattr("fwi_refine.wave.devices", lambda: ["0", "1", "GPU-c"])
    options.gpus.cache_clear()
    yield
    options.gpus.cache_clear()


def placed(device, jobs=None, count=100):
    return Place(jobs=jobs, threads=None, dask=None, device=device).for_samples(count)


def test_every_gpu_has_a_process(three):
    assert placed("auto").gpus == ["0", "1", "GPU-c"]
    assert placed("auto").jobs == placed("cuda").jobs == 3
    assert placed("auto", jobs=6).jobs == 6
    assert placed("auto", count=2).jobs == 2
    assert (placed("cuda:2").gpus, placed("cuda:2").jobs) == (["GPU-c"], 1)
    assert (placed("cpu").gpus, placed("cpu").jobs) == ([], 1)
    with placed("auto").executor() as executor:
        assert executor._devices == ["0", "1", "GPU-c"]
    recipe = Recipe("auto", "auto", None, None, None)
    assert recipe.settings(placed("auto"), False).device == "cuda"
    assert recipe.settings(placed("cpu"), False).device == "cpu"
    assert options.torch_device("auto") == "cuda"


def test_a_gpu_that_cannot_be_used_is_said(monkeypatch, caplog):
    monkeypatch.setattr("fwi_refine.wave.devices", list)
    monkeypatch.setattr("fwi_refine.wave.gpu_problem", lambda: "the extra is missing")
    monkeypatch.setattr(options, "gpu_is_there", lambda: True)
    options.gpus.cache_clear()
    assert placed("auto").jobs == 1
    assert "computing on the CPU, although there is a GPU: the extra is missing" in caplog.text
    options.gpus.cache_clear()
