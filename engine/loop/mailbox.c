#include "engine/loop/mailbox.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

int rws__mailbox_init(rws__mailbox *mailbox, const rws__env *env)
{
    memset(mailbox, 0, sizeof *mailbox);
    mailbox->wake_fd = eventfd(0, EFD_CLOEXEC);
    if (mailbox->wake_fd < 0) return -errno;
    pthread_mutex_init(&mailbox->lock, NULL);
    mailbox->env = env; /* from here on there is something to free */
    return 0;
}

void rws__mailbox_deinit(rws__mailbox *mailbox)
{
    if (mailbox->env == NULL) return;
    rws__mailbox_close(mailbox);
    rws__free(mailbox->env, mailbox->posts, mailbox->capacity * sizeof(rws__post));
    pthread_mutex_destroy(&mailbox->lock);
    close(mailbox->wake_fd);
    mailbox->env = NULL;
}

/* Double the ring; called with the lock held. */
static int grow(rws__mailbox *mailbox)
{
    uint32_t capacity = mailbox->capacity == 0 ? 16 : mailbox->capacity * 2;
    rws__post *posts = rws__alloc(mailbox->env, capacity * sizeof(rws__post));
    if (posts == NULL) return -ENOMEM;
    for (uint32_t i = 0; i < mailbox->count; i++)
        posts[i] = mailbox->posts[(mailbox->first + i) % mailbox->capacity];
    rws__free(mailbox->env, mailbox->posts, mailbox->capacity * sizeof(rws__post));
    mailbox->posts = posts;
    mailbox->capacity = capacity;
    mailbox->first = 0;
    return 0;
}

int rws__mailbox_post(rws__mailbox *mailbox, rws__post_fn fn, void *arg)
{
    int status = 0;
    bool wake = false;
    pthread_mutex_lock(&mailbox->lock);
    if (mailbox->closed)
        status = RWS_E_STATE;
    else if (mailbox->count == RWS__MAILBOX_MAX)
        status = RWS_E_BACKLOG;
    else if (mailbox->count == mailbox->capacity)
        status = grow(mailbox);
    if (status == 0) {
        wake = mailbox->count == 0;
        mailbox->posts[(mailbox->first + mailbox->count++) % mailbox->capacity] =
            (rws__post){fn, arg};
    }
    pthread_mutex_unlock(&mailbox->lock);
    if (wake) rws__mailbox_wake(mailbox);
    return status;
}

void rws__mailbox_wake(const rws__mailbox *mailbox)
{
    int saved = errno; /* a signal handler must not change it */
    uint64_t one = 1;
    /* Fails only when the counter is full, and then the shard is woken anyway. */
    ssize_t written = write(mailbox->wake_fd, &one, sizeof one);
    (void)written;
    errno = saved;
}

static bool take(rws__mailbox *mailbox, rws__post *post)
{
    pthread_mutex_lock(&mailbox->lock);
    bool some = mailbox->count > 0;
    if (some) {
        *post = mailbox->posts[mailbox->first];
        mailbox->first = (mailbox->first + 1) % mailbox->capacity;
        mailbox->count--;
    }
    pthread_mutex_unlock(&mailbox->lock);
    return some;
}

void rws__mailbox_run(rws__mailbox *mailbox)
{
    pthread_mutex_lock(&mailbox->lock);
    uint32_t budget =
        mailbox->count; /* what the functions post themselves waits for the next turn */
    pthread_mutex_unlock(&mailbox->lock);
    rws__post post;
    while (budget-- > 0 && take(mailbox, &post))
        post.fn(post.arg, false);
    pthread_mutex_lock(&mailbox->lock);
    bool more = mailbox->count > 0;
    pthread_mutex_unlock(&mailbox->lock);
    if (more) rws__mailbox_wake(mailbox);
}

void rws__mailbox_close(rws__mailbox *mailbox)
{
    if (mailbox->env == NULL) return;
    pthread_mutex_lock(&mailbox->lock);
    mailbox->closed = true;
    pthread_mutex_unlock(&mailbox->lock);
    rws__post post;
    while (take(mailbox, &post))
        post.fn(post.arg, true);
}
