/* One shot on the thread blocks of a GPU: forward, tangent and adjoint runs, for one REAL type.
 *
 * A shot belongs to one thread block, or to a cluster of FWI_BLOCKS of them, for all its time
 * steps: nothing is launched between two steps, and shots do not see each other. Block b has the
 * rows from b * block_rows on; a thread has some columns of some of these rows, the same at every
 * step. In a step a thread overwrites the older time level of its own cells and reads the newer
 * one, of any cell; FWI_BARRIER stands between two steps. What belongs to a cell, such as a
 * source, a receiver or its share of a gradient, is done by the thread that has the cell, in the
 * same order each time: no atomics, and the same bits whatever else is computed.
 *
 * Whoever includes this defines
 *   REAL                        float or double
 *   FWI_BLOCKS                  thread blocks of a shot
 *   FWI_SHARED                  fields stand in each block's own memory; otherwise, for one block
 *                               only, in Call.fields
 *   FWI_BARRIER()               waits for all threads of the shot; what they wrote is then visible
 *   FWI_IN_BLOCK(part, block)   the same place in another block's memory
 *   FWI_DEVICE                  qualifiers of a function
 *
 * Subnormal numbers are kept: on a GPU they cost nothing.
 */
#include "thread.h"

/* One step of the thread's cells, in place over the older level; `frame` receives them if not 0. */
FWI_DEVICE void fwi_step(const Thread *t, const REAL *now, REAL *next, REAL *frame)
{
    const Call *call = t->call;
    for (int c = t->lane; c < call->cols && t->top < t->bottom; c += call->width) {
        Cell at = fwi_column(t, c);
        Slide s = fwi_slide(t, now, c);
        for (int r = t->top; r < t->bottom; r++) {
            const int i = fwi_index(t, r, c);
            fwi_enter(t, &at, r);
            fwi_push(&s, fwi_row(t, now, r + 2)[c]);
            const REAL laplacian = fwi_laplacian(&s, now + (i - c), &at);
            next[i] = FWI_STEP(s.centre, next[i], at.decay, at.alpha, laplacian);
            if (frame)
                frame[(size_t)r * call->cols + c] = next[i];
        }
    }
}

/* One step of a field and of its change. */
FWI_DEVICE void fwi_tangent_step(const Thread *t, const REAL *now, REAL *next, const REAL *dnow,
                                 REAL *dnext)
{
    const Call *call = t->call;
    const REAL relative_vmin = call->relative_vmin[t->sample];
    for (int c = t->lane; c < call->cols && t->top < t->bottom; c += call->width) {
        Cell at = fwi_column(t, c);
        Slide s = fwi_slide(t, now, c), d = fwi_slide(t, dnow, c);
        for (int r = t->top; r < t->bottom; r++) {
            const int i = fwi_index(t, r, c);
            fwi_enter(t, &at, r);
            fwi_push(&s, fwi_row(t, now, r + 2)[c]);
            fwi_push(&d, fwi_row(t, dnow, r + 2)[c]);
            const REAL driving = fwi_laplacian(&s, now + (i - c), &at);
            const REAL own = fwi_laplacian(&d, dnow + (i - c), &at);
            const REAL dstep = FWI_STEP(d.centre, dnext[i], at.decay, at.alpha, own);
            dnext[i] = FWI_TANGENT(REAL, dstep, fwi_alpha(t, call->dalpha, r, c), driving, at.decay,
                                   relative_vmin, s.centre, next[i]);
            next[i] = FWI_STEP(s.centre, next[i], at.decay, at.alpha, driving);
        }
    }
}

/* Imaging of p[n], `frame`, with mu[n+1] and mu[n+2]: adds to the gradient times alpha, and
 * returns the thread's share of vmin times the derivative by vmin. */
FWI_DEVICE double fwi_image(const Thread *t, const REAL *frame, const REAL *mu,
                            const REAL *mu_next, REAL *gradient)
{
    const Call *call = t->call;
    const REAL weight = (REAL)call->every;
    double damped = 0;
    for (int c = t->lane; c < call->cols && t->top < t->bottom; c += call->width) {
        Cell at = fwi_column(t, c);
        Slide s = {0, 0, 0, 0, 0};
        REAL column = 0; /* double arithmetic is slow on many cards */
        for (int r = t->top - 2; r < t->top + 2; r++)
            fwi_push(&s, frame[(size_t)fwi_wrap(r, call->rows) * call->cols + c]);
        /* unrolled, this loop takes registers that two blocks on one multiprocessor do not have */
        _Pragma("unroll 1")
        for (int r = t->top; r < t->bottom; r++) {
            const int i = fwi_index(t, r, c);
            fwi_enter(t, &at, r);
            fwi_push(&s, frame[(size_t)fwi_wrap(r + 2, call->rows) * call->cols + c]);
            const REAL laplacian = fwi_laplacian(&s, frame + (size_t)r * call->cols, &at);
            gradient[(size_t)r * call->cols + c] += FWI_IMAGE(weight, mu[i], laplacian);
            column += FWI_IMAGE_DAMPING(REAL, at.decay, s.centre, mu_next[i], mu[i], at.alpha);
        }
        damped += (double)weight * column;
    }
    return damped;
}

/* Adds to the cell of the source, after a step. */
FWI_DEVICE void fwi_inject(const Thread *t, REAL *next, const REAL *map, int n, REAL *frame)
{
    const Call *call = t->call;
    if (!t->has_source)
        return;
    REAL *cell = next + fwi_index(t, t->source_row, t->source_col);
    *cell += fwi_alpha(t, map, t->source_row, t->source_col) * (REAL)call->wavelet[n];
    if (frame)
        frame[(size_t)t->source_row * call->cols + t->source_col] = *cell;
}

/* Sums over the threads of a block, in their order. The barrier of the last step stands before it:
 * nobody reads the fields any more whose memory it takes. */
FWI_DEVICE void fwi_sum(const Thread *t, double share)
{
    double *shares = (double *)t->memory;
    shares[t->thread] = share;
    FWI_BARRIER();
    if (t->thread)
        return;
    double sum = 0;
    for (int i = 0; i < t->call->threads; i++)
        sum += shares[i];
    t->call->sums[t->task * FWI_BLOCKS + t->block] = sum;
}

/* p[1..n_steps]: the record, or with data twice the residual, whose squares are summed; frames. */
FWI_DEVICE void fwi_forward(const Call *call, int task, int block, int thread, void *memory)
{
    const Thread t = fwi_thread(call, task, block, thread, memory);
    REAL *even = fwi_field(&t, 2, 0), *odd = fwi_field(&t, 2, 1);
    const int n_frames = (call->n_steps - 1) / call->every;
    double squares = 0;
    fwi_clear(&t, even);
    fwi_clear(&t, odd);
    FWI_BARRIER();
    for (int n = 0; n < call->n_steps; n++) {
        REAL *next = n & 1 ? even : odd, *frame = 0;
        const int kept = (n + 1) / call->every - 1;
        if (call->frames && (n + 1) % call->every == 0 && kept < n_frames)
            frame = call->frames + ((size_t)task * n_frames + kept) * call->rows * call->cols;
        fwi_step(&t, n & 1 ? odd : even, next, frame);
        fwi_inject(&t, next, call->alpha, n, frame);
        for (int k = t.owned; k < t.owned_end; k++) {
            const size_t i = fwi_trace(&t, n, k);
            REAL value = next[fwi_receiver(&t, k)];
            if (call->data) {
                value -= call->data[i];
                squares += (double)value * value;
                value *= 2;
            }
            if (call->record)
                call->record[i] = value;
        }
        FWI_BARRIER();
    }
    if (call->sums)
        fwi_sum(&t, squares);
}

/* The change of the record, to first order, when alpha changes by dalpha and vmin by dvmin. */
FWI_DEVICE void fwi_tangent(const Call *call, int task, int block, int thread, void *memory)
{
    const Thread t = fwi_thread(call, task, block, thread, memory);
    REAL *even = fwi_field(&t, 4, 0), *odd = fwi_field(&t, 4, 1);
    REAL *deven = fwi_field(&t, 4, 2), *dodd = fwi_field(&t, 4, 3);
    fwi_clear(&t, even);
    fwi_clear(&t, odd);
    fwi_clear(&t, deven);
    fwi_clear(&t, dodd);
    FWI_BARRIER();
    for (int n = 0; n < call->n_steps; n++) {
        REAL *next = n & 1 ? even : odd, *dnext = n & 1 ? deven : dodd;
        fwi_tangent_step(&t, n & 1 ? odd : even, next, n & 1 ? dodd : deven, dnext);
        fwi_inject(&t, next, call->alpha, n, 0);
        fwi_inject(&t, dnext, call->dalpha, n, 0);
        for (int k = t.owned; k < t.owned_end; k++)
            call->record[fwi_trace(&t, n, k)] = dnext[fwi_receiver(&t, k)];
        FWI_BARRIER();
    }
}

/* Gradient of sum(data * record) by alpha, and vmin times that by vmin, from the stored frames.
 *
 * mu[m] = step(mu[m+1], mu[m+2]) + alpha u[m-1] at the receivers, m = n_steps..1. In the step that
 * makes mu[n+1] from mu[n+2] over mu[n+3], the last two are imaged with p[n+1] before that. */
FWI_DEVICE void fwi_adjoint(const Call *call, int task, int block, int thread, void *memory)
{
    const Thread t = fwi_thread(call, task, block, thread, memory);
    REAL *even = fwi_field(&t, 2, 0), *odd = fwi_field(&t, 2, 1);
    const size_t cells = (size_t)call->rows * call->cols;
    const REAL *frames = call->frames + task * ((call->n_steps - 1) / call->every) * cells;
    REAL *gradient = call->gradient + task * cells;
    double at_source = 0, damped = 0;
    fwi_clear(&t, even);
    fwi_clear(&t, odd);
    fwi_clear(&t, gradient + (size_t)t.first * call->cols);
    FWI_BARRIER();
    for (int n = call->n_steps - 1; n >= 0; n--) {
        const REAL *now = n & 1 ? odd : even;
        REAL *next = n & 1 ? even : odd;
        if ((n + 1) % call->every == 0 && n + 1 < call->n_steps)
            damped += fwi_image(&t, frames + ((n + 1) / call->every - 1) * cells, now, next,
                                gradient);
        fwi_step(&t, now, next, 0);
        for (int k = t.owned; k < t.owned_end; k++)
            next[fwi_receiver(&t, k)] +=
                fwi_alpha(&t, call->alpha, call->receivers[2 * k], call->receivers[2 * k + 1]) *
                call->data[fwi_trace(&t, n, k)];
        if (t.has_source)
            at_source += call->wavelet[n] * (double)next[fwi_index(&t, t.source_row, t.source_col)];
        FWI_BARRIER();
    }
    for (int c = t.lane; c < call->cols; c += call->width)
        for (int r = t.top; r < t.bottom; r++)
            gradient[(size_t)r * call->cols + c] /= fwi_alpha(&t, call->alpha, r, c);
    if (t.has_source)
        gradient[(size_t)t.source_row * call->cols + t.source_col] +=
            (REAL)(at_source / (double)fwi_alpha(&t, call->alpha, t.source_row, t.source_col));
    fwi_sum(&t, damped);
}
