/* The time loop of one shot with the released data's arithmetic, bit for bit: see
 * ../../released_arithmetic.py.
 *
 * Any other rounding, be it of a number far away and next to nothing, ends up in a record: so no cell
 * is left out that has a number other than zero.
 *
 * Ahead of the wave these fall through the subnormal numbers, which cost a hundred cycles each. So
 * all fields are SCALE times what they are, where they are normal, and where they would be subnormal
 * products are rounded by hand, to multiples of GRID. Sums of such multiples are exact. Blocks of a
 * row know whether they are zero, SMALL, so that this may be needed, or LARGE.
 */
#ifndef FWI_RELEASED_H
#define FWI_RELEASED_H

enum { BLOCK = ALIGNMENT / sizeof(float) }; /* columns */

#define SCALE 0x1p64f
#define MIN_NORMAL (0x1p-126f * SCALE)
#define GRID (0x1p-149f * SCALE)
/* A block is large if both ends have a number of 2^-80 or more. From cell to cell numbers fall by a
 * factor of 25 at most, also where two fronts meet. These are the bits of that, SCALE times. */
#define LARGE_BITS ((int32_t)(-80 + 64 + 127) << 23)
enum { LOOK_AGAIN = 32 }; /* steps, in which no number decays by much */

/* The blocks of a row, one bit for each, that are not zero and that are large. */
typedef struct {
    uint64_t nonzero, large;
} Sizes;

/* How the columns are divided: at most 64 blocks; in `last` and beyond it are the grid's last two. */
typedef struct {
    int cols, width, count, last;
    uint64_t all;
} Blocks;

static inline int around(int r, int rows)
{
    return r < 0 ? r + rows : r >= rows ? r - rows : r;
}

/* Each block with its neighbours, in a grid that wraps around: the bits of any of them. */
static inline uint64_t spread(const Blocks *blocks, uint64_t bits)
{
    const uint64_t ends = ~(uint64_t)0 << blocks->last; /* the last block may have one column only */
    const uint64_t wrapped = (bits & 1 ? ends : 0) | ((bits & ends) != 0);
    return (bits | bits << 1 | bits >> 1 | wrapped) & blocks->all;
}

/* What the cells of row r are computed from: whether anything is not zero, whether all is large. */
static inline Sizes sources_of(const Blocks *blocks, const Sizes *now, Sizes old, int r, int rows)
{
    uint64_t large = old.large;
    for (int d = -2; d <= 2; d++)
        large &= now[around(r + d, rows)].large;
    if (large == blocks->all) /* as most are */
        return (Sizes){large, large};
    uint64_t nonzero = old.nonzero | spread(blocks, now[r].nonzero), small = ~old.large;
    for (int d = -2; d <= 2; d++) {
        const Sizes other = now[around(r + d, rows)];
        nonzero |= other.nonzero;
        small |= d ? ~other.large : spread(blocks, ~other.large & blocks->all);
    }
    return (Sizes){nonzero, ~small & blocks->all};
}
#endif

/* a * b as float32 has it, for a field that is SCALE times what it is and may be subnormal. */
static inline REAL NAME(small_product)(REAL a, REAL b)
{
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    const float product = a * b, unit = copysignf(MIN_NORMAL, product);
    const float on_grid = __builtin_fmaf(a, b, unit) - unit; /* the sum has no digits below GRID */
    return fabsf(product) < MIN_NORMAL ? on_grid : product;
#else
    const double product = (double)a * (double)b, unit = 1.5 * 0x1p52 * GRID; /* exact */
    const double on_grid = (product + unit) - unit;
    return (float)(fabs(product) < MIN_NORMAL ? on_grid : product);
#endif
}

/* One step of row r, in place over the older time level, with PRODUCT for what may be subnormal. */
#define UPDATE_RELEASED_ROW(name, PRODUCT)                                                       \
    FWI_SEPARATE static void NAME(name)(const NAME(Medium) *m, const Shot *s, REAL *restrict old, \
                                        NAME(Stencil) at, int r, int first, int last)            \
    {                                                                                            \
        FWI_NO_CONTRACTION                                                                       \
        const REAL *restrict up2 = at.up2, *restrict up1 = at.up1, *restrict p = at.centre,      \
                   *restrict down1 = at.down1, *restrict down2 = at.down2;                       \
        const REAL *restrict alpha = NAME(row)(s, m->alpha, r);                                  \
        const REAL *restrict column_kappa = m->column_kappa, *restrict between = m->between;     \
        const REAL kappa_row = m->kappa_row[r];                                                  \
        for (ptrdiff_t c = first; c < last; c++) {                                               \
            const REAL kappa = column_kappa[c] + kappa_row * between[c]; /* one of them is 0 */  \
            const REAL near = FWI_RELEASED_SUM(up1[c], down1[c], p[c - 1], p[c + 1]);            \
            const REAL far = FWI_RELEASED_SUM(up2[c], down2[c], p[c - 2], p[c + 2]);             \
            old[c] = FWI_RELEASED_STEP(REAL, PRODUCT, p[c], old[c], kappa, alpha[c], near, far); \
        }                                                                                        \
    }
UPDATE_RELEASED_ROW(update_released_row, FWI_MUL)
UPDATE_RELEASED_ROW(update_small_row, NAME(small_product))
#undef UPDATE_RELEASED_ROW

/* The sizes of a row's blocks after a step, where they are not known: those in `which`. */
static inline Sizes NAME(look)(const Blocks *blocks, const REAL *row, uint64_t which)
{
    Sizes sizes = {0, 0};
    for (int b = 0; b < blocks->count; b++) {
        if (!(which >> b & 1))
            continue;
        int32_t largest = 0, at_ends = INT32_MAX;
        for (int first = b * blocks->width; first < (b + 1) * blocks->width; first += BLOCK) {
            if (first >= blocks->cols)
                break;
            int32_t bits[BLOCK], quarter[4] = {0};
            memcpy(bits, row + first, sizeof(bits));
            for (int c = 0; c < BLOCK; c++) {
                const int32_t size = bits[c] & INT32_MAX; /* in the order of the numbers */
                quarter[c * 4 / BLOCK] = size > quarter[c * 4 / BLOCK] ? size : quarter[c * 4 / BLOCK];
            }
            for (int i = 0; i < 4; i++)
                largest = quarter[i] > largest ? quarter[i] : largest;
            const int columns = blocks->cols - first < BLOCK ? blocks->cols - first : BLOCK;
            const int end = quarter[(columns - 1) * 4 / BLOCK];
            at_ends = quarter[0] < at_ends ? quarter[0] : at_ends;
            at_ends = end < at_ends ? end : at_ends;
        }
        sizes.nonzero |= (uint64_t)(largest > 0) << b;
        sizes.large |= (uint64_t)(at_ends >= LARGE_BITS) << b;
    }
    return sizes;
}

/* One step of row r, from numbers of these sizes. */
static inline void NAME(step_released_row)(const NAME(Medium) *m, const Shot *s, REAL *row,
                                           NAME(Stencil) at, const Blocks *blocks, Sizes from, int r)
{
    if (from.large == blocks->all) {
        NAME(update_released_row)(m, s, row, at, r, 0, s->widest);
        return;
    }
    for (int b = 0, end; b < blocks->count; b = end) {
        const int large = from.large >> b & 1, nonzero = from.nonzero >> b & 1;
        for (end = b + 1; end < blocks->count; end++)
            if ((int)(from.large >> end & 1) != large || (int)(from.nonzero >> end & 1) != nonzero)
                break;
        if (large)
            NAME(update_released_row)(m, s, row, at, r, b * blocks->width, end * blocks->width);
        else if (nonzero)
            NAME(update_small_row)(m, s, row, at, r, b * blocks->width, end * blocks->width);
    }
}

/* Notes the first step of each trace that differs from the data, among the steps [start, end).
 * Returns whether there is one. */
static int NAME(note_differences)(const Shot *s, const REAL *record, const REAL *data,
                                  int32_t *differs, int start, int end)
{
    int found = 0;
    for (int n = start; n < end; n++)
        for (int j = 0; j < s->n_receivers; j++) {
            const size_t i = (size_t)n * s->n_receivers + j;
            if (!(record[i] == data[i])) {
                found = 1;
                if (differs[j] > n)
                    differs[j] = n;
            }
        }
    return found;
}

/* p[1..n_steps] of one shot -> record. With data, `differs` receives the first step of each trace that
 * is not the data; with `stop` the shot ends with the first of them. */
static void NAME(released_shot)(const Shot *s, Arena *arena, const REAL *alpha, double vmin,
                                const REAL *pulse, REAL *record, const REAL *data, int32_t *differs,
                                int stop)
{
    const NAME(Medium) m = NAME(make_medium)(s, arena, alpha, vmin);
    const int packs = s->widest / BLOCK, width = (packs + 63) / 64 * BLOCK;
    const int count = (s->widest + width - 1) / width;
    const Blocks blocks = {s->cols, width, count, (s->cols - 2) / width, ~(uint64_t)0 >> (64 - count)};
    REAL *field[2];
    Sizes *sizes[2];
    for (int i = 0; i < 2; i++) {
        field[i] = arena_take(arena, sizeof(REAL) * s->field_size);
        sizes[i] = arena_take(arena, sizeof(Sizes) * (size_t)s->rows);
    }
    for (int j = 0; data && j < s->n_receivers; j++)
        differs[j] = s->n_steps;
    for (int start = 0; start < s->n_steps; start += DEPTH) {
        const int depth = s->n_steps - start < DEPTH ? s->n_steps - start : DEPTH;
        for (int i = 0; i < s->rows + 4 * depth - 4; i++)
            for (int level = 0; level < depth; level++) {
                const int r = skewed_row(i, level, s->rows), n = start + level;
                if (r < 0)
                    continue;
                Sizes *size = &sizes[(n + 1) & 1][r];
                const Sizes from = sources_of(&blocks, sizes[n & 1], *size, r, s->rows);
                REAL *row = NAME(row)(s, field[(n + 1) & 1], r);
                NAME(step_released_row)(&m, s, row, NAME(stencil)(s, field[n & 1], r), &blocks, from,
                                        r);
                uint64_t known = n % LOOK_AGAIN < 2 ? 0 : from.large; /* 2: both time levels */
                if (r == s->source[0]) {
                    row[s->source[1]] += pulse[n] * SCALE;
                    known = 0;
                }
                NAME(wrap)(row, s->cols);
                *size = NAME(look)(&blocks, row, r == s->source[0] ? blocks.all : from.nonzero & ~known);
                size->nonzero |= known;
                size->large |= known;
                for (int j = s->row_start[r]; j < s->row_start[r + 1]; j++) {
                    const int receiver = s->by_row[j];
                    record[(size_t)n * s->n_receivers + receiver] =
                        row[s->receivers[2 * receiver + 1]] * (1 / SCALE);
                }
            }
        if (data && NAME(note_differences)(s, record, data, differs, start, start + depth) && stop)
            break;
    }
}
