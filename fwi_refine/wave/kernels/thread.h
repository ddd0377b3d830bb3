/* What a thread of blocks.h has and how it gets at it: the call, its cells, its receivers, and the
 * rows and coefficients of the grid around them. See there for what is to be defined.
 */

/* What a launch is about; the same structure in blocks.py. Arrays "by task" begin at first_task. */
typedef struct {
    int rows, cols, margin;          /* padded grid and its absorbing band */
    int map_rows, map_cols;          /* the map: a cell of the band has the alpha of the edge */
    int block_rows, strip_rows;      /* rows of a block, and of a thread */
    int width, threads;              /* threads side by side, and in a block */
    int shots, n_receivers, n_steps, every;
    int first_task;                  /* task = sample * shots + shot */
    const int *sources;              /* (shots, 2) row, column */
    const int *receivers;            /* (n_receivers, 2), ordered by the thread that has the cell */
    const int *places;               /* (n_receivers) where each stands in a record */
    const int *owned;                /* (FWI_BLOCKS * threads + 1) first receiver of each thread */
    const double *wavelet;           /* (n_steps), times spacing squared */
    const REAL *alpha, *dalpha;      /* (samples, map_rows, FWI_SIDE + map_cols + FWI_SIDE) */
    const REAL *column_decay;        /* (samples, cols) 1 - kappa in the side bands */
    const REAL *row_kappa;           /* (samples, rows) kappa between the side bands */
    const REAL *relative_vmin;       /* (samples) dvmin / vmin */
    const REAL *data;                /* by task (n_steps, n_receivers): measured record, or u */
    REAL *fields;                    /* by task (fields, 2 + rows + 2, cols), unless FWI_SHARED */
    REAL *frames;                    /* by task (frames, rows, cols): p[every], p[2 every], ... */
    REAL *record;                    /* by task (n_steps, n_receivers) */
    REAL *gradient;                  /* by task (rows, cols) */
    double *sums;                    /* by task (FWI_BLOCKS): what is to be summed over blocks */
} Call;

/* Cells side by side, moved at once. */
struct alignas(FWI_SIDE * sizeof(REAL)) Pack {
    REAL at[FWI_SIDE];
};

/* A coefficient of the map in the row that a thread is at, and in the next one: it comes from the
 * card's memory, so it is fetched a row before it is needed. */
typedef struct {
    const REAL *column; /* in the first row of the map */
    Pack here, below;
} Coefficient;

/* The columns [c, c + FWI_SIDE) of a thread: their neighbours and their coefficients. */
typedef struct {
    int c, left[2 / FWI_SIDE], right[2 / FWI_SIDE];
    int between; /* between the side bands */
    REAL kappa, kappa_below; /* of the row, there, and of the next one */
    Pack column_decay;
    Coefficient alpha;
} Column;

/* Five cells above one another, for each of the columns; a thread pushes it down its rows. */
typedef struct {
    Pack up2, up1, centre, down1, down2;
} Slide;

/* Where a receiver stands in the block, and its samples in a record. */
typedef struct {
    int cell, place;
    REAL alpha;
} Receiver;

/* One thread and its cells: rows [top, bottom), columns from `begin` on. */
typedef struct {
    const Call *call;
    int task, sample, block, thread;
    int first, last; /* rows of the block */
    int top, bottom, begin; /* begin = cols if there are none */
    int source_cell, source_row, source_col, has_source;
    int owned, owned_end; /* its receivers */
    Receiver receiver;    /* the first of them */
    Column column;        /* its first columns, mostly its only ones */
    char *memory;         /* of the block */
} Thread;

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

FWI_DEVICE Pack fwi_load(const REAL *cells)
{
    return *(const Pack *)cells;
}

FWI_DEVICE void fwi_store(REAL *cells, Pack pack)
{
    *(Pack *)cells = pack;
}

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
    return t->call->row_kappa[(size_t)t->sample * t->call->rows + r];
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
    at.kappa = at.kappa_below = at.between && t->top < t->bottom ? fwi_kappa(t, t->top) : 0;
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
    if (at->between && r + 1 < t->bottom)
        at->kappa_below = fwi_kappa(t, r + 1);
}

FWI_DEVICE REAL fwi_decay(const Column *at, int j)
{
    return at->column_decay.at[j] - at->kappa;
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

/* L p in the columns; `row` is the beginning of theirs. */
FWI_DEVICE Pack fwi_laplacian(const Slide *s, const REAL *row, const Column *at)
{
    REAL x[2 + FWI_SIDE + 2]; /* a row of the grid around the columns */
    Pack laplacian;
    for (int i = 0; i < 2 / FWI_SIDE; i++) {
        const Pack left = fwi_load(row + at->left[i]), right = fwi_load(row + at->right[i]);
        for (int j = 0; j < FWI_SIDE; j++) {
            x[i * FWI_SIDE + j] = left.at[j];
            x[2 + FWI_SIDE + i * FWI_SIDE + j] = right.at[j];
        }
    }
    for (int j = 0; j < FWI_SIDE; j++)
        x[2 + j] = s->centre.at[j];
    for (int j = 0; j < FWI_SIDE; j++)
        laplacian.at[j] =
            FWI_LAPLACIAN(REAL, x[j + 2], (x[j + 1] + x[j + 3]) + (s->up1.at[j] + s->down1.at[j]),
                          (x[j] + x[j + 4]) + (s->up2.at[j] + s->down2.at[j]));
    return laplacian;
}

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
        FWI_GIVE(part + row * call->cols + c, block, fwi_load(part + fwi_index(t, r, c)), n);
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

FWI_DEVICE Receiver fwi_receiver(const Thread *t, int k)
{
    const int *point = t->call->receivers + 2 * k;
    Receiver receiver;
    receiver.cell = fwi_index(t, point[0], point[1]);
    receiver.place = t->call->places[k];
    receiver.alpha = fwi_alpha(t, t->call->alpha, point[0], point[1]);
    return receiver;
}

/* The k-th receiver, which the thread has in hand if it is its first. */
FWI_DEVICE Receiver fwi_receiver_at(const Thread *t, int k)
{
    return k == t->owned ? t->receiver : fwi_receiver(t, k);
}

/* Place of a receiver's sample n in arrays by task. */
FWI_DEVICE size_t fwi_trace(const Thread *t, int n, Receiver receiver)
{
    const Call *call = t->call;
    return ((size_t)t->task * call->n_steps + n) * call->n_receivers + receiver.place;
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
    const int lane = thread % call->width;
    t.begin = t.top < t.bottom ? lane * FWI_SIDE : call->cols;
    t.source_row = call->sources[2 * shot];
    t.source_col = call->sources[2 * shot + 1];
    t.source_cell = fwi_index(&t, t.source_row, t.source_col);
    t.has_source = t.source_row >= t.top && t.source_row < t.bottom &&
                   t.source_col / FWI_SIDE % call->width == lane;
    t.owned = call->owned[block * call->threads + thread];
    t.owned_end = call->owned[block * call->threads + thread + 1];
    t.receiver = Receiver();
    if (t.owned < t.owned_end)
        t.receiver = fwi_receiver(&t, t.owned);
    t.column = fwi_column(&t, fwi_least(t.begin, call->cols - FWI_SIDE));
    t.memory = (char *)memory;
    return t;
}
