/* Pseudo-terminals. */
#ifndef TERMINAL_H
#define TERMINAL_H

#include <stdint.h>

/* Opens both ends; the master does not block. Returns 0 or an errno. */
int terminal_open(uint16_t rows, uint16_t columns, int *master, int *slave);
int terminal_resize(int master, uint16_t rows, uint16_t columns);

#endif
