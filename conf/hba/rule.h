/* One line of pg_hba.conf: what it speaks of, and what it demands. Within conf/hba only. */
#ifndef SWITCHBACK_CONF_HBA_RULE_H
#define SWITCHBACK_CONF_HBA_RULE_H

#include "conf/hba/address.h"
#include "conf/hba/names.h"

struct hba_rule {
    enum hba_type type;
    struct hba_names databases, users;
    struct hba_address address;
    struct hba_demand demand; /* file and map are owned by the rule */
    char *file, *map;
    struct hba_rule *next;
};

/* NULL: problems has been told why. */
MUST_USE struct hba_rule *hba_rule_parse(const struct hba_line *line, struct hba_problems *problems);
void hba_rule_free(struct hba_rule *rule);

const char *hba_client_name_text(enum hba_client_name name); /* "CN" */

bool hba_rule_holds(const struct hba_rule *rule, const struct hba_client *client);

#endif
