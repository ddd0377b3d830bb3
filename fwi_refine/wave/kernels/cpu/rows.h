/* Operations on one row of the grid, for one REAL type and one instruction set: see wave.c.
 *
 * A row has HALO cells on both sides; the first two and last two cells of the row stand again in
 * it, on the opposite side, because the grid wraps around. Cells from `cols` on that are not halo
 * have alpha = 0 and stay zero, so that a loop may run to a multiple of the vector length.
 */

static inline REAL *NAME(row)(const Shot *s, REAL *field, int r)
{
    r = r < 0 ? r + s->rows : r >= s->rows ? r - s->rows : r;
    return field + (ptrdiff_t)r * s->stride + HALO;
}

static inline void NAME(wrap)(REAL *row, int cols)
{
    row[cols] = row[0];
    row[cols + 1] = row[1];
    row[-2] = row[cols - 2];
    row[-1] = row[cols - 1];
}

/* Coefficients of one shot. kappa of a cell is that of its column in the left and right bands
 * and that of its row between them: decay = 1 - kappa = column_decay - kappa_row * between. */
typedef struct {
    REAL *alpha;        /* (rows, stride) */
    REAL *column_decay; /* (cols) */
    REAL *column_kappa; /* (cols) 0 between the side bands */
    REAL *between;      /* (cols) 1 between the side bands, 0 in them */
    REAL *kappa_row;    /* (rows) */
} NAME(Medium);

#define FWI_DECAY(m, c) (column_decay[c] - kappa_row * between[c])

/* The rows of a field that a stencil at row r reads. */
typedef struct {
    const REAL *up2, *up1, *centre, *down1, *down2;
} NAME(Stencil);

static inline NAME(Stencil) NAME(stencil)(const Shot *s, REAL *field, int r)
{
    return (NAME(Stencil)){NAME(row)(s, field, r - 2), NAME(row)(s, field, r - 1),
                           NAME(row)(s, field, r), NAME(row)(s, field, r + 1),
                           NAME(row)(s, field, r + 2)};
}

#define FWI_ROW_LAPLACIAN(p, up2, up1, down1, down2, c)                              \
    FWI_LAPLACIAN(REAL, p[c], (p[(c)-1] + p[(c) + 1]) + (up1[c] + down1[c]),         \
                  (p[(c)-2] + p[(c) + 2]) + (up2[c] + down2[c]))

/* One step of row r, in place over the older time level. */
static void NAME(update_row)(const NAME(Medium) *m, const Shot *s, REAL *restrict old,
                             NAME(Stencil) at, int r, int first, int last)
{
    const REAL *restrict up2 = at.up2, *restrict up1 = at.up1, *restrict p = at.centre,
               *restrict down1 = at.down1, *restrict down2 = at.down2;
    const REAL *restrict alpha = NAME(row)(s, m->alpha, r);
    const REAL *restrict column_decay = m->column_decay, *restrict between = m->between;
    const REAL kappa_row = m->kappa_row[r];
    for (ptrdiff_t c = first; c < last; c++) {
        const REAL laplacian = FWI_ROW_LAPLACIAN(p, up2, up1, down1, down2, c);
        old[c] = FWI_STEP(p[c], old[c], FWI_DECAY(m, c), alpha[c], laplacian);
    }
}

/* One step of row r of the linearised field dp, driven by the change of alpha and of vmin.
 * `old` is the field's own older level, not yet overwritten; relative_vmin = dvmin / vmin. */
static void NAME(update_tangent_row)(const NAME(Medium) *m, const Shot *s, REAL *restrict dold,
                                     NAME(Stencil) dat, const REAL *restrict old, NAME(Stencil) at,
                                     REAL *dalpha_field, REAL relative_vmin, int r, int first,
                                     int last)
{
    const REAL *restrict up2 = at.up2, *restrict up1 = at.up1, *restrict p = at.centre,
               *restrict down1 = at.down1, *restrict down2 = at.down2;
    const REAL *restrict dup2 = dat.up2, *restrict dup1 = dat.up1, *restrict dp = dat.centre,
               *restrict ddown1 = dat.down1, *restrict ddown2 = dat.down2;
    const REAL *restrict alpha = NAME(row)(s, m->alpha, r);
    const REAL *restrict dalpha = NAME(row)(s, dalpha_field, r);
    const REAL *restrict column_decay = m->column_decay, *restrict between = m->between;
    const REAL kappa_row = m->kappa_row[r];
    for (ptrdiff_t c = first; c < last; c++) {
        const REAL decay = FWI_DECAY(m, c);
        const REAL own = FWI_ROW_LAPLACIAN(dp, dup2, dup1, ddown1, ddown2, c);
        const REAL driving = FWI_ROW_LAPLACIAN(p, up2, up1, down1, down2, c);
        const REAL dstep = FWI_STEP(dp[c], dold[c], decay, alpha[c], own);
        dold[c] = FWI_TANGENT(REAL, dstep, dalpha[c], driving, decay, relative_vmin, p[c], old[c]);
    }
}

/* Imaging of row r: gradient += weight mu[n+1] L p[n], p[n] in `at`. Returns the row's share of
 * weight sum kappa p[n] (mu[n+2] - mu[n+1]) / alpha, which is vmin times the derivative by vmin. */
static double NAME(image_row)(const NAME(Medium) *m, const Shot *s, REAL *gradient_field,
                              const REAL *restrict mu_next, const REAL *restrict mu,
                              NAME(Stencil) at, REAL weight, int r, int first, int last)
{
    const REAL *restrict up2 = at.up2, *restrict up1 = at.up1, *restrict p = at.centre,
               *restrict down1 = at.down1, *restrict down2 = at.down2;
    const REAL *restrict alpha = NAME(row)(s, m->alpha, r);
    const REAL *restrict column_decay = m->column_decay, *restrict between = m->between;
    REAL *restrict gradient = NAME(row)(s, gradient_field, r);
    const REAL kappa_row = m->kappa_row[r];
    for (ptrdiff_t c = first; c < last; c++)
        gradient[c] +=
            FWI_IMAGE(weight, mu[c], FWI_ROW_LAPLACIAN(p, up2, up1, down1, down2, c));
    REAL damped = 0;
#pragma omp simd reduction(+ : damped)
    for (ptrdiff_t c = first; c < last; c++)
        damped += FWI_IMAGE_DAMPING(REAL, FWI_DECAY(m, c), p[c], mu_next[c], mu[c], alpha[c]);
    return (double)weight * damped;
}

/* Sets to zero what leaves the window from one block to another, so that nothing stale is read. */
static void NAME(clear_leavers)(const Shot *s, REAL *field, int from, int to)
{
    const Windows *w = &s->windows;
    for (int r = 0; r < s->rows; r++) {
        const int i = from * w->rows + r / COARSE, j = to * w->rows + r / COARSE;
        const int first = w->first[i], last = w->last[i];
        const int empty = w->first[j] == w->last[j];
        const int keep_first = empty || w->first[j] > last ? last : w->first[j];
        const int keep_last = empty ? last : w->last[j];
        if (keep_first <= first && keep_last >= last)
            continue;
        REAL *row = NAME(row)(s, field, r);
        for (ptrdiff_t c = first; c < last; c++)
            if (c < keep_first || c >= keep_last)
                row[c] = 0;
        NAME(wrap)(row, s->cols);
    }
}

static void NAME(store_row)(const Shot *s, REAL *frame, REAL *field, int r, int block)
{
    const int i = block * s->windows.rows + r / COARSE;
    const int first = s->windows.store_first[i], last = s->windows.store_last[i];
    if (first < last)
        memcpy(NAME(row)(s, frame, r) + first - 2, NAME(row)(s, field, r) + first - 2,
               sizeof(REAL) * (size_t)(last - first + 4));
}
