/* Which cells need to be computed at which time step.
 *
 * A cell matters at step n only if the wave from the source has reached it and if what it does
 * can still reach a receiver before the last step. Both are first-arrival times (eikonal
 * equation |grad T| = 1 / speed, first order upwind, fast sweeping: Zhao, Math. Comp. 74, 2005),
 * solved on blocks of COARSE x COARSE cells with the highest speed of each block. The times are
 * made early by a share (SLACK) and by PAD blocks in space: what is left out then is below the
 * rounding of float64 (tests/test_wave.py compares with the full grid).
 */
#ifndef FWI_WINDOW_H
#define FWI_WINDOW_H

#include <math.h>
#include <stdlib.h>

enum { COARSE = 5, PAD = 5, SWEEP_ROUNDS = 4 };
static const double SLACK = 0.93;

typedef struct {
    int blocks, rows;              /* time blocks; coarse rows */
    int *first, *last;             /* (blocks, rows): columns [first, last) to compute */
    int *store_first, *store_last; /* the same, with all that imaging will read around them */
} Windows;

static double eikonal_update(const double *time, int rows, int cols, int r, int c, double cost)
{
    const double up = time[(r ? r - 1 : rows - 1) * cols + c];
    const double down = time[(r + 1 < rows ? r + 1 : 0) * cols + c];
    const double left = time[r * cols + (c ? c - 1 : cols - 1)];
    const double right = time[r * cols + (c + 1 < cols ? c + 1 : 0)];
    const double a = up < down ? up : down, b = left < right ? left : right;
    const double difference = fabs(a - b);
    if (difference >= cost)
        return (a < b ? a : b) + cost;
    return 0.5 * (a + b + sqrt(2.0 * cost * cost - difference * difference));
}

/* Arrival times, in steps, from the points where `time` is 0; everywhere else it starts large. */
static void first_arrivals(double *time, const double *cost, int rows, int cols)
{
    for (int round = 0; round < SWEEP_ROUNDS; round++)
        for (int order = 0; order < 4; order++)
            for (int i = 0; i < rows; i++)
                for (int j = 0; j < cols; j++) {
                    const int r = order & 1 ? rows - 1 - i : i, c = order & 2 ? cols - 1 - j : j;
                    const double t = eikonal_update(time, rows, cols, r, c, cost[r * cols + c]);
                    if (t < time[r * cols + c])
                        time[r * cols + c] = t;
                }
}

/* Earliest of each block's neighbours up to PAD blocks away, times SLACK; `spare` is scratch. */
static void make_early(double *time, double *spare, int rows, int cols)
{
    for (int pass = 0; pass < 2; pass++) {
        const double *from = pass ? spare : time;
        double *to = pass ? time : spare;
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < cols; c++) {
                double least = HUGE_VAL;
                for (int d = -PAD; d <= PAD; d++) {
                    const int rr = pass ? r : (r + d + rows) % rows;
                    const int cc = pass ? (c + d + cols) % cols : c;
                    if (from[rr * cols + cc] < least)
                        least = from[rr * cols + cc];
                }
                to[r * cols + c] = pass ? SLACK * least : least;
            }
    }
}

static void free_windows(Windows *w)
{
    free(w->first);
    w->first = NULL;
}

/* A wavefield made in block b is imaged in block b or b + 1, with a stencil of two cells. */
static void widen_for_storage(Windows *w, int widest)
{
    for (int b = 0; b < w->blocks; b++)
        for (int r = 0; r < w->rows; r++) {
            int first = widest, last = 0;
            for (int bb = b; bb <= b + 1 && bb < w->blocks; bb++)
                for (int d = -1; d <= 1; d++) {
                    const int i = bb * w->rows + (r + d + w->rows) % w->rows;
                    if (w->first[i] < w->last[i]) {
                        first = w->first[i] < first ? w->first[i] : first;
                        last = w->last[i] > last ? w->last[i] : last;
                    }
                }
            w->store_first[b * w->rows + r] = first < last ? first : 0;
            w->store_last[b * w->rows + r] = last;
        }
}

/* Windows of one shot. speed2 (rows, cols): (v dt / dx)^2; points are (row, column) pairs.
 * Columns are rounded outwards to multiples of `align`, at most `widest`. Returns 0, or -1 when
 * memory runs out. With narrow = 0 every cell is kept at every step; without receivers, every cell
 * that the wave has reached. */
static int make_windows(Windows *w, const double *speed2, int rows, int cols, const int *source,
                        const int *receivers, int n_receivers, int n_steps, int block_steps,
                        int align, int widest, int narrow)
{
    const int crows = (rows + COARSE - 1) / COARSE, ccols = (cols + COARSE - 1) / COARSE;
    const int n = crows * ccols;
    w->rows = crows;
    w->blocks = (n_steps + block_steps - 1) / block_steps;
    const size_t entries = (size_t)w->blocks * crows;
    w->first = malloc(sizeof(int) * (4 * entries + 1));
    double *work = malloc(sizeof(double) * (size_t)n * 4);
    if (!w->first || !work) {
        free(work);
        free_windows(w);
        return -1;
    }
    w->last = w->first + entries;
    w->store_first = w->last + entries;
    w->store_last = w->store_first + entries;
    double *cost = work, *from_source = work + n, *to_receiver = work + 2 * n, *spare = work + 3 * n;
    for (int i = 0; i < n; i++) {
        double fastest = 0.0;
        for (int r = i / ccols * COARSE; r < (i / ccols + 1) * COARSE && r < rows; r++)
            for (int c = i % ccols * COARSE; c < (i % ccols + 1) * COARSE && c < cols; c++)
                if (speed2[r * cols + c] > fastest)
                    fastest = speed2[r * cols + c];
        cost[i] = COARSE / sqrt(fastest + 1e-12);
        from_source[i] = 1e30;
        to_receiver[i] = n_receivers ? 1e30 : 0.0;
    }
    if (narrow) {
        from_source[source[0] / COARSE * ccols + source[1] / COARSE] = 0.0;
        for (int j = 0; j < n_receivers; j++)
            to_receiver[receivers[2 * j] / COARSE * ccols + receivers[2 * j + 1] / COARSE] = 0.0;
        first_arrivals(from_source, cost, crows, ccols);
        first_arrivals(to_receiver, cost, crows, ccols);
        make_early(from_source, spare, crows, ccols);
        make_early(to_receiver, spare, crows, ccols);
    }
    for (int b = 0; b < w->blocks; b++) {
        const double latest = (b + 1) * block_steps, left_over = n_steps - b * block_steps;
        for (int r = 0; r < crows; r++) {
            const double *ts = from_source + r * ccols, *tr = to_receiver + r * ccols;
            int first = 0, last = ccols;
            if (narrow) {
                while (first < last && (ts[first] > latest || tr[first] > left_over))
                    first++;
                while (last > first && (ts[last - 1] > latest || tr[last - 1] > left_over))
                    last--;
            }
            const int empty = first == last;
            const int end = (last * COARSE + align - 1) / align * align;
            w->first[b * crows + r] = empty ? 0 : first * COARSE / align * align;
            w->last[b * crows + r] = empty ? 0 : (end < widest ? end : widest);
        }
    }
    widen_for_storage(w, widest);
    free(work);
    return 0;
}

#endif
