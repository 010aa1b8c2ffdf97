/* Attributes that the whole tree uses, named for what they promise. */
#ifndef SWITCHBACK_CONF_BASE_COMPILER_H
#define SWITCHBACK_CONF_BASE_COMPILER_H

/* A fallible function: a caller that ignores its result does not compile. */
#define MUST_USE __attribute__((warn_unused_result))

/* Checked like printf: the position of the format, and of its first argument. */
#define PRINTF_LIKE(string, first) __attribute__((format(printf, string, first)))

#define ARRAY_LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* The structure that holds `member`, from a pointer to that member. */
#define CONTAINER_OF(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

#endif
