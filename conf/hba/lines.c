#include "conf/hba/lines.h"

#include "conf/base/ensure.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct reader {
    const struct hba_source *source;
    struct hba_problems *problems;
    size_t words; /* so far: a file that includes itself in many places ends here */
    bool given_up;
    struct hba_line *first, **last;
};

/* Where a text is being read. */
struct place {
    struct reader *reader;
    const char *file;
    int line;
    unsigned depth; /* of includes */
};

static void parse_text(struct place *place, const char *text, size_t length, struct hba_field *into);

/* --- pieces --- */

static char *copy_text(const char *text)
{
    char *copy = strdup(text);
    ENSURE(copy != NULL);
    return copy;
}

static void add_word(struct hba_field *field, const char *text, bool quoted)
{
    bool full = (field->count & (field->count - 1)) == 0; /* 0, 1, 2, 4 ... */
    if (full) {
        size_t room = field->count == 0 ? 1 : 2 * field->count;
        struct hba_word *words = realloc(field->words, room * sizeof *words);
        ENSURE(words != NULL);
        field->words = words;
    }
    field->words[field->count++] = (struct hba_word){.text = copy_text(text), .quoted = quoted};
}

static void free_field(struct hba_field *field)
{
    for (size_t i = 0; i < field->count; i++) {
        free(field->words[i].text);
    }
    free(field->words);
}

void hba_lines_free(struct hba_line *lines)
{
    while (lines != NULL) {
        struct hba_line *line = lines;
        lines = line->next;
        for (size_t i = 0; i < line->count; i++) {
            free_field(&line->fields[i]);
        }
        free(line->fields);
        free(line->file);
        free(line);
    }
}

bool hba_word_is(const struct hba_word *word, const char *keyword)
{
    return !word->quoted && strcmp(word->text, keyword) == 0;
}

/* --- other files --- */

/* A path as it stands in a file: from that file's folder. */
static char *resolve(const char *from, const char *path)
{
    const char *slash = strrchr(from, '/');
    struct strbuf whole;
    strbuf_init(&whole, HBA_FILE_LIMIT);
    if (path[0] != '/' && slash != NULL) {
        strbuf_append(&whole, from, (size_t)(slash - from) + 1);
    }
    strbuf_puts(&whole, path);
    char *text = strbuf_take(&whole);
    ENSURE(text != NULL);
    return text;
}

/* Lines go to the reader, or (@file) all their words into one field. */
static void include(struct place *place, const char *path, bool may_be_absent, struct hba_field *into)
{
    struct reader *reader = place->reader;
    char *whole = resolve(place->file, path);
    struct strbuf text;
    const char *why = "";
    strbuf_init(&text, HBA_FILE_LIMIT);
    if (place->depth >= HBA_DEPTH_LIMIT) {
        hba_problem(reader->problems, place->file, place->line,
                    "\"%.200s\" can't be included: files are nested more than %d deep", whole,
                    HBA_DEPTH_LIMIT);
    } else {
        enum hba_read done = reader->source->read(reader->source->context, whole, &text, &why);
        if (done == HBA_READ_DONE) {
            struct place inner = {.reader = reader, .file = whole, .depth = place->depth + 1};
            parse_text(&inner, strbuf_text(&text), text.length, into);
        } else if (done == HBA_READ_FAILED || !may_be_absent) {
            hba_problem(reader->problems, place->file, place->line, "\"%.200s\" can't be read: %s", whole,
                        why);
        }
    }
    strbuf_deinit(&text);
    free(whole);
}

/* --- words --- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* Takes one word, up to a blank, a comma or the line's end; false: there is none. */
static bool take_word(struct place *place, const char **rest, struct strbuf *word, bool *quoted)
{
    const char *at = *rest;
    bool inside = false, any_quote = false;
    *quoted = *at == '"';
    strbuf_clear(word);
    for (; *at != '\0' && (inside || (!is_blank(*at) && *at != ',' && *at != '#')); at++) {
        if (*at != '"') {
            strbuf_append(word, at, 1);
        } else if (inside && at[1] == '"') {
            strbuf_append(word, at++, 1);
        } else {
            inside = !inside;
            any_quote = true;
        }
    }
    *rest = at;
    if (inside) {
        hba_problem(place->reader->problems, place->file, place->line, "a quote is not closed");
    }
    return any_quote || word->length > 0;
}

/* Takes the words of a field into it. */
static void take_field(struct place *place, const char **rest, struct hba_field *field)
{
    struct reader *reader = place->reader;
    struct strbuf word;
    bool more = true;
    strbuf_init(&word, HBA_FILE_LIMIT);
    while (more && !reader->given_up) {
        bool quoted = false;
        while (is_blank(**rest) || **rest == ',') {
            (*rest)++;
        }
        if (take_word(place, rest, &word, &quoted)) {
            const char *text = strbuf_text(&word);
            if (++reader->words > HBA_WORDS_LIMIT) {
                reader->given_up = true;
                hba_problem(reader->problems, place->file, place->line, "more than %d words in all",
                            HBA_WORDS_LIMIT);
            } else if (!quoted && text[0] == '@' && text[1] != '\0') {
                include(place, text + 1, false, field);
            } else {
                add_word(field, text, quoted);
            }
        }
        more = **rest == ',';
    }
    strbuf_deinit(&word);
}

/* --- lines --- */

static bool take_directive(struct place *place, const struct hba_line *line)
{
    if (line->count != 2 || line->fields[0].count != 1 || line->fields[1].count != 1) {
        return false;
    }
    const struct hba_word *name = &line->fields[0].words[0];
    const char *path = line->fields[1].words[0].text;
    if (hba_word_is(name, "include") || hba_word_is(name, "include_if_exists")) {
        include(place, path, hba_word_is(name, "include_if_exists"), NULL);
        return true;
    }
    if (hba_word_is(name, "include_dir")) {
        hba_problem(place->reader->problems, place->file, place->line,
                    "include_dir is not supported: name each file with include");
        return true;
    }
    return false;
}

static void add_line(struct place *place, const char *text)
{
    struct reader *reader = place->reader;
    struct hba_line *line = calloc(1, sizeof *line);
    ENSURE(line != NULL);
    line->file = copy_text(place->file);
    line->line = place->line;
    while (!reader->given_up) {
        while (is_blank(*text) || *text == ',') {
            text++;
        }
        if (*text == '\0' || *text == '#') {
            break;
        }
        struct hba_field *fields = realloc(line->fields, (line->count + 1) * sizeof *fields);
        ENSURE(fields != NULL);
        line->fields = fields;
        fields[line->count] = (struct hba_field){.words = NULL};
        take_field(place, &text, &fields[line->count++]);
    }
    if (line->count == 0 || take_directive(place, line)) {
        hba_lines_free(line);
        return;
    }
    *reader->last = line;
    reader->last = &line->next;
}

static void add_words(struct place *place, const char *text, struct hba_field *into)
{
    while (!place->reader->given_up) {
        while (is_blank(*text) || *text == ',') {
            text++;
        }
        if (*text == '\0' || *text == '#') {
            return;
        }
        take_field(place, &text, into);
    }
}

/* One line of the file, with those that a backslash at its end joins to it. */
static size_t join_line(const char *text, size_t length, struct strbuf *joined, int *lines)
{
    size_t at = 0;
    bool continues = true;
    *lines = 0;
    while (continues && at < length) {
        const char *end = memchr(text + at, '\n', length - at);
        size_t size = end == NULL ? length - at : (size_t)(end - (text + at));
        size_t kept = size;
        while (kept > 0 && text[at + kept - 1] == '\r') {
            kept--;
        }
        continues = kept > 0 && text[at + kept - 1] == '\\';
        strbuf_append(joined, text + at, kept - (continues ? 1 : 0));
        at += size + (end == NULL ? 0 : 1);
        ++*lines;
    }
    return at;
}

static void parse_text(struct place *place, const char *text, size_t length, struct hba_field *into)
{
    struct strbuf joined;
    strbuf_init(&joined, HBA_FILE_LIMIT);
    place->line = 1;
    for (size_t at = 0; at < length && !place->reader->given_up;) {
        int lines = 0;
        strbuf_clear(&joined);
        at += join_line(text + at, length - at, &joined, &lines);
        if (joined.length > 0 && memchr(joined.data, '\0', joined.length) != NULL) {
            hba_problem(place->reader->problems, place->file, place->line, "the line holds a zero byte");
        } else if (into == NULL) {
            add_line(place, strbuf_text(&joined));
        } else {
            add_words(place, strbuf_text(&joined), into);
        }
        place->line += lines;
    }
    if (joined.data != NULL) {
        explicit_bzero(joined.data, joined.capacity);
    }
    strbuf_deinit(&joined);
}

struct hba_line *hba_lines_parse(const struct hba_source *source, const char *name, const char *text,
                                 size_t length, struct hba_problems *problems)
{
    struct reader reader = {.source = source, .problems = problems};
    struct place place = {.reader = &reader, .file = name};
    reader.last = &reader.first;
    parse_text(&place, text, length, NULL);
    return reader.first;
}

struct hba_line *hba_lines_read(const struct hba_source *source, const char *path,
                                struct hba_problems *problems)
{
    struct strbuf text;
    const char *why = "";
    struct hba_line *lines = NULL;
    strbuf_init(&text, HBA_FILE_LIMIT);
    if (source->read(source->context, path, &text, &why) == HBA_READ_DONE) {
        lines = hba_lines_parse(source, path, strbuf_text(&text), text.length, problems);
    } else {
        hba_problem(problems, path, 0, "can't be read: %s", why);
    }
    strbuf_deinit(&text);
    return lines;
}
