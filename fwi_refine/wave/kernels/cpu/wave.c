/* The compiled CPU kernel: forward, tangent and adjoint runs over samples and shots.
 *
 * The loops of loops.h are compiled for float and double and, with GCC on x86-64, for AVX-512,
 * AVX2 and the baseline; the best that the processor has is chosen at run time. One shot is one
 * task of one thread, so results do not depend on the number of threads or the batch.
 * No fast-math: a NaN must stay a NaN.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "../step.h"
#include "window.h"

enum { HALO = 16, DEPTH = 4, ALIGNMENT = 64 };
enum { FWI_OK = 0, FWI_NO_MEMORY = 1, FWI_BAD_VELOCITY = 2 };

typedef enum { FORWARD, FIELDS, TANGENT, ADJOINT, MISFIT, MISFIT_GRADIENT, RELEASED } Job;

/* What a call is about; the same structure in cpu.py. Positions are on the padded grid. */
typedef struct {
    int32_t rows, cols, samples, shots, n_receivers, n_steps;
    int32_t every;   /* imaging at every `every`-th step */
    int32_t threads; /* threads to use */
    int32_t margin;  /* width of the absorbing band on each side */
    int32_t narrow;  /* 0: compute every cell at every step (for tests) */
    int32_t isa;     /* index into the tables below */
    const int32_t *sources, *receivers; /* (n, 2) row, column */
    const double *wavelet;              /* (n_steps), times spacing squared */
    const double *damping_row, *damping_col;
} Call;

/* One shot, as the loops see it. */
typedef struct {
    int rows, cols, margin, stride, widest, n_receivers, n_steps, every;
    size_t field_size;
    int source[2];
    const int *receivers, *row_start, *by_row; /* receivers of row r: by_row[row_start[r]...] */
    const double *wavelet, *damping_row, *damping_col;
    Windows windows;
} Shot;

/* Zeroed memory of one task, handed out in aligned pieces and given back all at once. */
typedef struct {
    char *memory;
    size_t used;
} Arena;

static void *arena_take(Arena *arena, size_t bytes)
{
    void *piece = arena->memory + arena->used;
    memset(piece, 0, bytes);
    arena->used += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return piece;
}

/* Ahead of the wave the field falls through the subnormal numbers, which cost a hundred cycles
 * each. They are flushed to zero while a task runs, in that thread only, and the caller's setting
 * is put back: fast-math would change it for the whole process. */
#ifdef __SSE2__
enum { FLUSH = 0x8040 };
static unsigned float_mode(void)
{
    return __builtin_ia32_stmxcsr();
}
static void set_float_mode(unsigned mode)
{
    __builtin_ia32_ldmxcsr(mode);
}
#else
enum { FLUSH = 0 };
static unsigned float_mode(void)
{
    return 0;
}
static void set_float_mode(unsigned mode)
{
    (void)mode;
}
#endif

/* Multiplications and additions stay apart in functions that begin with FWI_NO_CONTRACTION: what
 * they compute is to have the bits of the released data. */
#ifdef __clang__
#define FWI_SEPARATE
#define FWI_NO_CONTRACTION _Pragma("clang fp contract(off)")
#elif defined(__GNUC__)
#define FWI_SEPARATE __attribute__((noinline, optimize("fp-contract=off")))
#define FWI_NO_CONTRACTION
#else
#define FWI_SEPARATE
#define FWI_NO_CONTRACTION
#endif

/* {f32, f64} for one instruction set */
#define CAT_(a, b, c) a##_##b##_##c
#define CAT(a, b, c) CAT_(a, b, c)
#define NAME(x) CAT(x, PRECISION, ISA)

#define ISA base
#include "both_precisions.h"
#undef ISA

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FWI_X86 1
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define ISA avx2
#include "both_precisions.h"
#undef ISA
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,fma,prefer-vector-width=512")
#define ISA avx512
#include "both_precisions.h"
#undef ISA
#pragma GCC pop_options
#endif

/* Index of the best instruction set that this processor has: 0 baseline, 1 AVX2, 2 AVX-512. */
int fwi_best_isa(void)
{
#ifdef FWI_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
        return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return 1;
#endif
    return 0;
}

/* Whether the kernel was built with OpenMP. */
int fwi_has_openmp(void)
{
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}

static int thread_number(void)
{
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

static int stride_of(const Call *call)
{
    return (call->cols + HALO - 1) / HALO * HALO + 2 * HALO;
}

/* How the wavefields of one shot are stored: (frames, rows, stride), and at which column of a row
 * the grid begins. */
void fwi_frame_layout(const Call *call, int32_t *frames, int32_t *stride, int32_t *offset)
{
    *frames = (call->n_steps - 1) / call->every;
    *stride = stride_of(call);
    *offset = HALO;
}

/* Bytes of scratch that a gradient needs to keep wavefields in, for all threads together. */
size_t fwi_frame_bytes(const Call *call, size_t size_of_real)
{
    const size_t frames = (call->n_steps - 1) / call->every;
    return call->threads * frames * call->rows * stride_of(call) * size_of_real;
}

#define PRECISION f32
#define REAL float
#define FWI_SINGLE
#include "driver.h"
#undef FWI_SINGLE
#undef PRECISION
#undef REAL
#define PRECISION f64
#define REAL double
#include "driver.h"
