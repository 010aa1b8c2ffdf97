/* What no single setting can say: secrets, defaults taken from other settings, and what must fit together. */
#ifndef SWITCHBACK_CONF_SETTINGS_RULES_H
#define SWITCHBACK_CONF_SETTINGS_RULES_H

#include "conf/settings/walk.h"

/* Called once everything is loaded: fills in and checks. The walk tells lines. */
MUST_USE bool rules_apply(const struct walk *walk, struct settings *settings);

/* rules_auth.c: what stands in the files that auth.* names. */
MUST_USE bool rules_auth_apply(const struct walk *walk, struct settings *settings);

#endif
