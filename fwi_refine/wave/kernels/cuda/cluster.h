/* How the thread blocks of a cluster meet (compute capability 9.0; PTX ISA 8.1).
 *
 * A barrier of the whole cluster that orders memory waits for everything that was written to the
 * card's memory, such as frames. So there is one before the first step, and then a block waits on
 * its own mbarriers for as many bytes as its neighbours give it: st.async adds to them what it has
 * stored. Either kind of waiting empties the multiprocessor's cache, as memory is ordered in the
 * cluster, so the coefficients come from farther away (call.h).
 */
static __shared__ unsigned long long arrived[2];

static __device__ __forceinline__ unsigned shared_address(const void *place)
{
    return (unsigned)__cvta_generic_to_shared(place);
}

static __device__ __forceinline__ unsigned in_cluster(unsigned address, int block)
{
    unsigned there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(block));
    return there;
}

static __device__ __forceinline__ REAL *in_block(REAL *part, int block)
{
    unsigned long long there;
    asm("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(part), "r"(block));
    return (REAL *)there;
}

/* Release and acquire: what any thread of the cluster wrote before is seen by all of them after. */
static __device__ __forceinline__ void cluster_barrier()
{
    asm volatile("barrier.cluster.arrive.release;\n\t"
                 "barrier.cluster.wait.acquire;" ::: "memory");
}

static __device__ __forceinline__ void start()
{
    if (threadIdx.x < 2)
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;\n\t"
                     "fence.mbarrier_init.release.cluster;" ::"r"(
                         shared_address(&arrived[threadIdx.x]))
                     : "memory");
    cluster_barrier();
}

static __device__ __forceinline__ int has_arrived(unsigned address, unsigned parity)
{
    int done;
    asm volatile("{\n\t"
                 ".reg .pred done;\n\t"
                 "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%1], %2;\n\t"
                 "selp.s32 %0, 1, 0, done;\n\t"
                 "}"
                 : "=r"(done)
                 : "r"(address), "r"(parity)
                 : "memory");
    return done;
}

static __device__ __forceinline__ unsigned long long nanoseconds()
{
    unsigned long long now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    return now;
}

/* What does not come in a minute, where a step takes microseconds, will not come: better an error
 * than a card that hangs. */
static __device__ __forceinline__ void wait_for(int count, int parity)
{
    const unsigned own = shared_address(&arrived[count]);
    if (has_arrived(own, parity))
        return;
    const unsigned long long begun = nanoseconds();
    while (!has_arrived(own, parity))
        if (nanoseconds() - begun > 60000000000ull)
            __trap();
}

static __device__ __forceinline__ void expect(int count, int bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(
                     shared_address(&arrived[count])),
                 "r"(bytes)
                 : "memory");
}

#define ASYNC "st.async.shared::cluster.mbarrier::complete_tx::bytes."
static __device__ __forceinline__ void store(unsigned place, unsigned count, const float (&x)[1])
{
    asm volatile(ASYNC "f32 [%0], %2, [%1];" ::"r"(place), "r"(count), "f"(x[0]) : "memory");
}
static __device__ __forceinline__ void store(unsigned place, unsigned count, const float (&x)[2])
{
    asm volatile(ASYNC "v2.f32 [%0], {%2, %3}, [%1];" ::"r"(place), "r"(count), "f"(x[0]), "f"(x[1])
                 : "memory");
}
static __device__ __forceinline__ void store(unsigned place, unsigned count, const double (&x)[1])
{
    asm volatile(ASYNC "f64 [%0], %2, [%1];" ::"r"(place), "r"(count), "d"(x[0]) : "memory");
}
static __device__ __forceinline__ void store(unsigned place, unsigned count, const double (&x)[2])
{
    asm volatile(ASYNC "v2.f64 [%0], {%2, %3}, [%1];" ::"r"(place), "r"(count), "d"(x[0]), "d"(x[1])
                 : "memory");
}

#define FWI_START() start()
#define FWI_BARRIER() cluster_barrier()
#define FWI_SYNC() __syncthreads()
#define FWI_EXPECT(count, bytes) expect(count, bytes)
#define FWI_WAIT(count, parity) wait_for(count, parity)
#define FWI_GIVE(place, block, pack, count)             \
    store(in_cluster(shared_address(place), block),     \
          in_cluster(shared_address(&arrived[count]), block), (pack).at)
#define FWI_IN_BLOCK(part, block) in_block(part, block)
