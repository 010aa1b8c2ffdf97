#include "proxy/statistics.h"

#include <string.h>

/* Eight buckets for each power of two. */
enum { SUB_BITS = 3, SUB_BUCKETS = 1 << SUB_BITS };

/* That a side is down is known from those who try; when nobody has for so long, it isn't known any more. */
enum { DOWN_KNOWN_US = 60 * 1000000 };

/* PostgreSQL documentation, "PostgreSQL Error Codes"; position 0 is every other class. */
static const char error_classes[PROXY_ERROR_CLASSES][3] = {
    "",   "00", "01", "02", "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "10", "20",
    "21", "22", "23", "24", "25", "26", "27", "28", "2B", "2D", "2F", "34", "38", "39", "3B",
    "3D", "3F", "40", "42", "44", "53", "54", "55", "57", "58", "72", "F0", "HV", "P0", "XX",
};

size_t proxy_error_class_index(const char *sqlstate)
{
    for (size_t i = 1; i < PROXY_ERROR_CLASSES && error_classes[i][0] != '\0'; i++) {
        if (sqlstate[0] == error_classes[i][0] && sqlstate[1] == error_classes[i][1]) {
            return i;
        }
    }
    return 0;
}

const char *proxy_error_class(size_t index)
{
    return index < PROXY_ERROR_CLASSES ? error_classes[index] : "";
}

const char *proxy_refusal_name(enum proxy_refusal refusal)
{
    static const char *const names[PROXY_REFUSAL_COUNT] = {
        [PROXY_REFUSED_CLIENTS] = "max_clients",
        [PROXY_REFUSED_DATABASE] = "database_limit",
        [PROXY_REFUSED_ROLE] = "role_limit",
        [PROXY_REFUSED_UNMANAGED] = "unmanaged_database",
        [PROXY_REFUSED_PLAIN] = "without_tls",
        [PROXY_REFUSED_HEADER] = "proxy_header",
        [PROXY_REFUSED_SERVER] = "server_down",
        [PROXY_REFUSED_RESOURCES] = "resources",
        [PROXY_REFUSED_FAILED_LOGINS] = "failed_logins",
    };
    return refusal < PROXY_REFUSAL_COUNT ? names[refusal] : "?";
}

const char *proxy_timeout_name(enum proxy_timeout timeout)
{
    static const char *const names[PROXY_TIMEOUT_COUNT] = {
        [PROXY_TIMEOUT_LOGIN] = "login",
        [PROXY_TIMEOUT_SERVER_CONNECT] = "server_connect",
        [PROXY_TIMEOUT_CLIENT_IDLE] = "client_idle",
        [PROXY_TIMEOUT_IDLE_IN_TRANSACTION] = "idle_in_transaction",
        [PROXY_TIMEOUT_QUERY] = "query",
    };
    return timeout < PROXY_TIMEOUT_COUNT ? names[timeout] : "?";
}

static size_t bucket_of(int64_t latency_us)
{
    if (latency_us < SUB_BUCKETS) {
        return latency_us < 0 ? 0 : (size_t)latency_us;
    }
    unsigned power = 63U - (unsigned)__builtin_clzll((unsigned long long)latency_us);
    size_t sub = (size_t)(latency_us >> (power - SUB_BITS)) & (SUB_BUCKETS - 1);
    size_t bucket = ((size_t)power - SUB_BITS + 1) * SUB_BUCKETS + sub;
    return bucket < PROXY_LATENCY_BUCKETS ? bucket : PROXY_LATENCY_BUCKETS - 1;
}

int64_t proxy_latency_bucket_us(size_t bucket)
{
    if (bucket >= PROXY_LATENCY_BUCKETS - 1) {
        return INT64_MAX;
    }
    size_t next = bucket + 1;
    if (next < SUB_BUCKETS) {
        return (int64_t)next;
    }
    size_t power = next / SUB_BUCKETS + SUB_BITS - 1;
    return (int64_t)(SUB_BUCKETS + next % SUB_BUCKETS) << (power - SUB_BITS);
}

void statistics_statements(struct side_counters *side, uint32_t statements, int64_t latency_us)
{
    counter_add(&side->statements, statements);
    counter_add(&side->latency_sum_us, latency_us > 0 ? (uint64_t)latency_us : 0);
    counter_add(&side->latency[bucket_of(latency_us)], 1);
}

/* The application's own mistakes: a slow or broken side doesn't cause them. */
static bool is_client_error(const char *sqlstate)
{
    static const char classes[][3] = {"22", "23", "28", "42"};
    for (size_t i = 0; i < ARRAY_LENGTH(classes); i++) {
        if (strncmp(sqlstate, classes[i], 2) == 0) {
            return true;
        }
    }
    return false;
}

void statistics_error(struct side_counters *side, const char *sqlstate)
{
    counter_add(&side->errors, 1);
    counter_add(&side->errors_by_class[proxy_error_class_index(sqlstate)], 1);
    if (is_client_error(sqlstate)) {
        counter_add(&side->client_errors, 1);
    }
}

static void sum_side(const struct side_counters *side, struct proxy_side_stats *sum)
{
    sum->statements += counter_read(&side->statements);
    sum->errors += counter_read(&side->errors);
    sum->client_errors += counter_read(&side->client_errors);
    sum->latency_sum_us += counter_read(&side->latency_sum_us);
    sum->bytes_to_server += counter_read(&side->bytes_to_server);
    sum->bytes_to_client += counter_read(&side->bytes_to_client);
    for (size_t i = 0; i < PROXY_LATENCY_BUCKETS; i++) {
        sum->latency[i] += counter_read(&side->latency[i]);
    }
    for (size_t i = 0; i < PROXY_ERROR_CLASSES; i++) {
        sum->errors_by_class[i] += counter_read(&side->errors_by_class[i]);
    }
}

const char *proxy_outcome_name(enum proxy_outcome outcome)
{
    static const char *const names[PROXY_OUTCOME_COUNT] = {[PROXY_OUTCOME_UNKNOWN] = "unknown",
                                                           [PROXY_OUTCOME_COMMITTED] = "committed",
                                                           [PROXY_OUTCOME_ABORTED] = "rolled_back"};
    return outcome < PROXY_OUTCOME_COUNT ? names[outcome] : "?";
}

void statistics_sum(const struct statistics *statistics, struct proxy_stats *sum, int64_t now_us)
{
    for (int side = 0; side < SIDE_COUNT; side++) {
        sum_side(&statistics->sides[side], &sum->sides[side]);
        sum->connect_failures[side] += counter_read(&statistics->connect_failures[side]);
        int64_t down_us = atomic_load_explicit(&statistics->side_down_us[side], memory_order_relaxed);
        sum->side_down[side] |= down_us != 0 && now_us - down_us < DOWN_KNOWN_US;
    }
    for (int state = 0; state < SESSION_STATE_COUNT; state++) {
        sum->sessions += counter_read(&statistics->sessions_by_state[state]);
    }
    sum->sessions_held += counter_read(&statistics->sessions_by_state[SESSION_HELD]);
    sum->sessions_in_transaction += counter_read(&statistics->sessions_by_state[SESSION_TRANSACTION]);
    sum->sessions_immovable += counter_read(&statistics->sessions_immovable);
    sum->sessions_waiting += counter_read(&statistics->sessions_waiting);
    sum->sessions_total += counter_read(&statistics->sessions_total);
    sum->logins_failed += counter_read(&statistics->logins_failed);
    sum->cancels += counter_read(&statistics->cancels);
    sum->unconfirmed_commits += counter_read(&statistics->unconfirmed_commits);
    sum->unsync_commits += counter_read(&statistics->unsync_commits);
    sum->sessions_unsync += counter_read(&statistics->sessions_unsync);
    for (int i = 0; i < PROXY_OUTCOME_COUNT; i++) {
        sum->doubts[i] += counter_read(&statistics->doubts[i]);
    }
    for (int i = 0; i < PROXY_REFUSAL_COUNT; i++) {
        sum->refused[i] += counter_read(&statistics->refused[i]);
    }
    for (int i = 0; i < PROXY_TIMEOUT_COUNT; i++) {
        sum->timeouts[i] += counter_read(&statistics->timeouts[i]);
    }
    int64_t since = atomic_load_explicit(&statistics->oldest_wait_since_us, memory_order_relaxed);
    if (since != 0 && now_us - since > sum->oldest_wait_us) {
        sum->oldest_wait_us = now_us - since;
    }
}
