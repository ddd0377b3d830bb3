// The GPU's kernels (kernels/blocks.h) on the CPU: every CUDA thread is a thread of the operating
// system, a shared memory is an allocation for each block, and a barrier is a barrier. So it is the
// same source that runs, with the same freedom of order between two barriers, and a thread
// sanitizer sees what a GPU would not forgive.
//
// tests/emulation.py builds it and calls `emulate`; with FWI_MAIN it is a program of its own.

#include <pthread.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <thread>
#include <vector>

#include "step.h"

namespace
{
// Thread blocks that work on one shot.
struct Team {
    int blocks, threads;
    bool shared;
    size_t bytes; // of each block's memory
    pthread_barrier_t barrier;
    std::vector<char *> memory;
    std::unique_ptr<std::atomic<int>[]> working; // threads of a block that have not ended

    Team(int blocks, int threads, size_t bytes, bool shared)
        : blocks(blocks), threads(threads), shared(shared), bytes(bytes),
          working(new std::atomic<int>[blocks])
    {
        pthread_barrier_init(&barrier, nullptr, blocks * threads);
        for (int b = 0; b < blocks; b++) {
            memory.push_back((char *)std::malloc(bytes));
            std::memset(memory[b], 0xff, bytes); // NaN: what is read must have been written
            working[b] = threads;
        }
    }
    ~Team()
    {
        for (char *block : memory)
            std::free(block);
        pthread_barrier_destroy(&barrier);
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

template <class T> const T *in_block(const T *part, int block)
{
    if (!team->shared)
        return part;
    return (const T *)(team->memory[block] + ((const char *)part - team->memory[own_block]));
}
} // namespace

#ifndef FWI_BARRIER // a test leaves it out, to see that this is noticed
#define FWI_BARRIER() pthread_barrier_wait(&team->barrier)
#endif
#define FWI_DEVICE static inline
#define FWI_BLOCKS team->blocks
#define FWI_SHARED team->shared
#define FWI_IN_BLOCK(part, block) in_block(part, block)

namespace single
{
#define REAL float
#include "blocks.h"
#undef REAL
} // namespace single
namespace twofold
{
#define REAL double
#include "blocks.h"
#undef REAL
} // namespace twofold

template <class Call>
static void run(void (*kernel)(const Call *, int, int, int, void *), const Call *call, int tasks,
                int blocks, int threads, size_t bytes, bool shared)
{
    for (int task = 0; task < tasks; task++) {
        Team shot(blocks, threads, bytes, shared);
        std::vector<std::thread> all;
        for (int i = 0; i < blocks * threads; i++)
            all.emplace_back([&, i] {
                team = &shot;
                own_block = i / threads;
                pthread_barrier_wait(&shot.barrier); // so that they do run at the same time
                kernel(call, task, own_block, i % threads, shot.memory[own_block]);
                shot.leave(own_block);
            });
        for (auto &thread : all)
            thread.join();
    }
}

// Launches "forward", "tangent" or "adjoint" with the grid (blocks, tasks). Returns 0, or 1 for
// another name.
extern "C" int emulate(const char *name, int bits, const void *call, int tasks, int blocks,
                       int threads, size_t bytes, int shared)
{
#define LAUNCH(kernel)                                                                         \
    if (!std::strcmp(name, #kernel)) {                                                         \
        if (bits == 32)                                                                        \
            run(single::fwi_##kernel, (const single::Call *)call, tasks, blocks, threads,      \
                bytes, shared);                                                                \
        else                                                                                   \
            run(twofold::fwi_##kernel, (const twofold::Call *)call, tasks, blocks, threads,    \
                bytes, shared);                                                                \
        return 0;                                                                              \
    }
    LAUNCH(forward)
    LAUNCH(tangent)
    LAUNCH(adjoint)
    return 1;
}

extern "C" size_t size_of_call() { return sizeof(single::Call); }

#ifdef FWI_MAIN
// All three kernels on a small grid, for a thread sanitizer; returns 1 if a result is not finite.
int main()
{
    const int rows = 13, cols = 11, margin = 3, steps = 40, blocks = 3, width = 4, strips = 2;
    const int block_rows = 5, strip_rows = 3, threads = width * strips, every = 2;
    const int source[2] = {4, 5}, receivers[4] = {4, 1, 9, 10}, places[2] = {1, 0};
    std::vector<int> owned(blocks * threads + 1);
    for (int j = 0; j < 2; j++) { // ordered by the thread, as the caller of a kernel has to
        const int r = receivers[2 * j], in_block = r % block_rows;
        const int owner = r / block_rows * threads + in_block / strip_rows * width +
                          receivers[2 * j + 1] % width;
        for (int i = owner + 1; i <= blocks * threads; i++)
            owned[i]++;
    }
    const std::vector<double> wavelet(steps, 1.0);
    const std::vector<double> map((rows - 2 * margin) * (cols - 2 * margin), 0.1);
    const std::vector<double> decay(cols, 0.9), kappa(rows, 0.1), relative(1, 0.5), u(2 * steps, 1);
    std::vector<double> frames(((steps - 1) / every) * rows * cols), record(2 * steps);
    std::vector<double> gradient(rows * cols), sums(blocks);
    twofold::Call call = {};
    call.rows = rows, call.cols = cols, call.margin = margin;
    call.map_rows = rows - 2 * margin, call.map_cols = cols - 2 * margin;
    call.shots = 1, call.n_receivers = 2, call.n_steps = steps, call.every = every;
    call.block_rows = block_rows, call.strip_rows = strip_rows;
    call.width = width, call.threads = threads;
    call.sources = source, call.receivers = receivers, call.places = places;
    call.owned = owned.data(), call.wavelet = wavelet.data();
    call.alpha = call.dalpha = map.data(), call.column_decay = decay.data();
    call.row_kappa = kappa.data(), call.relative_vmin = relative.data(), call.data = u.data();
    call.frames = frames.data(), call.record = record.data();
    call.gradient = gradient.data(), call.sums = sums.data();
    double total = 0;
    for (const char *name : {"forward", "tangent", "adjoint"}) {
        emulate(name, 64, &call, 1, blocks, threads, 4 * block_rows * cols * sizeof(double), 1);
        for (const auto &values : {record, gradient, sums})
            for (double value : values)
                total += value;
    }
    return !std::isfinite(total) || total == 0;
}
#endif
