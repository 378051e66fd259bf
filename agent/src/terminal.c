#include "terminal.h"

#include "owned.h"

#include <errno.h>
#include <sys/ioctl.h>

#ifndef TIOCGPTPEER
#define TIOCGPTPEER 0x5441
#endif

int terminal_open(uint16_t rows, uint16_t columns, int *master, int *slave)
{
    char name[32];
    auto_close int near = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (near < 0 || unlockpt(near))
        return errno;
    auto_close int far = ioctl(near, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (far < 0 && ptsname_r(near, name, sizeof name) == 0) /* kernels that do not give it by itself */
        far = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (far < 0)
        return errno;
    int error = terminal_resize(near, rows, columns);
    if (error)
        return error;
    *master = steal_fd(&near);
    *slave = steal_fd(&far);
    return 0;
}

int terminal_resize(int master, uint16_t rows, uint16_t columns)
{
    struct winsize size = {.ws_row = rows, .ws_col = columns};
    return ioctl(master, TIOCSWINSZ, &size) ? errno : 0;
}
