/*
 * What the daemon answers (contract.md), as an operator reads it. Pure: JSON in, text out; anything may be
 * missing from the JSON. now_us is the wall clock, for ages and for times of today.
 */
#ifndef SWITCHBACK_CONTROL_CLI_RENDER_H
#define SWITCHBACK_CONTROL_CLI_RENDER_H

#include "conf/base/error.h"
#include "conf/base/strbuf.h"

#include <jansson.h>
#include <stdint.h>

/* Labels stand in a column of this width. */
#define RENDER_LABEL  "%-10s"
#define RENDER_INDENT "          "

/* Whether a flip in this phase can no longer be aborted. */
bool render_is_past_commit(const char *phase);

void render_status(struct strbuf *out, const json_t *status, int64_t now_us);

void render_flip(struct strbuf *out, const json_t *flip);
void render_dry_run(struct strbuf *out, const json_t *plan);
void render_check(struct strbuf *out, const json_t *report, bool all);

void render_sessions(struct strbuf *out, const json_t *result, bool immovable_only);
void render_event(struct strbuf *out, const json_t *event, int64_t now_us); /* one line */
void render_audit(struct strbuf *out, const json_t *result, int64_t now_us);
void render_audit_verdict(struct strbuf *out, const json_t *verdict);

void render_recover(struct strbuf *out, const json_t *result);
void render_rejoin(struct strbuf *out, const json_t *result);

void render_prepare(struct strbuf *out, const json_t *result);
void render_abort(struct strbuf *out, const json_t *result);
void render_finalize(struct strbuf *out, const json_t *result);
void render_hold(struct strbuf *out, const json_t *result, int64_t now_us);
void render_release(struct strbuf *out, const json_t *result);
void render_reload(struct strbuf *out, const json_t *result);
void render_version(struct strbuf *out, const json_t *daemon);

/* "switchback: message", and the remedy below it. */
void render_error(struct strbuf *out, const struct error *error);

/* One line, without its end, about a call that is under way; `progress` may be NULL. */
void render_progress(struct strbuf *out, const char *verb, const json_t *progress, int64_t elapsed_us);

#endif
