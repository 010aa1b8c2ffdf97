/*
 * A load that knows what it was promised: sessions that transfer between accounts, append and read, each with
 * prepared statements and settings of its own, and a record of what became of every operation: acknowledged,
 * in doubt (the connection was lost while COMMIT was under way) or failed. Used by the integration tests, the
 * bench and the demo.
 *
 *   psql -v accounts=N -f ledger.sql            the tables, and N accounts
 *   ledger run    CONNINFO --out FILE --accounts N [--sessions N] [--seconds S] [--rate PER_SECOND] [--run
 * ID] [--states] ledger verify CONNINFO --out FILE
 *
 * `run` ends after S seconds or on SIGTERM/SIGINT, writes a line for each operation to FILE and a summary as
 * JSON to standard output; its exit status is 1 if anything failed. With --states its sessions are also found
 * idle in transaction, in long statements, in COPY and in pipelines, append to shared lists and listen.
 * `verify` compares FILE with the database: nothing acknowledged may be missing, nothing may be there twice,
 * nothing that failed may be there, each account's balance is the sum of its entries, and each list begins
 * with what was ever seen of it.
 */
#include "ledger.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

const char *const outcome_names[OUTCOMES] = {"ack", "doubt", "fail"};
atomic_bool stopping;

void fatal(const char *what, const char *why)
{
    fprintf(stderr, "ledger: %s: %s\n", what, why);
    exit(2);
}

int64_t now_us(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (int64_t)time.tv_sec * 1000000 + time.tv_nsec / 1000;
}

void sleep_us(int64_t us)
{
    struct timespec time = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};
    nanosleep(&time, NULL);
}

uint64_t list_hash(uint64_t hash, int64_t element)
{
    hash = hash ? hash : UINT64_C(0xcbf29ce484222325);
    for (uint64_t rest = (uint64_t)element, i = 0; i < sizeof(rest); i++, rest >>= 8) {
        hash = (hash ^ (rest & 0xff)) * UINT64_C(0x100000001b3);
    }
    return hash;
}

static void write_operations(const struct options *options, const struct session *sessions)
{
    FILE *file = fopen(options->out, "we");
    if (!file) {
        fatal(options->out, strerror(errno));
    }
    fprintf(file, "# run %d accounts %d\n", options->run, options->accounts);
    for (int s = 0; s < options->sessions; s++) {
        for (size_t i = 0; i < sessions[s].count; i++) {
            const struct operation *o = &sessions[s].operations[i];
            fprintf(file, "%s %d %" PRId64 " %c %" PRId64 " %" PRId64 " %" PRId64 " %s",
                    outcome_names[o->outcome], s, o->n, o->kind, o->start_us, o->elapsed_us, o->longest_us,
                    o->sqlstate[0] ? o->sqlstate : "-");
            if (o->list) {
                fprintf(file, " %" PRId64 " %" PRId64 " %" PRIx64, o->list, o->seen, o->hash);
            }
            fputc('\n', file);
        }
    }
    if (fclose(file) != 0) {
        fatal(options->out, strerror(errno));
    }
}

static int compare_int64(const void *left, const void *right)
{
    int64_t l = *(const int64_t *)left, r = *(const int64_t *)right;
    return (l > r) - (l < r);
}

static void print_latencies(const struct options *options, const struct session *sessions, size_t total)
{
    int64_t *all = malloc((total + 1) * sizeof(int64_t));
    if (!all) {
        fatal("run", "out of memory");
    }
    size_t count = 0;
    for (int s = 0; s < options->sessions; s++) {
        for (size_t i = 0; i < sessions[s].count; i++) {
            all[count++] = sessions[s].operations[i].longest_us;
        }
    }
    all[count] = 0;
    qsort(all, count, sizeof(int64_t), compare_int64);
    printf("\"round_trip_ms\": {\"p50\": %.3f, \"p99\": %.3f, \"max\": %.3f}", (double)all[count / 2] / 1000,
           (double)all[count * 99 / 100] / 1000, (double)all[count ? count - 1 : 0] / 1000);
    free(all);
}

static bool print_summary(const struct options *options, const struct session *sessions)
{
    uint64_t counts[OUTCOMES] = {0}, writes = 0, reconnects = 0, wrong = 0;
    const char *first_error = "", *first_wrong = "";
    size_t total = 0;
    for (int s = 0; s < options->sessions; s++) {
        total += sessions[s].count;
        reconnects += sessions[s].reconnects;
        wrong += sessions[s].wrong;
        first_wrong = *first_wrong ? first_wrong : sessions[s].wrong_text;
        for (size_t i = 0; i < sessions[s].count; i++) {
            const struct operation *operation = &sessions[s].operations[i];
            counts[operation->outcome]++;
            writes += operation->outcome == ACKNOWLEDGED && !strchr("rsn", operation->kind);
            first_error = *first_error ? first_error : operation->sqlstate;
        }
    }
    printf("{\"run\": %d, \"sessions\": %d, \"operations\": %zu, \"acknowledged\": %" PRIu64
           ", \"acknowledged_writes\": %" PRIu64 ", \"in_doubt\": %" PRIu64 ", \"failed\": %" PRIu64
           ", \"reconnects\": %" PRIu64 ", \"wrong\": %" PRIu64
           ", \"first_error\": \"%s\", \"first_wrong\": \"%s\", ",
           options->run, options->sessions, total, counts[ACKNOWLEDGED], writes, counts[IN_DOUBT],
           counts[FAILED], reconnects, wrong, first_error, first_wrong);
    print_latencies(options, sessions, total);
    printf("}\n");
    return counts[FAILED] + counts[IN_DOUBT] + wrong + reconnects == 0;
}

static int run(const struct options *options)
{
    struct session *sessions = calloc((size_t)options->sessions, sizeof(struct session));
    if (!options->out || !sessions) {
        fatal("run", "--out is missing");
    }
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    for (int s = 0; s < options->sessions; s++) {
        sessions[s].options = options;
        sessions[s].number = s;
        if (pthread_create(&sessions[s].thread, NULL, session_run, &sessions[s]) != 0) {
            fatal("run", "no thread");
        }
    }
    if (options->seconds > 0) {
        struct timespec time = {.tv_sec = (time_t)options->seconds,
                                .tv_nsec =
                                    (long)((options->seconds - (double)(time_t)options->seconds) * 1e9)};
        sigtimedwait(&signals, NULL, &time);
    } else {
        sigwaitinfo(&signals, NULL);
    }
    atomic_store(&stopping, true);
    for (int s = 0; s < options->sessions; s++) {
        pthread_join(sessions[s].thread, NULL);
    }
    write_operations(options, sessions);
    bool clean = print_summary(options, sessions);
    for (int s = 0; s < options->sessions; s++) {
        free(sessions[s].operations);
    }
    free(sessions);
    return clean ? 0 : 1;
}

int main(int argc, char **argv)
{
    struct options options = {.accounts = 1000, .sessions = 10, .run = 1};
    static const struct option known[] = {
        {"out", required_argument, NULL, 'o'},  {"accounts", required_argument, NULL, 'a'},
        {"run", required_argument, NULL, 'r'},  {"sessions", required_argument, NULL, 's'},
        {"rate", required_argument, NULL, 'p'}, {"seconds", required_argument, NULL, 't'},
        {"states", no_argument, NULL, 'S'},     {NULL, 0, NULL, 0},
    };
    for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (c) {
        case 'o':
            options.out = optarg;
            break;
        case 'a':
            options.accounts = atoi(optarg);
            break;
        case 'r':
            options.run = atoi(optarg);
            break;
        case 's':
            options.sessions = atoi(optarg);
            break;
        case 'p':
            options.rate = atof(optarg);
            break;
        case 't':
            options.seconds = atof(optarg);
            break;
        case 'S':
            options.states = true;
            break;
        default:
            return 2;
        }
    }
    if (argc - optind != 2 || options.sessions < 1 || options.sessions > MAX_SESSIONS ||
        options.accounts < 2) {
        fprintf(stderr, "usage: ledger run|verify CONNINFO [options]\n");
        return 2;
    }
    options.conninfo = argv[optind + 1];
    const char *verb = argv[optind];
    if (strcmp(verb, "run") == 0) {
        return run(&options);
    }
    if (strcmp(verb, "verify") == 0) {
        return ledger_verify(&options);
    }
    fatal(verb, "unknown verb");
}
