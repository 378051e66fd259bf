/* Generated from protocol/frames.toml by protocol/generate; not edited by hand. */
#include "frames.h"

sbx_handler *const sbx_handlers[] = {
    [SBX_HELLO] = on_hello,
    [SBX_PONG] = on_pong,
    [SBX_START] = on_start,
    [SBX_SIGNAL] = on_signal,
    [SBX_RESIZE] = on_resize,
    [SBX_INPUT] = on_input,
    [SBX_ATTACH] = on_attach,
    [SBX_WINDOW] = on_window,
    [SBX_DETACH] = on_detach,
    [SBX_FORGET] = on_forget,
    [SBX_PROCESSES] = on_processes,
    [SBX_READ] = on_read,
    [SBX_WRITE] = on_write,
    [SBX_LIST] = on_list,
    [SBX_STAT] = on_stat,
    [SBX_MAKE_DIRECTORY] = on_make_directory,
    [SBX_MOVE] = on_move,
    [SBX_REMOVE] = on_remove,
    [SBX_CONNECT] = on_connect,
    [SBX_UNAME] = on_uname,
};
