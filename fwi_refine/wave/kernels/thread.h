/* What a thread of blocks.h has and how it gets at it: the call, its cells, its receivers, and the
 * rows and coefficients of the grid around them. See there for what is to be defined.
 */

/* What a launch is about; the same structure in blocks.py. Arrays "by task" begin at first_task. */
typedef struct {
    int rows, cols, margin;          /* padded grid and its absorbing band */
    int map_rows, map_cols;          /* the map: a cell of the band has the alpha of the edge */
    int shots, n_receivers, n_steps, every;
    int first_task;                  /* task = sample * shots + shot */
    int block_rows, strip_rows;      /* rows of a block, and of a thread */
    int width, threads;              /* threads side by side, and in a block */
    const int *sources;              /* (shots, 2) row, column */
    const int *receivers;            /* (n_receivers, 2), ordered by the thread that has the cell */
    const int *places;               /* (n_receivers) where each stands in a record */
    const int *owned;                /* (FWI_BLOCKS * threads + 1) first receiver of each thread */
    const double *wavelet;           /* (n_steps), times spacing squared */
    const REAL *alpha, *dalpha;      /* (samples, map_rows, map_cols) */
    const REAL *column_decay;        /* (samples, cols) 1 - kappa in the side bands */
    const REAL *row_kappa;           /* (samples, rows) kappa between the side bands */
    const REAL *relative_vmin;       /* (samples) dvmin / vmin */
    const REAL *data;                /* by task (n_steps, n_receivers): measured record, or u */
    REAL *fields;                    /* by task (fields, rows, cols), unless FWI_SHARED */
    REAL *frames;                    /* by task (frames, rows, cols): p[every], p[2 every], ... */
    REAL *record;                    /* by task (n_steps, n_receivers) */
    REAL *gradient;                  /* by task (rows, cols) */
    double *sums;                    /* by task (FWI_BLOCKS): what is to be summed over blocks */
} Call;

/* One thread and its cells: rows [top, bottom), columns lane, lane + width, ... */
typedef struct {
    const Call *call;
    int task, sample, block, thread;
    int first, last; /* rows of the block */
    int top, bottom, lane;
    int source_row, source_col, has_source;
    int owned, owned_end; /* its receivers */
    char *memory;         /* of the block */
} Thread;

/* Coefficients of the cell that a thread is at, and the columns of the neighbours. */
typedef struct {
    int c, left2, left1, right1, right2;
    int between; /* between the side bands */
    int map_col, map_row;
    REAL alpha, decay, column_decay;
} Cell;

/* A column of five cells, which a thread pushes down its rows. */
typedef struct {
    REAL up2, up1, centre, down1, down2;
} Slide;

FWI_DEVICE int fwi_least(int a, int b)
{
    return a < b ? a : b;
}

FWI_DEVICE int fwi_clamp(int i, int n)
{
    return i < 0 ? 0 : i < n ? i : n - 1;
}

FWI_DEVICE int fwi_wrap(int i, int n)
{
    return i < 0 ? i + n : i < n ? i : i - n;
}

FWI_DEVICE Thread fwi_thread(const Call *call, int task, int block, int thread, void *memory)
{
    Thread t;
    const int shot = (call->first_task + task) % call->shots;
    t.call = call;
    t.task = task;
    t.sample = (call->first_task + task) / call->shots;
    t.block = block;
    t.thread = thread;
    t.first = fwi_least(block * call->block_rows, call->rows);
    t.last = fwi_least(t.first + call->block_rows, call->rows);
    t.top = fwi_least(t.first + thread / call->width * call->strip_rows, t.last);
    t.bottom = fwi_least(t.top + call->strip_rows, t.last);
    t.lane = thread % call->width;
    t.source_row = call->sources[2 * shot];
    t.source_col = call->sources[2 * shot + 1];
    t.has_source = t.source_row >= t.top && t.source_row < t.bottom &&
                   t.source_col % call->width == t.lane;
    t.owned = call->owned[block * call->threads + thread];
    t.owned_end = call->owned[block * call->threads + thread + 1];
    t.memory = (char *)memory;
    return t;
}

/* The block's rows of field k of `fields`. */
FWI_DEVICE REAL *fwi_field(const Thread *t, int fields, int k)
{
    const Call *call = t->call;
    if (FWI_SHARED)
        return (REAL *)t->memory + (size_t)k * call->block_rows * call->cols;
    return call->fields + ((size_t)t->task * fields + k) * call->rows * call->cols;
}

/* Row r of the grid, also outside it, where `part` is the block's rows of a field. */
FWI_DEVICE const REAL *fwi_row(const Thread *t, const REAL *part, int r)
{
    const Call *call = t->call;
    if (r >= t->first && r < t->last)
        return part + (r - t->first) * call->cols;
    r = fwi_wrap(r, call->rows);
    const int block = r / call->block_rows;
    return FWI_IN_BLOCK(part, block) + (r - block * call->block_rows) * call->cols;
}

/* Index of a cell among the block's rows. */
FWI_DEVICE int fwi_index(const Thread *t, int r, int c)
{
    return (r - t->first) * t->call->cols + c;
}

FWI_DEVICE REAL fwi_alpha(const Thread *t, const REAL *map, int r, int c)
{
    const Call *call = t->call;
    const int row = fwi_clamp(r - call->margin, call->map_rows);
    const int col = fwi_clamp(c - call->margin, call->map_cols);
    return map[((size_t)t->sample * call->map_rows + row) * call->map_cols + col];
}

FWI_DEVICE Cell fwi_column(const Thread *t, int c)
{
    const Call *call = t->call;
    Cell at;
    at.c = c;
    at.left2 = fwi_wrap(c - 2, call->cols);
    at.left1 = fwi_wrap(c - 1, call->cols);
    at.right1 = fwi_wrap(c + 1, call->cols);
    at.right2 = fwi_wrap(c + 2, call->cols);
    at.between = c >= call->margin && c < call->cols - call->margin;
    at.map_col = fwi_clamp(c - call->margin, call->map_cols);
    at.map_row = -1;
    at.alpha = 0;
    at.column_decay = call->column_decay[(size_t)t->sample * call->cols + c];
    at.decay = at.column_decay;
    return at;
}

/* Moves to row r: most rows lie in the band, where alpha is that of the row before. */
FWI_DEVICE void fwi_enter(const Thread *t, Cell *at, int r)
{
    const Call *call = t->call;
    const int map_row = fwi_clamp(r - call->margin, call->map_rows);
    if (map_row != at->map_row) {
        at->map_row = map_row;
        at->alpha = fwi_alpha(t, call->alpha, r, at->c);
    }
    if (at->between)
        at->decay = at->column_decay - call->row_kappa[(size_t)t->sample * call->rows + r];
}

/* The four cells around the first one, in column c; the fifth is still to come. */
FWI_DEVICE Slide fwi_slide(const Thread *t, const REAL *part, int c)
{
    Slide s;
    s.up2 = 0;
    s.up1 = fwi_row(t, part, t->top - 2)[c];
    s.centre = fwi_row(t, part, t->top - 1)[c];
    s.down1 = fwi_row(t, part, t->top)[c];
    s.down2 = fwi_row(t, part, t->top + 1)[c];
    return s;
}

FWI_DEVICE void fwi_push(Slide *s, REAL below)
{
    s->up2 = s->up1;
    s->up1 = s->centre;
    s->centre = s->down1;
    s->down1 = s->down2;
    s->down2 = below;
}

FWI_DEVICE REAL fwi_laplacian(const Slide *s, const REAL *row, const Cell *at)
{
    return FWI_LAPLACIAN(REAL, s->centre, (row[at->left1] + row[at->right1]) + (s->up1 + s->down1),
                         (row[at->left2] + row[at->right2]) + (s->up2 + s->down2));
}

FWI_DEVICE void fwi_clear(const Thread *t, REAL *part)
{
    for (int c = t->lane; c < t->call->cols; c += t->call->width)
        for (int r = t->top; r < t->bottom; r++)
            part[fwi_index(t, r, c)] = 0;
}

/* Place of the k-th receiver's sample n in arrays by task. */
FWI_DEVICE size_t fwi_trace(const Thread *t, int n, int k)
{
    const Call *call = t->call;
    return ((size_t)t->task * call->n_steps + n) * call->n_receivers + call->places[k];
}

FWI_DEVICE int fwi_receiver(const Thread *t, int k)
{
    return fwi_index(t, t->call->receivers[2 * k], t->call->receivers[2 * k + 1]);
}
