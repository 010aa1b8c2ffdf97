/*
 * A YAML file as a small tree that remembers lines. The loader of the settings walks it; nothing else does.
 * What the configuration has no use for is refused here, with its line: anchors and aliases (they make a
 * small file a large tree), tags, a second document, a key that stands twice, deep nesting, a file past a
 * limit.
 */
#ifndef SWITCHBACK_CONF_SETTINGS_TREE_H
#define SWITCHBACK_CONF_SETTINGS_TREE_H

#include "conf/base/error.h"

#include <stddef.h>

enum { TREE_FILE_LIMIT = 1024 * 1024, TREE_DEPTH_LIMIT = 16 };

enum tree_kind { TREE_SCALAR, TREE_LIST, TREE_MAP };

struct tree_node {
    enum tree_kind kind;
    int line;    /* counted from 1; of the key, if it has one */
    char *key;   /* of a map's child; else NULL */
    char *text;  /* of a scalar */
    bool quoted; /* of a scalar: "null" is a text, null is nothing */
    struct tree_node *first, *last, *next;
};

/* Reads a file; NULL with *error. An empty file is an empty map. The caller owns the tree. */
MUST_USE struct tree_node *tree_read(const char *path, struct error *error);

/* The same from memory; `name` stands for the file in errors. */
MUST_USE struct tree_node *tree_parse(const char *name, const char *bytes, size_t length,
                                      struct error *error);
void tree_free(struct tree_node *node);

/* A scalar that says nothing: `key:`, `key: ~`, `key: null`. */
bool tree_is_null(const struct tree_node *node);

/* The child of a map by its key, or NULL. */
const struct tree_node *tree_child(const struct tree_node *node, const char *key);

#endif
