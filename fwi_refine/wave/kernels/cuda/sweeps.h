/* What a thread of blocks.h does with its cells in a time step. */
#include "thread.h"

/* A pragma takes no macro; and put into one, together with its loop, it compiles a row too many. */
enum { UNROLLED = FWI_UNROLL };

/* One step of the thread's cells, in place over the older level; `frame` receives them if not 0.
 * released: in the released data's arithmetic; known where this is compiled. */
FWI_DEVICE void fwi_step(const Thread *t, REAL *now, REAL *next, REAL *frame, int released)
{
    const Call *call = t->call;
    FWI_COLUMNS(t, c) {
        Column at = fwi_column_at(t, c);
        const int top = fwi_index(t, t->top, c);
        Slide s = fwi_slide(t, now, c);
#pragma unroll UNROLLED
        for (int k = 0; k < call->strip_rows; k++) {
            const int r = t->top + k, i = top + k * call->cols;
            if (r >= t->bottom)
                break;
            fwi_enter(t, &at, r);
            fwi_push(&s, fwi_load(fwi_row(t, now, r + 2) + c));
            Pack cells = fwi_load(next + i);
            if (released) {
                cells = fwi_released_cells(&s, now + (i - c), &at, cells);
            } else {
                const Pack laplacian = fwi_laplacian(&s, now + (i - c), &at);
                for (int j = 0; j < FWI_SIDE; j++)
                    cells.at[j] = FWI_STEP(s.centre.at[j], cells.at[j], fwi_decay(&at, j),
                                           at.alpha.here.at[j], laplacian.at[j]);
            }
            fwi_store(next + i, cells);
            if (frame)
                fwi_store(frame + (size_t)r * call->cols + c, cells);
        }
    }
}

/* One step of a field and of its change. */
FWI_DEVICE void fwi_tangent_step(const Thread *t, REAL *now, REAL *next, REAL *dnow, REAL *dnext)
{
    const Call *call = t->call;
    const REAL relative_vmin = call->relative_vmin[t->sample];
    FWI_COLUMNS(t, c) {
        Column at = fwi_column_at(t, c);
        Coefficient dalpha = fwi_coefficient(t, call->dalpha, c);
        const int top = fwi_index(t, t->top, c);
        Slide s = fwi_slide(t, now, c), d = fwi_slide(t, dnow, c);
#pragma unroll UNROLLED
        for (int k = 0; k < call->strip_rows; k++) {
            const int r = t->top + k, i = top + k * call->cols;
            if (r >= t->bottom)
                break;
            fwi_enter(t, &at, r);
            fwi_follow(t, &dalpha, r);
            fwi_push(&s, fwi_load(fwi_row(t, now, r + 2) + c));
            fwi_push(&d, fwi_load(fwi_row(t, dnow, r + 2) + c));
            const Pack driving = fwi_laplacian(&s, now + (i - c), &at);
            const Pack own = fwi_laplacian(&d, dnow + (i - c), &at);
            Pack cells = fwi_load(next + i), dcells = fwi_load(dnext + i);
            for (int j = 0; j < FWI_SIDE; j++) {
                const REAL centre = s.centre.at[j], decay = fwi_decay(&at, j);
                const REAL alpha = at.alpha.here.at[j];
                const REAL dstep = FWI_STEP(d.centre.at[j], dcells.at[j], decay, alpha, own.at[j]);
                dcells.at[j] = FWI_TANGENT(REAL, dstep, dalpha.here.at[j], driving.at[j], decay,
                                           relative_vmin, centre, cells.at[j]);
                cells.at[j] = FWI_STEP(centre, cells.at[j], decay, alpha, driving.at[j]);
            }
            fwi_store(dnext + i, dcells);
            fwi_store(next + i, cells);
        }
    }
}

/* The cells of a frame in row r, also outside the grid, which wraps around, and column c. */
FWI_DEVICE Pack fwi_frame(const Thread *t, const REAL *frame, int r, int c)
{
    return fwi_load(frame + (size_t)fwi_wrap(r, t->call->rows) * t->call->cols + c);
}

/* Imaging of p[n], `frame`, with mu[n+1] and mu[n+2]: adds to the gradient times alpha, and
 * returns the thread's share of vmin times the derivative by vmin. */
FWI_DEVICE double fwi_image(const Thread *t, const REAL *frame, const REAL *mu,
                            const REAL *mu_next, REAL *gradient)
{
    const Call *call = t->call;
    const REAL weight = (REAL)call->every;
    double damped = 0;
    FWI_COLUMNS(t, c) {
        Column at = fwi_column_at(t, c);
        Slide s = Slide();
        REAL column = 0; /* double arithmetic is slow on many cards */
        for (int r = t->top - 2; r < t->top + 2; r++)
            fwi_push(&s, fwi_frame(t, frame, r, c));
        Pack below = fwi_frame(t, frame, t->top + 2, c); /* fetched a row before it is needed */
        /* one step in `every` only: not worth the registers that unrolling takes */
#pragma unroll 1
        for (int r = t->top; r < t->bottom; r++) {
            const size_t i = (size_t)r * call->cols;
            fwi_enter(t, &at, r);
            fwi_push(&s, below);
            below = fwi_frame(t, frame, r + 3, c);
            const Pack laplacian = fwi_laplacian(&s, frame + i, &at);
            const Pack here = fwi_load(mu + fwi_index(t, r, c));
            const Pack after = fwi_load(mu_next + fwi_index(t, r, c));
            Pack image = fwi_load(gradient + i + c);
            for (int j = 0; j < FWI_SIDE; j++) {
                image.at[j] += FWI_IMAGE(weight, here.at[j], laplacian.at[j]);
                column += FWI_IMAGE_DAMPING(REAL, fwi_decay(&at, j), s.centre.at[j], after.at[j],
                                            here.at[j], at.alpha.here.at[j]);
            }
            fwi_store(gradient + i + c, image);
        }
        damped += (double)weight * column;
    }
    return damped;
}

/* Adds alpha times the wavelet's `pulse`, rounded, to the cell of the source, after a step. */
FWI_DEVICE void fwi_inject(const Thread *t, REAL *next, REAL alpha, double pulse, REAL *frame)
{
    if (!t->has_source)
        return;
    next[t->source_cell] = FWI_ADD(next[t->source_cell], FWI_MUL(alpha, (REAL)pulse));
    if (frame)
        frame[(size_t)t->source_row * t->call->cols + t->source_col] = next[t->source_cell];
}

/* What the data have at `trace`, that of the thread's first receiver, if it has one; fetched, as the
 * pulse, before it is needed. */
FWI_DEVICE REAL fwi_datum(const Thread *t, size_t trace)
{
    return t->call->data && t->owned < t->owned_end ? t->call->data[trace] : 0;
}

/* What the wavelet has at step n. */
FWI_DEVICE double fwi_pulse(const Thread *t, int n)
{
    return t->has_source ? t->call->wavelet[n] : 0;
}

/* A coefficient at the source; 0 for the threads that do not have it. */
FWI_DEVICE REAL fwi_at_source(const Thread *t, const REAL *map)
{
    return t->has_source ? fwi_alpha(t, map, t->source_row, t->source_col) : 0;
}
