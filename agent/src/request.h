/* What the host asks: from a frame to the one who answers. */
#ifndef REQUEST_H
#define REQUEST_H

#include "frames.h"

struct agent;

/* Carries out a frame, or keeps it if it is a part of a larger one. */
void request_take(struct agent *agent, struct sbx_frame *frame);

#endif
