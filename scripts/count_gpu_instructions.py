"""Instructions of the CUDA kernels' time loop, counted in their machine code; needs no GPU.

    python scripts/count_gpu_instructions.py [--arch sm_90] [--threads 160,320,480]

Compiles the kernels for OpenFWI's grid with nvcc, takes them apart with nvdisasm (NVIDIA's toolkit;
pip install nvidia-cuda-nvdisasm) and prints Markdown: for each cell that a thread has, how many
instructions stand in the loop over the time steps, how many of them compute, and how many bytes it
reads and writes in shared memory. More stand there than are executed: receivers, the source,
imaging and rows at the border of a block belong to few threads or few steps. Kernels with their
fields in the card's memory are left out, as there rows are not compiled one by one.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from fwi_refine.survey import OPENFWI
from fwi_refine.wave.cuda import compiler
from fwi_refine.wave.cuda import layout as layouts
from fwi_refine.wave.cuda.layout import FIELDS

# bytes of shared memory that a block may have; compute capability
CARDS = {"sm_80": (163 << 10, (8, 0)), "sm_90": (227 << 10, (9, 0)), "sm_120": (99 << 10, (12, 0))}
COMPUTES = ("FADD", "FMUL", "FFMA", "DADD", "DMUL", "DFMA")
INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(.*?);")
BRANCH = re.compile(r"\bBRA\b.*`\((\.L_\w+)\)")


def disassembled(layout, dtype, arch):
    """(listing of each kernel, registers of each) as they are compiled for a card."""
    source = compiler.KERNELS / "cuda" / "wave.cu"
    macros = compiler.defines(layout, OPENFWI, dtype)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "wave.cubin"
        command = ["nvcc", "-cubin", f"-arch={arch}", "-Xptxas", "-v", "-o", out]
        command += [f"-D{name}={value}" for name, value in macros]
        log = subprocess.run(
            [*command, source],
            check=True,
            capture_output=True,
            text=True,
        ).stderr
        text = subprocess.run(["nvdisasm", out], check=True, capture_output=True, text=True).stdout
    registers = dict(re.findall(r"entry function '(\w+)'.*?Used (\d+) registers", log, re.DOTALL))
    parts = re.split(r"//-+ \.text\.(\w+) ", text)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True)), registers


def time_loop(listing):
    """The instructions of the loop that computes most."""
    instructions, labels, loops = [], {}, []
    for line in listing.splitlines():
        if label := re.match(r"(\.L_\w+):", line):
            labels[label[1]] = len(instructions)
        elif found := INSTRUCTION.search(line):
            instructions.append(re.sub(r"^@!?U?P\w+\s+", "", found[1].strip()))
            branch = BRANCH.search(found[1])
            if branch and branch[1] in labels:
                loops.append(instructions[labels[branch[1]] :])
    return max(loops, key=lambda loop: sum(map(computes, loop)))


def computes(instruction):
    """Whether it is arithmetic of floating-point numbers."""
    return instruction.split(".")[0].split()[0] in COMPUTES


def row(kernel, dtype, loop, cells, registers):
    """A line of the table."""
    width = {"128": 16, "64": 8}
    shared = [i.split()[0].split(".") for i in loop if i.startswith(("LDS", "STS"))]
    moved = sum(next((width[part] for part in parts if part in width), 4) for parts in shared)
    return (
        f"| {kernel}, {str(dtype).removeprefix('torch.')} | {cells} | {registers} | "
        f"{len(loop) / cells:.1f} | {sum(map(computes, loop)) / cells:.1f} | {moved / cells:.1f} |"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", choices=CARDS, default="sm_90")
    parser.add_argument("--threads", default=str(layouts.THREADS), help="of a block: N,N,...")
    options = parser.parse_args()
    missing = [tool for tool in ("nvcc", "nvdisasm") if shutil.which(tool) is None]
    if missing:
        print(f"nothing was counted: {' and '.join(missing)} not found", file=sys.stderr)
        return 2
    shared_memory, capability = CARDS[options.arch]
    print(
        f"{options.arch}, by thread\n\n| kernel | cells | registers | instructions a cell | "
        "that compute | bytes of shared memory a cell |\n|---|---|---|---|---|---|"
    )
    for threads in map(int, options.threads.split(",")):
        layouts.THREADS = threads
        for dtype in (torch.float32, torch.float64):
            for kernel, fields in FIELDS.items():
                layout = layouts.choose_layout(
                    OPENFWI, fields, dtype.itemsize, capability, shared_memory, lambda _: 1
                )
                if not layout.shared:
                    continue
                listings, registers = disassembled(layout, dtype, options.arch)
                cells = layout.side * layout.strip_rows(OPENFWI.padded_shape[0])
                loop = time_loop(listings[kernel])
                print(row(kernel, dtype, loop, cells, registers[kernel]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
