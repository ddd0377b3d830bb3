/* The entry points of one precision: a loop over (sample, shot) tasks. Included by wave.c. */

#ifdef FWI_X86
#define FWI_DISPATCH(isa, function, ...)                  \
    ((isa) == 2   ? CAT(function, PRECISION, avx512)(__VA_ARGS__) \
     : (isa) == 1 ? CAT(function, PRECISION, avx2)(__VA_ARGS__)   \
                  : CAT(function, PRECISION, base)(__VA_ARGS__))
#else
#define FWI_DISPATCH(isa, function, ...) CAT(function, PRECISION, base)(__VA_ARGS__)
#endif
#define ENTRY(x) CAT(fwi, x, PRECISION)
#define LOCAL(x) CAT(local, x, PRECISION)

/* Fills a Shot for task (sample, shot); alpha is that sample's. Returns a status. */
static int LOCAL(prepare)(Shot *s, const Call *call, const REAL *alpha, int shot, int narrow,
                          const int *row_start, const int *by_row)
{
    const int align = ALIGNMENT / (int)sizeof(REAL);
    s->rows = call->rows;
    s->cols = call->cols;
    s->margin = call->margin;
    s->widest = (call->cols + align - 1) / align * align;
    s->stride = stride_of(call);
    s->field_size = (size_t)s->rows * s->stride;
    s->n_receivers = call->n_receivers;
    s->n_steps = call->n_steps;
    s->every = call->every;
    s->source[0] = call->sources[2 * shot];
    s->source[1] = call->sources[2 * shot + 1];
    s->receivers = call->receivers;
    s->row_start = row_start;
    s->by_row = by_row;
    s->wavelet = call->wavelet;
    s->damping_row = call->damping_row;
    s->damping_col = call->damping_col;
    const size_t cells = (size_t)s->rows * s->cols;
    double *speed2 = malloc(sizeof(double) * cells);
    if (!speed2)
        return FWI_NO_MEMORY;
    for (size_t i = 0; i < cells; i++) {
        speed2[i] = alpha[i];
        if (!(speed2[i] > 0.0 && speed2[i] < 1.0)) {
            free(speed2);
            return FWI_BAD_VELOCITY;
        }
    }
    const int status = make_windows(&s->windows, speed2, s->rows, s->cols, s->source, s->receivers,
                                    s->n_receivers, s->n_steps, DEPTH, align, s->widest,
                                    narrow);
    free(speed2);
    return status ? FWI_NO_MEMORY : FWI_OK;
}

/* Everything that a task may read or write; unused entries are NULL. */
typedef struct {
    const REAL *alpha;    /* (samples, rows, cols) */
    const double *vmin;   /* (samples) */
    const REAL *dalpha;   /* (samples, rows, cols) */
    const double *dvmin;  /* (samples) */
    REAL *frames;         /* fwi_frame_bytes of scratch, where a gradient is wanted; FIELDS: output */
    const REAL *data;     /* (samples, shots, n_steps, receivers): u, or the measured record */
    REAL *record;         /* the same shape: output */
    double *value;        /* (samples, shots) sum of squared residuals */
    REAL *gradient;       /* (samples, shots, rows, cols) */
    double *gradient_vmin; /* (samples, shots) */
    const REAL *pulses;   /* (samples, shots, n_steps) that the sources inject, RELEASED */
    int32_t *differs;     /* (samples, shots, receivers) first step that differs from the data */
    int stop;             /* a shot ends with its first difference */
    Job job;
} LOCAL(Arrays);

static void LOCAL(run_task)(const Call *call, const LOCAL(Arrays) *a, const Shot *s, Arena *arena,
                            REAL *frames, int task)
{
    const int sample = task / call->shots;
    const size_t trace = (size_t)s->n_steps * s->n_receivers, cells = (size_t)s->rows * s->cols;
    const REAL *alpha = a->alpha + sample * cells;
    const double vmin = a->vmin[sample];
    const int isa = call->isa;
    REAL *record = a->record ? a->record + task * trace : arena_take(arena, sizeof(REAL) * trace);
    memset(record, 0, sizeof(REAL) * trace);
#ifdef FWI_SINGLE
    if (a->job == RELEASED) {
        FWI_DISPATCH(isa, released_shot, s, arena, alpha, vmin,
                     a->pulses + (size_t)task * s->n_steps, record,
                     a->data ? a->data + task * trace : NULL,
                     a->differs ? a->differs + (size_t)task * s->n_receivers : NULL, a->stop);
        return;
    }
#endif
    if (a->job == TANGENT) {
        REAL *background = arena_take(arena, sizeof(REAL) * trace);
        FWI_DISPATCH(isa, tangent_shot, s, arena, alpha, vmin, a->dalpha + sample * cells,
                     a->dvmin[sample], background, record);
        return;
    }
    const size_t used = arena->used;
    FWI_DISPATCH(isa, forward_shot, s, arena, alpha, vmin, record, frames);
    if (a->job == FORWARD || a->job == FIELDS)
        return;
    const REAL *data = a->data + task * trace, *u = data;
    if (a->job != ADJOINT) {
        /* the residual takes the record's place: u = 2 (s - d) */
        double value = 0.0;
        for (size_t i = 0; i < trace; i++) {
            const REAL residual = record[i] - data[i];
            value += (double)residual * residual;
            record[i] = 2 * residual;
        }
        a->value[task] = value;
        u = record;
    }
    if (a->job == MISFIT)
        return;
    arena->used = used;
    FWI_DISPATCH(isa, adjoint_shot, s, arena, alpha, vmin, u, frames, a->gradient + task * cells,
                 a->gradient_vmin + task);
}

/* What the threads of one call share: which task is next, and the worst status so far. */
typedef struct {
    const Call *call;
    const LOCAL(Arrays) *arrays;
    const int *row_start, *by_row;
    size_t arena_bytes;
    int next, status;
} LOCAL(Work);

/* Takes one task after the other, as long as there are any. */
static void LOCAL(take_tasks)(LOCAL(Work) *work)
{
    const Call *call = work->call;
    const LOCAL(Arrays) *a = work->arrays;
    const int tasks = call->samples * call->shots;
    const size_t cells = (size_t)call->rows * call->cols;
    const size_t n_frames = (call->n_steps - 1) / call->every;
    const size_t frames_size = n_frames * call->rows * stride_of(call);
    const int narrow = a->job == RELEASED ? 0 : call->narrow;
    Arena arena = {aligned_alloc(ALIGNMENT, work->arena_bytes), 0};
    const unsigned before = float_mode();
    /* the released data has subnormal numbers, whatever the caller does with them */
    set_float_mode(a->job == RELEASED ? before & ~(unsigned)FLUSH : before | FLUSH);
    for (;;) {
        int task;
#pragma omp atomic capture
        task = work->next++;
        if (task >= tasks)
            break;
        Shot shot;
        const size_t place = a->job == FIELDS ? task : thread_number();
        REAL *frames = a->frames ? a->frames + place * frames_size : NULL;
        const REAL *alpha = a->alpha + (size_t)(task / call->shots) * cells;
        const int here = arena.memory ? LOCAL(prepare)(&shot, call, alpha, task % call->shots,
                                                       narrow, work->row_start, work->by_row)
                                      : FWI_NO_MEMORY;
        if (here == FWI_OK) {
            arena.used = 0;
            LOCAL(run_task)(call, a, &shot, &arena, frames, task);
            free_windows(&shot.windows);
        } else {
#pragma omp atomic write
            work->status = here;
        }
    }
    set_float_mode(before);
    free(arena.memory);
}

static int LOCAL(run)(const Call *call, const LOCAL(Arrays) *a)
{
    const size_t trace = (size_t)call->n_steps * call->n_receivers;
    const size_t stride = stride_of(call), field = call->rows * stride;
    /* TANGENT takes most: 6 fields, 2 records, 3 lines of a stride and 1 of the rows. RELEASED takes
     * 3 fields, 1 record, the same lines and 2 of Sizes, which are together less than a field. */
    const size_t reals = 7 * field + 2 * trace + 5 * stride + call->rows;
    int *by_row = malloc(sizeof(int) * (size_t)(call->rows + 1 + call->n_receivers));
    if (!by_row)
        return FWI_NO_MEMORY;
    int *row_start = by_row + call->n_receivers, filled = 0;
    for (int r = 0; r < call->rows; r++) {
        row_start[r] = filled;
        for (int j = 0; j < call->n_receivers; j++)
            if (call->receivers[2 * j] == r)
                by_row[filled++] = j;
    }
    row_start[call->rows] = filled;
    LOCAL(Work) work = {.call = call, .arrays = a, .row_start = row_start, .by_row = by_row,
                        .arena_bytes = (sizeof(REAL) * reals / ALIGNMENT + 32) * ALIGNMENT};
    if (call->threads > 1) {
#pragma omp parallel num_threads(call->threads)
        LOCAL(take_tasks)(&work);
    } else {
        LOCAL(take_tasks)(&work); /* no OpenMP at all: its threads do not survive a fork */
    }
    free(by_row);
    return work.status;
}

int ENTRY(forward)(const Call *call, const REAL *alpha, const double *vmin, REAL *record)
{
    const LOCAL(Arrays) a = {.job = FORWARD, .alpha = alpha, .vmin = vmin, .record = record};
    return LOCAL(run)(call, &a);
}

/* The wavefields p[every], p[2 every], ... of each shot; frames must be zero on entry. */
int ENTRY(fields)(const Call *call, const REAL *alpha, const double *vmin, REAL *frames)
{
    const LOCAL(Arrays) a = {.job = FIELDS, .alpha = alpha, .vmin = vmin, .frames = frames};
    return LOCAL(run)(call, &a);
}

#ifdef FWI_SINGLE
/* Records with the bits of the released data. pulses: what the sources inject. With data, `differs`
 * receives the first step of each trace that has another number than these, n_steps for none; with
 * `stop` a shot ends with the first of them. record may be NULL. */
int ENTRY(released)(const Call *call, const REAL *alpha, const double *vmin, const REAL *pulses,
                    const REAL *data, int32_t *differs, int stop, REAL *record)
{
    const LOCAL(Arrays) a = {.job = RELEASED, .alpha = alpha, .vmin = vmin, .pulses = pulses,
                             .data = data, .differs = differs, .stop = stop, .record = record};
    return LOCAL(run)(call, &a);
}
#endif

int ENTRY(tangent)(const Call *call, const REAL *alpha, const double *vmin, const REAL *dalpha,
                   const double *dvmin, REAL *record)
{
    const LOCAL(Arrays) a = {.job = TANGENT, .alpha = alpha, .vmin = vmin, .dalpha = dalpha,
                             .dvmin = dvmin, .record = record};
    return LOCAL(run)(call, &a);
}

/* Gradient of sum(u * record). */
int ENTRY(adjoint)(const Call *call, const REAL *alpha, const double *vmin, const REAL *u,
                   REAL *frames, REAL *gradient, double *gradient_vmin)
{
    const LOCAL(Arrays) a = {.job = ADJOINT, .alpha = alpha, .vmin = vmin, .data = u,
                             .frames = frames, .gradient = gradient, .gradient_vmin = gradient_vmin};
    return LOCAL(run)(call, &a);
}

/* value = sum((record - data)^2) for each shot and, where gradient is not NULL, its gradient. */
int ENTRY(misfit)(const Call *call, const REAL *alpha, const double *vmin, const REAL *data,
                  REAL *frames, double *value, REAL *gradient, double *gradient_vmin)
{
    const LOCAL(Arrays) a = {.job = gradient ? MISFIT_GRADIENT : MISFIT, .alpha = alpha,
                             .vmin = vmin, .data = data, .frames = frames, .value = value,
                             .gradient = gradient,
                             .gradient_vmin = gradient_vmin};
    return LOCAL(run)(call, &a);
}

#undef FWI_DISPATCH
#undef ENTRY
#undef LOCAL
