/*
 * Questions of ours beside the client's messages: FunctionCalls, because they leave its statements and
 * portals alone, work inside of its transaction, and cost a server a fraction of what a statement does.
 */
#include "proxy/wire/boundary.h"

#include "conf/base/ensure.h"
#include "proxy/wire/decode.h"

bool boundary_aside_may(const struct boundary *b)
{
    return b->count == 0 && !b->ours && b->aside == 0 && b->doubtful == 0 && b->copy == 0;
}

void boundary_aside(struct boundary *b, unsigned calls)
{
    ENSURE(boundary_aside_may(b));
    b->aside = (uint8_t)calls;
}

bool boundary_aside_server(struct boundary *b, const struct frame_piece *piece, bool complete,
                           struct boundary_step *step)
{
    struct decode_error error;
    if (piece->type != 'V' && piece->type != 'E' && piece->type != 'Z' && piece->type != 'N') {
        return false;
    }
    step->aside = true; /* notices too: a client that wants to see debugging messages sees none of ours */
    if (!complete) {
        return true;
    }
    if (piece->type == 'Z') {
        b->aside--;
    } else if (piece->type == 'E') {
        decode_error(step->body, &error);
        (void)slice_copy(error.sqlstate, step->sqlstate, sizeof step->sqlstate);
        step->aside = !decode_error_is_fatal(&error); /* that it ends is for the client */
    }
    return step->aside;
}
