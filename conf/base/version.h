/* Which build this is, for `version`, the log and the metrics. */
#ifndef SWITCHBACK_CONF_BASE_VERSION_H
#define SWITCHBACK_CONF_BASE_VERSION_H

const char *version_number(void); /* "0.1.0" */
const char *version_build(void);  /* "gcc 12.2.0, Debug, address sanitizer" */

#endif
