/* What the threads of blocks.h work with: the call of a launch, and what a thread has of it. See
 * there for what is to be defined.
 */

/* What a launch is about; the same structure in kernel.py. Arrays "by task" begin at first_task. */
typedef struct {
    int rows, cols, margin;          /* padded grid and its absorbing band */
    int map_rows, map_cols;          /* the map: a cell of the band has the alpha of the edge */
    int block_rows, strip_rows;      /* rows of a block, and of a thread */
    int width, threads;              /* threads side by side, and in a block */
    int shots, n_receivers, n_steps, every;
    int first_task;                  /* task = sample * shots + shot */
    const int *sources;              /* (shots, 2) row, column */
    const int *receivers;            /* (n_receivers, 2), ordered by the thread that has the cell */
    const int *order;                /* (n_receivers) where each stands in a record */
    const int *owned;                /* (FWI_BLOCKS * threads + 1) first receiver of each thread */
    const double *wavelet;           /* (n_steps), times the area of a cell; released: as it is */
    const REAL *strength;            /* (samples, shots) what it is multiplied by, released */
    const REAL *alpha, *dalpha;      /* (samples, map_rows, FWI_SIDE + map_cols + FWI_SIDE) */
    const REAL *column_decay;        /* (samples, cols) 1 - kappa in the side bands; released: kappa */
    const REAL *row_kappa;           /* (samples, rows + 1) kappa between the side bands, and a 0 */
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

/* A coefficient of the map in the row that a thread is at, and in the next one: in every step it
 * comes from the card's memory, so it is fetched a row before it is needed. */
typedef struct {
    const REAL *column; /* in the first row of the map */
    Pack here, below;
} Coefficient;

/* The columns [c, c + FWI_SIDE) of a thread: their neighbours and their coefficients. */
typedef struct {
    int c, left[2 / FWI_SIDE], right[2 / FWI_SIDE];
    REAL between;            /* 1 between the side bands, 0 in them */
    REAL kappa, kappa_below; /* of the row, between them, and of the next one */
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
