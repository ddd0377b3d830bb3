/* One shot on the thread blocks of a GPU: forward, tangent and adjoint runs, for one REAL type.
 *
 * A shot belongs to one thread block, or to a cluster of FWI_BLOCKS of them, for all its time
 * steps: nothing is launched between two steps, and shots do not see each other. Block b has the
 * rows from b * block_rows on; a thread has FWI_SIDE columns of some of these rows, the same at
 * every step. In a step a thread overwrites the older time level of its own cells and reads the
 * newer one, of any cell. The rows that a block needs of its neighbours are given to it as they
 * are made, so that it waits for them only, and not for the whole shot. Where memory does not
 * suffice for that (FWI_HALO 0), they are read where they are.
 *
 * A neighbour may be one step ahead, not two, as it waits for this block's rows; it then writes over
 * the rows of the older level. Nobody reads these any more: each thread that read them has made a
 * row from them before it gave that row away, and the neighbour has waited for all of those. So no
 * row may be given before the rows beyond the block have been read.
 *
 * What belongs to a cell, such as a source, a receiver or its share of a gradient, is done by the
 * thread that has the cell, in the same order each time: no atomics, and the same bits whatever
 * else is computed.
 *
 * A step is limited by its instructions and by how much shared memory it reads (docs/gpu.md). So
 * a thread keeps five rows of its columns in registers and reads a row once on its way down, and
 * two columns together take five accesses of twice the width instead of fourteen.
 *
 * Whoever includes this defines
 *   REAL                        float or double
 *   FWI_SIDE                    columns of a thread: 1, or 2 where map and band have even numbers
 *   FWI_BLOCKS                  thread blocks of a shot
 *   FWI_SHARED                  fields stand in each block's own memory; otherwise, for one block
 *                               only, in Call.fields
 *   FWI_HALO                    rows of its neighbours that a block has on both sides: 2, or 0
 *   FWI_UNROLL                  rows of a thread that are compiled one by one
 *   FWI_START()                 waits for all threads of the shot; what they wrote is then visible;
 *                               the block's counters, two, begin
 *   FWI_BARRIER()               waits for all threads of the shot; used without a halo only
 *   FWI_SYNC()                  waits for the threads of the block
 *   FWI_EXPECT(count, bytes)    said by one thread: one of the block's counters comes to the end of
 *                               its phase as soon as so many bytes have been given in it
 *   FWI_WAIT(count, parity)     waits for the end of the phase, phases being 0, 1, 0, 1, ...; what was
 *                               given is then visible
 *   FWI_GIVE(place, block, pack, count)  stores where another block has `place`, and then adds the
 *                               bytes to a counter of that block
 *   FWI_IN_BLOCK(part, block)   the same place in another block's memory
 *   FWI_DEVICE                  qualifiers of a function
 *
 * Subnormal numbers are kept: on a GPU they cost nothing.
 */
#include "sweeps.h"

/* Sums over the threads of a block, in their order, after the last step: nobody reads the fields any
 * more whose memory it takes. */
FWI_DEVICE void fwi_sum(const Thread *t, double share)
{
    double *shares = (double *)t->memory;
    shares[t->thread] = share;
    FWI_SYNC();
    if (t->thread)
        return;
    double sum = 0;
    for (int i = 0; i < t->call->threads; i++)
        sum += shares[i];
    t->call->sums[t->task * FWI_BLOCKS + t->block] = sum;
}

/* p[1..n_steps]: the record, or with data twice the residual, whose squares are summed; frames. */
FWI_DEVICE void fwi_run(const Call *call, int task, int block, int thread, void *memory,
                        int released)
{
    const Thread t = fwi_thread(call, task, block, thread, memory);
    const REAL alpha = released ? call->strength[call->first_task + task]
                                : fwi_at_source(&t, call->alpha);
    REAL *even = fwi_field(&t, 2, 0), *odd = fwi_field(&t, 2, 1);
    const size_t cells = (size_t)call->rows * call->cols;
    REAL *slot = call->frames + task * ((call->n_steps - 1) / call->every) * cells;
    size_t trace = fwi_trace(&t, 0, t.receiver);
    int until = call->every; /* the next frame */
    double squares = 0;
    fwi_clear(&t, even);
    fwi_clear(&t, odd);
    FWI_START();
    for (int n = 0; n < call->n_steps; n++, trace += call->n_receivers) {
        const double pulse = fwi_pulse(&t, n);
        const REAL datum = fwi_datum(&t, trace);
        REAL *next = n & 1 ? even : odd, *frame = 0;
        if (call->frames && --until == 0 && n + 1 < call->n_steps) {
            frame = slot;
            slot += cells;
            until = call->every;
        }
        fwi_step(&t, n & 1 ? odd : even, next, frame, released);
        fwi_inject(&t, next, alpha, pulse, frame);
        fwi_share(&t, next, n);
        for (int k = t.owned; k < t.owned_end; k++) {
            const Receiver receiver = fwi_receiver_at(&t, k);
            const size_t i = k == t.owned ? trace : fwi_trace(&t, n, receiver);
            REAL value = next[receiver.cell];
            if (call->data) {
                value -= k == t.owned ? datum : call->data[i];
                squares += (double)value * value;
                value *= 2;
            }
            if (call->record)
                call->record[i] = value;
        }
        fwi_end_of_step(&t, n, 1);
    }
    if (call->sums)
        fwi_sum(&t, squares);
}

FWI_DEVICE void fwi_forward(const Call *call, int task, int block, int thread, void *memory)
{
    fwi_run(call, task, block, thread, memory, 0);
}

/* The same in the released data's arithmetic, bit for bit where REAL is float. */
FWI_DEVICE void fwi_released(const Call *call, int task, int block, int thread, void *memory)
{
    fwi_run(call, task, block, thread, memory, 1);
}

/* The change of the record, to first order, when alpha changes by dalpha and vmin by dvmin. */
FWI_DEVICE void fwi_tangent(const Call *call, int task, int block, int thread, void *memory)
{
    const Thread t = fwi_thread(call, task, block, thread, memory);
    const REAL alpha = fwi_at_source(&t, call->alpha), dalpha = fwi_at_source(&t, call->dalpha);
    REAL *even = fwi_field(&t, 4, 0), *odd = fwi_field(&t, 4, 1);
    REAL *deven = fwi_field(&t, 4, 2), *dodd = fwi_field(&t, 4, 3);
    fwi_clear(&t, even);
    fwi_clear(&t, odd);
    fwi_clear(&t, deven);
    fwi_clear(&t, dodd);
    FWI_START();
    for (int n = 0; n < call->n_steps; n++) {
        const double pulse = fwi_pulse(&t, n);
        REAL *next = n & 1 ? even : odd, *dnext = n & 1 ? deven : dodd;
        fwi_tangent_step(&t, n & 1 ? odd : even, next, n & 1 ? dodd : deven, dnext);
        fwi_inject(&t, next, alpha, pulse, 0);
        fwi_inject(&t, dnext, dalpha, pulse, 0);
        fwi_share(&t, next, n);
        fwi_share(&t, dnext, n);
        for (int k = t.owned; k < t.owned_end; k++) {
            const Receiver receiver = fwi_receiver_at(&t, k);
            call->record[fwi_trace(&t, n, receiver)] = dnext[receiver.cell];
        }
        fwi_end_of_step(&t, n, 2);
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
    size_t trace = fwi_trace(&t, call->n_steps - 1, t.receiver);
    double at_source = 0, damped = 0;
    fwi_clear(&t, even);
    fwi_clear(&t, odd);
    FWI_COLUMNS(&t, c)
        for (int r = t.top; r < t.bottom; r++)
            fwi_store(gradient + (size_t)r * call->cols + c, Pack());
    FWI_START();
    for (int n = call->n_steps - 1; n >= 0; n--, trace -= call->n_receivers) {
        const double pulse = fwi_pulse(&t, n);
        const REAL datum = fwi_datum(&t, trace);
        const int step = call->n_steps - 1 - n;
        REAL *now = n & 1 ? odd : even, *next = n & 1 ? even : odd;
        if ((n + 1) % call->every == 0 && n + 1 < call->n_steps)
            damped += fwi_image(&t, frames + ((n + 1) / call->every - 1) * cells, now, next,
                                gradient);
        fwi_step(&t, now, next, 0, 0);
        for (int k = t.owned; k < t.owned_end; k++) {
            const Receiver receiver = fwi_receiver_at(&t, k);
            next[receiver.cell] += receiver.alpha * (k == t.owned
                                                         ? datum
                                                         : call->data[fwi_trace(&t, n, receiver)]);
        }
        fwi_share(&t, next, step);
        if (t.has_source)
            at_source += pulse * (double)next[t.source_cell];
        fwi_end_of_step(&t, step, 1);
    }
    FWI_COLUMNS(&t, c) {
        Column at = fwi_column_at(&t, c);
        for (int r = t.top; r < t.bottom; r++) {
            fwi_enter(&t, &at, r);
            for (int j = 0; j < FWI_SIDE; j++)
                gradient[(size_t)r * call->cols + c + j] /= at.alpha.here.at[j];
        }
    }
    if (t.has_source)
        gradient[(size_t)t.source_row * call->cols + t.source_col] +=
            (REAL)(at_source / (double)fwi_at_source(&t, call->alpha));
    fwi_sum(&t, damped);
}
