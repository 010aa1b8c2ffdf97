/* conf/base/network: which addresses lie in "10.0.0.0/8". */
#include "conf/base/network.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static bool lies_in(const char *network_text, const char *address_text)
{
    struct network network;
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    assert_true(network_parse(network_text, &network));
    if (inet_pton(AF_INET, address_text, &v4.sin_addr) == 1) {
        return network_contains(&network, (const struct sockaddr *)&v4);
    }
    assert_int_equal(inet_pton(AF_INET6, address_text, &v6.sin6_addr), 1);
    return network_contains(&network, (const struct sockaddr *)&v6);
}

static void networks_contain_their_addresses(void **state)
{
    (void)state;
    assert_true(lies_in("10.0.0.0/8", "10.255.0.1"));
    assert_false(lies_in("10.0.0.0/8", "11.0.0.0"));
    assert_true(lies_in("10.1.2.3", "10.1.2.3"));
    assert_false(lies_in("10.1.2.3", "10.1.2.2"));
    assert_true(lies_in("192.168.4.0/22", "192.168.7.255"));
    assert_false(lies_in("192.168.4.0/22", "192.168.8.0"));
    assert_true(lies_in("0.0.0.0/0", "8.8.8.8"));
    assert_true(lies_in("fe80::/10", "febf::1"));
    assert_false(lies_in("fe80::/10", "fec0::1"));
    assert_true(lies_in("::1", "::1"));
}

static void a_mapped_address_is_the_v4_one(void **state)
{
    (void)state;
    assert_true(lies_in("10.0.0.0/8", "::ffff:10.0.0.1"));
    assert_false(lies_in("::/0", "::ffff:10.0.0.1"));
    assert_false(lies_in("0.0.0.0/0", "::1"));
    struct network network;
    const struct sockaddr local = {.sa_family = AF_UNIX};
    assert_true(network_parse("0.0.0.0/0", &network));
    assert_false(network_contains(&network, &local));
}

static void what_is_no_network_is_refused(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "",          "localhost",  "10.0.0.0/33", "::/129",      "10.0.0.1/8",  "fe80::1/10",
        "10.0.0.0/", "10.0.0.0/x", "10.0.0.0/8x", "10.0.0.0/-1", "10.0.0.0/ 8", "10.0.0",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct network network;
        if (network_parse(wrong[i], &network)) {
            fail_msg("%s was taken", wrong[i]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(networks_contain_their_addresses),
        cmocka_unit_test(a_mapped_address_is_the_v4_one),
        cmocka_unit_test(what_is_no_network_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
