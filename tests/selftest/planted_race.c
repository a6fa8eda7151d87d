/* Two threads, one counter, no lock. The runner must turn it red: see
 * tests/selftest/CMakeLists.txt.
 */
#include <pthread.h>
#include <stddef.h>

static int counter;

static void *count(void *arg)
{
    for (int i = 0; i < 1000; i++)
        counter++;
    return arg;
}

int main(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, count, NULL) != 0) return 77;
    count(NULL);
    pthread_join(thread, NULL);
    return 0;
}
