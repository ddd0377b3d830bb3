// The GPU's kernels (kernels/cuda/blocks.h) on the CPU: every CUDA thread is a thread of the operating
// system, a shared memory is an allocation for each block, and a barrier is a barrier. So it is the
// same source that runs, with the same freedom of order between two barriers, and a thread
// sanitizer sees what a GPU would not forgive.
//
// tests/emulation.py builds it and calls `emulate`; with FWI_MAIN it is a program of its own.

#include <pthread.h>

#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "step.h"

namespace
{
// A counter as the GPU has it (mbarrier): a phase ends when one thread has arrived and as many bytes
// have come as were expected, in any order.
class Counter
{
    std::mutex mutex;
    std::condition_variable changed;
    long bytes = 0;
    int phase = 0;
    bool pending = true;

    void add(long more, bool arrive)
    {
        std::lock_guard<std::mutex> lock(mutex);
        bytes += more;
        if (arrive && !pending)
            std::abort(); // one thread arrives in a phase
        pending = pending && !arrive;
        if (!pending && bytes == 0) {
            phase++;
            pending = true;
            changed.notify_all();
        }
    }

  public:
    void expect(long more) { add(more, true); }
    void give(long more) { add(-more, false); }
    void wait(int parity)
    {
        std::unique_lock<std::mutex> lock(mutex);
        changed.wait(lock, [&] { return phase % 2 != parity; });
    }
};

// Thread blocks that work on one shot.
struct Team {
    int blocks, threads, halo;
    bool shared;
    size_t bytes; // of each block's memory
    pthread_barrier_t all;
    std::vector<pthread_barrier_t> of_block;
    std::vector<char *> memory;
    std::unique_ptr<std::atomic<int>[]> working; // threads of a block that have not ended
    std::vector<Counter> counters;                // two for each block

    Team(int blocks, int threads, int halo, size_t bytes, bool shared)
        : blocks(blocks), threads(threads), halo(halo), shared(shared), bytes(bytes),
          of_block(blocks), working(new std::atomic<int>[blocks]),
          counters(2 * blocks)
    {
        pthread_barrier_init(&all, nullptr, blocks * threads);
        for (int b = 0; b < blocks; b++) {
            pthread_barrier_init(&of_block[b], nullptr, threads);
            memory.push_back((char *)std::malloc(bytes));
            std::memset(memory[b], 0xff, bytes); // NaN: what is read must have been written
            working[b] = threads;
        }
    }
    ~Team()
    {
        for (int b = 0; b < blocks; b++) {
            std::free(memory[b]);
            pthread_barrier_destroy(&of_block[b]);
        }
        pthread_barrier_destroy(&all);
    }
    // A block's shared memory is gone as soon as its last thread has ended.
    void leave(int block)
    {
        if (--working[block] == 0)
            std::memset(memory[block], 0xff, bytes);
    }
};

thread_local Team *team;
thread_local int own_block;

template <class T> T *in_block(T *part, int block)
{
    if (!team->shared)
        return part;
    return (T *)(team->memory[block] + ((char *)part - team->memory[own_block]));
}

Counter &counter(int block, int count) { return team->counters[2 * block + count]; }

// Stores and then counts, as a GPU's asynchronous store does.
template <class T, class Pack> void give(T *place, int block, Pack pack, int count)
{
    *(Pack *)in_block(place, block) = pack;
    counter(block, count).give(sizeof(Pack));
}
} // namespace

// tests leave out what waits, one after the other, to see that this is noticed
#define FWI_START() pthread_barrier_wait(&team->all)
#define FWI_BARRIER() pthread_barrier_wait(&team->all)
#define FWI_SYNC() pthread_barrier_wait(&team->of_block[own_block])
#define FWI_EXPECT(count, bytes) counter(own_block, count).expect(bytes)
#define FWI_WAIT(count, parity) counter(own_block, count).wait(parity)
#define FWI_GIVE(place, block, pack, count) give(place, block, pack, count)
#define FWI_IN_BLOCK(part, block) in_block(part, block)
#define FWI_DEVICE static inline
#define FWI_BLOCKS team->blocks
#define FWI_SHARED team->shared
#define FWI_HALO team->halo
#define FWI_UNROLL 1

#define FWI_SIDE 1
namespace single_1
{
#define REAL float
#include "blocks.h"
#undef REAL
} // namespace single_1
namespace twofold_1
{
#define REAL double
#include "blocks.h"
#undef REAL
} // namespace twofold_1
#undef FWI_SIDE
#define FWI_SIDE 2
namespace single_2
{
#define REAL float
#include "blocks.h"
#undef REAL
} // namespace single_2
namespace twofold_2
{
#define REAL double
#include "blocks.h"
#undef REAL
} // namespace twofold_2

// What a launch says beside its call; the same structure in emulation.py.
struct Launch {
    int bits, side, halo, tasks, blocks, threads, shared;
    size_t bytes;
};

template <class Call>
static void run(void (*kernel)(const Call *, int, int, int, void *), const void *call, Launch how)
{
    for (int task = 0; task < how.tasks; task++) {
        Team shot(how.blocks, how.threads, how.halo, how.bytes, how.shared);
        std::vector<std::thread> all;
        for (int i = 0; i < how.blocks * how.threads; i++)
            all.emplace_back([&, i] {
                team = &shot;
                own_block = i / how.threads;
                pthread_barrier_wait(&shot.all); // so that they do run at the same time
                kernel((const Call *)call, task, own_block, i % how.threads,
                       shot.memory[own_block]);
                shot.leave(own_block);
            });
        for (auto &thread : all)
            thread.join();
    }
}

// Launches "forward", "released", "tangent" or "adjoint" with the grid (blocks, tasks). Returns 0, or 1 for
// another name.
extern "C" int emulate(const char *name, const void *call, const Launch *how)
{
#define LAUNCH(kernel)                               \
    if (!std::strcmp(name, #kernel)) {               \
        if (how->bits == 32 && how->side == 1)       \
            run(single_1::fwi_##kernel, call, *how); \
        else if (how->bits == 32)                    \
            run(single_2::fwi_##kernel, call, *how); \
        else if (how->side == 1)                     \
            run(twofold_1::fwi_##kernel, call, *how); \
        else                                         \
            run(twofold_2::fwi_##kernel, call, *how); \
        return 0;                                    \
    }
    LAUNCH(forward)
    LAUNCH(released)
    LAUNCH(tangent)
    LAUNCH(adjoint)
    return 1;
}

extern "C" size_t size_of_call() { return sizeof(single_1::Call); }

#ifdef FWI_MAIN
// All three kernels on a small grid, for a thread sanitizer; returns false if a result is not finite.
static bool sound(int side, int halo)
{
    const int rows = 13, cols = 12, margin = 4, steps = 40, blocks = 3, width = 4, strips = 2;
    const int block_rows = 5, strip_rows = 3, threads = width * strips, every = 2;
    const int source[2] = {4, 5}, receivers[4] = {4, 1, 9, 10}, order[2] = {1, 0};
    std::vector<int> owned(blocks * threads + 1);
    for (int j = 0; j < 2; j++) { // ordered by the thread, as the caller of a kernel has to
        const int r = receivers[2 * j], in_block = r % block_rows;
        const int owner = r / block_rows * threads + in_block / strip_rows * width +
                          receivers[2 * j + 1] / side % width;
        for (int i = owner + 1; i <= blocks * threads; i++)
            owned[i]++;
    }
    const std::vector<double> wavelet(steps, 1.0);
    const std::vector<double> map((rows - 2 * margin) * (cols - 2 * margin + 2 * side), 0.1);
    const std::vector<double> decay(cols, 0.9), kappa(rows + 1, 0.1), relative(1, 0.5), u(2 * steps, 1);
    std::vector<double> frames(((steps - 1) / every) * rows * cols), record(2 * steps);
    std::vector<double> gradient(rows * cols), sums(blocks);
    twofold_1::Call call = {};
    call.rows = rows, call.cols = cols, call.margin = margin;
    call.map_rows = rows - 2 * margin, call.map_cols = cols - 2 * margin;
    call.block_rows = block_rows, call.strip_rows = strip_rows;
    call.width = width, call.threads = threads;
    call.shots = 1, call.n_receivers = 2, call.n_steps = steps, call.every = every;
    call.sources = source, call.receivers = receivers, call.order = order;
    call.owned = owned.data(), call.wavelet = wavelet.data();
    call.alpha = call.dalpha = map.data(), call.column_decay = decay.data();
    call.row_kappa = kappa.data(), call.relative_vmin = relative.data(), call.data = u.data();
    call.frames = frames.data(), call.record = record.data();
    call.gradient = gradient.data(), call.sums = sums.data();
    const size_t bytes = 4 * (block_rows + 2 * halo) * cols * sizeof(double);
    const Launch how = {64, side, halo, 1, blocks, threads, 1, bytes};
    double total = 0;
    for (const char *name : {"forward", "tangent", "adjoint"}) {
        emulate(name, &call, &how);
        for (const auto &values : {record, gradient, sums})
            for (double value : values)
                total += value;
    }
    return std::isfinite(total) && total != 0;
}

int main() { return !(sound(1, 2) && sound(2, 2) && sound(1, 0)); }
#endif
