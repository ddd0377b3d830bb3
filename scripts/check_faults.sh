#!/usr/bin/env bash
# Injects faults into an installed copy of the program, from outside, and prints a table.
#
#   scripts/check_faults.sh                # installs the checkout into a virtual environment of its own
#   scripts/check_faults.sh --here         # takes the fwi-refine that is on the PATH
#   scripts/check_faults.sh [--here] disk  # these parts alone: signals, stderr, records, disk,
#                                          # stdout, pipes, twice, forks, dask
#
# A row says what happened after a fault, whether finished work was lost, and whether the program
# was silent about it. The exit code is 1 where anything was lost or silent. The samples are tiny;
# their refined maps are compared, bit for bit, with those of a run without a fault.
set -u
ROOT=$(cd "$(dirname "$0")/.." && pwd)
WORK=$(mktemp -d)
trap 'umount "$WORK/disk" 2>/dev/null; rm -rf "$WORK"' EXIT
unset PYTHONPATH
export OMP_NUM_THREADS=1

here=
[ "${1:-}" != --here ] || { here=1; shift; }
for part in "$@"; do
    case $part in
    signals | stderr | records | disk | stdout | pipes | twice | forks | dask) ;;
    *) echo "no part is called $part" >&2; exit 2 ;;
    esac
done
if [ ! $here ]; then
    # What the program needs is taken from the present environment, the program itself is not.
    python -m venv --without-pip "$WORK/venv" || exit 2
    site=$("$WORK/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    python -c 'import site, sysconfig; print(sysconfig.get_path("purelib"))' >"$site/present.pth"
    cp -r "$ROOT" "$WORK/source" && rm -rf "$WORK/source/build" "$WORK/source/.git"
    python -m pip --python "$WORK/venv/bin/python" install -q --no-deps --no-build-isolation \
        --no-index --ignore-installed "$WORK/source" || exit 2
    rm -rf "$WORK/source"
    PATH=$WORK/venv/bin:$PATH
fi
mkdir "$WORK/here" && cd "$WORK/here" || exit 2
echo "program: $(command -v fwi-refine), $(fwi-refine --version)"

python - <<'P' || exit 2
import os
from dataclasses import replace
import numpy as np
from fwi_refine import OPENFWI, simulate
from fwi_refine.survey import write_survey
survey = replace(
    OPENFWI, shape=(20, 25), absorbing_cells=25, velocity_bounds=(1400.0, 5000.0), n_steps=400,
    file_rows=400, sources=((1, 2), (1, 20)), receivers=tuple((1, c) for c in range(25)),
)
write_survey(survey, "s.toml")
rows = np.arange(20)[:, None]
# no prediction may look like the next sample's: their order would be refused
lower = [2400 + 20 * (7 * k % 24) for k in range(24)]
truth = np.stack([np.where(rows < 6 + k % 8, 1800.0, lower[k]) + np.zeros((20, 25)) for k in range(24)])
start = np.where(truth > 1800, truth + 40, truth)
np.save("p.npy", start.astype("f4"))
os.mkdir("rec")
for k, record in enumerate(simulate(truth, survey=survey)):
    np.save(f"rec/s{k:02}.npy", record)
P

COMMON="p.npy rec --survey s.toml --family layered --method lbfgs --max-evaluations 12 --device cpu"
failures=0
refine() { fwi-refine $COMMON "$@"; }
kept() { ls "$1/parts" 2>/dev/null | grep -c '^p'; }
wait_for_parts() { # FOLDER NUMBER PROCESS
    for _ in $(seq 3000); do
        [ "$(kept "$1")" -ge "$2" ] && return 0
        kill -0 "$3" 2>/dev/null || return 1
        sleep 0.05
    done
    return 1
}
same() { cmp -s "$1" reference.npy; }
said() { grep -q -e "$1" err; } # a word of the message that the fault must bring
yes_no() { if "$@"; then echo no; else echo YES; fi; }
row() { # FAULT, WHAT HAPPENED, LOST, SILENT
    printf '%-34s  %-44s  %-4s  %s\n' "$1" "$2" "$3" "$4"
    case "$3$4" in *YES*) failures=$((failures + 1)); sed 's/^/    /' err | tail -4 ;; esac
}

chosen() { # PART
    [ -z "$PARTS" ] || case " $PARTS " in *" $1 "*) ;; *) return 1 ;; esac
}
PARTS=$*

refine --out reference.npy 2>err || { cat err; exit 2; }
row "fault" "what happened" "lost" "silent"

stopped_by() { # SIGNAL NAME
    fwi-refine $COMMON --out o.npy 2>err & pid=$!
    wait_for_parts .o.npy.run 3 $pid || { row "$2" "it ended before the fault" YES YES; return; }
    kill "-$1" $pid; wait $pid 2>/dev/null; code=$?
    n=$(kept .o.npy.run)
    cp err first; refine --out o.npy 2>again; cat first again >err
    silent=no; [ "$1" = KILL ] || silent=$(yes_no said 'to go on')
    row "$2" "exit $code, $n of 24 kept, then completed" "$([ "$n" -ge 3 ] && yes_no same o.npy || echo YES)" "$silent"
    rm -rf o.* .o.*
}
signals() {
    stopped_by KILL "kill -9"
    stopped_by HUP "SIGHUP, the terminal's end"
    stopped_by TERM "SIGTERM"
}
chosen signals && signals

stderr() {
    refine --out o.npy 2>&- >/dev/null; code=$?; : >err
    row "stderr closed" "exit $code" "$(yes_no same o.npy)" no
    rm -rf o.* .o.*
    refine --out o.npy 2>&1 | head -1 >err
    row "stderr broken (| head -1)" "completed" "$(yes_no same o.npy)" no
    rm -rf o.* .o.*
}
chosen stderr && stderr

records() {
    fwi-refine $COMMON --run-dir run --chunk-size 1 2>err & pid=$!
    wait_for_parts run 3 $pid; mv rec away; wait $pid; code=$?; mv away rec; cp err first
    n=$(kept run)
    refine --run-dir run --chunk-size 1 --out o.npy 2>again; cat first again >err
    row "records vanish" "exit $code, $n of 24 kept, then completed" "$(yes_no same o.npy)" "$(yes_no said 'No such file')"
    rm -rf o.*

    part=$(ls run/parts/part-000003-*)
    bare="setpriv --bounding-set=-dac_override,-dac_read_search"
    [ "$(id -u)" = 0 ] || bare=
    chmod 000 "$part"
    if $bare cat "$part" >/dev/null 2>&1; then
        row "a part that cannot be read" "not tried: this user reads all" no no
    else
        $bare fwi-refine $COMMON --run-dir run --chunk-size 1 --out o.npy 2>err; code=$?
        chmod 644 "$part" 2>/dev/null
        row "a part that cannot be read" "exit $code, the part is $([ -e "$part" ] && echo kept || echo gone)" \
            "$(yes_no test -e "$part")" "$([ $code != 0 ] && yes_no said 'Permission denied' || echo YES)"
    fi
    chmod 644 "$part"
    printf x | dd of="$part" bs=1 seek=900 conv=notrunc 2>/dev/null
    refine --run-dir run --chunk-size 1 --out o.npy 2>err; code=$?
    row "a flipped byte in a part" "exit $code, its sample refined again" "$(yes_no same o.npy)" "$(yes_no said 'damaged')"
    rm -rf o.*
}
chosen records && records

disk() {
    mkdir disk
    mounted=1
    if mount -t tmpfs -o size=96k tmpfs disk 2>/dev/null || {
        truncate -s 1M image && mkfs.ext4 -q image 2>/dev/null && mount -o loop image disk 2>/dev/null; }; then
        refine --run-dir disk/run --chunk-size 1 2>err; code=$?; cp err first
        n=$(kept disk/run)
        mount -o remount,size=8m disk 2>/dev/null || cp -r disk/run bigger
        [ -e bigger ] && folder=bigger || folder=disk/run
        refine --run-dir $folder --chunk-size 1 --out o.npy 2>again; cat first again >err
        row "disk full in the run (small mount)" "exit $code, $n of 24 kept, then completed" "$(yes_no same o.npy)" \
            "$([ $code != 0 ] && yes_no said 'No space left' || echo YES)"
    else
        mounted=
        (ulimit -f 1; refine --out o.npy) 2>err; code=$?
        row "disk full (no mount: ulimit -f)" "exit $code, nothing under a final name" \
            "$(yes_no test ! -e o.npy)" "$([ $code != 0 ] && yes_no said '.' || echo YES)"
    fi
    rm -rf o.* .o.*
    if [ $mounted ]; then
        rm -rf disk/*; dd if=/dev/zero of=disk/filler bs=4k 2>/dev/null
        refine --out disk/o.npy 2>err; code=$?
        row "disk full before the run" "exit $code, nothing under a final name" "$(yes_no test ! -e disk/o.npy)" \
            "$([ $code != 0 ] && yes_no said 'No space left' || echo YES)"
        fwi-refine report reference.npy --survey s.toml --out disk/page.html --worst 0 2>err; code=$?
        row "disk full in report" "exit $code, nothing under a final name" "$(yes_no test ! -e disk/page.html)" \
            "$([ $code != 0 ] && yes_no said '.' || echo YES)"
        umount disk
    fi
}
chosen disk && disk

stdout() {
    fwi-refine evaluate p.npy p.npy --by sample --survey s.toml 2>err | head -1 >/dev/null
    code=${PIPESTATUS[0]}
    row "stdout broken (| head -1)" "exit $code, no traceback" no "$(yes_no eval '! said Traceback')"
}
chosen stdout && stdout

pipes() {
    mkfifo pipe
    for what in "pipe rec" "p.npy pipe"; do
        timeout 300 fwi-refine $what --survey s.toml --family layered --out o.npy 2>err; code=$?
        row "a pipe as input ($what)" "exit $code" "$(yes_no test $code = 2)" "$(yes_no said 'a pipe')"
    done
}
chosen pipes && pipes

twice() {
    fwi-refine $COMMON --out o.npy 2>err & one=$!
    wait_for_parts .o.npy.run 1 $one
    refine --out o.npy 2>second; code=$?; cat second >>err
    wait $one
    row "two runs to one output" "the second: exit $code" "$(yes_no same o.npy)" \
        "$([ $code != 0 ] && yes_no test -s second || echo YES)"
    rm -rf o.* .o.*
}
chosen twice && twice

forks() {
    timeout 300 python - >out 2>err <<'P'
import os
import numpy as np, torch
from fwi_refine import simulate
from fwi_refine.survey import read_survey
survey = read_survey("s.toml")
v = np.full((20, 25), 2000.0)
before = simulate(v, survey=survey)
class Records(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, k):
        return torch.from_numpy(simulate(v, survey=survey))
loader = torch.utils.data.DataLoader(Records(), num_workers=2, multiprocessing_context="fork")
loaded = [np.array_equal(r[0], before) for r in loader]
child = os.fork()
if not child:
    os._exit(not np.array_equal(simulate(v, survey=survey), before))
code = os.waitpid(child, 0)[1]
assert loaded == [True] * 4 and not code and np.array_equal(simulate(v, survey=survey), before)
P
    code=$?
    row "forked loader and os.fork" "$([ $code = 0 ] && echo "the same records" || echo "exit $code")" "$(yes_no test $code = 0)" no
}
chosen forks && forks

dask() {
    if python -c 'import distributed' 2>/dev/null; then
        mkdir lacking && echo 'raise ImportError("not here")' >lacking/fwi_refine.py
        dask="python -m distributed.cli"
        $dask.dask_scheduler --host 127.0.0.1 --port 0 --no-dashboard --scheduler-file c.json >/dev/null 2>&1 & scheduler=$!
        PYTHONPATH=$PWD/lacking $dask.dask_worker --no-nanny --host 127.0.0.1 --no-dashboard --scheduler-file c.json >/dev/null 2>&1 & worker=$!
        for _ in $(seq 300); do [ -e c.json ] && break; sleep 0.1; done
        address=$(python -c 'import json; print(json.load(open("c.json"))["address"])')
        python -c "from distributed import Client; Client('$address').wait_for_workers(1, timeout=60)" >/dev/null 2>&1
        timeout 300 fwi-refine $COMMON --dask "$address" --out o.npy 2>err; code=$?
        row "a Dask worker without the program" "exit $code" "$(yes_no test $code = 2)" "$(yes_no said 'cannot import fwi_refine')"
        kill $worker $scheduler; wait $worker $scheduler 2>/dev/null
    else
        row "a Dask worker without the program" "not tried: distributed is not installed" no no
    fi
}
chosen dask && dask

echo
[ $failures = 0 ] && echo "nothing lost, nothing silent" || echo "$failures rows with something lost or silent"
exit $((failures > 0))
