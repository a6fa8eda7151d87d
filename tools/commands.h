/*
 * The commands of the ringws program. `argv[0]` is the name of the command; the result is the exit
 * status.
 */
#ifndef RINGWS_TOOLS_COMMANDS_H
#define RINGWS_TOOLS_COMMANDS_H

int serve_main(int argc, char **argv);
int load_main(int argc, char **argv);
int doctor_main(int argc, char **argv);

#endif
