/* libFuzzer: rules, maps and lists of verifiers of any bytes, and a client that asks. */
#include "conf/hba/hba.h"
#include "conf/hba/lines.h"
#include "conf/hba/userlist.h"

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct given {
    const char *text;
    size_t length;
    unsigned reads;
    bool begun;
};

enum { READS_MOST = 6 };

/* The first half has the rules, the second the maps and whatever is included, a few times; the list is all.
 */
static enum hba_read read_given(void *context, const char *path, struct strbuf *text, const char **why)
{
    struct given *given = context;
    size_t half = given->length / 2;
    *why = "";
    if (strcmp(path, "/hba") == 0 && !given->begun) { /* it may include itself, too */
        given->begun = true;
        strbuf_append(text, given->text, half);
    } else if (strcmp(path, "/users") == 0) {
        strbuf_append(text, given->text, given->length);
    } else if (given->reads++ < READS_MOST) {
        strbuf_append(text, given->text + half, given->length - half);
    } else {
        return HBA_READ_ABSENT;
    }
    return text->failed ? HBA_READ_FAILED : HBA_READ_DONE;
}

static bool is_member(const void *context, const char *role)
{
    (void)context;
    return role[0] == 'g';
}

static void ask(const struct hba *hba)
{
    const struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr = {.s_addr = 0x0100007f}};
    for (unsigned i = 0; i < 8; i++) {
        const struct hba_client client = {.local = (i & 1) != 0,
                                          .address = (const struct sockaddr *)&v4,
                                          .tls = (i & 2) != 0,
                                          .physical = (i & 4) != 0,
                                          .user = "joe",
                                          .database = "app",
                                          .is_member = is_member};
        const struct hba_demand *demand = hba_match(hba, &client);
        if (demand != NULL) {
            (void)hba_may_be(hba, demand->map, "joe@example", &client);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct given given = {.text = (const char *)data, .length = size};
    const struct hba_source source = {.read = read_given, .context = &given};
    struct hba_problems problems;
    hba_problems_init(&problems);
    struct hba *hba = hba_load_from(&source, "/hba", size % 2 == 0 ? "" : "/maps", &problems);
    if (hba != NULL) {
        ask(hba);
    }
    hba_unref(hba);
    struct userlist *list = userlist_load(&source, "/users", &problems);
    if (list != NULL) {
        (void)userlist_find(list, "joe");
    }
    userlist_unref(list);
    hba_problems_deinit(&problems);
    return 0;
}
