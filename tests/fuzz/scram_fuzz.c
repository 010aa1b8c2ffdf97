/* libFuzzer: SCRAM messages of either peer. Nothing that is guessed may ever be accepted. */
#include "conf/base/ensure.h"
#include "proxy/wire/scram.h"

static const struct scram_binding no_binding = {.length = 0}, binding = {.hash = "hash", .length = 32};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t secret[SCRAM_KEY_SIZE] = {1, 2, 3};
    char reply[SCRAM_MESSAGE_SIZE];
    uint8_t key[SCRAM_KEY_SIZE] = {0};
    struct scram_verifier verifier;
    struct scram_server server;
    struct scram_client client;
    struct slice input = slice_of(data, size);
    char text[256];
    if (scram_verifier_parse(slice_copy(input, text, sizeof text), &verifier)) {
        ENSURE(verifier.salt_length <= SCRAM_SALT_MAX && verifier.iterations > 0);
    }
    scram_verifier_mock(secret, "anna", 0, &verifier);
    (void)!scram_server_first(&server, &verifier, &no_binding, false, "S", input, reply);
    ENSURE(scram_server_first(&server, &verifier, &no_binding, false, "S", slice_text("n,,n=,r=C"), reply) ==
           SCRAM_OK);
    ENSURE(scram_server_final(&server, input, reply, key) != SCRAM_OK);
    (void)!scram_server_first(&server, &verifier, &binding, size % 2 == 0, "S", input, reply);
    ENSURE(scram_server_first(&server, &verifier, &binding, true, "S",
                              slice_text("p=tls-server-end-point,,n=,r=C"), reply) == SCRAM_OK);
    ENSURE(scram_server_final(&server, input, reply, key) != SCRAM_OK);
    scram_client_first(&client, &no_binding, false, "C", reply);
    if (scram_client_final(&client, input, secret, reply) == SCRAM_OK) {
        ENSURE(scram_client_verify(&client, input, secret) != SCRAM_OK);
    }
    return 0;
}
