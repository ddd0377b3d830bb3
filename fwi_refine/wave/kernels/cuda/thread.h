/* A thread of blocks.h: which cells, source and receivers are its own. */
#include "columns.h"

FWI_DEVICE Receiver fwi_receiver(const Thread *t, int k)
{
    const int *point = t->call->receivers + 2 * k;
    Receiver receiver;
    receiver.cell = fwi_index(t, point[0], point[1]);
    receiver.place = t->call->order[k];
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
