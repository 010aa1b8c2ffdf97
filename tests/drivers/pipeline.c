/*
 * libpq in pipeline mode: a fixed sequence of pipelines whose every result is printed, so that a run through
 * the proxy can be compared with a run against the server, line by line.
 *
 *   pipeline CONNINFO
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libpq-fe.h>

enum { LARGE = 200 * 1000, LARGE_COUNT = 60, SMALL_COUNT = 500 };

static PGconn *conn;

static void require(bool good, const char *what)
{
    if (!good) {
        printf("%s: %s", what, PQerrorMessage(conn));
        exit(1);
    }
}

static void print_result(const PGresult *result)
{
    printf("  %s", PQresStatus(PQresultStatus(result)));
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    if (sqlstate) {
        printf(" %s %s", sqlstate, PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY));
    }
    if (PQresultStatus(result) == PGRES_TUPLES_OK || PQresultStatus(result) == PGRES_SINGLE_TUPLE) {
        printf(" %d rows", PQntuples(result));
        if (PQntuples(result) > 0) {
            const char *value = PQgetvalue(result, 0, 0);
            printf(", the first %.20s (%zu bytes), type %u", value, strlen(value), PQftype(result, 0));
        }
    }
    printf(" [%s]\n", PQcmdStatus((PGresult *)result));
}

/* All results up to the `syncs`-th synchronization point. */
static void drain(int syncs)
{
    int empty = 0;
    while (syncs > 0) {
        PGresult *result = PQgetResult(conn);
        if (!result) {
            require(++empty < 2, "no result where one was due");
            continue;
        }
        empty = 0;
        print_result(result);
        syncs -= PQresultStatus(result) == PGRES_PIPELINE_SYNC;
        PQclear(result);
    }
}

static void send_query(const char *sql, int count, const char *const *values)
{
    require(PQsendQueryParams(conn, sql, count, NULL, values, NULL, NULL, 0), sql);
}

static void many_small(void)
{
    printf("many small ones\n");
    for (int i = 0; i < SMALL_COUNT; i++) {
        char text[16];
        snprintf(text, sizeof(text), "%d", i);
        const char *values[] = {text};
        send_query("select $1::int * 2", 1, values);
    }
    require(PQpipelineSync(conn), "sync");
    drain(1);
}

static void errors_in_the_middle(void)
{
    printf("errors in the middle\n");
    send_query("select 1", 0, NULL);
    send_query("select 1/0", 0, NULL);
    send_query("select 2", 0, NULL);
    require(PQpipelineSync(conn), "sync");
    send_query("select 3", 0, NULL);
    require(PQpipelineSync(conn), "sync");
    send_query("selec 4", 0, NULL);
    require(PQpipelineSync(conn), "sync");
    require(PQpipelineSync(conn), "sync");
    drain(4);
}

static void flush_without_sync(void)
{
    printf("flush without sync\n");
    for (int i = 0; i < 3; i++) {
        send_query("select 'flushed'", 0, NULL);
        require(PQsendFlushRequest(conn) && PQflush(conn) == 0, "flush");
        for (PGresult *result; (result = PQgetResult(conn)) != NULL;) {
            print_result(result);
            PQclear(result);
        }
    }
    require(PQpipelineSync(conn), "sync");
    drain(1);
}

static void prepared(void)
{
    printf("prepared\n");
    require(PQsendPrepare(conn, "twice", "select $1::text || $1::text", 0, NULL), "prepare");
    require(PQsendDescribePrepared(conn, "twice"), "describe");
    const char *values[] = {"ab"};
    for (int i = 0; i < 3; i++) {
        require(PQsendQueryPrepared(conn, "twice", 1, values, NULL, NULL, 0), "execute");
    }
    require(PQsendQueryPrepared(conn, "missing", 0, NULL, NULL, NULL, 0), "execute");
    require(PQpipelineSync(conn), "sync");
    require(PQsendQueryPrepared(conn, "twice", 1, values, NULL, NULL, 0), "execute");
    require(PQpipelineSync(conn), "sync");
    drain(2);
}

static void transactions(void)
{
    printf("transactions\n");
    static const char *const sql[] = {"create temporary table kept (n int)",
                                      "begin",
                                      "insert into kept values (1)",
                                      "commit",
                                      "begin",
                                      "insert into kept values (2)",
                                      "rollback",
                                      "select count(*) from kept",
                                      "set application_name = 'pipeline'",
                                      "show application_name"};
    for (size_t i = 0; i < sizeof(sql) / sizeof(sql[0]); i++) {
        send_query(sql[i], 0, NULL);
        if (i % 3 == 2) {
            require(PQpipelineSync(conn), "sync");
        }
    }
    require(PQpipelineSync(conn), "sync");
    drain(4);
    printf("  transaction status %d\n", PQtransactionStatus(conn));
}

/* Sends and receives more than all buffers on the way hold: libpq reads while its own sending blocks. */
static void large(void)
{
    printf("large values both ways\n");
    char *value = malloc(LARGE + 1);
    require(value != NULL, "memory");
    memset(value, 'x', LARGE);
    value[LARGE] = 0;
    const char *values[] = {value};
    for (int i = 0; i < LARGE_COUNT; i++) {
        send_query("select $1 || 'y'", 1, values);
    }
    require(PQpipelineSync(conn), "sync");
    drain(1);
    free(value);
}

static void row_by_row(void)
{
    printf("row by row\n");
    send_query("select g from generate_series(1, 1000) g", 0, NULL);
    require(PQsetSingleRowMode(conn), "single row");
    require(PQpipelineSync(conn), "sync");
    drain(1);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: pipeline CONNINFO\n");
        return 2;
    }
    conn = PQconnectdb(argv[1]);
    require(PQstatus(conn) == CONNECTION_OK, "connect");
    require(PQenterPipelineMode(conn), "pipeline mode");
    many_small();
    errors_in_the_middle();
    flush_without_sync();
    prepared();
    transactions();
    large();
    row_by_row();
    require(PQexitPipelineMode(conn), "leave pipeline mode");
    PGresult *result = PQexec(conn, "select 'simple again'");
    print_result(result);
    PQclear(result);
    PQfinish(conn);
    return 0;
}
