"""--device: which GPUs are meant, and how many processes work on them."""

import pytest

from fwi_refine.cli import options
from fwi_refine.cli.options.refine import RecipeOptions
from fwi_refine.cli.options.resources import Resources
from fwi_refine.errors import InputError
from fwi_refine.survey import OPENFWI
from fwi_refine.wave import paths


@pytest.fixture
def three(monkeypatch):
    """A machine with three GPUs, as far as options can tell."""
    monkeypatch.setattr("fwi_refine.wave.devices", lambda: ["0", "1", "GPU-c"])
    monkeypatch.setattr("fwi_refine.wave.gpu_memory", lambda: 80 * 2**30)
    options.gpus.cache_clear()
    yield
    options.gpus.cache_clear()


def given(device, jobs=None, count=100, per_job=None, kernel="auto"):
    resources = Resources(jobs, per_job, threads=None, dask=None, device=device, kernel=kernel)
    return resources.for_samples(count)


def test_every_gpu_has_a_process(three):
    assert given("auto").gpus == ["0", "1", "GPU-c"]
    assert given("auto").jobs == given("cuda").jobs == 3
    assert given("auto", jobs=6).jobs == 6
    assert given("auto", count=2).jobs == 2
    assert (given("cuda:2").gpus, given("cuda:2").jobs) == (["GPU-c"], 1)
    assert (given("cpu").gpus, given("cpu").jobs) == ([], 1)
    with given("auto").executor() as executor:
        assert executor._devices == ["0", "1", "GPU-c"]
    recipe = RecipeOptions("auto", "auto", None, None, None, None)
    assert recipe.settings(given("auto"), False, OPENFWI).device == "cuda"
    assert recipe.settings(given("cpu"), False, OPENFWI).device == "cpu"
    assert options.torch_device("auto") == "cuda"


def test_samples_at_a_time_on_a_gpu(three, monkeypatch):
    resources = given("auto", count=1000)
    assert (resources.per_job, resources.chunk_size(1000)) == (4, 16)
    assert "3 jobs on 3 GPUs, 4 samples at a time each" in str(resources)
    assert (
        RecipeOptions("auto", "auto", None, None, None, None)
        .settings(resources, False, OPENFWI)
        .per_job
        == 4
    )
    assert given("auto", jobs=6).per_job == 2  # two processes share a card
    assert given("auto", count=4).per_job == 2
    assert given("auto", count=4).chunk_size(4) == 2
    assert given("auto", per_job=7).per_job == 7
    assert (given("cpu").per_job, given("cpu").chunk_size(100)) == (1, 1)
    monkeypatch.setattr("fwi_refine.wave.gpu_memory", lambda: 16 * 2**30)
    assert given("auto").per_job == 2
    monkeypatch.setattr("fwi_refine.wave.gpu_memory", lambda: 2**30)
    assert given("auto").per_job == 1


def test_a_gpu_without_the_extra_computes_with_torch(monkeypatch, caplog):
    monkeypatch.setattr("fwi_refine.wave.devices", lambda: ["0"])
    monkeypatch.setattr("fwi_refine.wave.gpu_memory", lambda: 16 * 2**30)
    monkeypatch.setattr("fwi_refine.wave.gpu_problem", lambda: "the extra is missing")
    options.gpus.cache_clear()
    assert (given("auto").jobs, given("auto").kind) == (1, "cuda")
    assert "torch's operations compute on the GPU, not the CUDA kernels: the extra" in caplog.text
    options.gpus.cache_clear()


def test_a_kernel_runs_on_its_device(three):
    assert given("cuda", kernel="torch").kind == "cuda"
    assert given("cpu", kernel="torch").kind == "cpu"
    with pytest.raises(InputError, match="--kernel native: runs on the CPU alone"):
        given("auto", kernel="native").kind  # noqa: B018
    with pytest.raises(InputError, match="--kernel cuda: needs a GPU"):
        given("cpu", kernel="cuda").kind  # noqa: B018
    recipe = RecipeOptions("auto", "auto", None, None, None, None)
    assert recipe.settings(given("cpu", kernel="torch"), False, OPENFWI).kernel == "torch"


def test_the_names_are_those_of_the_wave_operator():
    assert options.KERNELS == paths.KERNELS
