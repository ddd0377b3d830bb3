/* The time loops of one shot, for one REAL type and one instruction set: see wave.c.
 *
 * Every loop visits the grid in blocks of DEPTH time steps. Within a block, row r of a step is
 * computed as soon as rows r-2..r+2 of the step before are done, so that a row stays in the cache
 * for all DEPTH steps (time skewing; Wolf & Lam, SIGPLAN Notices 26, 1991). The outermost loop
 * counts i; step `level` of the block is then at row i - 2 level. Because the grid wraps around,
 * it begins at row 2 level and goes once round: the rows of the step before that it needs at the
 * end of its round are the ones that the step after has not overwritten, as that began two later.
 */

/* Row of step `level` at count i, or -1 when it has none to do. */
#ifndef FWI_LOOPS_H
#define FWI_LOOPS_H
static inline int skewed_row(int i, int level, int rows)
{
    const int walked = i - 4 * level;
    if (walked < 0 || walked >= rows)
        return -1;
    const int r = i - 2 * level;
    return r < rows ? r : r - rows;
}
#endif

static NAME(Medium) NAME(make_medium)(const Shot *s, Arena *arena, const REAL *alpha, double vmin)
{
    NAME(Medium) m;
    m.alpha = arena_take(arena, sizeof(REAL) * s->field_size);
    m.column_decay = (REAL *)arena_take(arena, sizeof(REAL) * (size_t)s->stride) + HALO;
    m.column_kappa = (REAL *)arena_take(arena, sizeof(REAL) * (size_t)s->stride) + HALO;
    m.between = (REAL *)arena_take(arena, sizeof(REAL) * (size_t)s->stride) + HALO;
    m.kappa_row = arena_take(arena, sizeof(REAL) * (size_t)s->rows);
    for (int r = 0; r < s->rows; r++) {
        memcpy(NAME(row)(s, m.alpha, r), alpha + (size_t)r * s->cols,
               sizeof(REAL) * (size_t)s->cols);
        m.kappa_row[r] = (REAL)(vmin * s->damping_row[r]);
    }
    for (int c = 0; c < s->cols; c++) {
        m.column_decay[c] = (REAL)(1.0 - vmin * s->damping_col[c]);
        m.column_kappa[c] = (REAL)(vmin * s->damping_col[c]);
        m.between[c] = c >= s->margin && c < s->cols - s->margin;
    }
    return m;
}

/* What follows the update of a row: source, wrap, receivers, storage. */
static inline void NAME(finish_row)(const Shot *s, REAL *field, int r, int n, int block,
                                    REAL amplitude, REAL *record, REAL *frames)
{
    const int i = block * s->windows.rows + r / COARSE;
    REAL *row = NAME(row)(s, field, r);
    if (s->windows.first[i] < s->windows.last[i]) {
        if (r == s->source[0] && s->source[1] >= s->windows.first[i] &&
            s->source[1] < s->windows.last[i])
            row[s->source[1]] += amplitude * (REAL)s->wavelet[n];
        NAME(wrap)(row, s->cols);
        for (int j = s->row_start[r]; j < s->row_start[r + 1]; j++) {
            const int receiver = s->by_row[j];
            record[(size_t)n * s->n_receivers + receiver] = row[s->receivers[2 * receiver + 1]];
        }
    }
    if (frames && (n + 1) % s->every == 0 && n + 1 < s->n_steps)
        NAME(store_row)(s, frames + ((n + 1) / s->every - 1) * s->field_size, field, r, block);
}

/* p[1..n_steps] of one shot -> record (n_steps, receivers), which must be zero on entry. Where
 * frames is not NULL it receives p[every], p[2 every], ... in rows of `stride`. */
static void NAME(forward_shot)(const Shot *s, Arena *arena, const REAL *alpha, double vmin,
                               REAL *record, REAL *frames)
{
    const NAME(Medium) m = NAME(make_medium)(s, arena, alpha, vmin);
    REAL *field[2];
    for (int i = 0; i < 2; i++)
        field[i] = arena_take(arena, sizeof(REAL) * s->field_size);
    const Windows *w = &s->windows;
    const REAL amplitude = alpha[(size_t)s->source[0] * s->cols + s->source[1]];
    for (int block = 0; block < w->blocks; block++) {
        const int start = block * DEPTH;
        const int depth = s->n_steps - start < DEPTH ? s->n_steps - start : DEPTH;
        for (int i = 0; block && i < 2; i++)
            NAME(clear_leavers)(s, field[i], block - 1, block);
        for (int i = 0; i < s->rows + 4 * depth - 4; i++)
            for (int level = 0; level < depth; level++) {
                const int r = skewed_row(i, level, s->rows), n = start + level;
                if (r < 0)
                    continue;
                const int first = w->first[block * w->rows + r / COARSE];
                const int last = w->last[block * w->rows + r / COARSE];
                REAL *next = field[(n + 1) & 1], *now = field[n & 1];
                if (first < last)
                    NAME(update_row)(&m, s, NAME(row)(s, next, r), NAME(stencil)(s, now, r), r,
                                     first, last);
                NAME(finish_row)(s, next, r, n, block, amplitude, record, frames);
            }
    }
}

/* The change of the record, to first order, when alpha changes by dalpha and vmin by dvmin. */
static void NAME(tangent_shot)(const Shot *s, Arena *arena, const REAL *alpha, double vmin,
                               const REAL *dalpha, double dvmin, REAL *record, REAL *drecord)
{
    const NAME(Medium) m = NAME(make_medium)(s, arena, alpha, vmin);
    REAL *field[2], *dfield[2];
    for (int i = 0; i < 2; i++) {
        field[i] = arena_take(arena, sizeof(REAL) * s->field_size);
        dfield[i] = arena_take(arena, sizeof(REAL) * s->field_size);
    }
    REAL *dalpha_rows = arena_take(arena, sizeof(REAL) * s->field_size);
    for (int r = 0; r < s->rows; r++)
        memcpy(NAME(row)(s, dalpha_rows, r), dalpha + (size_t)r * s->cols,
               sizeof(REAL) * (size_t)s->cols);
    const Windows *w = &s->windows;
    const size_t at_source = (size_t)s->source[0] * s->cols + s->source[1];
    for (int n = 0; n < s->n_steps; n++) {
        const int block = n / DEPTH;
        REAL *next = field[(n + 1) & 1], *dnext = dfield[(n + 1) & 1];
        if (n % DEPTH == 0 && block)
            for (int i = 0; i < 2; i++) {
                NAME(clear_leavers)(s, field[i], block - 1, block);
                NAME(clear_leavers)(s, dfield[i], block - 1, block);
            }
        for (int r = 0; r < s->rows; r++) {
            const int first = w->first[block * w->rows + r / COARSE];
            const int last = w->last[block * w->rows + r / COARSE];
            if (first == last)
                continue;
            const NAME(Stencil) at = NAME(stencil)(s, field[n & 1], r);
            NAME(update_tangent_row)(&m, s, NAME(row)(s, dnext, r),
                                     NAME(stencil)(s, dfield[n & 1], r), NAME(row)(s, next, r), at,
                                     dalpha_rows, (REAL)(dvmin / vmin), r, first, last);
            NAME(update_row)(&m, s, NAME(row)(s, next, r), at, r, first, last);
            NAME(finish_row)(s, next, r, n, block, alpha[at_source], record, NULL);
            NAME(finish_row)(s, dnext, r, n, block, dalpha[at_source], drecord, NULL);
        }
    }
}

/* Gradient of sum(u * record) by alpha (rows, cols) and by vmin, from the stored frames.
 *
 * mu[m] = step(mu[m+1], mu[m+2]) + alpha u[m-1] at the receivers, m = n_steps..1;
 * d/dalpha = (sum_n mu[n+1] L p[n] + at the source sum_n w[n] mu[n+1]) / alpha, the first sum
 * over every `every`-th n only, times `every`: the fields are band-limited. */
static void NAME(adjoint_shot)(const Shot *s, Arena *arena, const REAL *alpha, double vmin,
                               const REAL *u, REAL *frames, REAL *gradient, double *gradient_vmin)
{
    const NAME(Medium) m = NAME(make_medium)(s, arena, alpha, vmin);
    REAL *field[2];
    for (int i = 0; i < 2; i++)
        field[i] = arena_take(arena, sizeof(REAL) * s->field_size);
    REAL *image = arena_take(arena, sizeof(REAL) * s->field_size);
    const Windows *w = &s->windows;
    double at_source = 0.0, damped = 0.0;
    for (int block = w->blocks - 1; block >= 0; block--) {
        const int start = block * DEPTH;
        const int depth = s->n_steps - start < DEPTH ? s->n_steps - start : DEPTH;
        for (int i = 0; block < w->blocks - 1 && i < 2; i++)
            NAME(clear_leavers)(s, field[i], block + 1, block);
        for (int i = 0; i < s->rows + 4 * depth - 4; i++)
            for (int level = 0; level < depth; level++) {
                const int r = skewed_row(i, level, s->rows), n = start + depth - 1 - level;
                if (r < 0)
                    continue;
                const int first = w->first[block * w->rows + r / COARSE];
                const int last = w->last[block * w->rows + r / COARSE];
                if (first == last)
                    continue;
                /* mu[n+1] overwrites mu[n+3] */
                REAL *mu = NAME(row)(s, field[(n + 1) & 1], r), *next = field[n & 1];
                NAME(update_row)(&m, s, mu, NAME(stencil)(s, next, r), r, first, last);
                for (int j = s->row_start[r]; j < s->row_start[r + 1]; j++) {
                    const int receiver = s->by_row[j], c = s->receivers[2 * receiver + 1];
                    if (c >= first && c < last)
                        mu[c] += NAME(row)(s, m.alpha, r)[c] *
                                 u[(size_t)n * s->n_receivers + receiver];
                }
                NAME(wrap)(mu, s->cols);
                if (r == s->source[0])
                    at_source += s->wavelet[n] * (double)mu[s->source[1]];
                if (n && n % s->every == 0) {
                    REAL *frame = frames + (n / s->every - 1) * s->field_size;
                    damped += NAME(image_row)(&m, s, image, NAME(row)(s, next, r), mu,
                                              NAME(stencil)(s, frame, r), (REAL)s->every, r, first,
                                              last < s->cols ? last : s->cols);
                }
            }
    }
    for (int r = 0; r < s->rows; r++)
        for (int c = 0; c < s->cols; c++)
            gradient[(size_t)r * s->cols + c] =
                NAME(row)(s, image, r)[c] / alpha[(size_t)r * s->cols + c];
    const size_t source = (size_t)s->source[0] * s->cols + s->source[1];
    gradient[source] += (REAL)(at_source / (double)alpha[source]);
    *gradient_vmin = damped / vmin;
}
