/*
 * Events, a part of the ring seam: what another thread wakes a loop with that sleeps in the kernel.
 * The ring reads them (rws__ring_read_event()).
 */
#ifndef RINGWS_RING_EVENT_H
#define RINGWS_RING_EVENT_H

/* Make an event that nobody has signalled. Returns its descriptor, or -errno of eventfd(2). Any
 * thread. */
int rws__event_open(void);
/* A read of the event that is in flight completes, or the next one at once. So many signals before
 * a read are one. Any thread and signal handlers; errno stays as it is. */
void rws__event_signal(int event);
void rws__event_close(int event);

#endif
