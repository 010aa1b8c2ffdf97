#include "control/cli/interrupt.h"

#include <pthread.h>
#include <stddef.h>

static volatile sig_atomic_t interrupted;

static void note(int number)
{
    (void)number;
    interrupted = 1;
}

const volatile sig_atomic_t *interrupt_catch(void)
{
    struct sigaction action = {.sa_handler = note, .sa_flags = (int)SA_RESETHAND};
    sigset_t mask;
    (void)sigemptyset(&mask);
    (void)sigaddset(&mask, SIGINT);
    interrupted = 0;
    (void)sigaction(SIGINT, &action, NULL);
    (void)pthread_sigmask(SIG_BLOCK, &mask, NULL);
    return &interrupted;
}
