/* The columns of a thread (blocks.h): the coefficients of the medium and the stencil, on their way
 * down the thread's rows.
 */
#include "fields.h"

/* Cells of a row of the map: one more pack on both sides, with the edge's value. */
FWI_DEVICE int fwi_map_width(const Call *call)
{
    return call->map_cols + 2 * FWI_SIDE;
}

FWI_DEVICE REAL fwi_alpha(const Thread *t, const REAL *map, int r, int c)
{
    const Call *call = t->call;
    const int row = fwi_clamp(r - call->margin, call->map_rows);
    const int col = FWI_SIDE + fwi_clamp(c - call->margin, call->map_cols);
    return map[((size_t)t->sample * call->map_rows + row) * fwi_map_width(call) + col];
}

/* A coefficient in the columns from c on and the thread's first row. */
FWI_DEVICE Coefficient fwi_coefficient(const Thread *t, const REAL *map, int c)
{
    const Call *call = t->call;
    const int width = fwi_map_width(call), row = fwi_clamp(t->top - call->margin, call->map_rows);
    const int col = fwi_clamp(c - call->margin + FWI_SIDE, width - FWI_SIDE + 1);
    Coefficient k;
    k.column = map + (size_t)t->sample * call->map_rows * width + col;
    k.here = k.below = fwi_load(k.column + row * width);
    return k;
}

/* Moves to row r: most rows lie in the band, where the value is that of the row before. */
FWI_DEVICE void fwi_follow(const Thread *t, Coefficient *k, int r)
{
    const int next = r + 1 - t->call->margin;
    k->here = k->below;
    if (next > 0 && next < t->call->map_rows)
        k->below = fwi_load(k->column + next * fwi_map_width(t->call));
}

/* kappa of row r between the side bands. */
FWI_DEVICE REAL fwi_kappa(const Thread *t, int r)
{
    return t->call->row_kappa[(size_t)t->sample * (t->call->rows + 1) + r];
}

FWI_DEVICE Column fwi_column(const Thread *t, int c)
{
    const Call *call = t->call;
    Column at;
    at.c = c;
    for (int i = 0; i < 2 / FWI_SIDE; i++) {
        at.left[i] = fwi_wrap(c - 2 + i * FWI_SIDE, call->cols);
        at.right[i] = fwi_wrap(c + FWI_SIDE + i * FWI_SIDE, call->cols);
    }
    at.between = c >= call->margin && c < call->cols - call->margin;
    at.kappa = at.kappa_below = fwi_kappa(t, t->top);
    at.column_decay = fwi_load(call->column_decay + (size_t)t->sample * call->cols + c);
    at.alpha = fwi_coefficient(t, call->alpha, c);
    return at;
}

/* The columns from c on, which the thread has in hand if they are its first. */
FWI_DEVICE Column fwi_column_at(const Thread *t, int c)
{
    return c == t->column.c ? t->column : fwi_column(t, c);
}

FWI_DEVICE void fwi_enter(const Thread *t, Column *at, int r)
{
    fwi_follow(t, &at->alpha, r);
    at->kappa = at->kappa_below;
    at->kappa_below = fwi_kappa(t, r + 1);
}

FWI_DEVICE REAL fwi_decay(const Column *at, int j)
{
    return at->column_decay.at[j] - at->between * at->kappa;
}

FWI_DEVICE void fwi_push(Slide *s, Pack below)
{
    s->up2 = s->up1;
    s->up1 = s->centre;
    s->centre = s->down1;
    s->down1 = s->down2;
    s->down2 = below;
}

/* The four cells around the thread's first row, in columns c; the fifth is still to come. */
FWI_DEVICE Slide fwi_slide(const Thread *t, REAL *part, int c)
{
    Slide s = Slide();
    for (int r = t->top - 2; r < t->top + 2; r++)
        fwi_push(&s, fwi_load(fwi_row(t, part, r) + c));
    return s;
}

/* A row of the grid around the columns: two cells on both sides; `row` is its beginning. */
typedef struct {
    REAL at[2 + FWI_SIDE + 2];
} Around;

FWI_DEVICE Around fwi_around(const Slide *s, const REAL *row, const Column *at)
{
    Around x;
    for (int i = 0; i < 2 / FWI_SIDE; i++) {
        const Pack left = fwi_load(row + at->left[i]), right = fwi_load(row + at->right[i]);
        for (int j = 0; j < FWI_SIDE; j++) {
            x.at[i * FWI_SIDE + j] = left.at[j];
            x.at[2 + FWI_SIDE + i * FWI_SIDE + j] = right.at[j];
        }
    }
    for (int j = 0; j < FWI_SIDE; j++)
        x.at[2 + j] = s->centre.at[j];
    return x;
}

/* L p in the columns. */
FWI_DEVICE Pack fwi_laplacian(const Slide *s, const REAL *row, const Column *at)
{
    const Around x = fwi_around(s, row, at);
    Pack laplacian;
    for (int j = 0; j < FWI_SIDE; j++)
        laplacian.at[j] = FWI_LAPLACIAN(
            REAL, x.at[j + 2], (x.at[j + 1] + x.at[j + 3]) + (s->up1.at[j] + s->down1.at[j]),
            (x.at[j] + x.at[j + 4]) + (s->up2.at[j] + s->down2.at[j]));
    return laplacian;
}

/* The columns' next step in the released data's arithmetic; for it, column_decay has kappa. */
FWI_DEVICE Pack fwi_released_cells(const Slide *s, const REAL *row, const Column *at, Pack old)
{
    const Around x = fwi_around(s, row, at);
    Pack cells;
    for (int j = 0; j < FWI_SIDE; j++) {
        const REAL kappa = at->column_decay.at[j] + at->between * at->kappa; /* one of them is 0 */
        const REAL near = FWI_RELEASED_SUM(s->up1.at[j], s->down1.at[j], x.at[j + 1], x.at[j + 3]);
        const REAL far = FWI_RELEASED_SUM(s->up2.at[j], s->down2.at[j], x.at[j], x.at[j + 4]);
        cells.at[j] = FWI_RELEASED_STEP(REAL, FWI_MUL, x.at[j + 2], old.at[j], kappa,
                                        at->alpha.here.at[j], near, far);
    }
    return cells;
}
