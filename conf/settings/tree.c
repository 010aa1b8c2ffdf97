#include "conf/settings/tree.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <yaml.h>

struct reader {
    yaml_parser_t parser;
    const char *name;
    struct error *error;
};

static struct tree_node *read_node(struct reader *reader, const yaml_event_t *event, int depth);

static int line_of(const yaml_mark_t *mark)
{
    return (int)mark->line + 1;
}

static bool next_event(struct reader *reader, yaml_event_t *event)
{
    if (yaml_parser_parse(&reader->parser, event)) {
        return true;
    }
    const yaml_parser_t *parser = &reader->parser;
    if (parser->error == YAML_MEMORY_ERROR) {
        return error_set(reader->error, ERROR_MEMORY, "%s: out of memory", reader->name);
    }
    /* a reader's error (bytes that are no UTF-8) has an offset instead of a mark */
    int line = line_of(parser->error == YAML_READER_ERROR ? &parser->mark : &parser->problem_mark);
    (void)error_set(reader->error, ERROR_CONFIG, "%s:%d: not valid YAML: %s%s%s", reader->name, line,
                    parser->problem == NULL ? "unreadable" : parser->problem,
                    parser->context == NULL ? "" : ", ", parser->context == NULL ? "" : parser->context);
    return error_remedy(reader->error,
                        "indent with spaces, put one \"key: value\" on a line, and quote texts "
                        "that contain \": \", \" #\" or a backslash");
}

static struct tree_node *node_new(struct reader *reader, enum tree_kind kind, int line)
{
    struct tree_node *node = calloc(1, sizeof *node);
    if (node == NULL) {
        (void)error_set(reader->error, ERROR_MEMORY, "%s: out of memory", reader->name);
        return NULL;
    }
    node->kind = kind;
    node->line = line;
    return node;
}

static void add_child(struct tree_node *parent, struct tree_node *child)
{
    if (parent->last == NULL) {
        parent->first = child;
    } else {
        parent->last->next = child;
    }
    parent->last = child;
}

/* Texts travel as C strings: one with a NUL inside ("\0" in double quotes) would be cut short. */
static char *copy_text(struct reader *reader, const yaml_event_t *event)
{
    const char *value = (const char *)event->data.scalar.value;
    size_t length = event->data.scalar.length;
    if (memchr(value, '\0', length) != NULL) {
        (void)error_set(reader->error, ERROR_CONFIG, "%s:%d: a text must not contain a NUL", reader->name,
                        line_of(&event->start_mark));
        return NULL;
    }
    char *text = strndup(value, length);
    if (text == NULL) {
        (void)error_set(reader->error, ERROR_MEMORY, "%s: out of memory", reader->name);
    }
    return text;
}

static bool refuse_extras(struct reader *reader, const yaml_event_t *event)
{
    const yaml_char_t *anchor = NULL;
    const yaml_char_t *tag = NULL;
    if (event->type == YAML_SCALAR_EVENT) {
        anchor = event->data.scalar.anchor;
        tag = event->data.scalar.tag;
    } else if (event->type == YAML_SEQUENCE_START_EVENT) {
        anchor = event->data.sequence_start.anchor;
        tag = event->data.sequence_start.tag;
    } else if (event->type == YAML_MAPPING_START_EVENT) {
        anchor = event->data.mapping_start.anchor;
        tag = event->data.mapping_start.tag;
    }
    int line = line_of(&event->start_mark);
    if (event->type == YAML_ALIAS_EVENT || anchor != NULL) {
        (void)error_set(reader->error, ERROR_CONFIG,
                        "%s:%d: anchors (&name) and aliases (*name) are not supported", reader->name, line);
        return error_remedy(reader->error, "write the value out, or quote a text that starts with & or *");
    }
    if (tag != NULL) {
        (void)error_set(reader->error, ERROR_CONFIG, "%s:%d: tags (!name) are not supported", reader->name,
                        line);
        return error_remedy(reader->error, "quote a text that starts with !");
    }
    return true;
}

static bool read_key(struct reader *reader, const struct tree_node *map, const yaml_event_t *event,
                     char **key)
{
    int line = line_of(&event->start_mark);
    if (event->type != YAML_SCALAR_EVENT) {
        return refuse_extras(reader, event) &&
               error_set(reader->error, ERROR_CONFIG, "%s:%d: expected a key, found a list or a map",
                         reader->name, line);
    }
    if (!refuse_extras(reader, event)) {
        return false;
    }
    *key = copy_text(reader, event);
    if (*key == NULL) {
        return false;
    }
    const struct tree_node *twin = tree_child(map, *key);
    if (twin != NULL) {
        (void)error_set(reader->error, ERROR_CONFIG, "%s:%d: %s: the key stands twice, first in line %d",
                        reader->name, line, *key, twin->line);
        free(*key);
        *key = NULL;
        return false;
    }
    return true;
}

static bool fill_map(struct reader *reader, struct tree_node *map, int depth)
{
    for (;;) {
        yaml_event_t event;
        if (!next_event(reader, &event)) {
            return false;
        }
        if (event.type == YAML_MAPPING_END_EVENT) {
            yaml_event_delete(&event);
            return true;
        }
        char *key = NULL;
        int line = line_of(&event.start_mark);
        bool ok = read_key(reader, map, &event, &key);
        yaml_event_delete(&event);
        if (!ok || !next_event(reader, &event)) {
            free(key);
            return false;
        }
        struct tree_node *child = read_node(reader, &event, depth + 1);
        yaml_event_delete(&event);
        if (child == NULL) {
            free(key);
            return false;
        }
        child->key = key;
        child->line = line;
        add_child(map, child);
    }
}

static bool fill_list(struct reader *reader, struct tree_node *list, int depth)
{
    for (;;) {
        yaml_event_t event;
        if (!next_event(reader, &event)) {
            return false;
        }
        if (event.type == YAML_SEQUENCE_END_EVENT) {
            yaml_event_delete(&event);
            return true;
        }
        struct tree_node *child = read_node(reader, &event, depth + 1);
        yaml_event_delete(&event);
        if (child == NULL) {
            return false;
        }
        add_child(list, child);
    }
}

/* The recursion is bounded by TREE_DEPTH_LIMIT. */
static struct tree_node *read_node(struct reader *reader, const yaml_event_t *event, int depth)
{
    int line = line_of(&event->start_mark);
    if (!refuse_extras(reader, event)) {
        return NULL;
    }
    if (depth > TREE_DEPTH_LIMIT) {
        (void)error_set(reader->error, ERROR_CONFIG, "%s:%d: nested deeper than %d levels", reader->name,
                        line, TREE_DEPTH_LIMIT);
        return NULL;
    }
    enum tree_kind kind = event->type == YAML_MAPPING_START_EVENT    ? TREE_MAP
                          : event->type == YAML_SEQUENCE_START_EVENT ? TREE_LIST
                                                                     : TREE_SCALAR;
    struct tree_node *node = node_new(reader, kind, line);
    if (node == NULL) {
        return NULL;
    }
    bool ok = true;
    if (kind == TREE_MAP) {
        ok = fill_map(reader, node, depth);
    } else if (kind == TREE_LIST) {
        ok = fill_list(reader, node, depth);
    } else {
        node->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
        node->text = copy_text(reader, event);
        ok = node->text != NULL;
    }
    if (!ok) {
        tree_free(node);
        return NULL;
    }
    return node;
}

/* Takes events up to the one that opens the document's node; an empty stream has none. */
static bool open_document(struct reader *reader, yaml_event_t *event, bool *empty)
{
    *empty = false;
    for (;;) {
        if (!next_event(reader, event)) {
            return false;
        }
        if (event->type == YAML_STREAM_END_EVENT) {
            *empty = true;
            yaml_event_delete(event);
            return true;
        }
        if (event->type != YAML_STREAM_START_EVENT && event->type != YAML_DOCUMENT_START_EVENT) {
            return true;
        }
        yaml_event_delete(event);
    }
}

static bool close_document(struct reader *reader)
{
    for (;;) {
        yaml_event_t event;
        if (!next_event(reader, &event)) {
            return false;
        }
        yaml_event_type_t type = event.type;
        int line = line_of(&event.start_mark);
        yaml_event_delete(&event);
        if (type == YAML_STREAM_END_EVENT) {
            return true;
        }
        if (type == YAML_DOCUMENT_START_EVENT) {
            return error_set(reader->error, ERROR_CONFIG, "%s:%d: expected one YAML document, found another",
                             reader->name, line);
        }
    }
}

static struct tree_node *read_document(struct reader *reader)
{
    yaml_event_t event;
    bool empty = false;
    if (!open_document(reader, &event, &empty)) {
        return NULL;
    }
    if (empty) {
        return node_new(reader, TREE_MAP, 1);
    }
    struct tree_node *root = read_node(reader, &event, 1);
    yaml_event_delete(&event);
    if (root == NULL) {
        return NULL;
    }
    if (!close_document(reader)) {
        tree_free(root);
        return NULL;
    }
    if (tree_is_null(root)) {
        root->kind = TREE_MAP;
    }
    if (root->kind != TREE_MAP) {
        (void)error_set(reader->error, ERROR_CONFIG, "%s:%d: expected keys with values", reader->name,
                        root->line);
        tree_free(root);
        return NULL;
    }
    return root;
}

struct tree_node *tree_parse(const char *name, const char *bytes, size_t length, struct error *error)
{
    struct reader reader = {.name = name, .error = error};
    if (!yaml_parser_initialize(&reader.parser)) {
        (void)error_set(error, ERROR_MEMORY, "%s: out of memory", name);
        return NULL;
    }
    yaml_parser_set_encoding(&reader.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&reader.parser, (const unsigned char *)bytes, length);
    struct tree_node *root = read_document(&reader);
    yaml_parser_delete(&reader.parser);
    return root;
}

struct tree_node *tree_read(const char *path, struct error *error)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        (void)error_set(error, ERROR_CONFIG, "%s: can't be opened: %s", path, strerror(errno));
        (void)error_remedy(error, "name the configuration with -c FILE; conf/switchback.example.yaml is a "
                                  "start");
        return NULL;
    }
    struct tree_node *root = NULL;
    char *bytes = malloc(TREE_FILE_LIMIT + 1);
    if (bytes == NULL) {
        (void)error_set(error, ERROR_MEMORY, "%s: out of memory", path);
    } else {
        errno = 0;
        size_t length = fread(bytes, 1, TREE_FILE_LIMIT + 1, file);
        if (ferror(file)) {
            (void)error_set(error, ERROR_CONFIG, "%s: can't be read: %s", path, strerror(errno));
        } else if (length > TREE_FILE_LIMIT) {
            (void)error_set(error, ERROR_CONFIG, "%s: too large, expected at most %d KiB", path,
                            TREE_FILE_LIMIT / 1024);
        } else {
            root = tree_parse(path, bytes, length, error);
        }
    }
    free(bytes);
    (void)fclose(file);
    return root;
}

void tree_free(struct tree_node *node)
{
    while (node != NULL) {
        struct tree_node *next = node->next;
        tree_free(node->first);
        free(node->key);
        free(node->text);
        free(node);
        node = next;
    }
}

bool tree_is_null(const struct tree_node *node)
{
    return node->kind == TREE_SCALAR && !node->quoted &&
           (node->text[0] == '\0' || strcmp(node->text, "~") == 0 || strcmp(node->text, "null") == 0);
}

const struct tree_node *tree_child(const struct tree_node *node, const char *key)
{
    for (const struct tree_node *child = node->first; child != NULL; child = child->next) {
        if (child->key != NULL && strcmp(child->key, key) == 0) {
            return child;
        }
    }
    return NULL;
}
