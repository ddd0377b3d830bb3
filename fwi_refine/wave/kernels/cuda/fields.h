/* The rows of the grid that a block (blocks.h) has of its fields, and what it gives to others. */
#include "call.h"

/* Index of a cell among the rows that the block has of a field. */
FWI_DEVICE int fwi_index(const Thread *t, int r, int c)
{
    return (r - t->first + FWI_HALO) * t->call->cols + c;
}

/* The block's rows of field k of `fields`, with FWI_HALO of the next blocks on both sides. */
FWI_DEVICE REAL *fwi_field(const Thread *t, int fields, int k)
{
    const Call *call = t->call;
    if (FWI_SHARED)
        return (REAL *)t->memory + (size_t)k * (call->block_rows + 2 * FWI_HALO) * call->cols;
    return call->fields +
           ((size_t)t->task * fields + k) * (call->rows + 2 * FWI_HALO) * call->cols;
}

/* Row r of a field, also up to two beyond the block, where `part` is what the block has of it. */
FWI_DEVICE const REAL *fwi_row(const Thread *t, REAL *part, int r)
{
    const Call *call = t->call;
    if (FWI_HALO || (r >= t->first && r < t->last))
        return part + fwi_index(t, r, 0);
    r = fwi_wrap(r, call->rows);
    const int block = r / call->block_rows;
    return FWI_IN_BLOCK(part, block) + (r - block * call->block_rows) * call->cols;
}

/* What follows c in a loop over the first of a thread's columns: mostly there is one only. */
FWI_DEVICE int fwi_next(const Thread *t, int c)
{
    const int step = t->call->width * FWI_SIDE;
    return step < t->call->cols ? c + step : t->call->cols;
}

#define FWI_COLUMNS(t, c) \
    for (int c = (t)->begin; c < (t)->call->cols; c = fwi_next(t, c))

/* Zeros in the thread's cells and, where they are the block's outermost, in the rows beyond. */
FWI_DEVICE void fwi_clear(const Thread *t, REAL *part)
{
    const int above = t->top == t->first ? FWI_HALO : 0;
    const int below = t->bottom == t->last ? FWI_HALO : 0;
    FWI_COLUMNS(t, c)
        for (int r = t->top - above; r < t->bottom + below; r++)
            fwi_store(part + fwi_index(t, r, c), Pack());
}

/* Row r of the block, if it is the thread's, also stands beyond the rows of the block that has the
 * row `ahead` of it, which is that block's first or last one. */
FWI_DEVICE void fwi_share_row(const Thread *t, REAL *part, int n, int r, int ahead)
{
    const Call *call = t->call;
    if (r < t->top || r >= t->bottom)
        return;
    const int neighbour = fwi_wrap(r + ahead, call->rows), block = neighbour / call->block_rows;
    const int row = neighbour - block * call->block_rows - ahead + FWI_HALO;
    FWI_COLUMNS(t, c)
        FWI_GIVE(part + row * call->cols + c, block, fwi_load(part + fwi_index(t, r, c)), n & 1);
}

/* Gives the block's outer rows, made in step n, to its neighbours; a block has two at least. */
FWI_DEVICE void fwi_share(const Thread *t, REAL *part, int n)
{
    for (int d = 1; d <= FWI_HALO; d++) {
        fwi_share_row(t, part, n, t->first + d - 1, -d);
        fwi_share_row(t, part, n, t->last - d, d);
    }
}

/* Bytes that its neighbours give to the thread's block in a step, if so many fields are shared. */
FWI_DEVICE int fwi_given(const Thread *t, int fields)
{
    if (t->first == t->last)
        return 0;
    return fields * 2 * FWI_HALO * t->call->cols * (int)sizeof(REAL);
}

/* Ends the n-th step, in which so many fields are shared. Each of the two counters is used in every
 * other step, so that the one of this step is not that of a neighbour who is a step ahead. */
FWI_DEVICE void fwi_end_of_step(const Thread *t, int n, int fields)
{
    if (!FWI_HALO) {
        FWI_BARRIER();
        return;
    }
    if (t->thread == 0)
        FWI_EXPECT(n & 1, fwi_given(t, fields));
    FWI_SYNC();
    FWI_WAIT(n & 1, n >> 1 & 1);
}
