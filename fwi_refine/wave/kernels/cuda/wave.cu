/* The CUDA kernels: blocks.h for one survey's grid, one precision and one way of spreading a shot,
 * compiled at run time (../../cuda/program.py), which defines
 *   REAL           float or double
 *   FWI_BLOCKS     thread blocks of a shot; more than one form a cluster (compute capability 9.0)
 *   FWI_SHARED     1: fields in the blocks' shared memory; 0: in global memory, for one block
 *   FWI_HALO       rows of its neighbours that a block has on both sides
 *   FWI_SIDE       columns of a thread, side by side
 *   FWI_UNROLL     rows of a thread that are compiled one by one
 *   FWI_RESIDENT   blocks that a multiprocessor should have room for
 *   FWI_ROWS, ...  what `Call` says of the grid and its parts (call.h): as constants, they make
 *                  all places of a thread's cells offsets that are known beforehand
 * A launch has the grid (FWI_BLOCKS, tasks).
 */
/* Rounded to nearest, and never part of a fused multiply-add. */
#define FWI_ROUNDED(name)                                                    \
    static __device__ __forceinline__ REAL fwi_##name(REAL a, REAL b)        \
    {                                                                        \
        return sizeof(REAL) == 4 ? __f##name##_rn(a, b) : __d##name##_rn(a, b); \
    }
FWI_ROUNDED(add)
FWI_ROUNDED(sub)
FWI_ROUNDED(mul)
#define FWI_ADD fwi_add
#define FWI_SUB fwi_sub
#define FWI_MUL fwi_mul

#include "../step.h"

#define FWI_DEVICE static __device__ __forceinline__

#if FWI_BLOCKS > 1
#define FWI_CLUSTER __cluster_dims__(FWI_BLOCKS, 1, 1)
#include "cluster.h"
#else
#define FWI_CLUSTER
#define FWI_START() __syncthreads()
#define FWI_BARRIER() __syncthreads()
#define FWI_SYNC() __syncthreads()
#define FWI_EXPECT(count, bytes)
#define FWI_WAIT(count, parity) /* what the block gives itself is there after FWI_SYNC */
#define FWI_GIVE(place, block, pack, count) fwi_store(place, pack)
#define FWI_IN_BLOCK(part, block) (part)
#endif

#if FWI_BLOCKS > 1 && !FWI_SHARED
#error "fields in global memory are for one block: a cluster's barrier is not relied on for them"
#endif

#include "blocks.h"

extern __shared__ __align__(16) char memory[]; /* for packs of two doubles */

static __device__ __forceinline__ Call with_constants(Call call)
{
    call.rows = FWI_ROWS, call.cols = FWI_COLS, call.margin = FWI_MARGIN;
    call.map_rows = FWI_MAP_ROWS, call.map_cols = FWI_MAP_COLS;
    call.block_rows = FWI_BLOCK_ROWS, call.strip_rows = FWI_STRIP_ROWS;
    call.width = FWI_WIDTH, call.threads = FWI_THREADS;
    return call;
}

#define KERNEL(name)                                                                     \
    extern "C" __global__ void __launch_bounds__(FWI_THREADS, FWI_RESIDENT) FWI_CLUSTER  \
        name(const __grid_constant__ Call given)                                         \
    {                                                                                    \
        const Call call = with_constants(given);                                         \
        fwi_##name(&call, blockIdx.y, blockIdx.x, threadIdx.x, memory);                  \
    }

KERNEL(forward)
KERNEL(released)
KERNEL(tangent)
KERNEL(adjoint)
