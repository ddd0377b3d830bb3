/* The CUDA kernels: blocks.h for one precision and one way of spreading a shot, compiled at run
 * time (cuda.py), which defines
 *   REAL           float or double
 *   FWI_BLOCKS     thread blocks of a shot; more than one form a cluster (compute capability 9.0)
 *   FWI_SHARED     1: fields in the blocks' shared memory; 0: in global memory, for one block
 *   FWI_THREADS    threads of a block
 *   FWI_RESIDENT   blocks that a multiprocessor should have room for
 * A launch has the grid (FWI_BLOCKS, tasks).
 */
#include "step.h"

#define FWI_DEVICE static __device__ __forceinline__

#if FWI_BLOCKS > 1
#define FWI_CLUSTER __cluster_dims__(FWI_BLOCKS, 1, 1)
/* Release and acquire: what any thread of the cluster wrote before is seen by all of them after. */
#define FWI_BARRIER()                                  \
    asm volatile("barrier.cluster.arrive.release;\n\t" \
                 "barrier.cluster.wait.acquire;" ::: "memory")
#define FWI_IN_BLOCK(part, block) in_block(part, block)
static __device__ __forceinline__ const REAL *in_block(const REAL *part, int block)
{
    unsigned long long there;
    asm("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(part), "r"(block));
    return (const REAL *)there;
}
#else
#define FWI_CLUSTER
#define FWI_BARRIER() __syncthreads()
#define FWI_IN_BLOCK(part, block) (part)
#endif

#if FWI_BLOCKS > 1 && !FWI_SHARED
#error "fields in global memory are for one block: a cluster's barrier is not relied on for them"
#endif

#include "blocks.h"

extern __shared__ double memory[]; /* doubles, for their alignment */

#define KERNEL(name)                                                                     \
    extern "C" __global__ void __launch_bounds__(FWI_THREADS, FWI_RESIDENT) FWI_CLUSTER  \
        name(const __grid_constant__ Call call)                                          \
    {                                                                                    \
        fwi_##name(&call, blockIdx.y, blockIdx.x, threadIdx.x, memory);                  \
    }

KERNEL(forward)
KERNEL(tangent)
KERNEL(adjoint)
