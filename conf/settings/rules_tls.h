/* What the settings of TLS ask of each other: a key of its certificate, a mode of the paths it needs. */
#ifndef SWITCHBACK_CONF_SETTINGS_RULES_TLS_H
#define SWITCHBACK_CONF_SETTINGS_RULES_TLS_H

#include "conf/settings/walk.h"

/* Fills in what is not given: how the other side reaches a side. Then checks. */
MUST_USE bool rules_tls(const struct walk *walk, struct settings *settings);

#endif
