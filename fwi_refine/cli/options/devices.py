"""The option of the device: what it may be, and the GPUs that it stands for."""

import functools
import logging
import re

import click

from fwi_refine.errors import InputError

log = logging.getLogger(__name__)

DEVICES = ("auto", "cpu", "cuda")
KERNELS = ("auto", "cuda", "torch", "native", "reference")  # as wave/paths.py has them


def device_name(ctx: click.Context, parameter: click.Parameter, text: str) -> str:
    if text in DEVICES[:2] or ctx.resilient_parsing:  # a tab key must not wait for torch
        return text
    if not re.fullmatch("cuda(:[0-9]{1,4})?", text):
        raise click.BadParameter(f"{text!r}: expected auto, cpu, cuda or cuda:<number>")
    from fwi_refine.wave import devices, gpu_problem

    found, number = devices(), text.partition(":")[2]
    if not found:
        raise click.BadParameter(f"{text}: {gpu_problem()}; use cpu or auto")
    if number and int(number) >= len(found):
        raise click.BadParameter(f"{text}: there are {len(found)} GPUs, numbered from 0")
    return text


@functools.cache
def gpus(device: str) -> list[str]:
    """The GPUs that --device stands for, as CUDA_VISIBLE_DEVICES names them; empty for the CPU."""
    if device == "cpu":
        return []
    from fwi_refine.wave import devices, gpu_problem

    found, number = devices(), device.partition(":")[2]
    if found and (problem := gpu_problem()):
        log.warning("torch's operations compute on the GPU, not the CUDA kernels: %s", problem)
    return [found[int(number)]] if number else found


def torch_device(device: str) -> str:
    """Torch's name of the device of --device; with several GPUs, the first of them."""
    if device == "auto":
        return "cuda" if gpus(device) else "cpu"
    return device


def check_kernel(kernel: str, device: str) -> None:
    """Raises InputError for a kernel that does not run on what --device stands for."""
    on_cpu = device == "cpu"
    if kernel == "cuda" and on_cpu:
        raise InputError("--kernel cuda: needs a GPU, and --device stands for the CPU here")
    if kernel in ("native", "reference") and not on_cpu:
        raise InputError(f"--kernel {kernel}: runs on the CPU alone; pass --device cpu")
